"""Code exercises of Section 3.4: masks, and drawing a frame pixel by pixel with a cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from framepred.exercises.checking import Case, Exercise, Mistake, WrongAnswer
from framepred.models.layers.masked import MaskedConv2d, causal_mask


def _rows_only(kernel_size: int, kind: str) -> Tensor:
    mask = causal_mask(kernel_size, kind)
    mask[kernel_size // 2, : kernel_size // 2] = 0
    return mask


def _whole_row(kernel_size: int, kind: str) -> Tensor:
    mask = causal_mask(kernel_size, kind)
    mask[kernel_size // 2, kernel_size // 2 + 1 :] = 1
    return mask


MASK = Exercise(
    "3.4-mask",
    "The mask",
    "sec-vpn",
    'mask(kernel_size, kind), with an odd size K and kind "A" or "B"; returns (K, K) of zeros and ones',
    causal_mask,
    lambda seed: [Case(f"a kernel of {k}×{k} and mask {kind}", (k, kind)) for k in (3, 5, 7) for kind in "AB"],
    (
        Mistake(
            "A and B have changed places: A is for the first layer, which must not see the pixel itself; B keeps the centre.",
            lambda k, kind: causal_mask(k, "BA"["AB".index(kind)]),
        ),
        Mistake(
            "mask A lets the centre through. The first layer would then see the very pixel that it has to predict.",
            lambda k, kind: causal_mask(k, "B"),
        ),
        Mistake(
            "mask B leaves the centre out. From the second layer on, the centre holds features of the pixels before, and is allowed.",
            lambda k, kind: causal_mask(k, "A"),
        ),
        Mistake(
            "zeros and ones are exchanged: 1 is for a tap that may be used.", lambda k, kind: 1 - causal_mask(k, kind)
        ),
        Mistake(
            "the mask goes column by column. Raster order goes row by row: all rows above, then what lies left.",
            lambda k, kind: causal_mask(k, kind).T,
        ),
        Mistake(
            "the taps left of the centre, in its own row, are missing. These pixels come before it, too.", _rows_only
        ),
        Mistake(
            "the taps right of the centre, in its own row, are let through. These pixels come after it.", _whole_row
        ),
        Mistake(
            "the mask keeps the future: the rows below and the taps to the right.",
            lambda k, kind: causal_mask(k, kind).flip(0, 1),
        ),
    ),
)

Layer = Callable[[Tensor], Tensor]


class PatchLayer:
    """A masked 3×3 layer that is asked for one pixel at a time, and counts how often.

    Called with the patch (channels, 3, 3) around a pixel, it returns the pixel's value: (features,) with a ReLU for the
    first layer, one logit for the second.
    """

    def __init__(self, conv: MaskedConv2d, last: bool, which: str):
        self.conv, self.last, self.which, self.calls = conv, last, which, 0

    def __call__(self, patch: Tensor) -> Tensor:
        channels = self.conv.weight.shape[1]
        if not isinstance(patch, Tensor) or patch.shape != (channels, 3, 3):
            got = tuple(patch.shape) if isinstance(patch, Tensor) else type(patch).__name__
            raise WrongAnswer(
                f"the {self.which} layer was given {got}; it reads the patch around one pixel, ({channels}, 3, 3). A frame and its features need a margin of one zero on each side, so that pixels on the border have a patch, too."
            )
        self.calls += 1
        return self.at(patch)

    def at(self, patch: Tensor) -> Tensor:
        y = F.conv2d(patch[None, :, :2], self.conv.taps, self.conv.bias)[0, :, 0, 0]
        return y[0] if self.last else y.relu()


def decoder_layers(seed: int = 0, features: int = 4) -> tuple[PatchLayer, PatchLayer]:
    """The two layers of a tiny decoder (mask A, then mask B) with random weights, for the exercise 3.4-sampling."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, second = MaskedConv2d(1, features, 3, "A"), MaskedConv2d(features, 1, 3, "B")
    with torch.no_grad():
        second.weight *= 6  # so that a pixel depends strongly on those before it
    return PatchLayer(first, False, "first"), PatchLayer(second, True, "second")


