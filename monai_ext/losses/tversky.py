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

import math
from typing import Any

import torch
from monai.losses import DiceLoss, SoftclDiceLoss, TverskyLoss
from monai.utils import LossReduction, convert_to_tensor
from torch.nn.modules.loss import _Loss

__all__ = ["FocalTverskyLoss", "TverskyCompositeLoss"]

# The slope of x^gamma at 0 is infinite for gamma < 1. This floor bounds it, lies above the rounding of float32 (so what
# it lets through is no noise) and leaves a perfect prediction at 1e-6^0.75 = 3e-5.
_FLOOR = 1e-6


class FocalTverskyLoss(_Loss):
    r"""
    Focal Tversky loss: overlap of small structures, with a price of its own for false positives and false negatives.

    For each label :math:`c` (never pooled over labels, so that the asymmetry cannot cancel)

    .. math::
        TI_c = \frac{TP_c + s_{nr}}{TP_c + \alpha FP_c + \beta FN_c + s_{dr}}, \qquad
        L_c = \max(1 - TI_c,\ 10^{-6})^{\gamma}

    where the floor keeps the gradient finite at a perfect prediction. ``gamma`` below 1 keeps pushing labels that are
    almost right; 1 is MONAI's ``TverskyLoss``. Sums are taken in float32 at least, whatever the type of ``input``.

    Abraham and Khan, "A Novel Focal Tversky Loss Function with Improved Attention U-Net for Lesion Segmentation",
    arXiv 1810.07842, whose exponent is the inverse of our ``gamma``. The defaults are those of SAM2LoRA,
    arXiv 2510.10288; in both papers the symbol alpha stands for the weight of the false negatives, our ``beta``.

    Args:
        include_background: if False, channel 0 is left out.
        to_onehot_y: whether ``target`` holds label indices, to be made one-hot.
        sigmoid: whether ``input`` holds logits of labels that may overlap.
        softmax: whether ``input`` holds logits of labels that exclude each other.
        alpha: weight of false positives, >= 0.
        beta: weight of false negatives, >= 0.
        gamma: exponent, > 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the values of items and labels.
        smooth_nr: added to the numerator, > 0. It is what punishes false positives of a label that is not in the
            target: without it such a label costs 1 whatever is predicted. The published 1 pixel grades them; values
            much smaller make the loss jump to 1 at the faintest false positive.
        smooth_dr: added to the denominator, >= ``smooth_nr``; equal to it, a perfect prediction costs nothing.
        batch: whether to sum over the items of the batch before dividing.

    Shape:
        ``input`` (B, C, spatial...), probabilities in [0, 1] or logits; ``target`` the same, or (B, 1, spatial...) with
        ``to_onehot_y``, of any type including bool. The result is a scalar, or with ``reduction="none"`` (B, C), with
        ``batch`` too (C,).

    Raises:
        ValueError: a number is out of its range, or ``sigmoid`` and ``softmax`` are both given.
        AssertionError: the shapes of ``input`` and ``target`` differ.

    Example:
        >>> target = torch.tensor([[[[0, 0, 1, 1]]]])
        >>> loss = FocalTverskyLoss(sigmoid=True)
        >>> missed, invented = torch.tensor([-9.0, -9, -9, 9]), torch.tensor([-9.0, 9, 9, 9])
        >>> bool(loss(missed.expand(1, 1, 1, 4), target) > loss(invented.expand(1, 1, 1, 4), target))
        True
    """

    def __init__(
        self,
        *,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 0.75,
        reduction: LossReduction | str = LossReduction.MEAN,
        smooth_nr: float = 1.0,
        smooth_dr: float = 1.0,
        batch: bool = False,
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        _check_number("alpha", alpha)
        _check_number("beta", beta)
        _check_number("gamma", gamma, positive=True)
        if _check_number("smooth_nr", smooth_nr, positive=True) > _check_number("smooth_dr", smooth_dr):
            raise ValueError(f"smooth_dr must be at least smooth_nr ({smooth_nr}), not {smooth_dr}.")
        self.gamma = gamma
        self.tversky = TverskyLoss(
            include_background=include_background,
            to_onehot_y=to_onehot_y,
            sigmoid=sigmoid,
            softmax=softmax,
            alpha=alpha,
            beta=beta,
            reduction=LossReduction.NONE,
            smooth_nr=smooth_nr,
            smooth_dr=smooth_dr,
            batch=batch,
        )

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Compute the loss.

        Args:
            input: probabilities or logits (B, C, spatial...).
            target: truth of the same shape, or indices (B, 1, spatial...).
        """
        loss: torch.Tensor = self.tversky(*_plain(input, target)).clamp(min=_FLOOR) ** self.gamma
        if self.reduction == LossReduction.MEAN.value:
            return loss.mean()
        return loss.sum() if self.reduction == LossReduction.SUM.value else loss


class TverskyCompositeLoss(_Loss):
    r"""
    Weighted sum of cross-entropy, soft Dice and focal Tversky losses of logits, with an optional clDice term.

    .. math::
        L = \lambda_{bce} BCE + \lambda_{dice} Dice + \lambda_{tversky} FocalTversky + \lambda_{cldice} clDice

    Cross-entropy gives every pixel a steady gradient, Dice and Tversky weigh the classes against their imbalance, and
    clDice rewards unbroken thin structures. The labels may overlap: each has its own sigmoid. The defaults are
    SAM2LoRA's, arXiv 2510.10288, with sums over the batch but, for several labels, one sum for each label. clDice: Shit
    et al., arXiv 2003.07311, by MONAI's ``SoftclDiceLoss``.

    Args:
        lambda_bce: weight of the cross-entropy, >= 0. A term of weight 0 is not computed.
        lambda_dice: weight of the Dice term, >= 0.
        lambda_tversky: weight of the focal Tversky term, >= 0.
        lambda_cldice: weight of the clDice term, >= 0.
        alpha: weight of false positives in the Tversky term.
        beta: weight of false negatives in the Tversky term.
        gamma: exponent of the Tversky term.
        batch: whether Dice and Tversky sum over the items of the batch before dividing.
        smooth_nr: added to the numerators of Dice, Tversky and clDice.
        smooth_dr: added to their denominators.
        cldice_iterations: steps of the skeleton of the clDice term: about half the widest structure in pixels.

    Shape:
        ``input`` logits (B, C, H, W[, D]); ``target`` the same shape, values in [0, 1] of any type including bool. The
        result is a scalar.

    Raises:
        ValueError: a number is out of its range, all weights are 0, the shapes differ or ``target`` leaves [0, 1].

    Example:
        >>> loss = TverskyCompositeLoss(lambda_cldice=0.5)
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 3:5, :] = 1
        >>> {name: round(float(part), 2) for name, part in loss.parts(40 * target - 20, target).items()}
        {'bce': 0.0, 'dice': 0.0, 'tversky': 0.0, 'cldice': 0.0}
    """

    def __init__(
        self,
        *,
        lambda_bce: float = 1.0,
        lambda_dice: float = 1.0,
        lambda_tversky: float = 1.0,
        lambda_cldice: float = 0.0,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 0.75,
        batch: bool = True,
        smooth_nr: float = 1.0,
        smooth_dr: float = 1.0,
        cldice_iterations: int = 3,
    ) -> None:
        super().__init__()
        self.weights = {"bce": lambda_bce, "dice": lambda_dice, "tversky": lambda_tversky, "cldice": lambda_cldice}
        if not sum(_check_number(f"lambda_{name}", weight) for name, weight in self.weights.items()):
            raise ValueError("At least one of lambda_bce, lambda_dice, lambda_tversky, lambda_cldice must be above 0.")
        if not isinstance(cldice_iterations, int) or cldice_iterations < 0:
            raise ValueError(f"cldice_iterations must be a whole number >= 0, not {cldice_iterations!r}.")
        smooth: dict[str, Any] = {"smooth_nr": smooth_nr, "smooth_dr": smooth_dr}
        terms = {
            "bce": torch.nn.BCEWithLogitsLoss(),
            "dice": DiceLoss(sigmoid=True, batch=batch, **smooth),
            "tversky": FocalTverskyLoss(sigmoid=True, alpha=alpha, beta=beta, gamma=gamma, batch=batch, **smooth),
            "cldice": SoftclDiceLoss(sigmoid=True, iter_=cldice_iterations, **smooth),
        }
        self.terms = torch.nn.ModuleDict({name: terms[name] for name, weight in self.weights.items() if weight > 0})

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Compute the weighted sum of the parts.

        Args:
            input: logits (B, C, H, W[, D]).
            target: truth of the same shape.
        """
        parts = self.parts(input, target)
        return torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()

    def parts(self, input: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Compute each term by itself, unweighted: ``bce``, ``dice``, ``tversky``, ``cldice``, as far as their weight > 0.

        Args:
            input: logits (B, C, H, W[, D]).
            target: truth of the same shape.
        """
        if input.shape != target.shape or input.ndim not in (4, 5):
            raise ValueError(
                "input and target must both have the shape (B, C, H, W[, D]), "
                f"not {tuple(input.shape)} and {tuple(target.shape)}; C is the number of labels."
            )
        logits, truth = _plain(input, target)
        low, high = truth.aminmax()
        # Written so that NaN fails too. A mask of 0 and 255 would otherwise drive the cross-entropy below 0, silently.
        if not (low >= 0 and high <= 1):
            raise ValueError(f"target must hold values in [0, 1], not {low.item():g} to {high.item():g}.")
        return {name: term(logits, truth) for name, term in self.terms.items()}


def _plain(input: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain tensors of one type, float32 at least: half precision cannot count the pixels of an image."""
    dtype = torch.promote_types(input.dtype, torch.float32)
    return convert_to_tensor(input, dtype=dtype), convert_to_tensor(target, dtype=dtype)


def _check_number(name: str, value: float, positive: bool = False) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise ValueError(f"{name} must be a finite number {'>' if positive else '>='} 0, not {value!r}.")
    return value
