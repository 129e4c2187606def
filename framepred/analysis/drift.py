"""Drift or blur: how much of a prediction's error is displacement, and how much is structure."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from framepred.data.moving import Clips

CHUNK = 5  # clips searched at a time, whose windows fit into the cache
LEVELS = 8  # steps of grey that the search tells apart; the nats are those of the exact greys
SWEEPS = 2  # rounds over the glyphs
TIE = 1e-3  # nats per squared pixel by which a longer shift has to be better: more than rounding, less than a tenth


@dataclass(frozen=True, eq=False)
class DriftAndBlur:
    """What `drift_and_blur` found in predicted frames 1 to T: two parts that add up to the excess over the floor.

    `shift[b, t, g]` is the (dx, dy) in pixels that takes true glyph g of clip b to where frame t shows it best, x to
    the right and y down, and `drift` is its length. `structure` is what remains, in nats per frame, when every glyph is
    there; it is 0 if the shapes are perfect. `displacement` is what the shifts explain, in nats per frame, never
    negative.
    """

    drift: Float[Tensor, "B T G"]
    shift: Int64[Tensor, "B T G 2"]
    structure: Float[Tensor, "B T"]
    displacement: Float[Tensor, "B T"]

    @property
    def excess(self) -> Float[Tensor, "B T"]:
        """Nats per frame above the entropy floor: cross_entropy - entropy_floor = displacement + structure."""
        return self.displacement + self.structure


@torch.no_grad()
def drift_and_blur(
    logits: Float[Tensor, "B T 1 H W"], clips: Clips, context: int = 10, radius: int = 8
) -> DriftAndBlur:
    """Split the error of predicted frames into displacement and structure.

    The true glyphs are shifted, all of them together, each by at most `radius` pixels in x and in y, to where the
    composed frame t has the least excess nats, Σ t·ln(t/p) + (1 - t)·ln((1 - t)/(1 - p)) over pixels. What is left of
    the excess there is structure; what the shifts took away is displacement. A shift may not push ink out of the frame
    (nothing in a clip does), and of those within a tenth of a nat the shorter counts.

    The search goes over whole-pixel shifts of one glyph at a time, with the others where they are, so that a glyph is
    not credited with the ink of another. Nor may it gain by hiding behind another, where ink that the prediction lacks
    would cost nothing: hidden ink is charged, in the search only, at the frame's mean -logit. The search starts twice,
    from the true places and from the best place of every glyph by itself, and keeps the better end.

    How to read it: `drift` cannot exceed √2·radius, so a digit that is further away is counted as too near. Where a
    prediction holds nothing that resembles a glyph, its best shift means little: it goes to the brightest place near,
    and `displacement` takes the credit. The mean image, which shows no glyph, tells how that reads. Look at `structure`
    beside `drift`.

    Args:
        logits: of the predicted frames, `Forecast.logits`. Not probabilities: nats cannot be had from values that
            rounded to 0 or 1.
        clips: the whole clips, of which frames context, …, context + T - 1 are predicted, with their glyphs and places.
        context: how many frames were seen.
        radius: of the search, in pixels, at least 0; the cost grows with its square.

    Raises:
        ValueError: for logits that are not finite or do not fit the clips, clips without glyphs, a radius below 0.
    """
    _check(logits, clips, context, radius)
    B, T, _, size, _ = logits.shape
    z = logits.float().reshape(B, T, size, size)
    glyphs = clips.glyphs.to(z.device).float() / 255
    places = clips.positions[:, context : context + T].to(z.device)
    parts = [_Frames(*part, radius).best() for part in zip(z.split(CHUNK), glyphs.split(CHUNK), places.split(CHUNK))]
    shift, structure, displacement = (torch.cat(column) for column in zip(*parts))
    return DriftAndBlur(shift.float().norm(dim=-1), shift, structure.float(), displacement.float())


class _Frames:
    """The predicted frames of a few clips, and the search for their best shifts.

    Everything is padded by `radius` pixels, so that the windows of all shifts exist.
    """

    def __init__(self, z: Tensor, glyphs: Tensor, places: Tensor, radius: int):
        self.glyphs, self.places, self.radius = glyphs, places, radius  # (B, G, 28, 28), (B, T, G, 2)
        self.B, self.T, self.G = places.shape[:3]
        self.side, self.reach = glyphs.shape[-1], glyphs.shape[-1] + 2 * radius
        self.width = z.shape[-1] + 2 * radius
        self.z = F.pad(z, [radius] * 4)
        self.price = -z.mean((2, 3)).clamp_max(0)
        self.inside = F.pad(torch.ones_like(z), [radius] * 4)
        grey = torch.arange(LEVELS + 1, device=z.device) / LEVELS
        self.cuts = ((grey[1:] + grey[:-1]) / 2)[:, None, None]
        self.steps = _entropy(grey).diff()[:, None, None]
        layers = (glyphs[:, :, None] > self.cuts).float()
        self.spectra = torch.fft.rfft2(layers, s=(self.reach, self.reach)).conj()  # (B, G, LEVELS, ...)
        self.hurdle = self._hurdle(z.shape[-1])

    def best(self) -> tuple[Tensor, Tensor, Tensor]:
        """Shifts (B, T, G, 2), and nats (B, T) of structure and displacement."""
        unshifted = torch.zeros_like(self.places)
        nothing = torch.zeros_like(self.z)
        alone = torch.stack([self.search(g, nothing) for g in range(self.G)], 2)
        before, least = self.excess(unshifted)
        best, after = unshifted, before
        for start in (unshifted, alone) if self.G > 1 else (alone,):
            shift = start.clone()
            for _ in range(SWEEPS if self.G > 1 else 0):
                for g in range(self.G):
                    others = [k for k in range(self.G) if k != g]
                    shift[:, :, g] = self.search(g, self.compose(shift, others))
            nats, charged = self.excess(shift)
            better = (charged < least - TIE) & (nats < before)
            best = torch.where(better[..., None, None], shift, best)
            after, least = torch.where(better, nats, after), torch.where(better, charged, least)
        return best, after, before - after

    def search(self, g: int, others: Tensor) -> Tensor:
        """The best shift (B, T, 2) of glyph g over a picture of the others.

        The frame is the maximum t of both, and its excess falls by Σ t·z + entropy(t). Seen as a stack of layers, one
        for each step of grey, a pixel of the glyph adds a layer's share where it has that layer and the others have
        not. So each layer is a correlation of the glyph's with what the others leave free, and all shifts are had at
        once by Fourier transforms.
        """
        index = self.index(self.places[:, :, g] - self.radius, self.reach)
        z, below = (self.take(frames, index)[:, :, None] for frames in (self.z, others))
        price = self.price[:, :, None, None, None] / LEVELS
        share = torch.where(below <= self.cuts, z / LEVELS + self.steps, -price)
        spectrum = (torch.fft.rfft2(share) * self.spectra[:, None, g]).sum(2)
        gain = torch.fft.irfft2(spectrum, s=(self.reach, self.reach))
        n = 2 * self.radius + 1
        place = (gain[..., :n, :n] - self.hurdle[:, :, g]).flatten(2).argmax(-1)
        return torch.stack([place % n, place // n], -1) - self.radius

    def _hurdle(self, size: int) -> Tensor:
        """Nats that a shift has to beat: infinite if it pushes ink out, and a trifle for its length to settle ties."""
        steps = torch.arange(-self.radius, self.radius + 1, device=self.z.device)
        outside = []
        for axis, across in ((0, -2), (1, -1)):  # x, y
            ink = (self.glyphs.amax(across) > 0).long()
            first, last = ink.argmax(-1), self.side - 1 - ink.flip(-1).argmax(-1)
            place = self.places[..., axis, None] + steps
            outside.append((place < -first[:, None, :, None]) | (place >= size - last[:, None, :, None]))
        forbidden = outside[1][..., :, None] | outside[0][..., None, :]
        length = TIE * (steps[:, None] ** 2 + steps**2)
        return torch.where(forbidden, torch.inf, length)

    def compose(self, shift: Tensor, which: list[int]) -> Tensor:
        """Some glyphs at their shifted places: (B, T, width, width), padded."""
        canvas = self.z.new_zeros(self.B, self.T, self.width**2)
        for g in which:
            index = self.index(self.places[:, :, g] + shift[:, :, g], self.side)
            canvas.scatter_(2, index, torch.maximum(canvas.gather(2, index), self.glyphs[:, None, g].flatten(2)))
        return canvas.reshape(self.z.shape)

    def excess(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Nats (B, T) above the floor of the frames composed with these shifts, without and with the price of hidden ink.

        In float64, because they are small differences.
        """
        t, z = self.compose(shift, list(range(self.G))).double(), self.z.double()
        nats = ((F.softplus(z) - t * z - _entropy(t)) * self.inside).sum((2, 3))
        hidden = self.glyphs.double().sum((1, 2, 3))[:, None] - t.sum((2, 3))
        return nats, nats + self.price * hidden

    def index(self, corner: Tensor, side: int) -> Tensor:
        """Where the pixels of a square window lie in a padded, flattened frame: (B, T, side²). `corner` is unpadded."""
        x, y = (corner + self.radius).unbind(-1)
        steps = torch.arange(side, device=corner.device)
        rows = (y[..., None] + steps) * self.width
        return (rows[..., :, None] + (x[..., None] + steps)[..., None, :]).flatten(2)

    def take(self, frames: Tensor, index: Tensor) -> Tensor:
        return frames.flatten(2).gather(2, index).reshape(self.B, self.T, self.reach, self.reach)


def _entropy(t: Tensor) -> Tensor:
    return torch.special.entr(t) + torch.special.entr(1 - t)


def _check(logits: Tensor, clips: Clips, context: int, radius: int) -> None:
    n_frames, size = clips.frames.shape[1], clips.frames.shape[-1]
    if radius < 0:
        raise ValueError(f"radius is {radius}; expected the pixels to search in each direction, 0 or more")
    if logits.ndim != 5 or len(logits) != len(clips) or tuple(logits.shape[2:]) != (1, size, size):
        raise ValueError(
            f"logits have shape {tuple(logits.shape)}; expected ({len(clips)}, frames, 1, {size}, {size}), as the clips have"
        )
    if context < 0 or not 1 <= logits.shape[1] <= n_frames - context:
        raise ValueError(
            f"logits hold {logits.shape[1]} frames after a context of {context}; clips of {n_frames} frames have "
            f"{max(n_frames - context, 0)} there"
        )
    if clips.glyphs.shape[1] == 0:
        raise ValueError(
            "these clips do not record their glyphs (the original file does not); make them with MovingDigits"
        )
    if not logits.isfinite().all():
        raise ValueError("logits are not all finite; a sure prediction (p = 0 or 1) has to be calibrated first")