def _sample_naive(first: PatchLayer, second: PatchLayer, draws: Tensor) -> Tensor:
    """The whole decoder once a pixel: what caching has to agree with."""
    frame = torch.zeros(1, 1, *draws.shape)
    for y in range(draws.shape[0]):
        for x in range(draws.shape[1]):
            logits = second.conv(first.conv(frame).relu())
            frame[0, 0, y, x] = (draws[y, x] < logits[0, 0, y, x].sigmoid()).float()
    return frame[0, 0]


def _sample(
    first: PatchLayer, second: PatchLayer, draws: Tensor,
    columns: bool = False, keep: bool = True, write: bool = True, corner: int = 1, value: Callable | None = None,
) -> Tensor:  # fmt: skip
    """Cached drawing with one thing done differently."""
    H, W = draws.shape
    value = value or (lambda p, u: (u < p).float())
    frame, features = torch.zeros(1, H + 2, W + 2), torch.zeros(len(first.conv.weight), H + 2, W + 2)
    drawn = torch.zeros(H, W)
    pixels = [(y, x) for x in range(W) for y in range(H)] if columns else [(y, x) for y in range(H) for x in range(W)]
    for y, x in pixels:
        at = (slice(None), y + corner, x + corner)
        window = (slice(None), slice(y, y + 3), slice(x, x + 3))
        h = first.at(frame[window])
        features[at] = h
        p = second.at(features[window]).sigmoid()
        if not keep:
            features.zero_()
        drawn[y, x] = value(p, draws[y, x])
        if write:
            frame[at] = drawn[y, x]
    return drawn


def _adapt_sampling(answer: Any) -> Callable:
    def run(first: PatchLayer, second: PatchLayer, draws: Tensor) -> Any:
        counted = [PatchLayer(layer.conv, layer.last, layer.which) for layer in (first, second)]
        drawn = answer(*counted, draws)
        for layer in counted:
            if layer.calls > draws.numel():
                raise WrongAnswer(
                    f"the {layer.which} layer was called {layer.calls} times for {draws.numel()} pixels. What it computed at a pixel never changes afterwards: keep it, and call it once a pixel."
                )
        return drawn

    return run


def _sampling_cases(seed: int) -> list[Case]:
    g = torch.Generator().manual_seed(seed)
    return [
        Case(f"a frame of {h}×{w} pixels", (*decoder_layers(3 * seed + k), torch.rand(h, w, generator=g)))
        for k, (h, w) in enumerate([(5, 6), (8, 5), (7, 7)])
    ]


SAMPLING = Exercise(
    "3.4-sampling",
    "Drawing with a cache",
    "sec-vpn",
    "sample(first, second, draws), with two layers and draws (H, W) in [0, 1); returns (H, W) of zeros and ones",
    _sample_naive,
    _sampling_cases,
    (
        Mistake(
            "the pixels are drawn column by column. The masks are for raster order: row by row, each from left to right.",
            partial(_sample, columns=True),
        ),
        Mistake(
            "black and white are exchanged: a pixel is white with probability p, so where the draw is *below* p.",
            partial(_sample, value=lambda p, u: (u > p).float()),
        ),
        Mistake(
            "these are probabilities, fed back as grey values (mean field). To sample, draw: white where the draw is below p.",
            partial(_sample, value=lambda p, u: p),
        ),
        Mistake(
            "the draws are not used: a pixel is white where p is above 1/2. That gives one frame for ever, and not a sample.",
            partial(_sample, value=lambda p, u: (p > 0.5).float()),
        ),
        Mistake(
            "what is drawn is not fed back: every pixel is drawn as if those before it were black. Write each into the frame that the first layer reads.",
            partial(_sample, write=False),
        ),
        Mistake(
            "the features of the pixels before are lost. Keep what the first layer gave at each pixel, where the second layer can read it.",
            partial(_sample, keep=False),
        ),
        Mistake(
            "the margin is forgotten: pixel (y, x) stands at [y + 1, x + 1] of a map with a margin, and its patch is [y : y + 3, x : x + 3].",
            partial(_sample, corner=0),
        ),
    ),
    _adapt_sampling,
)

EXERCISES = (MASK, SAMPLING)
