"""Whose digits are these? Finds the glyphs of a clip, given its frames only, among the images they were taken from.

The papers dispute whether the original test file of Srivastava et al. shows MNIST's training or its test digits. Whoever
holds the file can settle it:

    sources = {split: load_digits("mnist", split) for split in ("train", "validation", "test")}
    matches = match_glyphs(test_set("original").sample(100, dtype=torch.uint8).frames, sources)
    share_of_sources(matches)

A frame is the maximum of whole glyphs at whole pixels. Where the first rows of the ink belong to one glyph, or its last
rows, or its columns at either side, they are that glyph's own, unaltered. Such strips are looked up in a table of the
strips of all images; what is found has to fit into every frame. An answer is an identity of pixels and not a likeness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, islice, product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from scipy import ndimage
from torch import Tensor

from framepred.data.glyphs import GLYPH_SIZE, GlyphSet

UNMATCHED = "unmatched"
STRIP = 5  # rows or columns: few, so that a glyph often has them to itself, yet enough to tell it from 70,000 others
MOST_PLACINGS = 500  # of the glyphs in a frame, tried until one renders it


class _Image(NamedTuple):
    source: str
    number: int
    label: int
    left: int  # where its ink begins in the 28×28 image
    top: int
    ink: np.ndarray  # uint8, cropped


class _Fit(NamedTuple):
    """An image that fits into every frame of a clip."""

    image: _Image
    places: list[list[tuple[int, int]]]  # frame by frame, the (x, y) of its ink, the one that shows most of it first
    visible: list[int]  # frame by frame, how many pixels of its ink that one shows

    @property
    def frame(self) -> int:
        return int(np.argmax(self.visible))

    @property
    def whole(self) -> bool:
        """Whether some frame shows all of its ink."""
        return max(self.visible) == int(np.count_nonzero(self.image.ink))


class GlyphIndex:
    """All images of some sources by the strips of their ink: looking one up takes the same time among any number.

    Args:
        sources: images by the name that answers shall give them. Images with the same ink go by the first of them.
    """

    def __init__(self, sources: Mapping[str, GlyphSet]):
        if not sources or UNMATCHED in sources:
            raise ValueError(f"sources are {list(sources)}; expected at least one, none of them called {UNMATCHED!r}")
        self.names = list(sources)
        self._sources = dict(sources)
        self._by_strip: dict[bytes, list[tuple[str, int]]] = {}
        for name, digits in sources.items():
            images = digits.images.numpy()
            blank = np.flatnonzero(~images.any((1, 2)))
            if len(blank):
                raise ValueError(f"image {blank[0]} of {name} is blank; leave it out")
            for number, keys in enumerate(zip(*_strips(images))):
                for key in keys:
                    self._by_strip.setdefault(key, []).append((name, number))

    def __len__(self) -> int:
        return sum(map(len, self._sources.values()))

    def find(self, pictures: UInt8[np.ndarray, "N H W"]) -> Iterator[_Image]:
        """The images that share a strip with one of some pictures."""
        for keys in _strips(pictures):
            for name, number in (hit for key in keys for hit in self._by_strip.get(key, ())):
                digits = self._sources[name]
                ink, left, top = _cropped(digits.images[number].numpy())
                yield _Image(name, number, int(digits.labels[number]), left, top, ink)


def match_glyphs(
    frames: UInt8[Tensor, "B T 1 H W"] | Float[Tensor, "B T 1 H W"],
    sources: Mapping[str, GlyphSet] | GlyphIndex,
    n_glyphs: int = 2,
) -> pd.DataFrame:
    """Find each glyph of each clip among the images of the sources.

    Args:
        frames: grey values 0 to 255, or the same divided by 255, as clips hold them.
        sources: digits by name, or a `GlyphIndex` of them, which is worth keeping for several calls.
        n_glyphs: how many glyphs a clip shows.

    Returns:
        A row a glyph, `n_glyphs` for each clip, with columns

        - clip, and glyph (from 0, in the order in which they were found);
        - source: its name, or "unmatched"; image: which of that source it is; label (both -1 if unmatched);
        - frame: the first (from 0) that shows most of it; x, y: the top left corner of its 28×28 image there (-1 if
          unmatched);
        - rendered: share of the clip's frames that all its matched glyphs together render exactly. 1.0 proves that
          the clip can be made of these glyphs, with no ink left over.

    Unless it is part of such a proof, a glyph counts as matched only if it fits into every frame and one shows it whole.
    It stays unmatched if it is none of the images; if others always cover it on all four sides; if a clip shows the same
    image twice (one of the two); or if noise, scaling or a move by a part of a pixel has altered it.
    """
    if n_glyphs < 1:
        raise ValueError(f"n_glyphs is {n_glyphs}; a clip shows at least 1")
    index = sources if isinstance(sources, GlyphIndex) else GlyphIndex(sources)
    rows: list[dict] = []
    for clip, pictures in enumerate(_bytes(frames)):
        matched = _match(pictures, index, n_glyphs)
        rendered = float(np.mean([_renders(pictures, matched, frame) for frame in range(len(pictures))]))
        for glyph in range(n_glyphs):
            row = {
                "clip": clip,
                "glyph": glyph,
                "source": UNMATCHED,
                "image": -1,
                "label": -1,
                "frame": -1,
                "x": -1,
                "y": -1,
            }
            if glyph < len(matched):
                image, frame = matched[glyph].image, matched[glyph].frame
                x, y = matched[glyph].places[frame][0]
                row |= {"source": image.source, "image": image.number, "label": image.label}
                row |= {"frame": frame, "x": x - image.left, "y": y - image.top}
            rows.append(row | {"rendered": rendered})
    return pd.DataFrame(rows).astype({"source": pd.CategoricalDtype([*index.names, UNMATCHED])})


def share_of_sources(matches: pd.DataFrame) -> pd.Series:
    """The share of the glyphs that come from each source, and of those unmatched; together 1."""
    return matches["source"].value_counts(normalize=True, sort=False).rename("share")


# --- finding ---------------------------------------------------------------------------------------------------------


def _match(pictures: UInt8[np.ndarray, "T H W"], index: GlyphIndex, n_glyphs: int) -> list[_Fit]:
    """The glyphs of a clip: the first that are proven to make it, else at most n_glyphs that are surely in it."""
    fits: list[_Fit] = []
    tried: set[tuple[tuple[int, ...], bytes]] = set()

    def consider(picture: np.ndarray) -> list[_Fit] | None:
        for image in _candidates(picture, index):
            if (key := (image.ink.shape, image.ink.tobytes())) in tried:
                continue
            tried.add(key)
            if (fit := _fit(pictures, image)) is None:  # it shares a strip with this frame by chance
                continue
            for others in combinations(fits, n_glyphs - 1):
                if all(_renders(pictures, [*others, fit], frame) for frame in range(len(pictures))):
                    return [*others, fit]
            fits.append(fit)
        return None

    for picture in pictures:
        if proven := consider(picture):
            return proven
    peeled = 0
    while len(fits) > peeled:  # take away what has been found, and look at what is left
        peeled = len(fits)
        for frame in range(len(pictures)):
            if proven := consider(_without(pictures[frame], fits, frame)):
                return proven
    return sorted((fit for fit in fits if fit.whole), key=lambda fit: -sum(fit.visible))[:n_glyphs]


def _candidates(picture: UInt8[np.ndarray, "H W"], index: GlyphIndex) -> Iterator[_Image]:
    """The images that share a strip with the frame's ink, or with a connected piece of it."""
    pieces, _ = ndimage.label(picture)  # connected by edges: glyphs that touch at corners only come apart
    masks = pieces == np.unique(pieces)[:, None, None]
    return index.find(np.concatenate([picture[None], picture * masks]))


