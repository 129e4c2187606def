"""The glyphs: what each source holds, and what happens when its files are damaged, missing or out of reach."""

import dataclasses
import gzip
import hashlib
import io
import os
import time
import warnings
import zipfile

import numpy as np
import pooch
import pytest
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits as load_uci

from framepred.data import download, glyphs as module
from framepred.data.glyphs import load_digits

# --- files in the real formats ---------------------------------------------------------------------------------------


def idx_gz(array):
    """A gzipped IDX file: two zero bytes, 8 for unsigned bytes, the rank, the sizes (big-endian), the data."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), compresslevel=1)


@pytest.fixture
def publish(monkeypatch):
    """`publish("mnist", {name: content}, …)` makes these the published files; they are written to `folder`, if given."""

    def publish(source, contents, folder=None, **fields):
        table = f"_{source.upper()}_FILES"
        digests = {name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in contents.items()}
        before = getattr(module, table)
        monkeypatch.setattr(module, table, dataclasses.replace(before, digests={**before.digests, **digests}, **fields))
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                (folder / name).write_bytes(content)

    return publish


def mnist_files(n=3, seed=0):
    """Four files like MNIST's, with n random pictures in each part."""
    random = np.random.default_rng(seed)
    return {
        f"{part}-{kind}": idx_gz(random.integers(0, 256, (n, 28, 28)) if "images" in kind else np.arange(n) % 10)
        for part in ("train", "t10k")
        for kind in ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")
    }


def letter_drawing():
    """An L as Omniglot draws: black on white, 105×105, one bit; 81 rows high, 41 columns wide, a thin pen."""
    picture = Image.new("1", (105, 105), 1)
    pen = ImageDraw.Draw(picture)
    pen.line([(50, 10), (50, 90)], fill=0)
    pen.line([(50, 90), (90, 90)], fill=0)
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def omniglot_zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for drawer in range(1, 21):
            for letter in (1, 26):
                name = f"images_background_small1/Latin/character{letter:02}/{681 + letter:04}_{drawer:02}.png"
                archive.writestr(name, letter_drawing())
            archive.writestr(f"images_background_small1/Greek/character01/0394_{drawer:02}.png", b"not read")
    return file.getvalue()


# --- what each source holds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "n"), [("train", 55_000), ("validation", 5_000), ("test", 10_000)])
def test_mnist_splits_have_their_sizes(mnist, split, n):
    digits = mnist(split)
    assert digits.images.shape == (n, 28, 28) and digits.images.dtype == torch.uint8
    assert digits.labels.shape == (n,) and digits.labels.dtype == torch.int64
    assert (digits.source, digits.split, len(digits)) == ("mnist", split, n)
    assert digits.labels.unique().tolist() == list(range(10)) and digits.classes == tuple("0123456789")
    assert digits.licence and digits.url


def test_mnist_is_mnist(mnist):
    train, validation, test = mnist("train"), mnist("validation"), mnist("test")
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9] and test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    count = sum(np.bincount(part.images.numpy().ravel(), minlength=256) for part in (train, validation))
    share, grey = count / count.sum(), np.arange(256) / 255
    mean = (share * grey).sum()
    # the two numbers with which everyone normalises the 60,000 training pictures
    assert mean == pytest.approx(0.1307, abs=5e-5)
    assert np.sqrt((share * (grey - mean) ** 2).sum()) == pytest.approx(0.3081, abs=5e-5)


def test_mnist_files_are_found_where_torchvision_puts_them(tmp_path, empty_machine, publish):
    publish("mnist", files := mnist_files(), tmp_path / "data" / "MNIST" / "raw")
    digits = load_digits("mnist", "test", root=tmp_path / "data")
    pixels = gzip.decompress(files["t10k-images-idx3-ubyte.gz"])[16:]
    assert digits.images.numpy().tobytes() == pixels and digits.labels.tolist() == [0, 1, 2]


def test_validation_is_cut_from_the_end_of_the_training_file(tmp_path, empty_machine, publish):
    numbered = np.zeros((5_003, 28, 28), np.uint8)
    numbered[:, 0, 0] = np.arange(5_003) % 256
    files = {
        "train-images-idx3-ubyte.gz": idx_gz(numbered),
        "train-labels-idx1-ubyte.gz": idx_gz(np.arange(5_003) % 10),
    }
    publish("mnist", files, tmp_path)
    train, validation = (load_digits("mnist", split, tmp_path) for split in ("train", "validation"))
    assert train.images[:, 0, 0].tolist() == [0, 1, 2] and train.labels.tolist() == [0, 1, 2]
    assert len(validation) == 5_000 and validation.images[0, 0, 0] == 3 and validation.labels[0] == 3


