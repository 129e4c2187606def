"""What every network is: a map from context frames to a forecast."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn

from framepred.metrics import cross_entropy


@dataclass(frozen=True, eq=False)
class Forecast:
    """Predicted frames 1 to T after the context.

    `logits` are what the networks compute; `frames` = sigmoid(logits) are the probabilities of a white pixel, read as
    grey values. `flow` is the look-up displacement in pixels, as (x, y): out(p) = in(p + flow). It is None for networks
    that have none; the motion of the ink is -flow.
    """

    logits: Float[Tensor, "B T 1 H W"]
    flow: Float[Tensor, "B T 2 H W"] | None = None

    @property
    def frames(self) -> Float[Tensor, "B T 1 H W"]:
        return self.logits.sigmoid()


class FramePredictor(nn.Module, PyTorchModelHubMixin, abc.ABC):
    """Base class of the networks.

    A subclass sets `network`, its name; `divisor`, of which frame sizes must be multiples; `one_step` to False if it
    cannot predict each frame from the true frames before it; and `adam_layers`, the names of the layers that Muon leaves
    to Adam, if those are not the first and the last one. It implements `forecast`.

    Saving and loading come with it: `model.save_pretrained(folder)` writes the weights (safetensors) and the arguments of
    `__init__` (JSON); `from_pretrained` reads a folder or a repository of the Hugging Face hub.
    """

    network: ClassVar[str]
    one_step: ClassVar[bool] = True
    adam_layers: ClassVar[tuple[str, ...] | None] = None
    divisor: int = 1

    def forward(
        self,
        context: Float[Tensor, "B C 1 H W"],
        horizon: int = 10,
        truth: Float[Tensor, "B T 1 H W"] | None = None,
    ) -> Forecast:
        """Predict the frames that follow.

        Args:
            context: the frames seen, values in [0, 1].
            horizon: how many frames to predict.
            truth: the `horizon` true frames. If they are given, each frame is predicted from the true frames before
                it (one-step prediction); if not, from the network's own predictions (rollout).

        Returns:
            A forecast whose logits are float32 whatever the precision of the parameters.

        Raises:
            ValueError: for frames of another shape, outside [0, 1] or NaN, for a horizon below 1, and for `truth` if the
                network has no one-step form.
        """
        self.check(context, horizon, truth)
        return self.forecast(context, horizon, truth)

    @abc.abstractmethod
    def forecast(
        self,
        context: Float[Tensor, "B C 1 H W"],
        horizon: int,
        truth: Float[Tensor, "B T 1 H W"] | None = None,
        truth_mask: Bool[Tensor, "B T"] | None = None,
    ) -> Forecast:
        """As `forward`, without looking at the values: what training calls.

        `truth_mask[b, t]` tells whether frame t of clip b, once predicted, is fed back as the truth (True) or as the
        network's own prediction; without it all are the truth.

        A network may take a further argument, `from_start`, as ours do: if it is True, the forecast begins with frame 2 of
        the context. It then has C - 1 frames more, each predicted from the true frames before it.
        """

    def loss(
        self,
        context: Float[Tensor, "B C 1 H W"],
        target: Float[Tensor, "B T 1 H W"],
        truth: Float[Tensor, "B T 1 H W"] | None = None,
        truth_mask: Bool[Tensor, "B T"] | None = None,
        from_start: bool = False,
    ) -> tuple[Float[Tensor, ""], Forecast]:
        """What training minimises, and the forecast it was computed from. Here: the mean nats per frame.

        With `from_start` it is the mean over all frames that the network can predict, those of the context too.
        """
        option: dict[str, Any] = {"from_start": True} if from_start else {}  # not every network takes it
        forecast = self.forecast(context, target.shape[1], truth, truth_mask, **option)
        return cross_entropy(forecast.logits, predicted(context, target, from_start)).mean(), forecast

    def check(self, context: Tensor, horizon: int, truth: Tensor | None = None) -> None:
        """Raise a ValueError that says what is wrong with the arguments of `forward`, if anything is."""
        if horizon < 1:
            raise ValueError(f"horizon is {horizon}; expected at least 1 frame to predict")
        check_frames(context, "context", self.divisor)
        if truth is not None:
            if not self.one_step:
                raise ValueError(f"truth was given, but {self.network} predicts all frames at once; leave it out")
            check_frames(truth, "truth", self.divisor)
            expected = (len(context), horizon, *context.shape[2:])
            if truth.shape != expected:
                raise ValueError(
                    f"truth has shape {tuple(truth.shape)}; expected {expected}: the frames that are to be predicted"
                )

    @property
    def arguments(self) -> dict[str, Any]:
        """What `__init__` was called with, defaults included."""
        return dict(self._hub_mixin_config or {})  # type: ignore[arg-type]

    def save_pretrained(self, save_directory, *, config: Any = None, **kwargs: Any):  # type: ignore[override]
        # config.json names the network too, so that a folder says what it holds.
        named = config or {"network": self.network, **self.arguments}
        return super().save_pretrained(save_directory, config=named, **kwargs)


def predicted(
    context: Float[Tensor, "B C 1 H W"], target: Float[Tensor, "B T 1 H W"], from_start: bool
) -> Float[Tensor, "B P 1 H W"]:
    """The frames that a forecast predicts: those of `target`, and with `from_start` the context's before them, but the first."""
    return torch.cat([context[:, 1:], target], 1) if from_start else target


def check_frames(frames: Tensor, name: str, divisor: int = 1) -> None:
    """Raise a ValueError unless `frames` is a (B, T, 1, H, W) batch of clips with values in [0, 1]."""
    if frames.ndim != 5:
        raise ValueError(f"{name} has shape {tuple(frames.shape)}; expected 5 axes: (clips, frames, 1, height, width)")
    B, T, C, H, W = frames.shape
    if C != 1:
        raise ValueError(f"{name} has {C} channels (shape {tuple(frames.shape)}); expected 1, a grey value")
    if T < 1 or B < 1:
        raise ValueError(f"{name} has {B} clips of {T} frames; expected at least 1 of each")
    if H % divisor or W % divisor:
        raise ValueError(f"{name} has frames of {H}×{W} pixels; this network needs multiples of {divisor}")
    if not frames.is_floating_point():
        raise ValueError(
            f"{name} is {frames.dtype}; expected floating point values in [0, 1] (divide grey values by 255)"
        )
    low, high = frames.aminmax()
    if not (low >= 0 and high <= 1):  # NaN fails too
        raise ValueError(f"{name} has values from {low:.4g} to {high:.4g}; expected [0, 1] and no NaN")


def check_patch(patch: int) -> None:
    """Raise a ValueError unless frames can be cut into patches of this side."""
    if patch < 1:
        raise ValueError(f"patch is {patch}; expected at least 1, for no patches")


def check_kernel(kernel_size: int, name: str = "kernel_size") -> None:
    """Raise a ValueError unless a convolution with a kernel of this side can keep the frame's size."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"{name} is {kernel_size}; an odd one keeps the frame's size")
