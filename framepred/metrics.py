"""Measures of a predicted frame. All take (B, T, 1, H, W) batches and return one number a frame, (B, T)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def cross_entropy(logits: Float[Tensor, "B T 1 H W"], target: Float[Tensor, "B T 1 H W"]) -> Float[Tensor, "B T"]:
    """Nats per frame: -Σ over pixels of t·ln p + (1 - t)·ln(1 - p), with p = sigmoid(logits) and t the grey target.

    The thesis' error (its footnote 1), summed and not averaged over the pixels. Computed from logits in float32, so
    that it stays finite where p rounds to 0 or 1.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none").sum((2, 3, 4))


def entropy_floor(target: Float[Tensor, "B T 1 H W"]) -> Float[Tensor, "B T"]:
    """The least cross-entropy, in nats per frame, that any prediction can reach: that of the target itself.

    It is not zero because targets are grey: -Σ t·ln t + (1 - t)·ln(1 - t).
    """
    target = target.float()
    return (torch.special.entr(target) + torch.special.entr(1 - target)).sum((2, 3, 4))


def squared_error(frames: Float[Tensor, "B T 1 H W"], target: Float[Tensor, "B T 1 H W"]) -> Float[Tensor, "B T"]:
    """Σ over pixels of (p - t)². By Pinsker's inequality, cross_entropy >= entropy_floor + 2·squared_error."""
    return (frames.float() - target.float()).square().sum((2, 3, 4))


def absolute_error(frames: Float[Tensor, "B T 1 H W"], target: Float[Tensor, "B T 1 H W"]) -> Float[Tensor, "B T"]:
    """Σ over pixels of |p - t|."""
    return (frames.float() - target.float()).abs().sum((2, 3, 4))


def ssim(frames: Float[Tensor, "B T 1 H W"], target: Float[Tensor, "B T 1 H W"]) -> Float[Tensor, "B T"]:
    """Structural similarity (Wang et al. 2004), 1 for equal frames; Gaussian window of 11 px, by torchmetrics."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(
        frames.float().flatten(0, 1), target.float().flatten(0, 1), data_range=1.0, reduction="none"
    )
    assert isinstance(value, Tensor)  # a tuple only where the full image is asked for
    return value.reshape(target.shape[:2])


def psnr(frames: Float[Tensor, "B T 1 H W"], target: Float[Tensor, "B T 1 H W"]) -> Float[Tensor, "B T"]:
    """Peak signal-to-noise ratio in decibels, by torchmetrics; infinite for equal frames."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    value = peak_signal_noise_ratio(
        frames.float().flatten(0, 1), target.float().flatten(0, 1), data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    return value.reshape(target.shape[:2])
