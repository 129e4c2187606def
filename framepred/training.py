"""The training loop.

Step k of a run sees clips k·batch_size, … of its seed, its learning rate follows from k, and nothing else is random. So
a run can be stopped anywhere, resumed from a checkpoint, and spread over processes, and still sees the same clips.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from framepred.checkpoints import list_checkpoints, load_checkpoint, save_checkpoint, signals_noted
from framepred.compiled import compiled
from framepred.config import MAY_CHANGE, OPTIMIZERS, SCHEDULES, TrainConfig, autocast, learning_rate
from framepred.metrics import cross_entropy
from framepred.models.base import FramePredictor
from framepred.moving import MovingDigits, _send, _uniform
from framepred.runs import claim, describe, held, load_history, load_weights, provenance, save_run, sweep

if TYPE_CHECKING:
    import pandas
    from accelerate import PartialState

__all__ = ["OPTIMIZERS", "SCHEDULES", "TrainConfig", "autocast", "learning_rate", "train"]

VALIDATION_SEED = 20_150_613  # the day on which the ConvLSTM was put on arXiv; all runs are validated on the same clips
FEEDBACK_STREAM = 2**62  # of a seed's random numbers: far from those that make the clips


@dataclass
class Progress:
    """How far a run is. A checkpoint holds it, beside the weights and the optimiser's state."""

    step: int = 0
    rows: list[dict] = field(default_factory=list)  # the history
    recent: list[Tensor] = field(default_factory=list)  # (loss, nats, gradient norm) of each step since the last row
    best: dict[str, Any] | None = None  # {"step", "nats", "weights"} of the best validation
    sessions: list[dict] = field(default_factory=list)  # one for each call of `train`

    @property
    def seconds(self) -> float:
        return sum(session["seconds"] for session in self.sessions)

    @property
    def stale(self) -> int:
        """Validations since the best one."""
        best = self.best["step"] if self.best else math.inf
        since = itertools.takewhile(lambda row: row["step"] > best, reversed(self.rows))  # asked after every step
        return sum(not math.isnan(row["validation_nats"]) for row in since)

    def row(self, config: TrainConfig, validation_nats: float = math.nan) -> dict[str, Any]:
        """What the recent steps add to the history."""
        loss, nats, _ = torch.stack(self.recent).mean(0).tolist()
        return {
            "step": self.step,
            "clips": self.step * config.batch_size,
            "seconds": self.seconds,
            "loss": loss,
            "nats": nats,
            "validation_nats": validation_nats,
            "learning_rate": learning_rate(config, self.step - 1),
        }

    def history(self, config: TrainConfig) -> pandas.DataFrame:
        """The rows, and one for the recent steps. They stay as they are: what is averaged does not depend on stops."""
        import pandas

        return pandas.DataFrame([*self.rows, *([self.row(config)] if self.recent else [])])

    def ended(self, config: TrainConfig) -> str | None:
        """Why there is nothing left to do, if so."""
        if self.step >= config.steps:
            return "finished"
        return "patience" if 0 < config.patience <= self.stale else None

    def summary(self, config: TrainConfig) -> dict[str, Any]:
        """The part of `run.json` that grows."""
        last = {key: value for key, value in self.sessions[-1].items() if key not in ("from_step", "to_step")}
        return {
            **last,
            "steps": self.step,
            "clips_seen": self.step * config.batch_size,
            "seconds": round(self.seconds, 1),
            "best": self.best and {"step": self.best["step"], "validation_nats": self.best["nats"]},
            "sessions": self.sessions,
        }


