"""What one guesses without a network: the mean image, the last frame again, the last frame moved on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from framepred.data.moving import MovingDigits
from framepred.models.base import Forecast, FramePredictor

LEVELS = 16  # grey levels that a calibration tells apart
BATCH = 50  # clips in memory while fitting
ROUNDS = 40  # of Newton's method; from the mean image, it has settled after about ten


class MeanImage(FramePredictor):
    """Predicts the mean frame, whatever it sees: what one knows about a pixel from its place alone.

    The probability of a pixel is (its sum over N frames + 1/2) / (N + 1) (Krichevsky and Trofimov 1981), so that a
    pixel that was always black does not get probability 0.
    """

    network = "mean-image"

    def __init__(self, frame_size: int = 64):
        super().__init__()
        self.logit: Tensor
        self.register_buffer("logit", torch.zeros(1, frame_size, frame_size))

    @classmethod
    def fit(cls, clips: MovingDigits, n: int = 1000, seed: int = 0) -> MeanImage:
        """The mean over all frames of clips 0, …, n - 1 of a seed."""
        model = cls(clips.frame_size)
        total = torch.zeros(1, clips.frame_size, clips.frame_size, dtype=torch.float64)
        for batch in clips.batches(n, BATCH, seed):
            total += batch.frames.double().sum((0, 1))
        model.logit.copy_(((total + 0.5) / (n * clips.n_frames + 1)).logit())
        return model

    def forecast(self, context, horizon, truth=None, truth_mask=None) -> Forecast:
        _same_size(self.logit, context)
        return Forecast(self.logit.expand(len(context), horizon, -1, -1, -1))


class _Calibrated(FramePredictor):
    """A guess at the frame in t steps, made a probability.

    A guess is a picture in [0, 1] that says where the ink should be. Taken for a probability it would cost infinitely
    many nats wherever it is sure and wrong. What a pixel is worth depends on how bright the guess is, how far ahead
    it looks and where the pixel is, so

        logit p = a[t, level] + b[t, level] · (logit of the mean image there)

    with the guess rounded to one of 16 levels. This is a logistic regression for each t and level, fitted to training
    clips by counting. b = 0 gives the plain map from grey value to probability; a = 0 and b = 1 gives the mean image.
    So on clips like those it was fitted to, a calibrated guess is never worse than the mean image, however wrong.
    """

    reads: int = 1  # how many of the last frames a guess is made from

    def __init__(self, frame_size: int = 64, horizon: int = 10):
        super().__init__()
        self.mean: Tensor
        self.a: Tensor
        self.b: Tensor
        self.register_buffer("mean", torch.zeros(1, frame_size, frame_size))
        self.register_buffer("a", torch.zeros(horizon, LEVELS))
        self.register_buffer("b", torch.ones(horizon, LEVELS))

    def guess(self, context: Float[Tensor, "B C 1 H W"], horizon: int) -> Float[Tensor, "B T 1 H W"]:
        """Where the ink will be in 1 to `horizon` steps, in [0, 1]."""
        raise NotImplementedError

    @classmethod
    @torch.no_grad()
    def fit(cls, clips: MovingDigits, n: int = 1000, context: int = 10, seed: int = 0) -> _Calibrated:
        """Fitted to clips 0, …, n - 1 of a seed: to what they show in each frame after the first `context`."""
        if not 1 <= context < clips.n_frames:
            raise ValueError(f"context is {context}; clips of {clips.n_frames} frames have 1 to {clips.n_frames - 1}")
        horizon, pixels = clips.n_frames - context, clips.frame_size**2
        model = cls(clips.frame_size, horizon)
        model.mean.copy_(MeanImage.fit(clips, n, seed).logit)
        cells = torch.arange(horizon)[:, None] * LEVELS * pixels + torch.arange(pixels)  # one for each t, level, place
        count = torch.zeros(horizon * LEVELS * pixels, dtype=torch.float64)
        white = torch.zeros_like(count)
        for batch in clips.batches(n, BATCH, seed):
            seen, target = batch.split(context)
            level = _level(model.guess(seen, horizon)).flatten(2)
            cell = (cells + level * pixels).flatten()
            count += torch.bincount(cell, minlength=len(count))
            white += torch.bincount(cell, target.double().flatten(), minlength=len(count))
        shape = horizon, LEVELS, pixels
        a, b = _logistic_regression(model.mean.double().flatten(), white.reshape(shape), count.reshape(shape))
        model.a.copy_(a)
        model.b.copy_(b)
        return model

    def forecast(self, context, horizon, truth=None, truth_mask=None) -> Forecast:
        _same_size(self.mean, context)
        if truth is None:
            if horizon > len(self.a):
                raise ValueError(f"horizon is {horizon}; this {self.network} was fitted to {len(self.a)} frames")
            return Forecast(self.calibrate(self.guess(context, horizon)))
        # Every true frame is one step ahead of the frames before it.
        C = context.shape[1]
        frames = torch.cat([context, truth], 1)
        reads = min(self.reads, C)
        windows = torch.stack([frames[:, C + t - reads : C + t] for t in range(horizon)], 1)
        logits = [self.calibrate(self.guess(part, 1)) for part in windows.flatten(0, 1).split(500)]
        return Forecast(torch.cat(logits).reshape(truth.shape))

    def calibrate(self, guess: Float[Tensor, "B T 1 H W"]) -> Float[Tensor, "B T 1 H W"]:
        """The logits that go with a guess."""
        level = _level(guess)
        steps = torch.arange(guess.shape[1], device=guess.device)[:, None, None, None]
        return self.a[steps, level] + self.b[steps, level] * self.mean


class CalibratedCopy(_Calibrated):
    """The last frame again: all that one knows without an idea of motion."""

    network = "calibrated-copy"

    def guess(self, context, horizon):
        return context[:, -1:].expand(-1, horizon, -1, -1, -1)


class ConstantVelocity(_Calibrated):
    """The last frame, moved on: every bit of ink keeps the velocity that it had in the last few frames.

    Block matching with a soft choice. A velocity is a displacement a frame, in whole pixels, up to
    `MAX_SPEED`. Its cost in a block of the last frame is the mean absolute difference between a window around the block
    and the same window in each of the `LOOK_BACK` frames before, 1, 2, … displacements back. The ink of a block goes
    ahead with all velocities at once, in shares exp(-cost / `TEMPERATURE`), so that where the velocity is uncertain the
    guess is blurred. The constants were chosen on training digits.

    What it does not know: that there are digits, how many, and where they end; that all of a digit moves alike; that
    digits turn back at the walls (its ink leaves the frame). It knows how fast ink can be, and the mean image.
    """

    network = "constant-velocity"

    MAX_SPEED, LOOK_BACK, BLOCK, WINDOW, TEMPERATURE = 5, 2, 8, 24, 0.03
    divisor = BLOCK
    reads = LOOK_BACK + 1

    def guess(self, context, horizon):
        frames = context[:, -self.reads :, 0].float().flip(1)
        last, past = frames[:, 0], frames[:, 1:].unbind(1)
        margin = (self.WINDOW - self.BLOCK) // 2
        pixels = range(-self.MAX_SPEED, self.MAX_SPEED + 1)
        velocities = [(x, y) for x in pixels for y in pixels if x**2 + y**2 <= self.MAX_SPEED**2]
        costs = []
        for x, y in velocities:
            difference = torch.zeros_like(last)
            for k, frame in enumerate(past, 1):
                to, from_ = _moved_by(k * x, k * y, last.shape)
                difference += last
                difference[to] -= last[to] - (last[to] - frame[from_]).abs_()
            costs.append(F.avg_pool2d(difference, self.WINDOW, self.BLOCK, margin))
        shares = (torch.stack(costs) / (-self.TEMPERATURE * max(len(past), 1))).softmax(0)
        ahead = last.new_zeros(len(last), horizon, *last.shape[1:])
        for (x, y), share in zip(velocities, shares):
            ink = last * share.repeat_interleave(self.BLOCK, 1).repeat_interleave(self.BLOCK, 2)
            for t in range(horizon):
                to, from_ = _moved_by((t + 1) * x, (t + 1) * y, last.shape)
                ahead[:, t][to] += ink[from_]
        return ahead.clamp_(0, 1)[:, :, None]


def _moved_by(x: int, y: int, shape: torch.Size) -> tuple[tuple, tuple]:
    """Where the pixels of a frame go and come from if it moves by (x, y), without those that leave it."""
    to: list = [...]
    from_: list = [...]
    for step, size in ((y, shape[-2]), (x, shape[-1])):
        to.append(slice(max(step, 0), max(size + min(step, 0), 0)))
        from_.append(slice(max(-step, 0), max(size - max(step, 0), 0)))
    return tuple(to), tuple(from_)


def _level(guess: Tensor) -> Tensor:
    return (guess * (LEVELS - 1)).round().long()


def _logistic_regression(x: Tensor, white: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """a and b of the regressions logit p = a + b·x by Newton's method: (P,), (..., P), (..., P) -> (...), (...).

    `white` is the sum of the targets of `count` pixels, so grey targets count in part. A weak pull towards a = 0, b = 1
    keeps levels that never occurred at the mean image.
    """
    a, b = torch.zeros_like(count[..., 0]), torch.ones_like(count[..., 0])
    for _ in range(ROUNDS):
        p = (a[..., None] + b[..., None] * x).sigmoid()
        error, curvature = count * p - white, count * p * (1 - p)
        ga, gb = error.sum(-1) + a, (error * x).sum(-1) + b - 1
        haa, hab, hbb = curvature.sum(-1) + 1, (curvature * x).sum(-1), (curvature * x**2).sum(-1) + 1
        determinant = haa * hbb - hab**2
        # Full steps can overshoot where a level is nearly always black or white.
        a = a - ((hbb * ga - hab * gb) / determinant).clamp(-1, 1)
        b = b - ((haa * gb - hab * ga) / determinant).clamp(-1, 1)
    return a, b


def _same_size(fitted: Tensor, context: Tensor) -> None:
    if fitted.shape[-2:] != context.shape[-2:]:
        raise ValueError(
            f"context has frames of {context.shape[-2]}×{context.shape[-1]} pixels; this baseline was fitted to "
            f"{fitted.shape[-2]}×{fitted.shape[-1]}"
        )