def _fit(pictures: UInt8[np.ndarray, "T H W"], image: _Image) -> _Fit | None:
    places, visible = [], []
    for picture in pictures:
        here = _places(picture, image.ink)
        if not here:
            return None
        places.append([place for _, place in here])
        visible.append(here[0][0])
    return _Fit(image, places, visible)


def _places(picture: UInt8[np.ndarray, "H W"], ink: UInt8[np.ndarray, "h w"]) -> list[tuple[int, tuple[int, int]]]:
    """Where the frame is nowhere darker than the ink: how many of its pixels show there, and (x, y); most of them first."""
    if ink.shape[0] > picture.shape[0] or ink.shape[1] > picture.shape[1]:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(picture, ink.shape)
    row, column = np.unravel_index(ink.argmax(), ink.shape)
    y, x = np.nonzero(windows[:, :, row, column] >= ink.max())  # the brightest pixel rules most places out
    candidates = windows[y, x]
    possible = (candidates >= ink).all((1, 2))
    y, x, candidates = y[possible], x[possible], candidates[possible]
    visible = ((candidates == ink) & (ink > 0)).sum((1, 2))
    order = np.argsort(-visible, kind="stable")
    return list(zip(visible[order].tolist(), zip(x[order].tolist(), y[order].tolist())))


