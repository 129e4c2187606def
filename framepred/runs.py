"""Run folders: what one training leaves behind, and how a network is loaded from it.

A folder holds `config.json` and `model.safetensors` (the network), `history.csv` (the learning curve) and `run.json`
(where it all came from); once it is evaluated, `scores.npz` and `samples.npz`; and `checkpoints/`, unless it is a
published copy. A file is written under another name first and then renamed, so none is ever half there.
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
import io
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from framepred.models import NETWORKS, PRESETS
from framepred.models.base import FramePredictor
from framepred.moving import MovingDigits
from framepred.published import published_folder, published_runs

if TYPE_CHECKING:
    import pandas

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILES = ("config.json", "model.safetensors", "history.csv", "scores.npz", "samples.npz", "run.json")
IDENTITY = ("network", "architecture", "parent", "training", "digits", "clips", "validation")  # of run.json
PART = ".part"  # ends the names of files that are being written


def load(run: str | os.PathLike) -> FramePredictor:
    """Load a trained network, ready to predict.

    Args:
        run: a run folder, the name of a published run, or an id of the Hugging Face hub; see `run_folder`.

    Raises:
        FileNotFoundError: if there is no such run, the message lists those there are; or if it has no weights.
        ConnectionError: if a published run has to be downloaded and cannot.
        ValueError: if the network is none of this package.
    """
    folder = run_folder(run)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("network") not in NETWORKS:
        raise ValueError(
            f"{folder / 'config.json'} names the network {config.get('network')!r}; known: {', '.join(NETWORKS)}. "
            f"A network of your own loads itself: MyNetwork.from_pretrained({str(folder)!r})"
        )
    weights_of(folder)
    with contextlib.redirect_stdout(io.StringIO()):  # huggingface_hub prints where it reads from
        return NETWORKS[config["network"]].from_pretrained(folder).eval()


def load_weights(run: str | os.PathLike, model: FramePredictor) -> None:
    """Give a network the weights of a run, as `run_folder` takes it: whatever its class, if they fit.

    Raises:
        FileNotFoundError: if there is no such run, or it has no weights.
        ValueError: if they do not fit.
    """
    path = weights_of(run)
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        network = json.loads((path.parent / "config.json").read_text(encoding="utf-8")).get("network")
        raise ValueError(f"the weights of {run} ({network}) do not fit this {model.network}: {error}") from error


def weights_of(run: str | os.PathLike) -> Path:
    """The file with the weights of a run, as `run_folder` takes it.

    Raises:
        FileNotFoundError: if there is no such run, or it has no weights.
    """
    path = run_folder(run) / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent} holds no weights: they were left out of the published run, or not yet written"
        )
    return path


def run_folder(run: str | os.PathLike) -> Path:
    """The folder that a run's files lie in.

    Args:
        run: the folder itself; the name of a published run, taken from the checkout or else downloaded and verified; or an
            id of the Hugging Face hub ("owner/name").
    """
    name, folder = str(run), Path(run)
    if (folder / "config.json").is_file():
        return folder
    if name in published_runs():
        return published_folder(name)
    if name.count("/") == 1 and not folder.exists() and not name.startswith((".", "runs/")):
        return _from_hub(name)
    raise FileNotFoundError(
        f"no run at {name!r} (a run folder holds config.json); published runs: {', '.join(published_runs()) or 'none'}"
    )


def _from_hub(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=["config.json", "model.safetensors"]))
    except OSError as error:  # of the hub, or of the network
        raise FileNotFoundError(
            f"no run folder {repository!r} here, and the Hugging Face hub gave none ({error}); "
            f"published runs: {', '.join(published_runs()) or 'none'}"
        ) from error


def describe(
    model: FramePredictor,
    clips: MovingDigits,
    training: Mapping[str, Any],
    validation: MovingDigits | None = None,
    parent: str | None = None,
) -> dict[str, Any]:
    """What makes a run the one it is: the network, what it is trained on and how. The first part of `run.json`."""
    return _plain(
        {
            "network": model.network,
            "preset": _preset(model),
            "parent": parent,
            "seed": training["seed"],
            "parameters": sum(p.numel() for p in model.parameters()),
            "architecture": model.arguments,
            "training": training,
            **_describe_clips(clips),
            "validation": _describe_clips(validation) if validation else None,
        }
    )


def claim(folder: Path, run: dict[str, Any], may_differ: Collection[str] = ()) -> dict[str, Any] | None:
    """Make `folder` the folder of `run`, before any work is done.

    Args:
        run: from `describe`.
        may_differ: fields of the training that a run may change when it is resumed.

    Returns:
        The `run.json` that is there already, or None for a new run.

    Raises:
        ValueError: if the folder holds a run that differs; the message names the fields, what they were and are.
        FileExistsError: if it holds files that are named like a run's, and no run.
        PermissionError: if it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise PermissionError(f"cannot write to {folder}: {error.strerror}; choose another folder for out") from error
    record = read_record(folder)
    if record is None:
        taken = [name for name in (*FILES, "checkpoints") if (folder / name).exists()]
        if taken:
            raise FileExistsError(
                f"{folder} holds {', '.join(taken)} but is no run of framepred; choose another folder"
            )
        write_record(folder, {**run, "steps": 0})
        return None
    before, now = (_flat({key: tree.get(key) for key in IDENTITY}) for tree in (record, run))
    ignored = {f"training.{name}" for name in may_differ}
    differ = [key for key in {**before, **now} if before.get(key) != now.get(key) and key not in ignored]
    if differ:
        changes = "; ".join(f"{key} was {before.get(key)!r} and is now {now.get(key)!r}" for key in differ)
        raise ValueError(f"{folder} holds another run: {changes}. Choose another folder, or train as it was begun")
    return record


