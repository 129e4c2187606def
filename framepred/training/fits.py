"""Whether a network, clips and a configuration fit together."""

from __future__ import annotations

import inspect

from framepred.data.moving import MovingDigits
from framepred.models.base import FramePredictor
from framepred.training.config import TrainConfig


def check_fits(
    model: FramePredictor, clips: MovingDigits, config: TrainConfig, validation: MovingDigits | None, processes: int
) -> None:
    """Raise a ValueError unless all that training is given fits together.

    Args:
        validation: the validation clips, if there are any.
        processes: how many train together.
    """
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