def _without(picture: UInt8[np.ndarray, "H W"], fits: list[_Fit], frame: int) -> UInt8[np.ndarray, "H W"]:
    """A frame with the ink blackened that the best places of these glyphs account for."""
    rest = picture.copy()
    for fit in fits:
        window = _window(picture, fit.image.ink, fit.places[frame][0])
        _window(rest, fit.image.ink, fit.places[frame][0])[window == fit.image.ink] = 0
    return rest


def _renders(pictures: UInt8[np.ndarray, "T H W"], fits: list[_Fit], frame: int) -> bool:
    """Whether these glyphs, at places where they fit, make this frame and nothing is left over."""
    for places in islice(product(*(fit.places[frame] for fit in fits)), MOST_PLACINGS):
        rendered = np.zeros_like(pictures[frame])
        for fit, place in zip(fits, places):
            window = _window(rendered, fit.image.ink, place)
            np.maximum(window, fit.image.ink, out=window)
        if np.array_equal(rendered, pictures[frame]):
            return True
    return False


# --- pixels ----------------------------------------------------------------------------------------------------------


def _bytes(frames: Tensor) -> UInt8[np.ndarray, "B T H W"]:
    grey = frames.detach().cpu()
    if grey.dtype != torch.uint8:
        scaled = grey.double() * 255
        whole = scaled.round()
        if not ((whole >= 0) & (whole <= 255) & ((scaled - whole).abs() < 1e-3)).all():
            raise ValueError(
                "frames hold values other than k/255 for whole k from 0 to 255; expected those of the file or the generator, unaltered"
            )
        grey = whole.to(torch.uint8)
    return grey[:, :, 0].numpy()


def _window(picture: np.ndarray, ink: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    x, y = place
    return picture[y : y + ink.shape[0], x : x + ink.shape[1]]


def _cropped(image: UInt8[np.ndarray, "H W"]) -> tuple[UInt8[np.ndarray, "h w"], int, int]:
    """The image within the bounding box of its ink, and the box's left and upper border."""
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    left, top = int(columns[0]), int(rows[0])
    return image[top : rows[-1] + 1, left : columns[-1] + 1], left, top


def _strips(pictures: UInt8[np.ndarray, "N H W"]) -> list[list[bytes]]:
    """What identifies glyphs, and does not depend on their place: for each side of the ink, and each picture, its first
    STRIP rows (or columns) seen from there, in 28 pixels from their own first ink on. The side is part of it."""
    sides = []
    turned = pictures.swapaxes(1, 2)
    for side, seen in enumerate((pictures, pictures[:, ::-1], turned, turned[:, ::-1])):
        rows = seen.any(2).argmax(1)[:, None] + np.arange(STRIP)
        strip = np.take_along_axis(np.pad(seen, ((0, 0), (0, STRIP), (0, 0))), rows[:, :, None], 1)
        columns = strip.any(1).argmax(1)[:, None] + np.arange(GLYPH_SIZE)
        strip = np.take_along_axis(np.pad(strip, ((0, 0), (0, 0), (0, GLYPH_SIZE))), columns[:, None, :], 2)
        sides.append([bytes([side]) + one.tobytes() for one in strip])
    return sides