@contextlib.contextmanager
def held(folder: Path | None) -> Iterator[None]:
    """Keep other processes from training in a folder as long as the context lasts, or this process lives.

    Where folders cannot be locked, as on Windows and some network file systems, nobody is kept away.

    Raises:
        FileExistsError: if another process holds the folder.
    """
    if folder is None or fcntl is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # `claim` will say what is wrong
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise FileExistsError(
            f"another process is training in {folder}; wait until it has ended, or choose another folder"
        ) from error
    except OSError:
        pass
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # or a child that was forked meanwhile would keep it locked
        os.close(handle)


def save_run(
    folder: Path,
    model: FramePredictor,
    weights: Mapping[str, Tensor],
    history: pandas.DataFrame,
    record: dict[str, Any],
) -> None:
    """Write what a run has come to: configuration, weights, history, and `record` as `run.json`.

    Scores and samples in the folder are removed: they are those of other weights.
    """
    for name in ("scores.npz", "samples.npz"):
        (folder / name).unlink(missing_ok=True)
    config = json.dumps(_plain({"network": model.network, **model.arguments}), indent=2)
    write_whole(folder / "config.json", lambda path: Path(path).write_text(config + "\n", encoding="utf-8"))
    _save_weights(folder, weights)
    write_whole(folder / "history.csv", lambda path: history.to_csv(path, index=False))
    write_record(folder, {**record, "test_sets": {}})


def publish(run: str | os.PathLike, to: str | os.PathLike, precision: str = "fp16", weights: bool = True) -> Path:
    """Copy a run, finished or not, for others to load: weights in half precision, no checkpoints.

    Args:
        run: a run folder.
        to: the folder of the copy, such as book/runs/convlstm-book. A copy of the same network there is replaced.
        precision: "fp16" or "bf16".
        weights: False leaves the weights out, where they are too large to share.

    Raises:
        FileNotFoundError: if `run` is no run folder, or has no weights yet.
        FileExistsError: if `to` holds something else.
        ValueError: if a weight is too large for float16, or `to` is the run's own folder.
    """
    run, to = Path(run), Path(to)
    if to.resolve() == run.resolve():
        raise ValueError(f"to is the run's own folder, {run}; choose another for the copy")
    dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16}
    if precision not in dtypes:
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(dtypes)}")
    record = read_record(run)
    if record is None or not (run / "model.safetensors").is_file():
        raise FileNotFoundError(f"{run} is no run folder with weights: run.json or model.safetensors is missing")
    there = read_record(to)
    if to.exists() and ((there is None and any(to.iterdir())) or (there and there["network"] != record["network"])):
        raise FileExistsError(f"{to} holds something else than a {record['network']} run; choose another folder")
    half = {key: value.to(dtypes[precision]) for key, value in load_file(run / "model.safetensors").items()}
    if not all(value.isfinite().all() for value in half.values()):
        raise ValueError(f"a weight of {run} is not finite in float16; use precision='bf16'")
    to.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (to / name).unlink(missing_ok=True)
    for name in ("config.json", "history.csv", "scores.npz", "samples.npz"):
        if (run / name).exists():
            shutil.copyfile(run / name, to / name)
    if weights:
        _save_weights(to, half)
    write_record(to, {**record, "weights": precision if weights else None})
    return to


def save_scores(
    folder: str | os.PathLike, scores: Mapping[str, np.ndarray], digests: Mapping[str, str] | None = None
) -> None:
    """Add scores to the `scores.npz` of a run folder; those under other keys stay.

    Args:
        scores: nats per clip and frame, (clips, frames), under "test set/protocol", such as "mnist-2/rollout".
        digests: `TestSet.digest` of the clips, by the same keys; recorded in `run.json` under "test_sets".
    """
    folder, digests = Path(folder), digests or {}
    for key, nats in scores.items():
        if key.count("/") != 1 or np.ndim(nats) != 2:
            raise ValueError(
                f"scores {key!r} have shape {np.shape(nats)}; expected (clips, frames) under a key like 'mnist-2/rollout'"
            )
    if unknown := set(digests) - set(scores):
        raise ValueError(f"digests of {', '.join(sorted(unknown))} without scores")
    record = read_record(folder)
    if record is None:
        raise FileNotFoundError(f"{folder} is no run folder: it has no run.json")
    arrays = load_scores(folder) | {key: np.asarray(nats, np.float32) for key, nats in scores.items()}
    save_arrays(folder / "scores.npz", arrays)
    new = {key: {"clips": len(nats), "sha256": digests.get(key)} for key, nats in scores.items()}
    write_record(folder, {**record, "test_sets": {**record.get("test_sets", {}), **new}})


