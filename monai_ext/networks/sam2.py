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

"""
SAM 2.1's image model from a table of sizes.

The modules are `sam2`'s own, put together in Python with the values of Meta's YAML files, so that no Hydra is needed
and every parameter keeps its official name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# What SAM 2.1 keeps for video and one image never uses; set aside when an official file is loaded without memory.
VIDEO_ONLY = (
    "memory_attention.",
    "memory_encoder.",
    "mask_downsample.",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_ptr",
    "no_obj_embed_spatial",
)
EMBEDDING_DIM = 256
MEMORY_DIM = 64
MEMORY_SLICES = 7  # the clicked one and six that follow each other
STRIDE = 32  # of Hiera's last stage: both sides of its input must be multiples of it


@dataclass(frozen=True)
class HieraSize:
    """The trunk of one size of SAM 2.1 (neck, prompt encoder and mask decoder are the same in all)."""

    embed_dim: int
    num_heads: int
    stages: tuple[int, ...]
    global_att_blocks: tuple[int, ...]
    window_pos_embed_bkg_spatial_size: tuple[int, int] = (7, 7)
    window_spec: tuple[int, ...] = (8, 4, 14, 7)

    @property
    def channels(self) -> list[int]:
        """Channels of the four stages, the deepest first."""
        return [self.embed_dim * 2**stage for stage in (3, 2, 1, 0)]


SIZES = {
    # Ours: SAM 2.1's parts with a trunk that a laptop can train. Three blocks at stride 4, since all fine detail of a
    # mask comes from there.
    "micro": HieraSize(32, 1, (3, 3, 3, 1), (8,)),
    # https://github.com/facebookresearch/sam2/tree/main/sam2/configs/sam2.1
    "tiny": HieraSize(96, 1, (1, 2, 7, 2), (5, 7, 9)),
    "small": HieraSize(96, 1, (1, 2, 11, 2), (7, 10, 13)),
    "base_plus": HieraSize(112, 2, (2, 3, 16, 3), (12, 16, 20), window_pos_embed_bkg_spatial_size=(14, 14)),
    "large": HieraSize(144, 2, (2, 6, 36, 4), (23, 33, 43), window_spec=(8, 4, 16, 8)),
}


def sam2_modules(size: str) -> dict[str, nn.Module | nn.Parameter]:
    """
    The children of SAM 2.1's image model under their official names, randomly initialised.

    Args:
        size: one of ``SIZES``: ``micro``, ``tiny``, ``small``, ``base_plus`` or ``large``.

    Returns:
        ``image_encoder``, ``sam_prompt_encoder``, ``sam_mask_decoder`` and ``no_mem_embed``.

    Raises:
        ValueError: unknown size.
        ImportError: the package ``sam2`` is not installed.

    Source:
        Ravi et al., SAM 2: Segment Anything in Images and Videos, 2024, https://arxiv.org/abs/2408.00714
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, not {size!r}.")
    try:
        from sam2.modeling.backbones.hieradet import Hiera
        from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    except ImportError as error:
        message = "SAM 2's modules are missing: SAM2_BUILD_CUDA=0 pip install --no-build-isolation sam2 (after torch)."
        raise ImportError(message) from error
    hiera = SIZES[size]
    trunk = Hiera(
        embed_dim=hiera.embed_dim,
        num_heads=hiera.num_heads,
        stages=hiera.stages,
        global_att_blocks=hiera.global_att_blocks,
        window_pos_embed_bkg_spatial_size=hiera.window_pos_embed_bkg_spatial_size,
        window_spec=hiera.window_spec,
    )
    neck = FpnNeck(
        # Only video memory reads the neck's positional encoding; the official one has no parameters.
        position_encoding=nn.Identity(),
        d_model=EMBEDDING_DIM,
        backbone_channel_list=hiera.channels,
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    return {
        "image_encoder": ImageEncoder(trunk=trunk, neck=neck, scalp=1),
        "sam_prompt_encoder": _prompt_encoder(),
        "sam_mask_decoder": _mask_decoder(),
        "no_mem_embed": nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, EMBEDDING_DIM), std=0.02)),
    }


def memory_modules() -> dict[str, nn.Module | nn.Parameter]:
    """
    The children of SAM 2.1 that serve videos, and here volumes, under their official names, randomly initialised.

    Their keys are those of ``VIDEO_ONLY``; ``memory_position`` has no parameters.

    Raises:
        ImportError: the package ``sam2`` is not installed.
    """
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine
    from sam2.modeling.sam2_utils import MLP

    def learned(*shape: int) -> nn.Parameter:
        return nn.Parameter(nn.init.trunc_normal_(torch.empty(*shape), std=0.02))

    return {
        "memory_attention": _memory_attention(),
        "memory_encoder": MemoryEncoder(
            out_dim=MEMORY_DIM,
            position_encoding=PositionEmbeddingSine(MEMORY_DIM, warmup_cache=False),
            mask_downsampler=MaskDownSampler(kernel_size=3, stride=2, padding=1),
            fuser=Fuser(CXBlock(EMBEDDING_DIM, kernel_size=7, padding=3, layer_scale_init_value=1e-6), num_layers=2),
        ),
        "memory_position": PositionEmbeddingSine(EMBEDDING_DIM, warmup_cache=False),
        "mask_downsample": nn.Conv2d(1, 1, kernel_size=4, stride=4),
        "obj_ptr_proj": MLP(EMBEDDING_DIM, EMBEDDING_DIM, EMBEDDING_DIM, 3),
        "obj_ptr_tpos_proj": nn.Linear(EMBEDDING_DIM, MEMORY_DIM),
        "maskmem_tpos_enc": learned(MEMORY_SLICES, 1, 1, MEMORY_DIM),
        "no_mem_pos_enc": learned(1, 1, EMBEDDING_DIM),
        "no_obj_ptr": learned(1, EMBEDDING_DIM),
        "no_obj_embed_spatial": learned(1, MEMORY_DIM),
    }


def _memory_attention() -> nn.Module:
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.sam.transformer import RoPEAttention

    def attention(**settings: Any) -> nn.Module:
        return RoPEAttention(
            embedding_dim=EMBEDDING_DIM, num_heads=1, downsample_rate=1, dropout=0.1, rope_theta=10000.0, **settings
        )

    layer = MemoryAttentionLayer(
        activation="relu",
        d_model=EMBEDDING_DIM,
        dim_feedforward=2048,
        dropout=0.1,
        pos_enc_at_attn=False,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        self_attention=attention(),
        cross_attention=attention(rope_k_repeat=True, kv_in_dim=MEMORY_DIM),
    )
    return MemoryAttention(d_model=EMBEDDING_DIM, pos_enc_at_input=True, layer=layer, num_layers=4)


def _prompt_encoder() -> nn.Module:
    from sam2.modeling.sam.prompt_encoder import PromptEncoder

    # The sizes given here serve only its `forward`, which is bound to one image size and which we do not call.
    return PromptEncoder(
        embed_dim=EMBEDDING_DIM, image_embedding_size=(64, 64), input_image_size=(1024, 1024), mask_in_chans=16
    )


def _mask_decoder() -> nn.Module:
    from sam2.modeling.sam.mask_decoder import MaskDecoder
    from sam2.modeling.sam.transformer import TwoWayTransformer

    return MaskDecoder(
        transformer_dim=EMBEDDING_DIM,
        transformer=TwoWayTransformer(depth=2, embedding_dim=EMBEDDING_DIM, mlp_dim=2048, num_heads=8),
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        use_multimask_token_for_obj_ptr=True,
    )
