"""A network over a test set, under a protocol that says what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from framepred.data.moving import Clips
from framepred.data.test_sets import TestSet
from framepred.metrics import cross_entropy, entropy_floor, squared_error
from framepred.models.base import Forecast, FramePredictor
from framepred.precision import autocast

PROTOCOLS = {
    "rollout": "ten true frames; then the network's own predictions",
    "one-step": "for every frame, all true frames before it",
    "teacher-forced": "for every pixel, all true frames before its own and the true pixels before it in its own",
}


@dataclass(frozen=True, eq=False)
class Scores:
    """Errors of one network on one test set under one protocol; arrays are (clips, frames), float32.

    Scores of different protocols answer different questions. They cannot be compared, so nothing here mixes them.
    """

    network: str
    test_set: str
    protocol: str
    nats: np.ndarray
    floor: np.ndarray
    squared_error: np.ndarray

    def __repr__(self) -> str:
        return (
            f"Scores({self.network} on {len(self.nats)} clips of {self.test_set}, {self.protocol}: {self.nats.mean():.1f} nats/frame, "
            f"first {self.nats[:, 0].mean():.1f}, last {self.nats[:, -1].mean():.1f}, floor {self.floor.mean():.1f})"
        )


def applicable(model: FramePredictor) -> list[str]:
    """The protocols that apply to a network: only one that predicts pixel after pixel can be teacher-forced."""
    applies = {"rollout": True, "one-step": model.one_step, "teacher-forced": hasattr(model, "teacher_forced")}
    return [protocol for protocol in PROTOCOLS if applies[protocol]]


def device_of(model: FramePredictor) -> torch.device:
    """Where a predictor computes: the device of its parameters or, if it has none, of its buffers; the CPU without either."""
    return next(chain(model.parameters(), model.buffers()), torch.empty(0)).device


def informed(model: FramePredictor, clips: Clips) -> FramePredictor:
    """The predictor that knows of these clips what it may know beside the frames seen.

    For a network that is nothing more: it is returned as it is. One with a method `given`, such as the oracle, is asked
    for the predictor of these clips.
    """
    return model.given(clips) if hasattr(model, "given") else model  # type: ignore[operator]


def predict(model: FramePredictor, context: Tensor, target: Tensor, protocol: str = "rollout") -> Forecast:
    """The forecast of `target` that a protocol asks for.

    Raises:
        ValueError: for an unknown protocol, or one that does not apply to the network.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    if protocol == "rollout":
        return model(context, target.shape[1])
    if protocol == "one-step":
        return model(context, target.shape[1], truth=target)
    if protocol not in applicable(model):
        raise ValueError(
            f"protocol 'teacher-forced' does not apply to {model.network}: it predicts all pixels of a frame at once, from the frames "
            "before it, so no pixel can be given to it. Use 'one-step'."
        )
    return model.teacher_forced(context, target)  # type: ignore[operator]


@torch.no_grad()
def evaluate(
    model: FramePredictor,
    test_set: TestSet,
    protocol: str = "rollout",
    context: int = 10,
    batch_size: int = 50,
    precision: str = "auto",
    progress: bool = False,
) -> Scores:
    """Score a network on every clip of a test set, on the device where its parameters (or buffers) are.

    Args:
        protocol: what the network is given for each of the frames to predict; see `PROTOCOLS`.
        context: how many true frames it sees first.
        precision: "fp32", "bf16", or "auto" (bf16 where the device computes with it); see `framepred.precision.autocast`.
            The published runs were scored with "auto".
    """
    device = device_of(model)
    was_training = model.training
    model.eval()
    parts: list[tuple[Tensor, ...]] = []
    try:
        with tqdm(total=len(test_set), desc=f"{test_set.name}, {protocol}", unit="clip", disable=not progress) as bar:
            for batch in test_set.batches(batch_size, device=device):
                seen, target = batch.split(context)
                with autocast(device, precision):
                    forecast = predict(informed(model, batch), seen, target, protocol)
                parts.append(
                    (
                        cross_entropy(forecast.logits, target),
                        entropy_floor(target),
                        squared_error(forecast.frames, target),
                    )
                )
                bar.update(len(target))
    finally:
        model.train(was_training)
    nats, floor, squared = (torch.cat(column).cpu().numpy() for column in zip(*parts))
    return Scores(model.network, test_set.name, protocol, nats, floor, squared)