def load_scores(folder: str | os.PathLike) -> dict[str, np.ndarray]:
    """The scores of a run folder: nats, float32 (clips, frames), by "test set/protocol"; empty if there are none."""
    return _load_arrays(Path(folder) / "scores.npz")


def load_history(folder: str | os.PathLike) -> pandas.DataFrame:
    """The learning curve of a run folder: the columns that `framepred.train` returns."""
    import pandas

    return pandas.read_csv(Path(folder) / "history.csv")


def save_samples(folder: str | os.PathLike, samples: Mapping[str, Tensor | np.ndarray]) -> None:
    """Write the clips that the book shows to `samples.npz`, in place of those there.

    Args:
        samples: frames (…, 1, H, W), floating point in [0, 1] or uint8, stored as uint8; and under keys that end in
            "flow", flow in pixels (…, 2, H, W), stored as float16.
    """
    arrays = {}
    for key, values in samples.items():
        values = np.asarray(values)
        if key.endswith("flow"):
            arrays[key] = values.astype(np.float16)
        elif values.dtype == np.uint8:
            arrays[key] = values
        elif values.size and not (values.min() >= 0 and values.max() <= 1):  # NaN fails too
            raise ValueError(
                f"samples {key!r} have values from {values.min():.4g} to {values.max():.4g}; expected [0, 1]"
            )
        else:
            arrays[key] = np.round(255 * values).astype(np.uint8)
    save_arrays(Path(folder) / "samples.npz", arrays)


def load_samples(folder: str | os.PathLike) -> dict[str, np.ndarray]:
    """What `save_samples` wrote, by key; empty if there is nothing."""
    return _load_arrays(Path(folder) / "samples.npz")


def provenance(device: torch.device) -> dict[str, Any]:
    """What a number needs beside it to be traced: code, versions, hardware, time.

    Where the code came without its history, the environment variable FRAMEPRED_COMMIT may name the commit.
    """
    from framepred import __version__

    hardware = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{_cpu_name()}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    )
    names = ("torch", "numpy", "accelerate")
    ours = _git("ls-files", "--error-unmatch", Path(__file__).name) is not None  # and not of whatever lies around us
    return {
        "commit": (_git("rev-parse", "HEAD") if ours else None) or os.environ.get("FRAMEPRED_COMMIT"),
        "modified": ours and bool(_git("status", "--porcelain", "--", ".")),
        "versions": {
            "framepred": __version__,  # also where it is not installed, but on the path
            **{name: version(name) for name in names},
            "python": platform.python_version(),
        },
        "hardware": hardware,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


# --- files -----------------------------------------------------------------------------------------------------------


def read_record(folder: Path) -> dict[str, Any] | None:
    """The `run.json` of a folder; None if there is none."""
    path = Path(folder) / "run.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["network"], record["training"]
    except (ValueError, TypeError, KeyError) as error:
        raise FileExistsError(f"{path} was not written by framepred; choose another folder") from error
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write `run.json`."""
    text = json.dumps(_plain(record), indent=2)
    write_whole(Path(folder) / "run.json", lambda path: Path(path).write_text(text + "\n", encoding="utf-8"))


def write_whole(path: Path, write: Callable[[str], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: a reader sees the old file or the new, never a part.

    This holds when the power fails, too: the file is on the disk before its name is.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        write(str(temporary))
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what a process that was killed while it wrote a file of a run has left behind."""
    for place in (folder, folder / "checkpoints"):
        for path in place.glob(f".*{PART}"):
            path.unlink(missing_ok=True)


def _save_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    content = serialize(tensors, metadata={"format": "pt"})
    write_whole(folder / "model.safetensors", lambda path: Path(path).write_bytes(content))


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name to a compressed .npz file, whole or not at all."""

    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:  # given a name, NumPy would add .npz to it
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write_whole(path, write)


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


# --- descriptions ----------------------------------------------------------------------------------------------------


def _describe_clips(clips: MovingDigits) -> dict[str, Any]:
    digits = clips.digits
    return {
        "digits": {"source": digits.source, "split": digits.split, "sha256": digits.digest},
        "clips": {key: getattr(clips, key) for key in ("n_digits", "n_frames", "frame_size", "speed", "acceleration")},
    }


def _preset(model: FramePredictor) -> str | None:
    """The name of the preset that the network was built from; None if it is none of them."""
    arguments = inspect.signature(type(model)).parameters
    defaults = {name: argument.default for name, argument in arguments.items()}
    for name, preset in PRESETS.get(model.network, {}).items():  # none for a network of one's own
        if _plain({**defaults, **preset}) == _plain(model.arguments):
            return name
    return None


def _plain(value: Any) -> Any:
    """The value as JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(value))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