def train(
    model: FramePredictor,
    clips: MovingDigits,
    config: TrainConfig = TrainConfig(),
    out: str | os.PathLike | None = None,
    progress: bool = False,
    *,
    validation: MovingDigits | None = None,
    warm_start: str | os.PathLike | None = None,
) -> pandas.DataFrame:
    """Train a network in place, on the device where its parameters are; or on several, under `accelerate launch`.

    With `out`, nothing is lost. SIGTERM, Ctrl-C and the end of `minutes` stop the run after the current step, with a
    checkpoint; whatever else ends it leaves the last one. The same call goes on from there, and on one CPU the outcome is
    that of a run without a stop, bit for bit. When all steps are done, the call returns at once. Several processes share
    their gradients, but not what a layer notes of its inputs, such as a batch norm; none of our networks has one.

    Args:
        out: a folder for the run: configuration, weights, history, provenance and checkpoints (see `framepred.runs`).
        progress: show a progress bar.
        validation: clips of held-out digits. The network is scored on them as it is trained: rolled out, or one step
            ahead with feedback "truth". The best weights are then what is kept.
        warm_start: a run, as `framepred.load` takes it, whose weights a new run starts from; `run.json` names it.

    Returns:
        The history: step, clips seen, seconds, mean loss and nats per frame since the row before, validation nats,
        learning rate. `model` then has the weights that were kept: the best, the averaged or the last ones.

    Raises:
        ValueError: if clips, config and processes do not fit, or if `out` holds a run that differs (it says where).
        FileExistsError: if `out` holds something else, or another process is training there.
        FloatingPointError: when loss or gradient are no longer finite; it names step, clips and last checkpoint.
        OSError: if a checkpoint cannot be written; the one before is whole.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    began = time.perf_counter()
    if PartialState._shared_state and PartialState().num_processes != int(os.environ.get("WORLD_SIZE", "1")):
        PartialState._reset_state()  # a notebook that trained alone has now forked into several processes
    processes = PartialState(cpu=not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU"))
    n_processes, rank = processes.num_processes, processes.process_index
    _check(model, clips, config, validation, n_processes)
    device = processes.device if n_processes > 1 else next(model.parameters()).device
    folder = None if out is None else Path(out)
    with held(folder if rank == 0 else None):
        return _train(model, clips, config, folder, progress, validation, warm_start, processes, device, began)


def _train(
    model: FramePredictor,
    clips: MovingDigits,
    config: TrainConfig,
    out: Path | None,
    progress: bool,
    validation: MovingDigits | None,
    warm_start: str | os.PathLike | None,
    processes: PartialState,
    device: torch.device,
    began: float,
) -> pandas.DataFrame:
    from accelerate.utils import broadcast

    n_processes, rank = processes.num_processes, processes.process_index

    # What the folder holds: nothing, or this run.
    done, record, checkpoint = Progress(), None, None
    if out is not None:
        parent = None if warm_start is None else Path(warm_start).name
        run = describe(model, clips, dataclasses.asdict(config), validation, parent)
        with processes.main_process_first():
            record = claim(out, run, MAY_CHANGE)
            checkpoint = load_checkpoint(out / "checkpoints")
        processes.wait_for_everyone()
        if checkpoint is None and record is not None and record["steps"] > 0:
            if record["steps"] < config.steps:
                raise ValueError(f"{out} has no checkpoint to go on from; give another out, and this one as warm_start")
            load_weights(out, model)
            model.eval()
            return load_history(out)

    # The weights, their average and the optimiser: as they are, from another run, or from the checkpoint.
    model.to(device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if warm_start is not None and checkpoint is None:
        load_weights(warm_start, model)
    if n_processes > 1:
        broadcast([parameter.data for parameter in model.parameters()])
    optimizer = OPTIMIZERS[config.optimizer](model.parameters(), lr=config.learning_rate)
    average = copy.deepcopy(model).requires_grad_(False).eval() if config.ema else None
    if checkpoint is not None:
        done = Progress(**checkpoint["done"])
        done.recent = [values.to(device) for values in done.recent]
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        if average is not None:
            average.load_state_dict(checkpoint["average"])
    judged = model if average is None else average

    def kept() -> Mapping[str, Tensor]:
        return done.best["weights"] if done.best else judged.state_dict()

    def write_folder(out: Path) -> None:
        save_run(out, model, kept(), done.history(config), {**run, **done.summary(config)})

    def save(ended: str | None = None) -> None:
        session.update(to_step=done.step, seconds=round(time.perf_counter() - began, 3), ended=ended)
        if out is not None and rank == 0:
            state = {"model": model.state_dict(), "average": average.state_dict() if average is not None else None}
            state |= {"optimizer": optimizer.state_dict(), "config": dataclasses.asdict(config), "done": vars(done)}
            save_checkpoint(out / "checkpoints", done.step, state)
            write_folder(out)

    ended = done.ended(config)
    session = {"from_step": done.step, "to_step": done.step, "seconds": 0.0, "ended": None, "processes": n_processes}
    if ended and out is not None and record is not None and record["steps"] != done.step and rank == 0:
        write_folder(out)  # the last session was killed after its last checkpoint and before this
    if not ended:
        done.sessions.append(session | provenance(device))
        session = done.sessions[-1]
        if out is not None and rank == 0:
            sweep(out)
        if checkpoint is None:
            save()  # if that is impossible, it is better to know it now

    part = config.batch_size // config.accumulate // n_processes  # clips computed at a time
    agree = _agreement(n_processes)
    first = loop_began = saved = time.perf_counter()
    saving = 0.0  # seconds that the last checkpoint took
    label = f"training {model.network}"
    quiet = {"disable": not progress or rank > 0, "mininterval": 0.1 if sys.stderr.isatty() else 5.0}  # or logs grow
    bar = tqdm(desc=label, total=config.steps, initial=done.step, unit="step", **quiet)
    model.train()
    with bar, signals_noted(out is not None) as caught, compiled(model, config.compile) as objective:
        while not ended:
            # One step.
            step = done.step
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            optimizer.zero_grad(set_to_none=True)
            measures = torch.zeros(2, device=device)  # loss, nats
            for k in range(config.accumulate):
                start = step * config.batch_size + (rank * config.accumulate + k) * part
                context, target = _batch(clips, config, part, config.seed, start, device)
                with autocast(device, config.precision):
                    loss, forecast = objective(context, target, **_fed_back(config, step, start, target))
                (loss / config.accumulate).backward()
                with torch.no_grad():
                    nats = cross_entropy(forecast.logits, target).mean()
                    measures += torch.stack([loss, nats]) / config.accumulate
            if n_processes > 1:
                _mean_over_processes([*(p.grad for p in model.parameters() if p.grad is not None), measures])
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            if average is not None:
                _update_average(average, model, min(config.ema, (1 + step) / (10 + step)))
            done.step += 1
            done.recent.append(torch.cat([measures, norm.detach()[None]]))
            bar.update()

            # What is noted of it. Only here, and before a checkpoint, does the loop wait for the device.
            judge = validation if done.step % config.validate_every == 0 or done.step == config.steps else None
            if judge is not None or done.step % config.log_every == 0:
                _check_finite(done, config, out)
                score = math.nan
                if judge is not None:
                    score = _validate(judged, judge, config, part, processes, device)
                    if done.best is None or score < done.best["nats"]:
                        weights = {key: value.detach().cpu().clone() for key, value in judged.state_dict().items()}
                        done.best = {"step": done.step, "nats": score, "weights": weights}
                session["seconds"] = time.perf_counter() - began
                done.rows.append(done.row(config, score))
                done.recent = []
                bar.set_postfix({name: f"{done.rows[-1][name]:.1f}" for name in ("loss", "nats")})

            # Whether it was the last.
            now = time.perf_counter()
            steps = done.step - session["from_step"]
            if steps == 1:  # of a compiled network it says nothing about the next
                first = now if config.compile else loop_began
            next_step = (now - first) / max(1, steps - bool(config.compile))
            late = config.minutes is not None and now - began + next_step + saving > 60 * config.minutes
            ended = done.ended(config) or agree(caught[0] if caught else "minutes" if late else None)
            if ended or now - saved >= 60 * config.checkpoint_minutes:
                _check_finite(done, config, out)
                save(ended)
                saved = time.perf_counter()
                saving = saved - now
    if ended not in ("finished", "patience") and rank == 0 and out is not None:
        print(
            f"{ended}: {label} stopped after step {done.step} of {config.steps}; the same call resumes", file=sys.stderr
        )
    model.load_state_dict(kept())
    model.eval()
    processes.wait_for_everyone()
    return done.history(config)


# --- the parts of a step ---------------------------------------------------------------------------------------------


def _batch(clips: MovingDigits, config: TrainConfig, n: int, seed: int, start: int, device) -> tuple[Tensor, Tensor]:
    """Context (n, context, 1, H, W) and target (n, horizon, 1, H, W) of clips start, …, start + n - 1."""
    frames = clips.sample(n, seed, start, device).frames
    return frames[:, : config.context], frames[:, config.context : config.context + config.horizon]


def _fed_back(config: TrainConfig, step: int, start: int, target: Tensor) -> dict[str, Tensor]:
    """The arguments of `FramePredictor.loss` that say what is fed back, for clips start, …"""
    if config.feedback == "own":
        return {}
    if config.feedback == "truth":
        return {"truth": target}
    B, T = target.shape[:2]
    width = 4 * math.ceil(T / 4)  # uniforms come in fours; number `width`·k + t belongs to frame t of clip k
    uniform = _uniform(config.seed, FEEDBACK_STREAM, start * width, B * width).reshape(B, width)[:, :T]
    mask = torch.from_numpy(uniform < 1 - step / config.steps)
    return {"truth": target, "truth_mask": _send(mask, target.device)}


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    # One operation on all of them: on a GPU each by itself would cost a launch.
    get_ema_multi_avg_fn(decay)(list(average.parameters()), list(model.parameters()), 0)
    # What a layer notes of its inputs, such as the means of a batch norm, is an average already.
    for ours, theirs in zip(_notes(average), _notes(model), strict=True):
        ours.copy_(theirs)


def _notes(model: nn.Module) -> Iterator[Tensor]:
    """The buffers that are saved with the weights; the others are constants."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield buffer


