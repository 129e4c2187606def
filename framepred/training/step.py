"""One step of training, as `framepred.train` makes it and `framepred.benchmark.throughput` times it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from framepred.data.moving import MovingDigits
from framepred.metrics import cross_entropy
from framepred.precision import autocast
from framepred.training.config import TrainConfig
from framepred.training.feedback import fed_back
from framepred.training.optimisers import make_optimizers, parameter_groups
from framepred.training.processes import Processes
from framepred.training.schedule import rate_share


class TrainingStep:
    """A network, what changes its weights, and one step of that. A step depends on its number and on nothing random.

    Args:
        model: a network, or another module whose objective has the form of `FramePredictor.loss`; on `device`.
        clips: what it is trained on.

    average: a copy of the network whose weights are averaged over the steps; None where `config.ema` is 0.
    part: clips that are computed at a time.
    """

    def __init__(
        self, model: nn.Module, clips: MovingDigits, config: TrainConfig, device: torch.device, processes: Processes
    ):
        self.model, self.clips, self.config = model, clips, config
        self.device, self.processes = device, processes
        self.optimizers = make_optimizers(model, config)
        self.average = copy.deepcopy(model).requires_grad_(False).eval() if config.ema else None
        saved = model.state_dict().keys()  # buffers that are not saved, such as masks, are constants
        self.notes = [name for name, _ in model.named_buffers() if name in saved]
        self.part = config.batch_size // config.accumulate // processes.count
        self.options = {"from_start": True} if config.loss_on == "all" else {}  # not every network takes it

    def __call__(self, step: int, objective: Callable) -> Tensor:
        """Make a step, counted from 0.

        Args:
            objective: the network's `loss`, compiled or not.

        Returns:
            (3,): loss and nats per frame, means over all processes, and the norm of the gradient before it was clipped.
            They are on the device, and nobody has waited for them.
        """
        config, processes = self.config, self.processes
        for group in parameter_groups(self.optimizers):
            group["lr"] = group["initial_lr"] * rate_share(config, step)
        self.model.zero_grad(set_to_none=True)
        measures = torch.zeros(2, device=self.device)
        for k in range(config.accumulate):
            start = step * config.batch_size + (processes.rank * config.accumulate + k) * self.part
            measures += self._backward(step, start, objective) / config.accumulate
        processes.mean_([*(p.grad for p in self.model.parameters() if p.grad is not None), measures])
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average is not None:
            follow(self.average, self.model, self.notes, min(config.ema, (1 + step) / (10 + step)))
        return torch.cat([measures, norm.detach()[None]])

    def _backward(self, step: int, start: int, objective: Callable) -> Tensor:
        """Add the gradients of the part of the batch that begins with clip `start`; its loss and nats, (2,)."""
        config = self.config
        context, target = context_and_target(self.clips, config, self.part, config.seed, start, self.device)
        with autocast(self.device, config.precision):
            loss, forecast = objective(context, target, **fed_back(config, step, start, target), **self.options)
        (loss / config.accumulate).backward()
        with torch.no_grad():
            nats = cross_entropy(forecast.logits[:, -config.horizon :], target).mean()
            return torch.stack([loss, nats])

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the weights, their average and the optimisers."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def context_and_target(
    clips: MovingDigits, config: TrainConfig, n: int, seed: int, start: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Context (n, context, 1, H, W) and target (n, horizon, 1, H, W) of clips start, …, start + n - 1."""
    frames = clips.sample(n, seed, start, device).frames
    return frames[:, : config.context], frames[:, config.context : config.context + config.horizon]


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, notes: Sequence[str], decay: float) -> None:
    """Move the averaged weights towards those of the network, by 1 - decay of the way; `notes` are buffers to copy.

    `torch.optim.swa_utils.AveragedModel` does the same, bit for bit, but takes its decay from a count of its own that would
    have to be set after every resume; ours follows from the step.
    """
    # One operation on all of them: on a GPU each by itself would cost a launch.
    get_ema_multi_avg_fn(decay)(list(average.parameters()), list(model.parameters()), 0)
    # What a layer notes of its inputs, such as the means of a batch norm, is an average already.
    for name in notes:
        average.get_buffer(name).copy_(model.get_buffer(name))
