"""Where glyphs come from: MNIST, EMNIST letters, Omniglot's Latin letters, and the digits bundled with scikit-learn."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import time
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from framepred.data import download

SPLITS = ("train", "validation", "test")
GLYPH_SIZE = 28
OFFLINE_SECONDS = 900  # how long "auto" remembers that no mirror answered


@dataclass(frozen=True, eq=False)
class GlyphSet:
    """A set of glyphs, grey on black; `classes[label]` is the character that a label stands for."""

    images: UInt8[Tensor, "N 28 28"]
    labels: Int64[Tensor, " N"]
    source: str
    split: str
    classes: tuple[str, ...]
    licence: str
    url: str

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"GlyphSet({self.source!r}, split={self.split!r}, {len(self):,} glyphs; {self.licence})"

    @property
    def digest(self) -> str:
        """SHA-256 of the images' bytes: two sets with the same digest give the same clips."""
        return hashlib.sha256(self.images.numpy().tobytes()).hexdigest()


def load_digits(source: str = "auto", split: str = "train", root: str | os.PathLike | None = None) -> GlyphSet:
    """Load the glyphs of one split of one source.

    Files are looked for in `root`, in `$FRAMEPRED_DATA` and in the user's cache, in this order; what is missing is
    downloaded to the cache. Every file is checked against its published digest before it is read.

    Args:
        source: "mnist" (Arabic digits), "emnist-letters", "omniglot-latin" (letters), "uci" (scikit-learn's 8×8 digits
            enlarged to 28×28; no network needed), or "auto": MNIST where it can be had, else the UCI digits.
        split: "train", "validation" or "test". A validation split is cut from the end of a source's training part
            (MNIST: the last 5,000), so that the test part is never used to choose anything.
        root: a folder with data files; those of torchvision (`MNIST/raw/…`) are found too.

    Raises:
        ValueError: for an unknown name, or a file whose digest is wrong (the file is left as it is).
        ConnectionError: if a file is missing and no mirror answers.
        PermissionError: if a file is missing and the cache takes none.
    """
    if source != "auto" and source not in _SOURCES:
        raise ValueError(f"unknown digit source {source!r}; known: {', '.join([*_SOURCES, 'auto'])}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    if root is not None and not Path(root).is_dir():
        raise ValueError(
            f"root {str(root)!r} is not a folder; give the folder that holds the data files, or leave root out"
        )
    if source == "auto":
        source = _choose(root)
    return _SOURCES[source](split, root)


def _choose(root) -> str:
    """What "auto" stands for: decided once, and remembered for a while so that each page of a book needn't wait."""
    if all(_MNIST_FILES.here(name, root) for name in _MNIST_FILES.digests):
        return "mnist"
    marker = download.cache_folder() / "mnist-is-out-of-reach"
    with suppress(OSError):  # no such marker
        if time.time() - marker.stat().st_mtime < OFFLINE_SECONDS:
            return "uci"
    try:
        for name in _MNIST_FILES.digests:
            _MNIST_FILES.find(name, root)
    except OSError as error:  # no network, or no folder to download to
        warnings.warn(f"MNIST cannot be had here, so the UCI digits take its place. ({error})", stacklevel=3)
        with suppress(OSError):  # without a cache folder the next call decides anew
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
        return "uci"
    return "mnist"


# --- the sources -----------------------------------------------------------------------------------------------------


_MNIST_FILES = download.Files(
    {
        "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
    },
    folders=("MNIST/raw",),
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
)


def _mnist(split: str, root) -> GlyphSet:
    part = "t10k" if split == "test" else "train"
    images = _read_idx(_MNIST_FILES.find(f"{part}-images-idx3-ubyte.gz", root))
    labels = _read_idx(_MNIST_FILES.find(f"{part}-labels-idx1-ubyte.gz", root))
    keep = {"train": slice(None, -5_000), "validation": slice(-5_000, None), "test": slice(None)}[split]
    return _glyph_set(
        images[keep], labels[keep], "mnist", split, tuple("0123456789"),
        "CC BY-SA 3.0, Y. LeCun and C. Cortes", "http://yann.lecun.com/exdb/mnist/",
    )  # fmt: skip


_EMNIST_FILES = download.Files(
    {
        "emnist-letters-train-images-idx3-ubyte.gz": "sha256:6288f418a917e007bf5fddb823a2dc7a5c6a35031401b93292a539cb12bd881f",
        "emnist-letters-train-labels-idx1-ubyte.gz": "sha256:9759af91ea6bccdf07a6040fd085861f2ec88e37f7c3f5760f6feb57106fbe5c",
        "emnist-letters-test-images-idx3-ubyte.gz": "sha256:50f0e93d75b99b463e9760b8345866f22587fa2c2fba472730a5ba09c693412d",
        "emnist-letters-test-labels-idx1-ubyte.gz": "sha256:924955c31fe7fd809b7303b5c0141282955f4b8390c74cdfd5d80435e0f4b4cb",
    },
    folders=("EMNIST/raw", "EMNIST/raw/gzip", "EMNIST/gzip", "EMNIST"),
    mirrors=("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip", "https://itl.nist.gov/iaui/vip/cs_links/EMNIST/gzip.zip"),
    archive=("emnist-gzip.zip", "md5:58c8d27c78d21e728a6bc7b3cc06412e"),
)  # fmt: skip


def _emnist_letters(split: str, root) -> GlyphSet:
    part = "test" if split == "test" else "train"
    images = _read_idx(_EMNIST_FILES.find(f"emnist-letters-{part}-images-idx3-ubyte.gz", root))
    labels = _read_idx(_EMNIST_FILES.find(f"emnist-letters-{part}-labels-idx1-ubyte.gz", root))
    images = images.transpose(0, 2, 1)  # EMNIST stores its images transposed relative to MNIST
    keep = {"train": slice(None, -20_800), "validation": slice(-20_800, None), "test": slice(None)}[split]
    return _glyph_set(
        images[keep], labels[keep].astype(np.int64) - 1,  # the file counts letters from 1
        "emnist-letters", split, _LETTERS, "public domain (NIST Special Database 19)",
        "https://www.nist.gov/itl/products-and-services/emnist-dataset",
    )  # fmt: skip


_OMNIGLOT_FILES = download.Files(
    {"images_background_small1.zip": "md5:e704a628b5459e08445c13499850abc4"},
    folders=("Omniglot", "omniglot-py"),
    mirrors=("https://raw.githubusercontent.com/brendenlake/omniglot/master/python/", "https://github.com/brendenlake/omniglot/raw/master/python/"),
)  # fmt: skip


def _omniglot_latin(split: str, root) -> GlyphSet:
    # Both small archives hold the same 26 letters by the same 20 drawers. Splits are by drawer, so that no hand
    # is in two of them; the test part is the largest because the networks train on digits only.
    drawers = {"train": range(1, 9), "validation": range(9, 11), "test": range(11, 21)}[split]
    path = _OMNIGLOT_FILES.find("images_background_small1.zip", root)
    images, labels = [], []
    with zipfile.ZipFile(path) as archive:
        for name in sorted(n for n in archive.namelist() if "/Latin/character" in n and n.endswith(".png")):
            letter, drawer = int(name.split("/character")[1][:2]), int(name[-6:-4])
            if drawer in drawers:
                images.append(_drawing_to_glyph(archive.read(name)))
                labels.append(letter - 1)
    return _glyph_set(
        np.stack(images), np.array(labels), "omniglot-latin", split, _LETTERS, "MIT, B. M. Lake et al.",
        "https://github.com/brendenlake/omniglot",
    )  # fmt: skip


def _uci(split: str, root) -> GlyphSet:
    from sklearn.datasets import load_digits as load_uci  # bundled with scikit-learn: no file, no network

    pixels, labels = load_uci(return_X_y=True)
    keep = {"train": slice(0, 1_200), "validation": slice(1_200, 1_400), "test": slice(1_400, None)}[split]
    grey = pixels[keep].reshape(-1, 8, 8) / 16
    # Enlarge to the 20×20 box that MNIST's digits fill, smoothly, then stretch the contrast: strokes become white with
    # a narrow grey rim, as MNIST's are. The matrix form and the tie-break make the bytes equal on every machine.
    enlarge = _cubic_matrix(8, 20)
    smooth = enlarge @ grey @ enlarge.T
    stretched = ((smooth - 0.3) / 0.45).clip(0, 1)
    images = np.pad(np.floor(stretched * 255 + 0.5 - 1e-6).astype(np.uint8), ((0, 0), (4, 4), (4, 4)))
    return _glyph_set(
        images, labels[keep], "uci", split, tuple("0123456789"), "CC BY 4.0, E. Alpaydin and C. Kaynak",
        "https://doi.org/10.24432/C50P49",
    )  # fmt: skip


_SOURCES: dict[str, Callable[..., GlyphSet]] = {
    "mnist": _mnist, "emnist-letters": _emnist_letters, "omniglot-latin": _omniglot_latin, "uci": _uci,
}  # fmt: skip
_LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def _glyph_set(images, labels, source, split, classes, licence, url) -> GlyphSet:
    return GlyphSet(
        torch.from_numpy(np.array(images)), torch.from_numpy(labels.astype(np.int64)),
        source, split, classes, licence, url,
    )  # fmt: skip


# --- from file to glyph ----------------------------------------------------------------------------------------------


def _read_idx(path: Path) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes (the format of MNIST and EMNIST)."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = np.frombuffer(data, ">i4", count=rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _drawing_to_glyph(png: bytes) -> UInt8[np.ndarray, "28 28"]:
    """A 105×105 pen drawing, black on white, as a glyph like MNIST's: thick, grey-rimmed, its longer side 20 px."""
    from PIL import Image
    from scipy.ndimage import binary_dilation, find_objects

    ink = ~np.asarray(Image.open(io.BytesIO(png)).convert("L")).astype(bool)
    side = max(np.ptp(axis) + 1 for axis in np.nonzero(ink))
    radius = side / 20  # one pixel of the glyph on either side of the pen's line
    y, x = np.mgrid[-int(radius) - 1 : int(radius) + 2, -int(radius) - 1 : int(radius) + 2]
    ink = binary_dilation(np.pad(ink, int(radius) + 1), x**2 + y**2 <= radius**2)
    ink = ink[find_objects(ink.astype(int))[0]]
    scale = 20 / max(ink.shape)
    height, width = (max(1, round(n * scale)) for n in ink.shape)
    small = Image.fromarray(ink.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
    glyph = np.zeros((GLYPH_SIZE, GLYPH_SIZE), np.uint8)
    top, left = (GLYPH_SIZE - height) // 2, (GLYPH_SIZE - width) // 2
    glyph[top : top + height, left : left + width] = np.asarray(small)
    return glyph


def _cubic_matrix(n_in: int, n_out: int) -> np.ndarray:
    """The (n_out, n_in) matrix of cubic-convolution interpolation (Keys 1981, a = -1/2), zero outside."""
    centres = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    d = np.abs(centres[:, None] - np.arange(n_in))
    return np.where(d < 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0.0))
