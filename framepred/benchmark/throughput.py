"""How fast this machine is at what this package does, beside what it could be; and the file in which that is kept.

A speed is the median of several timed rounds, after some that are not timed. A file holds one
machine's, by key, so that a measurement that was cut short goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framepred.benchmark.reference import Plain, draw_plainly, plain
from framepred.data.moving import MovingDigits
from framepred.files import write_text
from framepred.models import VideoPixelNetwork, build
from framepred.models.flops import training_cost
from framepred.runs.record import provenance
from framepred.training.compilation import compiled
from framepred.training.config import TrainConfig
from framepred.training.processes import Processes
from framepred.training.step import TrainingStep

MEASUREMENTS = Path(__file__).parents[2] / "book" / "measurements"
ROUNDS = 5


class Measurements:
    """A JSON file of one machine's measurements, written anew after each; it holds where they come from, too.

    `rows[key]` is what `measure(key, function)` returned, now or in an earlier session.
    """

    def __init__(self, folder: str | Path, device: str | torch.device):
        self.about = provenance(torch.device(device))
        name = re.sub(r"[^a-z0-9]+", "-", self.about["hardware"].lower()).strip("-")
        self.path = Path(folder) / f"{name}.json"
        self.rows: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            there = json.loads(self.path.read_text(encoding="utf-8"))
            if there["commit"] == self.about["commit"]:  # of other code they would be other numbers
                self.rows = there["rows"]

    def measure(self, key: str, function: Callable[..., dict[str, Any]], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The row of a key: from the file, else what the function returns; "out of memory" is a result, too."""
        if key not in self.rows:
            try:
                self.rows[key] = function(*args, **kwargs)
            except torch.OutOfMemoryError:
                self.rows[key] = {"error": "out of memory"}
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({**self.about, "rows": self.rows}, indent=2)
            write_text(self.path, text + "\n")
        return self.rows[key]


