"""The convolutional LSTM network of Shi et al. (2015)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framepred.models.base import Forecast, FramePredictor, check_patch
from framepred.models.layers.convlstm_cell import ConvLSTMCell, State


class ConvLSTM(FramePredictor):
    """A stack of ConvLSTM cells; a 1×1 convolution of all their hidden states gives the next frame (T §3.2.1).

    One stack reads the context and goes on predicting; there is no separate forecaster as in Shi et al. With the
    defaults it is the thesis' network (3,701,249 parameters). `patch` is Shi's space-to-depth: a frame is cut into
    patch × patch pixels that become channels, so that the cells work at 1/patch of the resolution.

    Args:
        hidden: channels of each cell.
        kernel_size: of the cells' convolutions.
        patch: 1 for none; frame sizes must be multiples of it.
        peepholes, forget_bias: see `ConvLSTMCell`.
        output_bias: start of the last bias. -3 is the log-odds of a frame that is 5% white, as these nearly are;
            training then needn't begin by darkening the page.
    """

    network = "convlstm"
    adam_layers = ("head",)  # the cells begin with a convolution of patches, which is wide enough to be a matrix

    def __init__(
        self,
        hidden: Sequence[int] = (128, 64, 64),
        kernel_size: int = 5,
        patch: int = 1,
        peepholes: bool = True,
        forget_bias: float = 1.0,
        output_bias: float = -3.0,
    ):
        super().__init__()
        check_patch(patch)
        if not hidden:
            raise ValueError("hidden is empty; expected the channels of at least one cell")
        self.patch = self.divisor = patch
        widths = [patch**2, *hidden]
        self.cells = nn.ModuleList(
            ConvLSTMCell(n_in, n_out, kernel_size, peepholes, forget_bias) for n_in, n_out in zip(widths, hidden)
        )
        self.head = nn.Conv2d(sum(hidden), patch**2, 1)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, output_bias)

    def forecast(self, context: Tensor, horizon: int, truth=None, truth_mask=None, from_start=False) -> Forecast:
        known = context if truth is None or truth_mask is not None else torch.cat([context, truth[:, :-1]], 1)
        hidden, states = self._read(F.pixel_unshuffle(known, self.patch))
        last = context.shape[1] - 1  # the state after the last context frame predicts the first frame
        logits = [F.pixel_shuffle(self._head(hidden[:, 0 if from_start else last :]), self.patch)]
        for t in range(horizon - (known.shape[1] - last)):
            frame = logits[-1][:, -1:].sigmoid()
            if truth_mask is not None:
                frame = torch.where(truth_mask[:, t, None, None, None, None], truth[:, t : t + 1], frame)
            x = F.pixel_unshuffle(frame, self.patch)[:, 0]
            for k, cell in enumerate(self.cells):
                states[k] = cell(x, states[k])
                x = states[k][0]
            hidden = torch.cat([h for h, _ in states], 1)
            logits.append(F.pixel_shuffle(self.head(hidden), self.patch)[:, None])
        return Forecast(torch.cat(logits, 1).float())

    def _read(self, x: Tensor) -> tuple[Tensor, list[State]]:
        """Run the stack, one cell after the other, over frames known in advance: all hidden states, the last states."""
        hidden, states = [], []
        for cell in self.cells:
            assert isinstance(cell, ConvLSTMCell)
            x, state = cell.run(x)
            hidden.append(x)
            states.append(state)
        return torch.cat(hidden, 2), states

    def _head(self, hidden: Tensor) -> Tensor:
        return self.head(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
