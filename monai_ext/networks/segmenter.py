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
from monai_ext.networks.click_shift import ClickShift
from monai_ext.networks.prompts import (
    ClassTokens,
    TextTokens,
    embed_grid,
    embed_mask,
    embed_points,
    fit_mask,
    join_clicks,
)
from monai_ext.networks.sam2 import STRIDE, VIDEO_ONLY, memory_modules, sam2_modules
from monai_ext.networks.state import check_state, make_fingerprint, same_memory
from monai_ext.networks.weights import check_size, find_weights, load_base
from monai_ext.text.embeddings import read_label_embeddings
from monai_ext.version import __version__


class ImageEmbedding(NamedTuple):
    """What the encoder made of images: all that clicks and labels need afterwards."""

    features: Tensor  # (B, 256, h, w), stride 16
    high_res: tuple[Tensor, Tensor]  # (B, 32, 4h, 4w) and (B, 64, 2h, 2w)
    size: tuple[int, int]  # height and width of the images as given

    def repeat(self, count: int) -> ImageEmbedding:
        """Every image ``count`` times in a row, ``(B * count, ...)``: for several objects of one image."""
        finest, fine = (feature.repeat_interleave(count, 0) for feature in self.high_res)
        return ImageEmbedding(self.features.repeat_interleave(count, 0), (finest, fine), self.size)


class MaskCandidates(NamedTuple):
    """All that SAM 2's mask decoder says of an object: its single mask, then the three for an ambiguous prompt."""

    logits: Tensor  # (B, C, 4, H, W)
    iou: Tensor  # (B, C, 4), predicted
    object_score: Tensor  # (B, C), logit of whether the object is there at all


