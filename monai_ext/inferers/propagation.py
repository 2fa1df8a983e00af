# Copyright (c) monai_ext contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.networks.utils import eval_mode
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_ext.inferers.embedding_cache import EmbeddingCache
from monai_ext.inferers.propagated_object import PropagatedObject
from monai_ext.inferers.slice_walk import SliceWalk
from monai_ext.networks.segmenter import SAM2Segmenter

Prompts = dict[int, tuple[Tensor, Tensor]]  # by slice: points (N, 2), x and y, and their labels (N,)


class PropagationInferer(Inferer, ABC):
    """
    Turn clicks on one or several slices of a volume into a mask of the whole object: what all ways of it share.

    Called, it gives logits, as MONAI's evaluators want them; ``propagate`` also gives what a further click needs.
    Slices lie along Z and are upright: x runs along X and y along Y.
    """

    def __call__(  # type: ignore[override]
        self,
        inputs: Tensor,
        network: SAM2Segmenter,
        *args: Any,
        points: Tensor | None = None,
        point_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """
        Segment the clicked object.

        Args:
            inputs: the volume ``(1, 3, X, Y, Z)``, normalised as the network wants it.
            network: any network of this package.
            args: none.
            points: ``(N, 3)`` or ``(1, N, 3)``, x, y and z in voxels.
            point_labels: ``(N,)`` or ``(1, N)``, see ``propagate``.
            kwargs: for ``propagate``.

        Returns:
            logits ``(1, 1, X, Y, Z)``.
        """
        if points is None or point_labels is None:
            raise ValueError("points and point_labels must be given: let the evaluator's prepare_batch pass them.")
        found = self.propagate(inputs, network, points, point_labels, **kwargs).logits().unsqueeze(0)
        return MetaTensor(found).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else found

    def propagate(
        self,
        inputs: Tensor,
        network: SAM2Segmenter,
        points: Tensor,
        point_labels: Tensor,
        *,
        label: str | None = None,
        earlier: PropagatedObject | None = None,
        cache: EmbeddingCache | None = None,
        progress: Callable[[int, int], Any] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> PropagatedObject:
        """
        Segment the clicked object, or correct it.

        Args:
            inputs: the volume ``(1, 3, X, Y, Z)``, normalised as the network wants it.
            network: any network of this package; one that has several labels is told which by ``label``.
            points: ``(N, 3)``, x, y and z in voxels, of all slices that were clicked so far.
            point_labels: ``(N,)``, 1 on the object, 0 off it, 2 and 3 the corners of a box with the smaller and the
                larger coordinates, -1 no point.
            label: the label that is meant, by name.
            earlier: what the clicks before gave, if only a part is to be done anew.
            cache: where encoded slices are kept for the next click.
            progress: called with the number of slices that are done and of all.
            cancelled: asked between slices, e.g. ``threading.Event().is_set``.

        Raises:
            ValueError: an input does not fit; nothing has been computed then.
            concurrent.futures.CancelledError: ``cancelled`` said so; ``earlier`` still is what it was.
        """
        volume = convert_to_tensor(inputs, track_meta=False)
        if volume.ndim != 5 or volume.shape[:2] != (1, 3):
            raise ValueError(f"inputs must be one volume (1, 3, X, Y, Z), not {tuple(volume.shape)}.")
        walk = SliceWalk(
            volume, network, number=_number(network, label), cache=cache, progress=progress, cancelled=cancelled
        )
        prompts = prompts_by_slice(points, point_labels, walk.size)
        known = earlier or PropagatedObject(size=walk.size)
        if known.size != walk.size:
            raise ValueError(f"earlier must be of a volume of {walk.size} voxels, not of {known.size}.")
        with eval_mode(network):
            return self._spread(walk, prompts, known)

    @abstractmethod
    def _spread(self, walk: SliceWalk, prompts: Prompts, earlier: PropagatedObject) -> PropagatedObject:
        """What a subclass does: answer on the clicked slices, and from there on the others."""


def prompts_by_slice(points: Tensor, point_labels: Tensor, size: tuple[int, int, int]) -> Prompts:
    """
    Clicks in a volume as prompts of its slices, a box first.

    Example:
        >>> prompts_by_slice(torch.tensor([[5.0, 6, 2], [1, 2, 2], [9, 9, 2]]), torch.tensor([1, 2, 3]), (10, 10, 4))
        {2: (tensor([[1., 2.],
                [9., 9.],
                [5., 6.]]), tensor([2, 3, 1]))}
    """
    points, kinds = (convert_to_tensor(prompt, track_meta=False).cpu() for prompt in (points, point_labels))
    if points.shape[-1:] != (3,) or kinds.numel() * 3 != points.numel():
        raise ValueError(
            f"points must be (N, 3) with point_labels (N,), not {tuple(points.shape)} with {tuple(kinds.shape)}."
        )
    points, kinds = points.reshape(-1, 3).float(), kinds.reshape(-1).long()
    if not bool(((kinds >= -1) & (kinds <= 3)).all()):
        raise ValueError(f"point_labels must be 1, 0, -1 (none), 2 or 3 (corners of a box), not {kinds.tolist()}.")
    points, kinds = points[kinds >= 0], kinds[kinds >= 0]
    inside = ((points >= -0.5) & (points < torch.tensor(size) - 0.5)).all(1)
    if not bool(inside.all()):
        raise ValueError(f"points must lie inside the volume of {size} voxels, not at {points[~inside][0].tolist()}.")
    slices = points[:, 2].round().long()
    prompts = {}
    for z in slices.unique().tolist():
        here, of = points[slices == z][:, :2], kinds[slices == z]
        corners = [int((of == corner).sum()) for corner in (2, 3)]
        if corners not in ([0, 0], [1, 1]):
            raise ValueError(f"A slice must have one box with both its corners (2 and 3), or none; slice {z} has not.")
        order = torch.cat([torch.where(of == kind)[0] for kind in (2, 3)] + [torch.where(of < 2)[0]])
        prompts[z] = (here[order], of[order])
    if not any(bool((of > 0).any()) for _, of in prompts.values()):
        raise ValueError("points must hold at least one click on the object, or a box.")
    return prompts


def same_prompts(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    """Whether the same was clicked."""
    return all(a.shape == b.shape and bool((a == b).all()) for a, b in zip(one, other, strict=True))


def earlier_mask(z: int, prompt: tuple[Tensor, Tensor], earlier: PropagatedObject) -> Tensor | None:
    """
    The mask ``(H, W)`` that was shown on a slice when its last clicks were made.

    There is none where nothing was found, and none where clicks were taken back: what they did is in the mask.
    """
    before = earlier.prompts.get(z)
    if before is not None and not same_prompts(before, (prompt[0][: len(before[0])], prompt[1][: len(before[1])])):
        return None
    answer = earlier.answer(z)
    return answer.logits if answer is not None and bool((answer.logits > 0).any()) else None


def _number(network: SAM2Segmenter, label: str | None) -> int:
    names = list(network.labels)
    if label is None and len(names) == 1:
        return 0
    if label not in names:
        raise ValueError(f"label must be one of the network's labels ({', '.join(names)}), not {label!r}.")
    return names.index(label)
