"""The training loop.

Step k of a run sees clips k·batch_size, … of its seed, its learning rate follows from k, and nothing else is random. So
a run can be stopped anywhere, resumed from a checkpoint, and spread over processes, and still sees the same clips.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from framepred.checkpoints import list_checkpoints, load_checkpoint, rewind, save_checkpoint, save_stable, signals_noted
from framepred.compiled import compiled
from framepred.config import MAY_CHANGE, TrainConfig
from framepred.data.moving import MovingDigits
from framepred.data.streams import to_device, uniform
from framepred.metrics import cross_entropy
from framepred.models.base import FramePredictor
from framepred.optimisers import make_optimizers, parameter_groups
from framepred.precision import autocast
from framepred.runs import load_history, read_record
from framepred.runs.folder import claim, held, save_run, sweep
from framepred.runs.loading import load_weights, weights_of
from framepred.runs.record import describe, provenance
from framepred.schedule import DECAY, SCHEDULES, learning_rate, rate_share, truth_probability

if TYPE_CHECKING:
    import pandas
    from accelerate import PartialState

__all__ = ["SCHEDULES", "TrainConfig", "autocast", "learning_rate", "train", "truth_probability"]

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

    def history(self, config: TrainConfig, validation_nats: float = math.nan) -> pandas.DataFrame:
        """The rows, and one for the recent steps. They stay as they are: what is averaged does not depend on stops."""
        import pandas

        return pandas.DataFrame([*self.rows, *([self.row(config, validation_nats)] if self.recent else [])])

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
    checkpoint and a validation; whatever else ends it leaves the last one. The same call goes on from there, and on one
    CPU the outcome is that of a run without a stop, bit for bit. When all steps are done, the call returns at once.
    Several processes share their gradients, but not what a layer notes of its inputs, such as a batch norm; none of our
    networks has one.

    Args:
        out: a folder for the run: configuration, weights, history, provenance and checkpoints (see `framepred.runs`).
        progress: show a progress bar.
        validation: clips of held-out digits. The network is scored on them as it is trained: rolled out, or one step
            ahead with feedback "teacher-forcing". The best weights are then what is kept, unless `config.keep` is "last".
        warm_start: a run, as `framepred.load` takes it, whose weights a new run starts from; `run.json` names it.

    Returns:
        The history: step, clips seen, seconds, mean loss and nats per frame since the row before, validation nats,
        learning rate. `model` then has the weights that were kept: the best, the averaged or the last ones.

    Raises:
        ValueError: if clips, config and processes do not fit, or if `out` holds a run that differs (it says where).
        FileExistsError: if `out` holds something else, or another process is training there.
        FileNotFoundError: if there is no run `warm_start`, or it has no weights.
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
    if warm_start is not None and (folder is None or read_record(folder) is None):
        weights_of(warm_start)  # if there are none, nothing is written
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
            checkpoint = _to_go_on_from(out / "checkpoints", config, processes.process_index)
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
    optimizers = make_optimizers(model, config)
    average = copy.deepcopy(model).requires_grad_(False).eval() if config.ema else None
    if checkpoint is not None:
        done = Progress(**checkpoint["done"])
        done.recent = [values.to(device) for values in done.recent]
        model.load_state_dict(checkpoint["model"])
        for optimizer, saved_state in zip(optimizers, checkpoint["optimizers"], strict=True):
            optimizer.load_state_dict(saved_state)
        if average is not None:
            average.load_state_dict(checkpoint["average"])
    judged = model if average is None else average

    score = math.nan  # of the last step's weights, if they were validated

    def kept() -> dict[str, Any]:
        """The weights that the run keeps if it ends here, and which they are."""
        last = {"which": "last", "step": done.step, "nats": score, "weights": judged.state_dict()}
        if config.keep == "last" or (done.best is None and math.isnan(score)):
            return last
        return {**(last if done.best is None or score < done.best["nats"] else done.best), "which": "best"}

    def write_folder(out: Path) -> None:
        keep = kept()
        about = {"which": keep["which"], "step": keep["step"]}
        about["validation_nats"] = None if math.isnan(keep["nats"]) else keep["nats"]
        record = {**run, **done.summary(config), "kept": about}
        save_run(out, model, keep["weights"], done.history(config, score), record)  # type: ignore[arg-type]

    def state() -> dict[str, Any]:
        return {
            "model": model.state_dict(),
            "average": average.state_dict() if average is not None else None,
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "config": dataclasses.asdict(config),
            "done": vars(done),
        }

    def save(ended: str | None = None) -> None:
        session.update(to_step=done.step, seconds=round(time.perf_counter() - began, 3), ended=ended)
        if out is not None and rank == 0:
            save_checkpoint(out / "checkpoints", done.step, state())
            write_folder(out)

    # The steps before the rate falls.
    stable = int(DECAY * config.steps) if config.schedule == "warmup-stable-decay" else math.inf
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
        elif stable < done.step <= int(DECAY * checkpoint["config"]["steps"]) and out is not None and rank == 0:
            save_stable(out / "checkpoints", done.step, state())  # a plan that became shorter falls from here on

    part = config.batch_size // config.accumulate // n_processes  # clips computed at a time
    agree = _agreement(n_processes)
    first = loop_began = saved = time.perf_counter()
    saving = judging = 0.0  # seconds that the last checkpoint and the last validation took
    from_start = {"from_start": True} if config.loss_on == "all" else {}
    label = f"training {model.network}"
    quiet = {"disable": not progress or rank > 0, "mininterval": 0.1 if sys.stderr.isatty() else 5.0}  # or logs grow
    bar = tqdm(desc=label, total=config.steps, initial=done.step, unit="step", **quiet)
    model.train()
    with bar, signals_noted(out is not None) as caught, compiled(model, config.compile) as objective:
        while not ended:
            # One step.
            step, score = done.step, math.nan
            for group in parameter_groups(optimizers):
                group["lr"] = group["initial_lr"] * rate_share(config, step)
            model.zero_grad(set_to_none=True)
            measures = torch.zeros(2, device=device)  # loss, nats
            for k in range(config.accumulate):
                start = step * config.batch_size + (rank * config.accumulate + k) * part
                context, target = _batch(clips, config, part, config.seed, start, device)
                with autocast(device, config.precision):
                    loss, forecast = objective(context, target, **_fed_back(config, step, start, target), **from_start)
                (loss / config.accumulate).backward()
                with torch.no_grad():
                    nats = cross_entropy(forecast.logits[:, -config.horizon :], target).mean()
                    measures += torch.stack([loss, nats]) / config.accumulate
            if n_processes > 1:
                _mean_over_processes([*(p.grad for p in model.parameters() if p.grad is not None), measures])
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            for optimizer in optimizers:
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
                if judge is not None:
                    judging = -time.perf_counter()
                    score = _validate(judged, judge, config, part, processes, device)
                    judging += time.perf_counter()
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
            late = config.minutes is not None and now - began + next_step + saving + judging > 60 * config.minutes
            ended = done.ended(config) or agree(caught[0] if caught else "minutes" if late else None)
            if ended or now - saved >= 60 * config.checkpoint_minutes:
                _check_finite(done, config, out)
                save(ended)
                saved = time.perf_counter()
                saving = saved - now
            if done.step == stable and out is not None and rank == 0:
                _check_finite(done, config, out)
                save_stable(out / "checkpoints", done.step, state())
        if validation is not None and math.isnan(score) and done.step > session["from_step"]:
            # A stop is judged for those who use what it leaves, and forgotten by the run that goes on from it.
            score = _validate(judged, validation, config, part, processes, device)
            session["seconds"] = round(time.perf_counter() - began, 3)
            if out is not None and rank == 0:
                write_folder(out)
    if ended not in ("finished", "patience") and rank == 0 and out is not None:
        print(
            f"{ended}: {label} stopped after step {done.step} of {config.steps}; the same call resumes", file=sys.stderr
        )
    model.load_state_dict(kept()["weights"])
    model.eval()
    processes.wait_for_everyone()
    return done.history(config, score)


# --- the parts of a step ---------------------------------------------------------------------------------------------


def _batch(clips: MovingDigits, config: TrainConfig, n: int, seed: int, start: int, device) -> tuple[Tensor, Tensor]:
    """Context (n, context, 1, H, W) and target (n, horizon, 1, H, W) of clips start, …, start + n - 1."""
    frames = clips.sample(n, seed, start, device).frames
    return frames[:, : config.context], frames[:, config.context : config.context + config.horizon]


def _fed_back(config: TrainConfig, step: int, start: int, target: Tensor) -> dict[str, Tensor]:
    """The arguments of `FramePredictor.loss` that say what is fed back, for clips start, …"""
    probability = truth_probability(config, step)
    if probability in (0, 1):
        return {"truth": target} if probability else {}
    B, T = target.shape[:2]
    width = 4 * math.ceil(T / 4)  # uniforms come in fours; number `width`·k + t belongs to frame t of clip k
    drawn = uniform(config.seed, FEEDBACK_STREAM, start * width, B * width).reshape(B, width)[:, :T]
    mask = torch.from_numpy(drawn < probability)
    return {"truth": target, "truth_mask": to_device(mask, target.device)}


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
            forecast = model.forecast(context, config.horizon, target if config.feedback == "teacher-forcing" else None)
        total += cross_entropy(forecast.logits, target).mean(1).sum()
    model.train(was_training)
    return float(reduce(total, "sum") if processes.num_processes > 1 else total) / config.validation_clips


def _to_go_on_from(folder: Path, config: TrainConfig, rank: int) -> dict[str, Any] | None:
    """The last checkpoint; of a run that grows after its rate began to fall, the one before that, and no later one is left."""
    last = load_checkpoint(folder)
    if last is None or config.steps <= last["config"]["steps"]:
        return last
    stable = grows_from(folder, last)
    if stable is None:
        return last
    if rank == 0:
        rewind(folder, stable["done"]["step"], stable)
    return stable


def grows_from(folder: Path, last: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint that a run goes on from if it grows after its rate began to fall; None if that is the last one.

    What the run has cost, and the best weights that it has found, are those of the last checkpoint all the same.
    """
    config, done = last["config"], last["done"]
    if config["schedule"] != "warmup-stable-decay" or done["step"] <= int(DECAY * config["steps"]):
        return None
    try:
        stable = load_checkpoint(folder, "stable")
    except ValueError:  # damaged, of which a warning told: the run goes on from where its rate fell to
        return None
    if stable is not None:
        stable["done"] |= {key: done[key] for key in ("sessions", "best")}
    return stable


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
    if (config.feedback != "free-running" or config.teacher_forcing) and not model.one_step:
        raise ValueError(
            f"feedback is {config.feedback!r} with teacher_forcing {config.teacher_forcing}, but {model.network} has no "
            "one-step form; use 'free-running' and 0"
        )
    if config.loss_on == "all" and "from_start" not in inspect.signature(model.forecast).parameters:
        raise ValueError(
            f"loss_on is 'all', but {model.network} does not predict the frames of the context (its `forecast` takes no "
            "`from_start`); use 'horizon'"
        )
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