def load_measurements(folder: str | Path = MEASUREMENTS) -> dict[str, dict[str, Any]]:
    """The measurements of a folder, by hardware: the content of its JSON files."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(folder).glob("*.json"))]
    return {record["hardware"]: record for record in records}


def peak(device: str | torch.device, seconds: float | int = 1, size: int | None = None) -> dict[str, Any]:
    """What the device reaches where nothing stands in its way: a large matrix product, and a copy of its memory.

    The fastest round counts, of the fastest of three sizes. On random numbers: of zeros, a GPU multiplies more in a second.
    """
    device = torch.device(device)
    n = size or (16384 if device.type == "cuda" else 2048)
    row: dict[str, Any] = {"size": n}
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        row[name] = max(
            2 * m**3 / time_it(lambda x=a[:m, :m].clone(), y=b[:m, :m].clone(): x @ y, device, seconds, min)  # type: ignore[misc]
            for m in (n, n // 2, n // 4)
        )
    source = torch.randn(16 * n, n, device=device, dtype=torch.bfloat16)  # larger than any cache
    to = torch.empty_like(source)
    row["bytes_per_second"] = 2 * source.numel() * 2 / time_it(lambda: to.copy_(source), device, seconds, min)
    return row


def training(
    network: str,
    preset: str,
    way: str,
    clips: MovingDigits,
    batch_size: int,
    device: str | torch.device,
    seconds: float | int = 5,
    channels_last: bool = False,
    context: int = 10,
    horizon: int = 10,
) -> dict[str, Any]:
    """The speed of the steps that `framepred.train` makes, from making the clips to updating the weights.

    Args:
        way: "plain" for `framepred.benchmark.reference` in float32 (in tf32 on a GPU that has it); "eager" for the network
            as it is; or a `compile` of `TrainConfig`. All but the first in bfloat16 where the device computes with it.

    Returns:
        clips_per_second, flops_per_second (those that `training_cost` counts, whatever was computed in truth),
        start_seconds (the first step, compilation included), and memory_bytes: the peak on a GPU; on a CPU, and not for
        a compiled network, what is kept for the backward pass. Of a network that cannot be compiled here: error.
    """
    device = torch.device(device)
    model = build(network, preset)
    cost = training_cost(model, context, horizon, clips.frame_size)
    how: Any = False if way in ("plain", "eager") else way
    precision: Any = "fp32" if way == "plain" else "auto"
    config = TrainConfig(
        batch_size=batch_size, compile=how, context=context, horizon=horizon, precision=precision, learning_rate=1e-4
    )
    trained = (plain(model) if way == "plain" else model).to(device)
    if channels_last:
        trained = trained.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    step = TrainingStep(trained, clips, config, device, Processes())
    steps = itertools.count()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with compiled(model, how) as objective:
        if isinstance(trained, Plain):
            objective = trained.loss
        began = time.perf_counter()
        kept = _Kept()
        try:
            with contextlib.nullcontext() if how else kept:  # what is compiled cannot be looked into
                step(next(steps), objective)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if not how:
                raise
            torch.compiler.reset()  # compilers fail in many ways, and the rest must be measured
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            return {"way": way, "error": f"{type(error).__name__}: {reason}"}
        _wait(device)
        start = time.perf_counter() - began
        speed = batch_size / time_it(lambda: step(next(steps), objective), device, seconds)
    memory: int | None = None if how else kept.bytes
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    if how:
        torch.compiler.reset()  # or what was compiled for one network would count against the next
    return {
        "network": network,
        "preset": preset,
        "way": way,
        "batch_size": batch_size,
        "channels_last": channels_last,
        "clips_per_second": speed,
        "flops_per_second": speed * cost.flops,
        "start_seconds": start,
        "memory_bytes": memory,
    }


def generating(
    clips: MovingDigits, batch_size: int, device: str | torch.device, seconds: float | int = 1
) -> dict[str, Any]:
    """The speed of making clips on the device: float32 frames, and uint8 ones."""
    device, start = torch.device(device), 0

    def make(dtype: torch.dtype) -> None:
        nonlocal start
        start += batch_size
        clips.sample(batch_size, 0, start, device, dtype)

    row: dict[str, Any] = {"n_digits": clips.n_digits, "batch_size": batch_size}
    for name, dtype in {"float32": torch.float32, "uint8": torch.uint8}.items():
        row[name] = batch_size / time_it(lambda d=dtype: make(d), device, seconds)  # type: ignore[misc]
    return row


@torch.no_grad()
def drawing(
    preset: str, device: str | torch.device, seconds: float | int = 2, frame_size: int = 64, pixels: int = 4
) -> dict[str, Any]:
    """The time in which the Video Pixel Network draws a frame pixel by pixel, with caches and naively.

    The naive way runs the decoder once for every pixel. All take the same time, so `pixels` of them are measured.
    """
    device = torch.device(device)
    model = build("vpn", preset).to(device).eval()
    assert isinstance(model, VideoPixelNetwork)
    frame = torch.rand(1, 1, frame_size, frame_size, device=device)
    hidden, _ = model.read(frame[:, None])
    share = model.share(hidden[:, -1])

    def mean_field(logits: Tensor, y: Tensor, x: Tensor) -> Tensor:
        return logits.sigmoid()

    cached = time_it(lambda: model.decoder.draw(share, mean_field), device, seconds)
    each = time_it(lambda: draw_plainly(model.decoder, share, mean_field, pixels), device, seconds) / pixels
    return {"preset": preset, "cached_seconds": cached, "naive_seconds": each * frame_size**2}


def time_it(
    run: Callable[[], Any],
    device: str | torch.device,
    seconds: float | int = 1,
    of_rounds: Callable[..., float] = statistics.median,
) -> float:
    """Seconds that a call takes: the median of rounds that together take about `seconds`; or what else, of the rounds.

    A round is one call or, where calls are short, as many as make it long enough to be timed. The host waits for a GPU
    at the end of a round only, as it does in training. On one thread of a CPU it is the processor's time that counts,
    which what else the machine does hardly changes.
    """
    device = torch.device(device)
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter

    def timed(calls: int) -> float:
        began = clock()
        for _ in range(calls):
            run()
        _wait(device)
        return clock() - began

    timed(1)
    calls = max(1, round(seconds / ROUNDS / max(timed(1), 1e-6)))
    return of_rounds([timed(calls) for _ in range(ROUNDS)]) / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Kept(torch.autograd.graph.saved_tensors_hooks):
    """The bytes that autograd keeps for the backward pass, each tensor's memory counted once."""

    def __init__(self):
        super().__init__(self._pack, lambda tensor: tensor)
        self.sizes: dict[int, int] = {}

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self.sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())
