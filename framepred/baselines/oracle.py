"""The oracle: given the glyphs, it finds how they moved and moves them on. What perfect shape memory would reach."""

from __future__ import annotations

import copy
import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from framepred.data.glyphs import GLYPH_SIZE
from framepred.data.moving import Clips
from framepred.data.rendering import render
from framepred.models.base import Forecast, FramePredictor

CUTS = (0.1, 0.3, 0.5, 0.7, 0.9)  # greys at which frames and glyphs are compared
PATIENCE = 5  # pixels: a place that is further off counts no more, for it may have been misjudged
SURE = (1.0, 2.0, 4.0, 8.0)  # nats that a pixel off costs: at first little, so that near misses survive to be improved
CHUNK = 20  # clips in memory at a time


class Oracle(FramePredictor):
    """Knows the glyphs and the rules of motion; estimates place and velocity of each glyph from the frames it sees.

    Glyphs cannot be passed to `forward`. Ask for the oracle of some clips:

        oracle = Oracle().given(clips)
        forecast = oracle(context, horizon=10)

    `evaluate(Oracle(), test_set)` does so by itself. The oracle looks at `clips.glyphs` and at the frames it is given,
    never at `clips.positions`.

    In each frame it finds each glyph, whatever else overlaps it. Then it keeps for each glyph a cloud of hypotheses
    (start, heading), moves them by the generator's rules (a step of fixed length a frame, walls that reflect) and weighs
    them by how far they are from the places found; the cloud is resampled and disturbed frame after frame (a particle
    filter whose particles are whole trajectories; Gordon, Salmond and Smith 1993). Frames show whole pixels only, so
    start and heading remain a little uncertain. The forecast is the average picture over samples from the clouds: what
    is uncertain is grey, and nats stay finite. With `truth`, all this is done anew for every frame, so one-step takes
    ten times as long.

    Its random numbers are seeded: the same clips in the same batches give the same forecast.

    Args:
        speed: length of a step, as in `MovingDigits`; clips with acceleration break the oracle's rules.
        particles: hypotheses for each glyph.
        samples: pictures averaged.
        slip: probability that a pixel has nothing to do with them; it is then white in one case of twenty.
    """

    network = "oracle"

    def __init__(self, speed: float = 0.1, particles: int = 512, samples: int = 64, slip: float = 1e-3):
        super().__init__()
        self.speed, self.particles, self.samples, self.slip = speed, particles, samples, slip
        self.glyphs: Tensor | None = None

    def given(self, clips: Clips) -> Oracle:
        """The oracle of these clips: it knows their glyphs, in this order of clips."""
        if clips.glyphs.shape[1] == 0:
            raise ValueError(
                "these clips do not record their glyphs (the original file does not), which the oracle needs"
            )
        oracle = copy.copy(self)
        oracle.glyphs = clips.glyphs
        return oracle

    def check(self, context, horizon, truth=None):
        super().check(context, horizon, truth)
        if context.shape[-1] <= GLYPH_SIZE or context.shape[-2] != context.shape[-1]:
            raise ValueError(
                f"context has frames of {context.shape[-2]}×{context.shape[-1]} pixels; the oracle's glyphs move in a "
                f"square of more than {GLYPH_SIZE} px"
            )
        if self.glyphs is None:
            raise ValueError(
                "the oracle has to know the glyphs: call oracle.given(clips) and predict with what it returns"
            )
        if len(self.glyphs) != len(context):
            raise ValueError(
                f"context holds {len(context)} clips; the oracle was given the glyphs of {len(self.glyphs)}"
            )

    def forecast(self, context, horizon, truth=None, truth_mask=None) -> Forecast:
        if truth is not None:
            frames = torch.cat([context, truth], 1)
            n = context.shape[1]
            return Forecast(torch.cat([self.forecast(frames[:, : n + t], 1).logits for t in range(horizon)], 1))
        assert self.glyphs is not None
        random = torch.Generator(context.device).manual_seed(0)
        parts = zip(context.split(CHUNK), self.glyphs.to(context.device).split(CHUNK))
        p = torch.cat([self._average_picture(seen, glyphs, horizon, random) for seen, glyphs in parts])
        return Forecast(((1 - self.slip) * p + self.slip * 0.05).logit())

    def _average_picture(self, context: Tensor, glyphs: Tensor, horizon: int, random: torch.Generator) -> Tensor:
        """Probabilities (B, horizon, 1, H, W) of the frames after the context, from sampled trajectories."""
        B, C, _, size, _ = context.shape
        tracker = _Tracker(context, glyphs, self.speed, self.particles, random)
        paths = []
        for found in tracker.find().unbind(2):
            start, heading, weight = tracker.cloud(found)
            chosen = torch.multinomial(weight, self.samples, replacement=True, generator=random)
            start = start.gather(1, chosen[..., None].expand(-1, -1, 2))
            paths.append(_roll(start, heading.gather(1, chosen), self.speed, C + horizon, size)[:, :, C:])
        places = torch.stack(paths, 3).flatten(0, 1)  # (B · samples, horizon, G, 2)
        many = glyphs[:, None].expand(-1, self.samples, -1, -1, -1).flatten(0, 1).contiguous()
        pictures = render(many, places, size).reshape(B, self.samples, horizon, 1, size, size)
        return pictures.sum(1, dtype=torch.int32).float() / (255 * self.samples)


