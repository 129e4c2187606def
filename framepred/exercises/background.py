"""Code exercises of Chapter 2: a convolution, a residual block, the flow of a window."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from framepred.exercises.checking import Case, Exercise, Mistake
from framepred.models.layers.masked import ResidualBlock

# --- 2.2 -------------------------------------------------------------------------------------------------------------


def correlate(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    return F.conv2d(x[None], weight, padding=weight.shape[-1] // 2, stride=stride)[0]


def _padded(x: Tensor, weight: Tensor, stride: int, mode: str, before: int, after: int) -> Tensor:
    return F.conv2d(F.pad(x[None], (before, after, before, after), mode=mode), weight, stride=stride)[0]


def _convolution_cases(seed: int) -> list[Case]:
    g = torch.Generator().manual_seed(seed)

    def random(M: int, N: int, K: int) -> tuple[Tensor, Tensor]:
        return torch.rand(M, 7, 9, generator=g), torch.randn(N, M, K, K, generator=g)

    dot = torch.zeros(1, 5, 6)
    dot[0, 2, 3] = 1
    size = "right for kernels of 3×3, wrong for 5×5. Is a 1 or a 3 typed where K // 2 or K belongs?"
    stride = "right for stride 1 only. With stride s, the patches start at rows and columns 0, s, 2s, … of the padded picture."
    return [
        Case("a picture with one white pixel", (dot, torch.arange(9.0).reshape(1, 1, 3, 3), 1)),
        Case("a picture of 2 channels, to 3 channels", (*random(2, 3, 3), 1)),
        Case("a kernel of 5×5", (*random(2, 1, 5), 1), size),
        Case("stride 2", (*random(2, 3, 3), 2), stride),
        Case("stride 3", (*random(1, 2, 3), 3), stride),
    ]


CONVOLUTION = Exercise(
    "2.2-convolution",
    "The convolution",
    "sec-convolution",
    "convolve(x, weight, stride), with x (M, H, W) and weight (N, M, K, K), K odd; returns (N, rows, columns)",
    correlate,
    _convolution_cases,
    (
        Mistake(
            "the kernel lies on the picture turned by 180°. That is the mathematicians' convolution. A layer of a network does not turn it: the top left weight meets the top left pixel of the patch.",
            lambda x, weight, stride: correlate(x, weight.flip(2, 3), stride),
        ),
        Mistake(
            "rows and columns of the kernel are exchanged: weight[n, m, i, j] belongs to the pixel i rows down and j columns to the right.",
            lambda x, weight, stride: correlate(x, weight.transpose(2, 3), stride),
        ),
        Mistake(
            "the result is too small: at the border the kernel has no pixels to lie on. Surround the picture with K // 2 zeros on every side first.",
            lambda x, weight, stride: _padded(x, weight, stride, "constant", 0, 0),
        ),
        Mistake(
            "wrong at the border only: outside the picture all is zero. Yours repeats the outermost pixels.",
            lambda x, weight, stride: _padded(x, weight, stride, "replicate", *[weight.shape[-1] // 2] * 2),
        ),
        Mistake(
            "the picture is moved: the kernel's corner lies on the pixel, not its centre. The patch of pixel (y, x) begins K // 2 before it.",
            lambda x, weight, stride: _padded(x, weight, stride, "constant", 0, weight.shape[-1] - 1),
        ),
        Mistake(
            "the stride is not used: every pixel has a patch. With stride s, every s-th row and column has one.",
            lambda x, weight, stride: correlate(x, weight, 1),
        ),
        Mistake(
            "only the first input channel is used. Each output channel adds up what its M kernels find in the M input channels.",
            lambda x, weight, stride: correlate(x[:1], weight[:, :1], stride),
        ),
        Mistake(
            "the products are averaged. A convolution adds them.",
            lambda x, weight, stride: correlate(x, weight / weight[0].numel(), stride),
        ),
    ),
)

# --- 2.3 -------------------------------------------------------------------------------------------------------------


def residual(x: Tensor, reduce, spatial, expand) -> Tensor:
    return x + expand(F.relu(spatial(F.relu(reduce(F.relu(x))))))


def _block_reference(x: Tensor, reduce, spatial, expand) -> Tensor:
    block = ResidualBlock(x.shape[1])
    block.reduce, block.spatial, block.expand = reduce, spatial, expand
    return block(x)


def _block_cases(seed: int) -> list[Case]:
    cases = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for channels, what in ((4, "a random block of 4 channels"), (6, "a random block of 6 channels")):
            block = ResidualBlock(channels)
            layers = (block.reduce, block.spatial, block.expand)
            cases.append(Case(what, (torch.randn(2, channels, 5, 5), *layers)))
    return cases


RESIDUAL = Exercise(
    "2.3-residual-block",
    "The residual block",
    "sec-depth",
    "residual(x, reduce, spatial, expand), with x (B, C, H, W) and three layers; returns (B, C, H, W)",
    _block_reference,
    _block_cases,
    (
        Mistake(
            "the shortcut is missing: this is F(x), a plain stack of three layers. Add x to it.",
            lambda x, *layers: residual(x, *layers) - x,
        ),
        Mistake(
            "the shortcut carries ReLU(x), not x. Did the first ReLU overwrite x (`relu_`, `inplace=True`, `x = relu(x)`)? The shortcut has to pass the signal on untouched.",
            lambda x, *layers: residual(x, *layers) - x + F.relu(x),
        ),
        Mistake(
            "each ReLU stands after its layer. In this block it stands before (pre-activation): ReLU, reduce, ReLU, spatial, ReLU, expand. So nothing cuts the sum.",
            lambda x, reduce, spatial, expand: x + F.relu(expand(F.relu(spatial(F.relu(reduce(x)))))),
        ),
        Mistake(
            "the sum goes through a ReLU. Then the stream can never be negative. In this block nothing comes after the sum.",
            lambda x, *layers: F.relu(residual(x, *layers)),
        ),
        Mistake(
            "the first ReLU is missing: reduce, too, reads ReLU(x).",
            lambda x, reduce, spatial, expand: x + expand(F.relu(spatial(F.relu(reduce(x))))),
        ),
        Mistake(
            "there is no ReLU anywhere, so the three layers are one linear map. Each layer needs one before it.",
            lambda x, reduce, spatial, expand: x + expand(spatial(reduce(x))),
        ),
    ),
)

# --- 2.5 -------------------------------------------------------------------------------------------------------------


def window_flow(I_x: Tensor, I_y: Tensor, change: Tensor) -> Tensor:
    slopes = torch.stack([I_x.flatten(), I_y.flatten()], 1)
    return torch.linalg.lstsq(slopes, change.flatten()[:, None]).solution[:, 0]


def _window_cases(seed: int) -> list[Case]:
    g = torch.Generator().manual_seed(seed)
    I_x, I_y, noise = torch.randn(3, 7, 7, generator=g)
    I_y = I_y + 0.5 * I_x  # slopes of a stroke are related
    corner = tuple(torch.tensor(values).reshape(1, 2) for values in ([1.0, 0.0], [0.0, 1.0], [2.0, -1.0]))
    return [
        Case("a window with one slope in x and one in y", corner),
        Case("a window that moves by one flow", (I_x, I_y, 1.5 * I_x - 0.75 * I_y)),
        Case("a noisy window", (I_x, I_y, 0.5 * I_x + 2 * I_y + 0.3 * noise),
             "right where all equations hold exactly, wrong on a noisy window. Use all pixels: least squares, not the first two equations."),
    ]  # fmt: skip


def _apart(I_x: Tensor, I_y: Tensor, change: Tensor) -> Tensor:
    return torch.stack([(slope * change).sum() / slope.square().sum() for slope in (I_x, I_y)])


LUCAS_KANADE = Exercise(
    "2.5-lucas-kanade",
    "The flow of a window",
    "sec-flow",
    "window_flow(I_x, I_y, change), three windows (K, L); returns the flow (x, y) as a tensor (2,)",
    window_flow,
    _window_cases,
    (
        Mistake(
            "the sign is turned: this is the motion. The flow is the look-up displacement of out(p) = in(p + flow), so slopes times flow = `change`, without a minus.",
            lambda *window: -window_flow(*window),
        ),
        Mistake("x and y are exchanged: the flow is (x, y).", lambda *window: window_flow(*window).flip(0)),
        Mistake(
            "x and y are solved apart, as if the other were zero. The sum of I_x·I_y couples them: solve the 2×2 system as a whole.",
            _apart,
        ),
        Mistake(
            "this is the right side of the system, Σ slope·change. It has still to be solved with the matrix A.",
            lambda I_x, I_y, change: torch.stack([(I_x * change).sum(), (I_y * change).sum()]),
        ),
    ),
)

EXERCISES = (CONVOLUTION, RESIDUAL, LUCAS_KANADE)
