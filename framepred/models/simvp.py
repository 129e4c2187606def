"""A small network without recurrence, in the manner of SimVP: the one that chapter 5.3 writes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from framepred.models.base import Forecast, FramePredictor, check_patch


class GatedBlock(nn.Module):
    """Look around in each channel, mix the channels, gate, and add to the input (as Tan et al. 2022 do)."""

    def __init__(self, channels: int, kernel_size: int):
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.around = nn.Conv2d(channels, channels, kernel_size, padding="same", groups=channels)
        self.mix = nn.Conv2d(channels, 2 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "B N H W"]) -> Float[Tensor, "B N H W"]:
        value, gate = self.mix(self.around(self.norm(x))).chunk(2, 1)
        return x + self.out(value * gate.sigmoid())


class SimVP(FramePredictor):
    """All frames at once (Gao et al. 2022): encode each frame, mix all of them in one picture, decode each frame.

    Beyond `frames` it goes on from its own frames, block by block. One step ahead it predicts a block from each window of
    true frames, and the first frame of it counts. In training nothing is fed back, and frames of the context are not
    predicted: `feedback="free-running"`, `teacher_forcing=0`, `loss_on="horizon"`.

    Departures from the paper: far smaller; gated blocks of large depthwise kernels as in its second version; the output is
    the log-odds of a white pixel, for the cross-entropy of this package.

    Args:
        frames: how many it sees, and how many it predicts in one pass.
        channels: of the features of one frame.
        hidden: channels of the picture in which all times meet.
        blocks, kernel_size: of the gated blocks there.
        patch: space-to-depth, as in `ConvLSTM`; frame sizes must be multiples of it.
        output_bias: see `ConvLSTM`.
    """

    network = "simvp"

    def __init__(
        self,
        frames: int = 10,
        channels: int = 32,
        hidden: int = 128,
        blocks: int = 4,
        kernel_size: int = 7,
        patch: int = 4,
        output_bias: float = -3.0,
    ):
        super().__init__()
        check_patch(patch)
        self.frames, self.patch, self.divisor = frames, patch, patch

        def conv(n_in: int, n_out: int) -> nn.Conv2d:
            return nn.Conv2d(n_in, n_out, 3, padding=1)

        self.encoder = nn.Sequential(conv(patch**2, channels), nn.SiLU(), conv(channels, channels), nn.SiLU())
        self.enter = nn.Conv2d(frames * channels, hidden, 1)
        self.blocks = nn.Sequential(*[GatedBlock(hidden, kernel_size) for _ in range(blocks)])
        self.leave = nn.Conv2d(hidden, frames * channels, 1)
        last = conv(channels, patch**2)
        self.decoder = nn.Sequential(conv(2 * channels, channels), nn.SiLU(), last)
        assert last.bias is not None
        nn.init.constant_(last.bias, output_bias)

    def all_at_once(self, seen: Float[Tensor, "B T 1 H W"]) -> Float[Tensor, "B T 1 H W"]:
        """Logits of the `frames` frames after the `frames` frames seen."""
        B, T = seen.shape[:2]
        features = self.encoder(F.pixel_unshuffle(seen, self.patch).flatten(0, 1))  # each frame by itself
        together = features.unflatten(0, (B, T)).flatten(1, 2)  # time becomes channels
        future = self.leave(self.blocks(self.enter(together)))
        future = future.unflatten(1, (T, -1)).flatten(0, 1)
        logits = self.decoder(torch.cat([future, features], 1))
        return F.pixel_shuffle(logits, self.patch).unflatten(0, (B, T)).float()

    def forecast(self, context: Tensor, horizon: int, truth=None, truth_mask=None) -> Forecast:
        if context.shape[1] < self.frames or truth_mask is not None:
            raise ValueError(
                f"{self.network} sees {self.frames} frames at once (context has {context.shape[1]}) and is fed nothing "
                "back in training; give it a longer context, and train it with feedback='free-running', teacher_forcing=0"
            )
        if truth is None:
            seen = context[:, -self.frames :]
            blocks: list[Tensor] = []
            while self.frames * len(blocks) < horizon:
                blocks.append(self.all_at_once(seen))
                seen = blocks[-1].sigmoid()
            return Forecast(torch.cat(blocks, 1)[:, :horizon])
        known = torch.cat([context, truth], 1)
        first = context.shape[1] - self.frames
        windows = [known[:, first + t : first + t + self.frames] for t in range(horizon)]
        logits = self.all_at_once(torch.stack(windows, 1).flatten(0, 1))[:, :1]
        return Forecast(logits.reshape(len(context), horizon, *logits.shape[2:]))