class _Tracker:
    """Finds the trajectories of known glyphs in the frames of B clips."""

    def __init__(self, context: Tensor, glyphs: Tensor, speed: float, particles: int, random: torch.Generator):
        self.B, self.C, _, self.size, _ = context.shape
        self.context, self.glyphs, self.speed, self.N, self.random = context, glyphs, speed, particles, random
        self.free = self.size - GLYPH_SIZE  # pixels a glyph can move

    def find(self) -> Int64[Tensor, "B C G 2"]:
        """Where each glyph fits best in each frame, by itself.

        Overlapping digits show the brighter pixel, so a frame is nowhere darker than a glyph at its place. The place is
        where the fewest of the glyph's pixels are darker in the frame, over a few thresholds (correlations, by Fourier
        transform). Of places that fit equally well, the first: a thin digit that hides in a thick one may be misplaced,
        in some frames, and the fit of the trajectory has to live with that.
        """
        cuts = torch.tensor(CUTS, device=self.context.device)[:, None, None]
        dark = torch.fft.rfft2((self.context <= cuts).float())  # (B, C, cuts, ...)
        ink = torch.fft.rfft2((self.glyphs[:, :, None] / 255 > cuts).float(), s=(self.size, self.size)).conj()
        found = []
        for g in range(self.glyphs.shape[1]):
            darker = torch.fft.irfft2((dark * ink[:, None, g]).sum(2), s=(self.size, self.size))
            place = darker[..., : self.free + 1, : self.free + 1].round().flatten(2).argmin(-1)
            found.append(torch.stack([place % (self.free + 1), place // (self.free + 1)], -1))
        return torch.stack(found, 2)

    def cloud(self, found: Int64[Tensor, "B C 2"]) -> tuple[Tensor, Tensor, Tensor]:
        """The hypotheses that fit the places found for one glyph: starts (B, N, 2), headings (B, N), weights (B, N)."""
        start, heading = self.first(found[:, 0])
        weight = self.weigh(start, heading, found[:, :1], SURE[0])
        for seen, sure in [(k, SURE[0]) for k in range(2, self.C + 1)] + [(self.C, sure) for sure in SURE[1:]]:
            start, heading = self.resample(start, heading, weight, seen, sure)
            weight = self.weigh(start, heading, found[:, :seen], sure)
        return start, heading, weight

    def first(self, place: Int64[Tensor, "B 2"]) -> tuple[Tensor, Tensor]:
        """Any heading, and a start from which the first step leads to the place found, or near it."""
        place = place[:, None].expand(-1, self.N, -1)
        low = torch.where(place == 0, -4.0, -0.5)  # a wall holds back what would have gone further
        high = torch.where(place == self.free, 4.0, 1.5)
        after = place + low + (high - low) * torch.rand(place.shape, generator=self.random, device=place.device)
        heading = 2 * math.pi * torch.rand(self.B, self.N, generator=self.random, device=place.device)
        return (after / self.free - self.speed * _unit(heading)).clamp(0, 1), heading

    def weigh(self, start: Tensor, heading: Tensor, found: Tensor, sure: float) -> Tensor:
        """Weights (B, N), which sum to 1."""
        path = _roll(start, heading, self.speed, found.shape[1], self.size)
        distance = (path - found[:, None]).abs().sum(-1).clamp_max(PATIENCE)
        return (-sure * distance.float().sum(-1)).softmax(-1)

    def resample(self, start, heading, weight, seen: int, sure: float) -> tuple[Tensor, Tensor]:
        """As many hypotheses, drawn by weight and disturbed: the less, the more frames have been seen."""
        chosen = torch.multinomial(weight, self.N, replacement=True, generator=self.random)
        start = start.gather(1, chosen[..., None].expand(-1, -1, 2))
        heading = heading.gather(1, chosen)
        pixels = 0.3 * (SURE[0] / sure) ** 0.5
        noise = torch.randn(*heading.shape, 3, generator=self.random, device=heading.device)
        start = start + pixels / self.free * noise[..., :2]
        return start.clamp(0, 1), heading + 2 * pixels / (self.free * self.speed * seen) * noise[..., 2]


def _unit(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()], -1)


def _roll(
    start: Float[Tensor, "B N 2"], heading: Float[Tensor, "B N"], speed: float, n_frames: int, size: int
) -> Int64[Tensor, "B N T 2"]:
    """The whole-pixel places in frames 1 to T, by the rules of `MovingDigits`."""
    position, velocity = start, speed * _unit(heading)
    path = []
    for _ in range(n_frames):
        position = position + velocity
        velocity = torch.where((position <= 0) | (position >= 1), -velocity, velocity)
        position = position.clamp(0, 1)
        path.append(((size - GLYPH_SIZE) * position).long())
    return torch.stack(path, 2)
