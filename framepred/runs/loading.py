"""How a network is loaded from a run folder, from a published run, or from the hub."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

from safetensors.torch import load_file

from framepred.models import NETWORKS
from framepred.models.base import FramePredictor
from framepred.runs.published import published_folder, published_runs
from framepred.runs.record import RunRecord, read_record


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


def run_record(run: str | os.PathLike) -> RunRecord:
    """The `run.json` of a run, as `run_folder` takes it.

    Raises:
        FileNotFoundError: if there is no such run, or it has none, as one from the hub.
    """
    folder = run_folder(run)
    record = read_record(folder)
    if record is None:
        raise FileNotFoundError(f"{folder} has no run.json: it holds a network, and not how it was trained")
    return record


def _from_hub(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=["config.json", "model.safetensors"]))
    except OSError as error:  # of the hub, or of the network
        raise FileNotFoundError(
            f"no run folder {repository!r} here, and the Hugging Face hub gave none ({error}); "
            f"published runs: {', '.join(published_runs()) or 'none'}"
        ) from error