class SAM2Segmenter(nn.Module):
    """
    SAM 2.1 as a MONAI segmentation network: image, and prompts if there are any, to one map of logits per label.

    Without prompts every label is segmented by itself, from its learned token. Points, boxes and earlier masks go the
    same way through the decoder. Training, sliding windows, clicks and export all use ``encode`` and ``decode``.

    Args:
        size: ``micro``, ``tiny``, ``small``, ``base_plus`` or ``large``.
        weights: base weights: None (random, from ``seed``), ``micro`` (comes with the package, for size micro), a
            path, or an official name such as ``sam2.1_hiera_tiny`` (see ``python -m monai_ext weights``). Never
            downloaded here.
        labels: names of the labels, one output channel each.
        label_embeddings: a file of ``python -m monai_ext labels``: the names themselves are then the prompts, see
            :class:`TextTokens`, and labels can be added to a trained network. Without it each label learns a token
            of its own.
        adapters: what to add to the base, see :mod:`monai_ext.adapters`. Adapters with the first name are active.
        train: patterns of base parameters that are trained as well, by their official names; ``["*"]`` for all.
            Everything else of the base is frozen. With ``weights=None`` all of the base belongs to the trained
            part, since nothing else could restore it.
        enlarge: whole factor by which images are enlarged before the encoder; logits come at the size of the image.
            SAM 2 draws masks at a quarter of its input: thin vessels need 2 or more.
        click_shift: how far a learned shift moves positive clicks at most, as a part of the image's sides, see
            :class:`ClickShift`; 0 leaves clicks where they are.
        multimask: answer with the best, by predicted IoU, of SAM's three masks instead of its single one.
        dynamic_multimask: in evaluation, replace an unstable single mask by the best of the three, as SAM 2's image
            predictor does; only for a base whose three masks are trained.
        label_chunk: how many labels go through the mask decoder at once, which bounds its memory without gradients;
            None decodes all together. The answer is the same.
        memory: also build SAM 2's memory attention and memory encoder, as
            :class:`monai_ext.inferers.MemoryPropagationInferer` needs them; the base weights must hold them.
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
        label_embeddings: str | os.PathLike[str] | None = None,
        adapters: Sequence[Adapter] = (),
        train: Sequence[str] = (),
        enlarge: int = 1,
        click_shift: float = 0,
        multimask: bool = False,
        dynamic_multimask: bool = False,
        label_chunk: int | None = None,
        memory: bool = False,
        bundle_root: str | os.PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.labels = _checked_labels(labels)
        if not isinstance(enlarge, int) or enlarge < 1:
            raise ValueError(f"enlarge must be a whole number of at least 1, not {enlarge!r}.")
        if not 0 <= click_shift <= 1:
            raise ValueError(f"click_shift must be a part of the image, at least 0 and at most 1, not {click_shift!r}.")
        if label_chunk is not None and (not isinstance(label_chunk, int) or label_chunk < 1):
            raise ValueError(f"label_chunk must be a whole number of at least 1, or None, not {label_chunk!r}.")
        check_size(size, weights)
        path = None if weights is None else find_weights(weights, bundle_root=bundle_root)
        names = None if label_embeddings is None else read_label_embeddings(label_embeddings, self.labels)
        self.text_encoder = None if names is None else names[1]
        self.size, self.weights, self.enlarge, self.multimask = size, weights, enlarge, multimask
        self.label_chunk, self.memory = label_chunk, memory
        self.train_patterns = list(train)
        self.adapter_settings = [adapter.describe() for adapter in adapters]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            # Memory comes last, so that it changes no random number of the others.
            for name, module in (sam2_modules(size) | (memory_modules() if memory else {})).items():
                setattr(self, name, module)
            if path is not None:
                load_base(self, path, ignore=() if memory else VIDEO_ONLY)
            self.sam_mask_decoder.dynamic_multimask_via_stability = dynamic_multimask
            self._freeze(train)
            # What was tuned without memory fits with it, too: one image never uses it.
            image = ((k, v) for k, v in self.named_parameters() if not k.startswith(VIDEO_ONLY))
            frozen = {} if path is None else {k: v for k, v in image if not v.requires_grad}
            start = self.sam_prompt_encoder.not_a_point_embed.weight
            self.class_tokens = (
                ClassTokens(len(self.labels), start) if names is None else TextTokens(names[0], start.detach())
            )
            self.click_shift = ClickShift(reach=float(click_shift)) if click_shift else None
            self._adapted: dict[str, Adapted] = inject(self, adapters)
        self.merged = False
        kept = self.state_dict()
        everything = [k for k in (*dict(self.named_parameters()), *dict(self.named_buffers())) if k in kept]
        ours = [k for k, v in self.named_parameters() if v.requires_grad or ".adapters." in k]
        self._trained_keys = sorted(everything if path is None else ours) + ["fingerprint"]
        shapes = {k: tuple(v.shape) for k, v in self.state_dict().items() if k in self._trained_keys}
        # Patterns and dropout may be written otherwise; what changes the answer may not.
        methods = [{k: v for k, v in a.items() if k not in ("targets", "dropout")} for a in self.adapter_settings]
        # With names as prompts labels may come and go, but what turned the names into vectors may not change.
        meaning: list[Any] = [self.labels if names is None else self.text_encoder, methods, sorted(shapes.items())]
        if names is not None and any(adapter.reads_tokens for adapter in adapters):
            meaning.append(self.labels)
        if self.click_shift is not None:
            meaning.append(self.click_shift.reach)
        self.register_buffer("fingerprint", make_fingerprint(frozen, meaning))
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
        low_res, iou, _, _ = self._predict(embedding, points, point_labels, boxes, masks)
        decoder = self.sam_mask_decoder
        if self.multimask:
            best = iou[:, 1:].argmax(1, keepdim=True) + 1
            low_res, iou = torch.take_along_dim(low_res, best[..., None, None], 1), iou.gather(1, best)
        elif decoder.dynamic_multimask_via_stability and not self.training:
            low_res, iou = decoder._dynamic_multimask_via_stability(low_res, iou)
        else:
            low_res, iou = low_res[:, :1], iou[:, :1]
        batch, count = embedding.features.shape[0], len(self.labels)
        logits = self._at_image_size(low_res, embedding.size)
        return logits.reshape(batch, count, *embedding.size), iou.reshape(batch, count)

    def candidates(
        self,
        embedding: ImageEmbedding,
        points: Tensor | None = None,
        point_labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> MaskCandidates:
        """Run the mask decoder and keep all four masks, as training a promptable base needs them."""
        low_res, iou, score, _ = self._predict(embedding, points, point_labels, boxes, masks)
        batch, count = embedding.features.shape[0], len(self.labels)
        logits = self._at_image_size(low_res, embedding.size)
        return MaskCandidates(
            logits.reshape(batch, count, -1, *embedding.size),
            iou.reshape(batch, count, -1),
            score.reshape(batch, count),
        )

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
        if assign:
            raise ValueError("assign must be False: assigning would part what several adapters share.")
        self._require_unmerged("load")
        own = self.state_dict()
        # `copy_model_state` drops unknown keys and hands us our own tensors for the rest: those bring nothing.
        given = {k: v for k, v in state_dict.items() if k not in own or not same_memory(v, own[k])}
        check_state(given, own, self._trained_keys)
        super().load_state_dict(given, strict=False)
        return _IncompatibleKeys([], [])

    def describe(self) -> dict[str, Any]:
        """What ``models/adapter.json`` tells people and tools about a trained part."""
        return {
            "monai_ext": __version__,
            "size": self.size,
            "weights": None if self.weights is None else str(self.weights),
            "labels": self.labels,
            "text_encoder": self.text_encoder,
            "adapters": self.adapter_settings,
            "train": self.train_patterns,
            "enlarge": self.enlarge,
            "click_shift": 0 if self.click_shift is None else self.click_shift.reach,
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

    def _predict(
        self,
        embedding: ImageEmbedding,
        points: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None,
        masks: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Four masks at a quarter of the encoder's input ``(B * C, 4, h, w)``, their IoU, object score and tokens."""
        points, point_labels, boxes, masks = (
            prompt if prompt is None else convert_to_tensor(prompt, track_meta=False)
            for prompt in (points, point_labels, boxes, masks)
        )
        batch, count = embedding.features.shape[0], len(self.labels)
        grid = (embedding.features.shape[-2], embedding.features.shape[-1])
        encoder = self.sam_prompt_encoder
        tokens = self.class_tokens().repeat(batch, 1).unsqueeze(1)
        clicks = join_clicks((batch, count), points, point_labels, boxes)
        if clicks is not None:
            height, width = (side * self.enlarge for side in self._padded(embedding.size))
            coordinates = clicks[0].to(tokens.device).float() * self.enlarge
            kinds = clicks[1].to(tokens.device)
            if self.click_shift is not None:
                features = embedding.features.repeat_interleave(count, 0)
                coordinates = self.click_shift(encoder, coordinates, kinds, features, (height, width))
            embedded = embed_points(encoder, coordinates, kinds, (height, width))
            sparse = torch.cat([embedded.to(tokens.dtype), tokens], 1)
        else:
            # SAM puts no token beside a mask alone, so neither does a label.
            sparse = tokens if masks is None else tokens[:, :0]
        dense = embed_mask(encoder, self._mask_input(batch, embedding.size, masks), grid)
        dense = dense.expand(batch * count, -1, -1, -1)
        position, answers = embed_grid(encoder, grid), []
        places = torch.arange(batch * count, device=sparse.device)
        for rows in (places,) if self.label_chunk is None else places.split(batch * self.label_chunk):
            images = rows // count
            low_res, iou, mask_tokens, score = self.sam_mask_decoder.predict_masks(
                image_embeddings=embedding.features[images],
                image_pe=position,
                sparse_prompt_embeddings=sparse[rows],
                dense_prompt_embeddings=dense[rows],
                repeat_image=False,
                high_res_features=[feature[images] for feature in embedding.high_res],
            )
            answers.append((low_res, iou, score, mask_tokens))
        low_res, iou, score, mask_tokens = (
            torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*answers, strict=True)
        )
        return low_res, iou, score, mask_tokens

    def _at_image_size(self, low_res: Tensor, size: tuple[int, int]) -> Tensor:
        logits = F.interpolate(low_res, size=self._padded(size), mode="bilinear", align_corners=False)
        return logits[..., : size[0], : size[1]]

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
