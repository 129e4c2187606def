"""What does a predicted glyph look like? A small classifier of digits and letters, trained on the spot.

It judges predictions, so it has to cope with what they do to glyphs: training blurs, shifts, shears, thins, thickens and
fades them. It has seen the glyphs of `digits` and `letters` only, and says which of these classes a window is most like,
whatever the window shows: for a shapeless smear the probabilities mean little.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from framepred.data.glyphs import GLYPH_SIZE, GlyphSet

STEPS, BATCH = 450, 96
MOST_BLUR = 2.0  # standard deviation in pixels; beyond it the strokes of an 8 close
SIGMAS = tuple(k / 5 for k in range(1, 41))  # blurs that a control tries: 0.2 to 8 px


class GlyphClassifier(nn.Module):
    """Three convolutions and a linear layer over digits and letters. Made by `train_glyph_classifier`.

    `classes` are the characters, the digits first; `n_digit_classes` is how many of them are digits.
    """

    def __init__(self, classes: tuple[str, ...], n_digit_classes: int):
        super().__init__()
        self.classes, self.n_digit_classes = classes, n_digit_classes
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(64 * 3 * 3, len(classes)))

    def logits(self, windows: Float[Tensor, "N 28 28"]) -> Float[Tensor, "N K"]:
        """Unnormalised log-probabilities of the classes."""
        return self.head(self.features(windows[:, None]).flatten(1))

    @torch.no_grad()
    def forward(self, windows: Float[Tensor, "N 28 28"] | UInt8[Tensor, "N 28 28"]) -> Float[Tensor, "N K"]:
        """Probabilities of the classes, for windows in [0, 1] (or bytes) such as `cut_windows` gives."""
        if windows.dtype == torch.uint8:
            windows = windows.float() / 255
        if not ((windows >= 0) & (windows <= 1)).all():
            raise ValueError(
                "windows hold values outside [0, 1]; expected grey values, such as Forecast.frames, not logits"
            )
        return self.logits(windows.float()).softmax(1)

    def p_digit(self, windows: Float[Tensor, "N 28 28"] | UInt8[Tensor, "N 28 28"]) -> Float[Tensor, " N"]:
        """The probability that a window shows a digit, no matter which. Half of the training glyphs were digits."""
        return self(windows)[:, : self.n_digit_classes].sum(1)


def cut_windows(
    frames: Float[Tensor, "B T 1 H W"], positions: Int64[Tensor, "B T G 2"]
) -> Float[Tensor, "B T G 28 28"]:
    """The part of each frame where each glyph is: windows of 28×28 px whose top left corners are at (x, y) = positions.

    For a prediction, with the true positions of the predicted frames: `cut_windows(forecast.frames, positions[:, 10:])`.
    """
    B, T = positions.shape[:2]
    size = torch.tensor([frames.shape[-1], frames.shape[-2]], device=positions.device)
    if frames.shape[:2] != (B, T) or not ((positions >= 0) & (positions <= size - GLYPH_SIZE)).all():
        raise ValueError(
            f"positions of shape {tuple(positions.shape)} do not lie in frames of shape {tuple(frames.shape)}; "
            "expected one for each frame and glyph, such that the window is inside"
        )
    offset = torch.arange(GLYPH_SIZE, device=frames.device)
    x = positions[..., 0, None, None] + offset
    y = positions[..., 1, None, None] + offset[:, None]
    b = torch.arange(B, device=frames.device)[:, None, None, None, None]
    t = torch.arange(T, device=frames.device)[:, None, None, None]
    return frames[b, t, 0, y, x]


def train_glyph_classifier(digits: GlyphSet, letters: GlyphSet, seed: int = 0, steps: int = STEPS) -> GlyphClassifier:
    """Train a classifier of digits and letters; about fifteen seconds on one CPU core.

    Half of each batch are digits and half letters, and within each half all characters are equally likely, however many
    drawings of each there are. The same seed on the same machine gives the same classifier.

    Args:
        digits: glyphs that are digits, such as `load_digits("mnist", "train")`.
        letters: glyphs that are none, such as `load_digits("omniglot-latin", "train")`. Judge predictions of glyphs by
            other hands only: clips of `omniglot-1` are made of the test part.
        seed: of the initial weights, the order of the glyphs and their distortions.
        steps: batches of 96 glyphs.
    """
    both = set(digits.classes) & set(letters.classes)
    if both:
        raise ValueError(f"{', '.join(sorted(both))} is a digit and a letter; expected sources without a common class")
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected at least 1")
    images = torch.cat([digits.images, letters.images])
    labels = torch.cat([digits.labels, letters.labels + len(digits.classes)])
    count = torch.bincount(labels, minlength=len(digits.classes) + len(letters.classes))
    is_digit = labels < len(digits.classes)
    present = torch.stack([(count[: len(digits.classes)] > 0).sum(), (count[len(digits.classes) :] > 0).sum()])
    weight = 1 / (count[labels] * present[(~is_digit).long()])

    generator = torch.Generator().manual_seed(seed)
    chosen = torch.multinomial(weight.double(), steps * BATCH, replacement=True, generator=generator)
    with torch.random.fork_rng(devices=[]):  # the initial weights and dropout take torch's global random numbers
        torch.manual_seed(seed)
        model = GlyphClassifier((*digits.classes, *letters.classes), len(digits.classes))
        optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
        for batch in chosen.view(steps, BATCH):
            windows = distort(images[batch].float() / 255, generator)
            loss = F.cross_entropy(model.logits(windows), labels[batch], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


# --- what predictions do to glyphs -----------------------------------------------------------------------------------


def distort(windows: Float[Tensor, "N 28 28"], generator: torch.Generator) -> Float[Tensor, "N 28 28"]:
    """Glyphs as a drawer with another hand and a network with a poor memory would show them.

    Each is rotated, sheared, scaled and shifted a little, made bolder or thinner, and half of them are blurred and faded.
    """
    n = len(windows)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    angle, shear = uniform(-0.15, 0.15), uniform(-0.15, 0.15)
    width, height = uniform(0.9, 1.15), uniform(0.9, 1.15)
    dx, dy = (uniform(-2.0, 2.0) * 2 / GLYPH_SIZE for _ in range(2))
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(n, 2, 2)
    lean = torch.stack([width, shear, torch.zeros(n), height], 1).view(n, 2, 2)
    theta = torch.cat([turn @ lean, torch.stack([dx, dy], 1)[:, :, None]], 2)
    grid = F.affine_grid(theta, [n, 1, GLYPH_SIZE, GLYPH_SIZE], align_corners=False)
    moved = F.grid_sample(windows[:, None], grid, align_corners=False)
    bold = F.max_pool2d(moved, 3, 1, 1)
    thin = -F.max_pool2d(-moved, 3, 1, 1)
    # From a pixel of erosion over the glyph as it is to a pixel of dilation: stroke width must not tell the sources apart.
    pen = uniform(-0.3, 0.3)[:, None, None, None]
    moved = torch.where(pen > 0, moved + pen * (bold - moved), moved - pen * (thin - moved))
    sigma = uniform(-MOST_BLUR, MOST_BLUR)
    fade = torch.where(sigma > 0, uniform(0.5, 1.0), torch.ones(n))
    return (blur(moved[:, 0], sigma.clamp(min=0.05)) * fade[:, None, None]).clamp(0, 1)


def blur(windows: Float[Tensor, "N 28 28"], sigma: Float[Tensor, " N"]) -> Float[Tensor, "N 28 28"]:
    """Each window convolved with a Gaussian of its own standard deviation in pixels, above 0; zeros outside."""
    place = torch.arange(GLYPH_SIZE, dtype=windows.dtype, device=windows.device)
    kernel = torch.exp(-((place[:, None] - place) ** 2) / (2 * sigma[:, None, None] ** 2))
    kernel = kernel / kernel.sum(2).amax(1)[:, None, None]
    return kernel @ windows @ kernel


def blurred_to_match(
    glyphs: Float[Tensor, "N 28 28"], windows: Float[Tensor, "N T 28 28"]
) -> tuple[Float[Tensor, "N T 28 28"], Float[Tensor, "N T"]]:
    """Each true glyph, blurred and faded until it is as near to a window as blur and fading can make it.

    What a network that knew the glyph, and did nothing to it but blur, would have shown: the control for what a
    classifier reads in its windows. Nearest in squared error; the glyph stays at its place.

    Returns:
        The glyphs so treated, and the standard deviations of their blur in pixels (one of `SIGMAS`).
    """
    N, T = windows.shape[:2]
    tried = torch.stack([blur(glyphs, glyphs.new_full((N,), sigma)) for sigma in SIGMAS], 1)
    likeness = torch.einsum("nsij,ntij->nts", tried, windows)
    energy = tried.square().sum((2, 3))[:, None].clamp_min(1e-12)
    fade = (likeness / energy).clamp(0, 1)
    best = (fade**2 * energy - 2 * fade * likeness).argmin(2)
    n, t = torch.arange(N)[:, None], torch.arange(T)
    matched = tried[n, best] * fade[n, t, best][..., None, None]
    return matched.clamp(0, 1), glyphs.new_tensor(SIGMAS)[best]
