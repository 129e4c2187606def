"""The training loop.

Step k of a run sees clips k·batch_size, … of its seed, its learning rate follows from k, and nothing else is random. So
a run can be stopped anywhere, resumed from a checkpoint, and spread over processes, and still sees the same clips.
"""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from tqdm import tqdm

from framepred.data.moving import MovingDigits
from framepred.models.base import FramePredictor
from framepred.runs import load_history, read_record
from framepred.runs.folder import save_run
from framepred.runs.loading import load_weights, weights_of
from framepred.runs.record import Kept, RunRecord, describe, provenance
from framepred.training.checkpoints import signals_noted
from framepred.training.compilation import compiled
from framepred.training.config import TrainConfig
from framepred.training.fits import check_fits
from framepred.training.folder import TrainingFolder
from framepred.training.processes import Processes
from framepred.training.progress import Pace, Progress
from framepred.training.schedule import steps_before_decay
from framepred.training.step import TrainingStep
from framepred.training.validation import validate

if TYPE_CHECKING:
    import pandas


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
    return Trainer(model, clips, config, None if out is None else Path(out), validation, warm_start).fit(progress)


class Trainer:
    """A session of a run: what `train` is given, and how far it has come.

    run: what `run.json` says of the run from its first day.
    done: how far the run is.
    step: the weights and what changes them, one step at a time.
    score: validation nats of the weights as they are; NaN if they were not validated.
    ended: why there is no further step; None as long as there is one.
    """

    def __init__(
        self,
        model: FramePredictor,
        clips: MovingDigits,
        config: TrainConfig,
        out: Path | None = None,
        validation: MovingDigits | None = None,
        warm_start: str | os.PathLike | None = None,
    ):
        self.pace = Pace()
        self.model, self.clips, self.config = model, clips, config
        self.validation, self.warm_start = validation, warm_start
        self.processes = Processes()
        check_fits(model, clips, config, validation, self.processes.count)
        if warm_start is not None and (out is None or read_record(out) is None):
            weights_of(warm_start)  # if there are none, nothing is written
        parent = None if warm_start is None else Path(warm_start).name
        self.run: RunRecord = (
            {} if out is None else describe(model, clips, dataclasses.asdict(config), validation, parent)
        )
        self.folder = TrainingFolder(out, self.processes)
        self.device = self.processes.device(model)
        self.done = Progress()
        self.session: dict[str, Any] = {}
        self.score = math.nan
        self.ended: str | None = None
        self.stable = steps_before_decay(config.steps) if config.schedule == "warmup-stable-decay" else None
        self.label = f"training {model.network}"

    def fit(self, progress: bool = False) -> pandas.DataFrame:
        """Train until something ends it, and return the history."""
        with self.folder.held():
            recorded, checkpoint = self.folder.claim(self.run, self.config.steps)
            # Finished, and its checkpoints were removed.
            if self.folder.path is not None and checkpoint is None and recorded > 0:
                load_weights(self.folder.path, self.model)
                self.model.eval()
                return load_history(self.folder.path)
            self.restore(checkpoint)
            self.begin(recorded, checkpoint)
            self.loop(progress)
            return self.finish()

    def restore(self, checkpoint: dict[str, Any] | None) -> None:
        """The weights, their average and the optimisers: as they are, from another run, or from the checkpoint."""
        model = self.model.to(self.device)
        if self.config.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.warm_start is not None and checkpoint is None:
            load_weights(self.warm_start, model)
        self.processes.copy_from_first(model.parameters())
        self.step = TrainingStep(model, self.clips, self.config, self.device, self.processes)
        if checkpoint is not None:
            self.done = Progress(**checkpoint["done"])
            self.done.recent = [values.to(self.device) for values in self.done.recent]
            self.step.load_state(checkpoint)

    def begin(self, recorded: int, checkpoint: dict[str, Any] | None) -> None:
        """Begin a session, unless the run has ended. `recorded` are the steps that its `run.json` tells of."""
        done = self.done
        self.ended = done.ended(self.config)
        self.session = {"from_step": done.step, "to_step": done.step, "seconds": 0.0, "ended": None}
        self.session["processes"] = self.processes.count
        if self.ended:
            if recorded != done.step:
                self.write()  # the last session was killed after its last checkpoint and before this
            return
        self.session |= provenance(self.device)
        done.sessions.append(self.session)
        self.folder.sweep()
        if checkpoint is None:
            self.save()  # if that is impossible, it is better to know it now
        elif self.stable is not None and self.stable < done.step <= steps_before_decay(checkpoint["config"]["steps"]):
            self.folder.save_stable(done.step, self.state())  # a plan that became shorter falls from here on

    def loop(self, progress: bool = False) -> None:
        """Step after step, until one is the last."""
        config, done = self.config, self.done
        self.pace.start()
        self.model.train()
        with (
            self.bar(progress) as bar,
            signals_noted(self.folder.path is not None) as caught,
            compiled(self.model, config.compile) as objective,
        ):
            while not self.ended:
                self.score = math.nan
                done.recent.append(self.step(done.step, objective))
                done.step += 1
                bar.update()
                if self.record():
                    bar.set_postfix({name: f"{done.rows[-1][name]:.1f}" for name in ("loss", "nats")})
                self.ended = self.stop_reason(caught)
                self.save_if_due()
            self.judge_a_stop()

    def bar(self, progress: bool) -> tqdm:
        """A progress bar, if one is to be shown."""
        return tqdm(
            desc=self.label,
            total=self.config.steps,
            initial=self.done.step,
            unit="step",
            disable=not progress or self.processes.rank > 0,
            mininterval=0.1 if sys.stderr.isatty() else 5.0,  # or logs grow
        )

    def record(self) -> bool:
        """Validate if it is time, and add a row to the history if there is something to tell; whether there was.

        Only here, and before a checkpoint, does the loop wait for the device.
        """
        done, config = self.done, self.config
        due = done.step % config.validate_every == 0 or done.step == config.steps
        judge = self.validation if due else None
        if judge is None and done.step % config.log_every:
            return False
        done.check_finite(config, self.folder.checkpoints)
        if judge is not None:
            self.judge(judge)
            done.remember_best(self.score, self.judged.state_dict())
        self.session["seconds"] = self.pace.seconds
        done.rows.append(done.row(config, self.score))
        done.recent = []
        return True

    def judge(self, clips: MovingDigits) -> None:
        """Score the weights on the validation clips."""
        began = self.pace.seconds
        self.score = validate(self.judged, clips, self.config, self.step.part, self.device, self.processes)
        self.pace.judging = self.pace.seconds - began

    def stop_reason(self, caught: list[str]) -> str | None:
        """Why the step just made is the last, if it is; all processes say the same. `caught` names signals."""
        late = self.pace.late(self.config, self.done.step - self.session["from_step"])
        wish = caught[0] if caught else "minutes" if late else None
        return self.done.ended(self.config) or self.processes.agree(wish)

    def save_if_due(self) -> None:
        """Write a checkpoint at the end and every few minutes, and one that stays where the rate begins to fall."""
        began = self.pace.seconds
        if self.ended or began - self.pace.saved >= 60 * self.config.checkpoint_minutes:
            self.done.check_finite(self.config, self.folder.checkpoints)
            self.save()
            self.pace.saved = self.pace.seconds
            self.pace.saving = self.pace.saved - began
        if self.done.step == self.stable:
            self.done.check_finite(self.config, self.folder.checkpoints)
            self.folder.save_stable(self.done.step, self.state())

    def judge_a_stop(self) -> None:
        """Validate for those who use what a stop leaves; the run that goes on from it forgets the result."""
        if self.validation is not None and math.isnan(self.score) and self.done.step > self.session["from_step"]:
            self.judge(self.validation)
            self.session["seconds"] = round(self.pace.seconds, 3)
            self.write()

    def finish(self) -> pandas.DataFrame:
        """Give the network the weights that are kept; the history."""
        if self.ended not in ("finished", "patience") and self.folder.written is not None:
            where = f"after step {self.done.step} of {self.config.steps}"
            print(f"{self.ended}: {self.label} stopped {where}; the same call resumes", file=sys.stderr)
        self.model.load_state_dict(self.kept["weights"])
        self.model.eval()
        self.processes.wait()
        return self.done.history(self.config, self.score)

    @property
    def judged(self) -> FramePredictor:
        """The network with the averaged weights, if there are any: it is validated and kept."""
        return self.model if self.step.average is None else cast(FramePredictor, self.step.average)

    @property
    def kept(self) -> dict[str, Any]:
        """The weights that the run keeps if it ends here, and which they are."""
        return self.done.kept(self.config, self.score, self.judged.state_dict())

    def save(self) -> None:
        """Write a checkpoint, and what the run has come to."""
        self.session.update(to_step=self.done.step, seconds=round(self.pace.seconds, 3), ended=self.ended)
        self.folder.save(self.done.step, self.state())
        self.write()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {**self.step.state(), "config": dataclasses.asdict(self.config), "done": vars(self.done)}

    def write(self) -> None:
        """Write what the run has come to."""
        if self.folder.written is None:
            return
        kept = self.kept
        nats = None if math.isnan(kept["nats"]) else kept["nats"]
        about: Kept = {"which": kept["which"], "step": kept["step"], "validation_nats": nats}
        record: RunRecord = {**self.run, **self.done.summary(self.config), "kept": about}  # type: ignore[typeddict-item]
        save_run(self.folder.written, self.model, kept["weights"], self.done.history(self.config, self.score), record)