def test_emnist_letters_stand_upright(tmp_path, empty_machine, publish):
    upright = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    files = {
        "emnist-letters-test-images-idx3-ubyte.gz": idx_gz(upright.transpose(0, 2, 1)),  # as NIST stores them
        "emnist-letters-test-labels-idx1-ubyte.gz": idx_gz(np.array([1, 3, 26])),
    }
    publish("emnist", files, tmp_path / "EMNIST" / "raw")
    digits = load_digits("emnist-letters", "test", tmp_path)
    assert (digits.images.numpy() == upright).all()
    assert [digits.classes[k] for k in digits.labels] == ["A", "C", "Z"]


def test_emnist_letters_splits_have_their_sizes(tmp_path, empty_machine, publish):
    n = 124_800  # EMNIST's training letters
    files = {
        "emnist-letters-train-images-idx3-ubyte.gz": idx_gz(np.zeros((n, 28, 28), np.uint8)),
        "emnist-letters-train-labels-idx1-ubyte.gz": idx_gz(np.arange(n) % 26 + 1),
    }
    publish("emnist", files, tmp_path)
    assert len(load_digits("emnist-letters", "train", tmp_path)) == 104_000
    assert len(load_digits("emnist-letters", "validation", tmp_path)) == 20_800


@pytest.mark.parametrize(("split", "drawers"), [("train", 8), ("validation", 2), ("test", 10)])
def test_omniglot_splits_share_no_drawer_and_hold_latin_letters_only(split, drawers, tmp_path, empty_machine, publish):
    publish("omniglot", {"images_background_small1.zip": omniglot_zip()}, tmp_path)
    digits = load_digits("omniglot-latin", split, tmp_path)
    assert digits.images.shape == (2 * drawers, 28, 28) and digits.images.dtype == torch.uint8
    assert [digits.classes[k] for k in digits.labels] == ["A"] * drawers + ["Z"] * drawers


def test_omniglot_drawing_becomes_a_glyph_like_those_of_mnist(tmp_path, empty_machine, publish):
    publish("omniglot", {"images_background_small1.zip": omniglot_zip()}, tmp_path)
    glyph = load_digits("omniglot-latin", "test", tmp_path).images[0].numpy()
    rows, columns = (np.nonzero((glyph > 0).any(axis))[0] for axis in (1, 0))
    assert (rows[0], rows[-1]) == (4, 23)  # the longer side is 20 px, centred in 28
    # Of 89 × 49 pixels of thickened ink, the shorter side becomes 49/89 · 20 = 11 px.
    assert (columns[0], columns[-1]) == (8, 18)
    assert (glyph.max(1)[5:23] == 255).all() and (glyph.max(0)[9:18] == 255).all()  # white, up to the round ends
    assert not glyph[4:20, 12:].any()  # an L, neither mirrored nor turned
    assert ((glyph[10] > 0).sum(), (glyph[:, 15] > 0).sum()) == (2, 2)  # each stroke about two pixels thick


@pytest.mark.parametrize(("split", "n"), [("train", 26 * 8), ("validation", 26 * 2), ("test", 26 * 10)])
def test_real_omniglot_splits_have_their_sizes(split, n):
    if module._OMNIGLOT_FILES.here("images_background_small1.zip") is None:
        pytest.skip(
            "Omniglot's images_background_small1.zip is not on this machine; FRAMEPRED_DATA can name its folder"
        )
    digits = load_digits("omniglot-latin", split)
    assert digits.images.shape == (n, 28, 28) and digits.labels.bincount().tolist() == [n // 26] * 26


# --- the bundled digits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "first", "end"), [("train", 0, 1_200), ("validation", 1_200, 1_400), ("test", 1_400, 1_797)]
)
def test_uci_digits_are_the_bundled_ones_enlarged(split, first, end):
    digits = load_digits("uci", split)
    pixels, labels = load_uci(return_X_y=True)
    assert digits.images.shape == (end - first, 28, 28) and digits.images.dtype == torch.uint8
    assert digits.labels.dtype == torch.int64 and digits.labels.tolist() == labels[first:end].tolist()
    # Made small again by Pillow, each looks like its own original; its mirror image and its transpose don't as much.
    small = np.stack(
        [np.asarray(Image.fromarray(g.numpy()[4:24, 4:24]).resize((8, 8), Image.Resampling.BOX)) for g in digits.images]
    )
    originals = pixels[first:end].reshape(-1, 8, 8)

    def likeness(a):
        return np.mean([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, originals)])

    assert likeness(small) > 0.95 > 0.7 > max(likeness(small[:, :, ::-1]), likeness(small.transpose(0, 2, 1)))


