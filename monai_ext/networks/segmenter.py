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

import fnmatch
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from monai.utils import convert_to_tensor
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from monai_ext.adapters.base import Adapted, Adapter, inject, replace_module
from monai_ext.networks.prompts import ClassTokens, embed_grid, embed_mask, embed_points, fit_mask
from monai_ext.networks.sam2 import STRIDE, VIDEO_ONLY, sam2_modules
from monai_ext.networks.state import check_state, make_fingerprint, same_memory
from monai_ext.networks.weights import find_weights, load_base
from monai_ext.version import __version__


class ImageEmbedding(NamedTuple):
    """What the encoder made of images: all that clicks and labels need afterwards."""

    features: Tensor  # (B, 256, h, w), stride 16
    high_res: tuple[Tensor, Tensor]  # (B, 32, 4h, 4w) and (B, 64, 2h, 2w)
    size: tuple[int, int]  # height and width of the images as given


class SAM2Segmenter(nn.Module):
    """
    SAM 2.1 as a MONAI segmentation network: image, and prompts if there are any, to one map of logits per label.

    Without prompts every label is segmented by itself, from its learned token. Points, boxes and earlier masks go the
    same way through the decoder. Training, sliding windows, clicks and export all use ``encode`` and ``decode``.

    Args:
        size: ``micro``, ``tiny``, ``small``, ``base_plus`` or ``large``.
        weights: base weights: None (random, from ``seed``), a path, or an official name such as
            ``sam2.1_hiera_tiny`` (see ``python -m monai_ext weights``). Never downloaded here.
        labels: names of the labels, one output channel each.
        adapters: what to add to the base, see :mod:`monai_ext.adapters`. Adapters with the first name are active.
        train: patterns of base parameters that are trained as well, by their official names; ``["*"]`` for all.
            Everything else of the base is frozen. With ``weights=None`` all of the base belongs to the trained
            part, since nothing else could restore it.
        enlarge: whole factor by which images are enlarged before the encoder; logits come at the size of the image.
            SAM 2 draws masks at a quarter of its input: thin vessels need 2 or more.
        multimask: answer with the best, by predicted IoU, of SAM's three masks instead of its single one.
        dynamic_multimask: in evaluation, replace an unstable single mask by the best of the three, as SAM 2's image
            predictor does; only for a base whose three masks are trained.
        bundle_root: where ``models/base`` is looked for when ``weights`` is a name.
        seed: of everything the weights do not give; the global random state is not touched.

    Shape:
        - image: ``(B, 3, H, W)`` floats, normalised with ImageNet's mean and deviation; any H and W.
        - points: ``(B, N, 2)`` for all labels or ``(B, C, N, 2)`` for each, x and y in pixels of the image.
        - point_labels: ``(B, N)`` or ``(B, C, N)``: 1 on the object, 0 off it, -1 no point; 2 and 3 box corners.
        - boxes: ``(B, 4)`` or ``(B, C, 4)``, x0, y0, x1, y1.
        - masks: ``(B, 1 or C, any, any)`` logits of an earlier answer, over the whole image.
        - output: ``(B, C, H, W)`` logits.

    Raises:
        ValueError: a setting or an input does not fit; nothing has changed then.
        FileNotFoundError: the weights are not there; says how to get them.

    Example:
        >>> net = SAM2Segmenter(size="micro", labels=["vessel"])
        >>> net(torch.zeros(1, 3, 50, 70)).shape
        torch.Size([1, 1, 50, 70])
    """

    # SAM 2's own modules; mypy knows nothing of what they hold.
    image_encoder: Any
    sam_prompt_encoder: Any
    sam_mask_decoder: Any
    no_mem_embed: nn.Parameter
    fingerprint: Tensor

    def __init__(
        self,
        *,
        size: str = "tiny",
        weights: str | os.PathLike[str] | None = None,
        labels: Sequence[str] = ("object",),
        adapters: Sequence[Adapter] = (),
        train: Sequence[str] = (),
        enlarge: int = 1,
        multimask: bool = False,
        dynamic_multimask: bool = False,
        bundle_root: str | os.PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.labels = _checked_labels(labels)
        if not isinstance(enlarge, int) or enlarge < 1:
            raise ValueError(f"enlarge must be a whole number of at least 1, not {enlarge!r}.")
        path = None if weights is None else find_weights(weights, bundle_root=bundle_root)
        self.size, self.weights, self.enlarge, self.multimask = size, weights, enlarge, multimask
        self.train_patterns = list(train)
        self.adapter_settings = [adapter.describe() for adapter in adapters]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for name, module in sam2_modules(size).items():
                setattr(self, name, module)
            if path is not None:
                load_base(self, path, ignore=VIDEO_ONLY)
            self.sam_mask_decoder.dynamic_multimask_via_stability = dynamic_multimask
            self._freeze(train)
            frozen = {} if path is None else {k: v for k, v in self.named_parameters() if not v.requires_grad}
            self.class_tokens = ClassTokens(len(self.labels), self.sam_prompt_encoder.not_a_point_embed.weight)
            self._adapted: dict[str, Adapted] = inject(self, adapters)
        self.merged = False
        everything = [*dict(self.named_parameters()), *dict(self.named_buffers())]
        ours = [k for k, v in self.named_parameters() if v.requires_grad or ".adapters." in k]
        self._trained_keys = sorted(everything if path is None else ours) + ["fingerprint"]
        shapes = {k: tuple(v.shape) for k, v in self.state_dict().items() if k in self._trained_keys}
        # Patterns and dropout may be written otherwise; what changes the answer may not.
        methods = [{k: v for k, v in a.items() if k not in ("targets", "dropout")} for a in self.adapter_settings]
        self.register_buffer("fingerprint", make_fingerprint(frozen, [self.labels, methods, sorted(shapes.items())]))
        self.activate(adapters[0].name if adapters else None)

    def forward(
        self,
        image: Tensor,
        points: Tensor | None = None,
        point_labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Tensor:
        return self.decode(self.encode(image), points, point_labels, boxes, masks)[0]

    def encode(self, image: Tensor) -> ImageEmbedding:
        """Run the image encoder: once per image, however many labels and clicks follow."""
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise ValueError(f"image must be floats (B, 3, H, W), not {image.dtype} {tuple(image.shape)}.")
        # A MetaTensor would carry its history through every operation: slower, and of no use here.
        image = convert_to_tensor(image, track_meta=False)
        size = (image.shape[-2], image.shape[-1])
        height, width = self._padded(size)
        # Zeros are the mean colour after normalisation: what SAM pads with.
        image = F.pad(image, (0, width - size[1], 0, height - size[0]))
        if self.enlarge > 1:
            image = F.interpolate(image, scale_factor=float(self.enlarge), mode="bilinear", align_corners=False)
        finest, fine, coarse = self.image_encoder(image)["backbone_fpn"]
        features = coarse + self.no_mem_embed.reshape(1, -1, 1, 1)
        decoder = self.sam_mask_decoder
        # The neck adds in float32 whatever the precision of its weights.
        features = features.to(self.no_mem_embed.dtype)
        return ImageEmbedding(features, (decoder.conv_s0(finest), decoder.conv_s1(fine)), size)

    def decode(
        self,
        embedding: ImageEmbedding,
        points: Tensor | None = None,
        point_labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """
        Run the mask decoder, all labels of all images together.

        Returns:
            logits ``(B, C, H, W)`` and the predicted IoU of each mask ``(B, C)``.
        """
        batch, count = embedding.features.shape[0], len(self.labels)
        grid = (embedding.features.shape[-2], embedding.features.shape[-1])
        sparse = self._sparse(batch, embedding.size, points, point_labels, boxes, masks)
        dense = embed_mask(self.sam_prompt_encoder, self._mask_input(batch, embedding.size, masks), grid)
        low_res, iou, _, _ = self.sam_mask_decoder(
            image_embeddings=embedding.features.repeat_interleave(count, 0),
            image_pe=embed_grid(self.sam_prompt_encoder, grid),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=self.multimask,
            repeat_image=False,
            high_res_features=[feature.repeat_interleave(count, 0) for feature in embedding.high_res],
        )
        if self.multimask:
            best = iou.argmax(1)
            low_res, iou = low_res[range(len(best)), best].unsqueeze(1), iou.gather(1, best.unsqueeze(1))
        logits = F.interpolate(low_res, size=self._padded(embedding.size), mode="bilinear", align_corners=False)
        logits = logits[..., : embedding.size[0], : embedding.size[1]]
        return logits.reshape(batch, count, *embedding.size), iou.reshape(batch, count)

    def activate(self, name: str | None) -> None:
        """
        Let the adapters of this name work and train; None for the base as it is.

        Raises:
            ValueError: no adapter has this name.
            RuntimeError: the network is merged.
        """
        names = sorted({key for module in self._adapted.values() for key in module.adapters})
        if name is not None and name not in names:
            raise ValueError(
                f"name must be one of the network's adapters ({', '.join(names) or 'none'}), not {name!r}."
            )
        self._require_unmerged("activate another adapter")
        for module in self._adapted.values():
            module.active = name
            for key, layer in module.adapters.items():
                layer.requires_grad_(key == name)

    def merge(self) -> None:
        """Fold the active adapters into the weights; SAM 2.1's own module tree is left. Twice changes nothing."""
        if self.merged:
            return
        for module in self._adapted.values():  # before anything changes: all of them must be able to
            if module.active in module.adapters:
                module.adapters[module.active].delta(module.base)
        for name, module in self._adapted.items():
            module.add_delta(1)
            replace_module(self, name, module.base)
        self.merged = True

    def unmerge(self) -> None:
        """Take the adapters out of the weights again (equal to rounding) and put them back in their places."""
        if not self.merged:
            return
        for name, module in self._adapted.items():
            module.adapters.to(device=module.base.weight.device, dtype=module.base.weight.dtype)
            module.add_delta(-1)
            replace_module(self, name, module)
        self.merged = False

    def trained_state_dict(self) -> dict[str, Tensor]:
        """What ``models/model.pt`` holds: only what was trained, and the fingerprint of what it belongs to."""
        self._require_unmerged("save the trained part")
        state = self.state_dict()
        return {key: state[key].detach().cpu().clone() for key in self._trained_keys}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """
        Load all tensors of this network, or exactly its trained part; everything else is refused.

        ``strict=False`` changes nothing: MONAI Label and the model zoo load that way, and a file that fits only in
        parts would still give a mask, a wrong one.

        Raises:
            ValueError: the file does not fit; says in what, before anything is changed.
        """
        self._require_unmerged("load")
        own = self.state_dict()
        # `copy_model_state` drops unknown keys and hands us our own tensors for the rest: those bring nothing.
        given = {k: v for k, v in state_dict.items() if k not in own or not same_memory(v, own[k])}
        check_state(given, own, self._trained_keys)
        super().load_state_dict(given, strict=False, assign=assign)
        return _IncompatibleKeys([], [])

    def describe(self) -> dict[str, Any]:
        """What ``models/adapter.json`` tells people and tools about a trained part."""
        return {
            "monai_ext": __version__,
            "size": self.size,
            "weights": None if self.weights is None else str(self.weights),
            "labels": self.labels,
            "adapters": self.adapter_settings,
            "train": self.train_patterns,
            "enlarge": self.enlarge,
            "fingerprint": bytes(self.fingerprint.tolist()).hex(),
            "parameters": sum(p.numel() for p in self.parameters()),
            "trained_parameters": sum(p.numel() for p in self.parameters() if p.requires_grad),
        }

    def _freeze(self, train: Sequence[str]) -> None:
        names = [name for name, _ in self.named_parameters()]
        for pattern in train:
            if not fnmatch.filter(names, pattern):
                raise ValueError(f"train: {pattern!r} matches no parameter; official names look like {names[0]!r}.")
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(any(fnmatch.fnmatchcase(name, pattern) for pattern in train))

    def _padded(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size of an image with its padding, before enlarging."""
        step = STRIDE // math.gcd(STRIDE, self.enlarge)
        return (math.ceil(size[0] / step) * step, math.ceil(size[1] / step) * step)

    def _sparse(
        self,
        batch: int,
        size: tuple[int, int],
        points: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None,
        masks: Tensor | None,
    ) -> Tensor:
        """Tokens of clicks and boxes, closed by each label's own, for each label of each image: ``(B * C, N, 256)``."""
        count = len(self.labels)
        tokens = self.class_tokens().repeat(batch, 1).unsqueeze(1)
        if (points is None) != (point_labels is None):
            raise ValueError("points and point_labels must be given together.")
        clicks, kinds = [], []
        if boxes is not None:  # box corners come first, as in SAM 2's image predictor
            corners = self._per_label(boxes, (4,), batch, "boxes").reshape(batch * count, 2, 2)
            clicks.append(corners)
            kinds.append(torch.tensor([[2, 3]], device=corners.device).expand(batch * count, 2))
        if points is not None and point_labels is not None:
            number = points.shape[-2] if points.ndim > 1 else 0
            clicks.append(self._per_label(points, (number, 2), batch, "points"))
            kinds.append(self._per_label(point_labels, (number,), batch, "point_labels").long())
            if not bool(((kinds[-1] >= -1) & (kinds[-1] <= 3)).all()):
                raise ValueError("point_labels must be 1, 0, -1 (none), 2 or 3 (box corners).")
        if not clicks:
            # SAM puts no token beside a mask alone, so neither does a label.
            return tokens if masks is None else tokens[:, :0]
        coordinates = torch.cat(clicks, 1).to(tokens) if len(clicks) > 1 else clicks[0].float()
        if not bool(torch.isfinite(coordinates).all()):
            raise ValueError("points and boxes must be finite numbers, not NaN or infinite.")
        height, width = (side * self.enlarge for side in self._padded(size))
        embedded = embed_points(
            self.sam_prompt_encoder, coordinates.float() * self.enlarge, torch.cat(kinds, 1), (height, width)
        )
        return torch.cat([embedded.to(tokens.dtype), tokens], 1)

    def _per_label(self, prompt: Tensor, tail: tuple[int, ...], batch: int, name: str) -> Tensor:
        """Bring a prompt, given for all labels or for each, to ``(B * C, *tail)``."""
        count = len(self.labels)
        if tuple(prompt.shape) == (batch, *tail):
            return prompt.repeat_interleave(count, 0)
        if tuple(prompt.shape) == (batch, count, *tail):
            return prompt.flatten(0, 1)
        expected = f"{(batch, *tail)} for all labels or {(batch, count, *tail)} for each"
        raise ValueError(f"{name} must be {expected}, not {tuple(prompt.shape)}.")

    def _mask_input(self, batch: int, size: tuple[int, int], masks: Tensor | None) -> Tensor | None:
        if masks is None:
            return None
        count = len(self.labels)
        if masks.ndim != 4 or masks.shape[0] != batch or masks.shape[1] not in (1, count):
            raise ValueError(f"masks must be ({batch}, 1 or {count}, h, w), not {tuple(masks.shape)}.")
        masks = masks.expand(-1, count, -1, -1).flatten(0, 1).unsqueeze(1)
        height, width = (side * self.enlarge // 4 for side in self._padded(size))
        inner = (math.ceil(size[0] * self.enlarge / 4), math.ceil(size[1] * self.enlarge / 4))
        return fit_mask(masks.to(self.no_mem_embed.dtype), inner, (height, width))

    def _require_unmerged(self, purpose: str) -> None:
        if self.merged:
            raise RuntimeError(f"The network is merged; call unmerge() to {purpose}.")


def _checked_labels(labels: Sequence[str]) -> list[str]:
    names = [labels] if isinstance(labels, str) else list(labels)
    if not names or any(not isinstance(name, str) or not name for name in names) or len(set(names)) < len(names):
        raise ValueError(f"labels must be different names, at least one, not {labels!r}.")
    return names
