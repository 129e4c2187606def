"""Convolutions that see only the pixels before a pixel, and the residual block of the Video Pixel Network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def causal_mask(kernel_size: int, kind: str) -> Float[Tensor, "K K"]:
    """Mask A or B of van den Oord et al. 2016 (T Eq. 3.11 and 3.12): 1 for a tap that may be used.

    Both keep the rows above the centre and the taps to its left. Mask B keeps the centre too: from the second layer on,
    a pixel's features know nothing of the pixel itself, only of the ones before it.
    """
    if kind not in ("A", "B"):
        raise ValueError(f"unknown mask {kind!r}; known: A (without the centre), B (with it)")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}; a mask needs an odd one, which has a centre")
    mask, centre = torch.zeros(kernel_size, kernel_size), kernel_size // 2
    mask[:centre] = 1
    mask[centre, : centre + (kind == "B")] = 1
    return mask


class MaskedConv2d(nn.Module):
    """A convolution whose value at a pixel depends only on pixels before it in raster order, with `mask` B also on it.

    The kernel is stored whole, so that parameter counts include the masked taps, as the thesis' count does. The rows
    below the centre are never computed with; the taps right of the centre are multiplied by zero. Whatever value an
    optimiser gives to a masked tap, it has no effect.
    """

    mask: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, mask: str, dilation: int = 1, bias: bool = True
    ):
        super().__init__()
        plain = nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias)  # for its initial weights
        self.weight, self.bias = plain.weight, plain.bias
        self.kind, self.kernel_size, self.dilation = mask, kernel_size, dilation
        self.rows = kernel_size // 2 + 1  # of the kernel that are computed with
        self.register_buffer("mask", causal_mask(kernel_size, mask)[: self.rows], persistent=False)

    def extra_repr(self) -> str:
        C_out, C_in, K, _ = self.weight.shape
        return f"{C_in}, {C_out}, kernel_size={K}, mask={self.kind}, dilation={self.dilation}, bias={self.bias is not None}"

    @property
    def taps(self) -> Float[Tensor, "O I R K"]:
        """The rows of the kernel that are used, zero where masked."""
        return self.weight[:, :, : self.rows] * self.mask

    def forward(self, x: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O H W"]:
        above, side = self.dilation * (self.rows - 1), self.dilation * (self.kernel_size // 2)
        # Padded above and below alike; the values of the rows that this adds below are cut off.
        y = F.conv2d(x, self.taps, self.bias, padding=(above, side), dilation=self.dilation)
        return y[:, :, : x.shape[2]]


class ResidualBlock(nn.Module):
    """x plus a bottleneck of three convolutions, each after a ReLU (T Fig. 3.4; He et al. 2016).

        1×1, c -> c/2;   3×3, c/2 -> c/2;   1×1, c/2 -> c

    Args:
        channels: c, even.
        mask: "B" masks the 3×3 convolution; None does not.
        dilation: of the 3×3 convolution.
    """

    def __init__(self, channels: int, mask: str | None = None, dilation: int = 1):
        super().__init__()
        if channels % 2:
            raise ValueError(f"channels is {channels}; the bottleneck halves it, so it must be even")
        half = channels // 2
        self.reduce = nn.Conv2d(channels, half, 1)
        self.spatial: nn.Module = (
            nn.Conv2d(half, half, 3, padding=dilation, dilation=dilation)
            if mask is None
            else MaskedConv2d(half, half, 3, mask, dilation)
        )
        self.expand = nn.Conv2d(half, channels, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        y = self.reduce(F.relu(x))
        y = self.spatial(F.relu(y))
        return x + self.expand(F.relu(y))