def test_uci_digits_look_like_mnist():
    grey = load_digits("uci", "train").images.numpy()
    border = np.ones((28, 28), bool)
    border[4:24, 4:24] = False
    assert not grey[:, border].any()  # drawn in the same 20×20 box
    assert grey.max(axis=(1, 2)).min() == 255  # every glyph reaches white
    assert grey.mean() / 255 == pytest.approx(0.1307, rel=0.2)  # ink: the mean of MNIST's training pictures
    ink = grey[grey > 0]
    assert 0.3 < (ink < 255).mean() < 0.7  # white strokes with a grey rim: neither binary nor a blur


def test_uci_digits_need_no_file(empty_machine):
    assert len(load_digits("uci")) == 1_200
    assert not empty_machine.exists()


def test_digest_is_that_of_the_images_bytes(uci):
    assert uci.digest == hashlib.sha256(bytes(uci.images.flatten().tolist())).hexdigest()


# --- bad input -------------------------------------------------------------------------------------------------------


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'svhn'; known: mnist, emnist-letters, omniglot-latin, uci, auto"):
        load_digits("svhn")
    with pytest.raises(ValueError, match="'valid'; known: train, validation, test"):
        load_digits("uci", "valid")
    with pytest.raises(ValueError, match="no-such-folder' is not a folder"):
        load_digits("mnist", root=tmp_path / "no-such-folder")


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_damaged_file_is_named_and_left_alone(damage, tmp_path, empty_machine, publish):
    publish("mnist", mnist_files(), tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    bad = {"truncated": whole[:-9], "altered": whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], "empty": b""}[
        damage
    ]
    path.write_bytes(bad)
    for source in ("mnist", "auto"):  # "auto" does not hide a damaged file behind other digits
        with pytest.raises(ValueError, match="damaged or altered") as error:
            load_digits(source, "test", tmp_path)
        assert str(path) in str(error.value)
    assert path.read_bytes() == bad


# --- no network ------------------------------------------------------------------------------------------------------


def test_auto_falls_back_to_uci_and_says_so_once(empty_machine):
    with pytest.warns(UserWarning, match="MNIST cannot be had here, so the UCI digits take its place"):
        assert load_digits("auto").source == "uci"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_digits("auto", "test").source == "uci"


def test_auto_decides_within_five_seconds_and_then_at_once(hanging_network):
    load_digits("uci")  # whose library takes its own time to be imported
    began = time.monotonic()
    with pytest.warns(UserWarning, match="MNIST cannot be had"):
        load_digits("auto")
    decided = time.monotonic()
    load_digits("auto")
    assert decided - began < 5 and time.monotonic() - decided < 1


def test_auto_tries_again_after_a_while(empty_machine):
    with pytest.warns(UserWarning, match="MNIST cannot be had"):
        load_digits("auto")
    (marker,) = empty_machine.iterdir()
    long_ago = time.time() - module.OFFLINE_SECONDS - 1
    os.utime(marker, (long_ago, long_ago))
    with pytest.warns(UserWarning, match="MNIST cannot be had"):
        load_digits("auto")


def test_auto_takes_mnist_where_it_lies(tmp_path, empty_machine, publish):
    with pytest.warns(UserWarning, match="MNIST cannot be had"):
        load_digits("auto")
    publish("mnist", mnist_files(), tmp_path / "found")  # it came after that decision
    assert load_digits("auto", "test", tmp_path / "found").source == "mnist"


def test_unwritable_cache_is_told_before_any_download(unwritable_cache):
    with pytest.raises(PermissionError, match=r"cannot write to .*set FRAMEPRED_DATA"):
        load_digits("mnist")
    with pytest.warns(UserWarning, match="cannot write"):
        assert load_digits("auto").source == "uci"


# --- where it comes from ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "file", "addresses"),
    [
        ("mnist", "t10k-images-idx3-ubyte.gz",
         ["https://ossci-datasets.s3.amazonaws.com/mnist/t10k-images-idx3-ubyte.gz",
          "https://storage.googleapis.com/cvdf-datasets/mnist/t10k-images-idx3-ubyte.gz"]),
        ("emnist-letters", "emnist-gzip.zip",
         ["https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
          "https://itl.nist.gov/iaui/vip/cs_links/EMNIST/gzip.zip"]),
        ("omniglot-latin", "images_background_small1.zip",
         ["https://raw.githubusercontent.com/brendenlake/omniglot/master/python/images_background_small1.zip",
          "https://github.com/brendenlake/omniglot/raw/master/python/images_background_small1.zip"]),
    ],
)  # fmt: skip
def test_each_source_is_asked_for_at_its_publisher_and_then_at_a_mirror(
    source, file, addresses, empty_machine, monkeypatch
):
    asked = []

    def retrieve(url, digest, name, folder, **kwargs):
        asked.append((url, name, folder))
        raise OSError("broke off")

    monkeypatch.setattr(download, "first_reachable", lambda urls: urls[0])
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(ConnectionError, match=r"could not download.*broke off.*broke off"):
        load_digits(source, "test")
    assert asked == [(address, file, empty_machine) for address in addresses]