def _mean_over_processes(tensors: list[Tensor]) -> None:
    """Replace tensors by their means over all processes: as one vector, because a message costs more than its size."""
    from accelerate.utils import reduce

    flat = reduce(torch.cat([tensor.flatten() for tensor in tensors]), "mean")
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view(tensor.shape))


@torch.no_grad()
def _validate(model: FramePredictor, clips: MovingDigits, config: TrainConfig, part: int, processes, device) -> float:
    """Mean nats per frame of the validation clips, of which each process takes every n-th batch."""
    from accelerate.utils import reduce

    was_training = model.training
    model.eval()
    total = torch.zeros((), device=device)
    for start in range(processes.process_index * part, config.validation_clips, processes.num_processes * part):
        n = min(part, config.validation_clips - start)
        context, target = _batch(clips, config, n, VALIDATION_SEED, start, device)
        with autocast(device, config.precision):
            forecast = model.forecast(context, config.horizon, target if config.feedback == "truth" else None)
        total += cross_entropy(forecast.logits, target).mean(1).sum()
    model.train(was_training)
    return float(reduce(total, "sum") if processes.num_processes > 1 else total) / config.validation_clips


# --- checks, and how a run ends --------------------------------------------------------------------------------------


def _check(
    model: FramePredictor, clips: MovingDigits, config: TrainConfig, validation: MovingDigits | None, processes: int
) -> None:
    """Raise a ValueError unless all that training is given fits together."""
    needed = config.context + config.horizon
    for name, given in {"clips": clips, "validation clips": validation}.items():
        if given is None:
            continue
        if given.n_frames < needed:
            raise ValueError(
                f"{name} have {given.n_frames} frames; context {config.context} + horizon {config.horizon} need {needed}"
            )
        if given.frame_size % model.divisor:
            raise ValueError(
                f"{name} have frames of {given.frame_size} px; {model.network} needs multiples of {model.divisor}"
            )
    if config.batch_size % (config.accumulate * processes):
        raise ValueError(
            f"batch_size {config.batch_size} cannot be cut into equal parts for {processes} processes × {config.accumulate} (accumulate)"
        )
    if config.feedback != "own" and not model.one_step:
        raise ValueError(f"feedback is {config.feedback!r}, but {model.network} has no one-step form; use 'own'")
    if validation is None and config.patience:
        raise ValueError(f"patience is {config.patience}, but without validation nothing is measured to stop by")
    if validation is not None and validation.digits.split == "test":
        raise ValueError("validation shows test digits; they are not for choosing weights. Use split='validation'")
    if validation is not None and validation.digits.digest == clips.digits.digest:
        raise ValueError("validation shows the digits trained on; use held-out ones, such as split='validation'")


