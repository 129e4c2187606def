"""A masked decoder, pixel by pixel, with cached activations.

Written plainly (`benchmark.reference.draw_plainly`), for each pixel (y, x) in raster order:

    logits[y, x] = decoder(share, frame)[y, x]
    frame[y, x] = rule(logits[y, x], y, x)

That runs the whole decoder H·W times and uses one value of each run. `draw` gives the same logits and frame, which a test
compares. Two observations make it cheap:

1. What the decoder computed at a pixel never changes afterwards, because nothing after the pixel can reach it. So each
   convolution keeps its inputs, and a new pixel costs one column of activations: a few small matrix products.
2. A pixel needs from the row above only what lies up to `reach` columns to its right, `reach` being the radius of the
   widest kernel. So row y + 1 may follow row y at a distance: all pixels with the same x + (reach + 1)·y are computed
   together. A frame of 64×64 with a 7×7 kernel takes 316 such waves instead of 4,096 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from framepred.models.layers.masked import MaskedConv2d, ResidualBlock

Pixels = Int64[Tensor, " P"]
Rule = Callable[[Float[Tensor, "B P"], Pixels, Pixels], Float[Tensor, "B P"]]


def waves(height: int, width: int, reach: int, device: torch.device | str = "cpu") -> Iterator[tuple[Pixels, Pixels]]:
    """The pixels of a frame as (y, x), in an order in which every pixel comes after all that it may depend on.

    Pixel (y, x) may depend on (y - k, x + k·reach) and what lies left of that, for k = 0, 1, …
    """
    lag = reach + 1
    for wave in range(width + lag * (height - 1)):
        y = torch.arange(max(0, -((width - 1 - wave) // lag)), min(height - 1, wave // lag) + 1, device=device)
        if len(y):  # a narrow frame has waves without pixels
            yield y, wave - lag * y


class CachedConv2d:
    """A masked convolution that is given its input, and asked for its output, at a few pixels at a time."""

    def __init__(self, conv: MaskedConv2d, size: tuple[int, int, int]):
        B, H, W = size
        above, side = conv.rows - 1, conv.kernel_size // 2
        C_in, K = conv.weight.shape[1], conv.kernel_size
        self.input = conv.weight.new_zeros(B, H + above, W + 2 * side, C_in)
        # windows[:, y, x] are the inputs under the kernel at (y, x): a view, of runs of K pixels in each row.
        b, row, pixel, channel = self.input.stride()
        self.windows = self.input.as_strided((B, H, W, conv.rows, K * C_in), (b, row, pixel, row, channel))
        self.weight = conv.taps.permute(0, 2, 3, 1).flatten(1)
        self.bias = conv.bias
        self.above, self.side = above, side

    def write(self, y: Pixels, x: Pixels, value: Float[Tensor, "B P I"]) -> None:
        self.input[:, y + self.above, x + self.side] = value

    def read(self, y: Pixels, x: Pixels) -> Float[Tensor, "B P O"]:
        return F.linear(self.windows[:, y, x].flatten(2), self.weight, self.bias)


class CachedBlock:
    """A residual block on columns of activations; only its masked convolution has anything to remember."""

    def __init__(self, block: ResidualBlock, size: tuple[int, int, int]):
        self.reduce, self.expand = _matrix(block.reduce), _matrix(block.expand)
        self.spatial = CachedConv2d(cast(MaskedConv2d, block.spatial), size)

    def __call__(self, h: Float[Tensor, "B P C"], y: Pixels, x: Pixels) -> Float[Tensor, "B P C"]:
        self.spatial.write(y, x, F.linear(F.relu(h), *self.reduce).relu_())
        return h + F.linear(self.spatial.read(y, x).relu_(), *self.expand)


@torch.no_grad()
def draw(
    first: MaskedConv2d,
    blocks: list[ResidualBlock],
    head: list[nn.Conv2d],
    share: Float[Tensor, "B C H W"],
    rule: Rule,
) -> tuple[Float[Tensor, "B 1 H W"], Float[Tensor, "B 1 H W"]]:
    """Draw a frame pixel by pixel.

    Args:
        first: the decoder's first layer, which reads the frame.
        blocks: its residual blocks.
        head: its last layers, 1×1 convolutions with a ReLU before each.
        share: what the frames before contribute to the first layer's output.
        rule: the values of pixels (y, x), given the logits there.

    Returns:
        The logits, each computed from the pixels drawn before it, and the frame.
    """
    B, _, H, W = share.shape
    frame = CachedConv2d(first, (B, H, W))
    stack = [CachedBlock(block, (B, H, W)) for block in blocks]
    layers = [_matrix(layer) for layer in head]
    share = share.permute(0, 2, 3, 1).contiguous()
    logits, drawn = share.new_zeros(2, B, H, W)
    for y, x in waves(H, W, frame.side, share.device):
        h = share[:, y, x] + frame.read(y, x)
        for block in stack:
            h = block(h, y, x)
        for weight, bias in layers:
            h = F.linear(F.relu(h), weight, bias)
        logits[:, y, x] = h[..., 0]
        drawn[:, y, x] = value = rule(h[..., 0], y, x)
        frame.write(y, x, value[..., None])
    return logits[:, None], drawn[:, None]


def _matrix(conv: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    """A 1×1 convolution as the weight and bias of a linear layer."""
    return conv.weight.flatten(1), conv.bias