def _check_finite(done: Progress, config: TrainConfig, out: Path | None) -> None:
    """Raise a FloatingPointError if a step since the last row had a loss or gradient that is not finite."""
    if not done.recent:
        return
    values = torch.stack(done.recent).cpu()
    if values.isfinite().all():
        return
    k = int((~values.isfinite().all(1)).nonzero()[0])
    step = done.step - len(values) + k
    first = step * config.batch_size
    checkpoints = list_checkpoints(out / "checkpoints") if out is not None else []
    raise FloatingPointError(
        f"the loss of step {step} is {values[k, 0]:.4g} (norm of its gradient: {values[k, 2]:.4g}); its clips are {first} to "
        f"{first + config.batch_size - 1} of seed {config.seed}. A smaller learning_rate or clip_norm usually helps. "
        + (f"The last good checkpoint is {checkpoints[-1]}." if checkpoints else "There is no checkpoint.")
    )


def _agreement(n_processes: int) -> Callable[[str | None], str | None]:
    """A function that tells every process why any of them wants to stop, so that all stop after the same step."""
    if n_processes == 1:
        return lambda reason: reason
    reasons = (None, "minutes", "SIGINT", "SIGTERM")
    group = torch.distributed.new_group(backend="gloo")  # on the CPU: asking must not wait for a GPU

    def agree(reason: str | None) -> str | None:
        code = torch.tensor(reasons.index(reason))
        torch.distributed.all_reduce(code, torch.distributed.ReduceOp.MAX, group)
        return reasons[int(code)]

    return agree
