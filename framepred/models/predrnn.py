"""PredRNN of Wang et al. (2017), a recurrent network that came after the thesis' three."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from framepred.models.base import Forecast, FramePredictor, check_kernel, check_patch
from framepred.models.layers.convlstm_cell import State


class SpatiotemporalLSTMCell(nn.Module):
    """One step of a spatio-temporal LSTM (ST-LSTM; Wang et al. 2017).

    Beside its cell state c, which goes on in time, it has a memory m, which comes from the layer below. With x the input
    and h the hidden state, * a convolution, ∘ the elementwise product, [ , ] channels one after the other:

        c' = f ∘ c + i ∘ g    g, i, f    = tanh, σ, σ (W_x * x + W_h * h + b)
        m' = f' ∘ m + i' ∘ g' g', i', f' = tanh, σ, σ (W'_x * x + W_m * m + b')
        o  = σ(W_xo * x + W_ho * h + W_o * [c', m'] + b_o)
        h' = o ∘ tanh(W_1×1 * [c', m'])

    The biases of both forget gates start at 1, as those of `ConvLSTMCell` do.
    """

    def __init__(self, in_channels: int, hidden_channels: int, kernel_size: int = 5, forget_bias: float = 1.0):
        super().__init__()
        check_kernel(kernel_size)

        def conv(n_in: int, gates: int, bias: bool = False) -> nn.Conv2d:
            layer = nn.Conv2d(n_in, gates * hidden_channels, kernel_size, padding="same", bias=bias)
            layer.gates = gates  # type: ignore[assignment]  # for Muon: each gate's kernel is a matrix of its own
            return layer

        self.from_input = conv(in_channels, 7, bias=True)  # rows: g i f, g' i' f', o
        self.from_state = conv(hidden_channels, 4)  # g i f, o
        self.from_memory = conv(hidden_channels, 3)  # g' i' f'
        self.from_cells = conv(2 * hidden_channels, 1)  # o
        self.mix = nn.Conv2d(2 * hidden_channels, hidden_channels, 1, bias=False)
        with torch.no_grad():
            assert self.from_input.bias is not None
            biases = self.from_input.bias.zero_().view(7, -1)
            biases[2], biases[5] = forget_bias, forget_bias

    def forward(
        self, x: Float[Tensor, "B M H W"], state: State, memory: Float[Tensor, "B N H W"]
    ) -> tuple[State, Float[Tensor, "B N H W"]]:
        """The new state and the memory for the layer above."""
        h, c = state
        n = h.shape[1]
        in_time, in_space, o = self.from_input(x).split((3 * n, 3 * n, n), 1)
        from_state = self.from_state(h)
        c = _update(in_time + from_state[:, : 3 * n], c)
        memory = _update(in_space + self.from_memory(memory), memory)
        both = torch.cat([c, memory], 1)
        o = o + from_state[:, 3 * n :] + self.from_cells(both)
        return (torch.sigmoid(o) * torch.tanh(self.mix(both)), c), memory


def _update(gates: Float[Tensor, "B gates H W"], old: Float[Tensor, "B N H W"]) -> Float[Tensor, "B N H W"]:
    """A memory after its gates g, i and f."""
    g, i, f = gates.chunk(3, 1)
    return torch.sigmoid(f) * old + torch.sigmoid(i) * torch.tanh(g)


class PredRNN(FramePredictor):
    """A stack of spatio-temporal LSTM cells with a memory that zigzags through it (Wang et al. 2017).

    Within a frame the memory climbs the stack from cell to cell, and from the top it goes down to the bottom cell of the
    next frame. So the lowest cell knows at once what the highest one found. A 1×1 convolution of the highest hidden state
    gives the next frame. The defaults are those of the authors' code for Moving MNIST.

    Departures: the output is the log-odds of a white pixel, for the cross-entropy of this package (theirs is a grey value,
    for the squared error), forget gates start open, and training feeds back what `TrainConfig` says.

    Args:
        layers, hidden: cells, and channels of each.
        kernel_size: of the cells' convolutions.
        patch: space-to-depth, as in `ConvLSTM`; frame sizes must be multiples of it.
        forget_bias: see `SpatiotemporalLSTMCell`.
        output_bias: see `ConvLSTM`.
    """

    network = "predrnn"
    adam_layers = ("head",)

    def __init__(
        self,
        layers: int = 4,
        hidden: int = 128,
        kernel_size: int = 5,
        patch: int = 4,
        forget_bias: float = 1.0,
        output_bias: float = -3.0,
    ):
        super().__init__()
        check_patch(patch)
        if layers < 1 or hidden < 1:
            raise ValueError(f"{layers} layers of {hidden} channels; expected at least 1 of each")
        self.patch = self.divisor = patch
        self.hidden = hidden
        self.cells = nn.ModuleList(
            SpatiotemporalLSTMCell(hidden if layer else patch**2, hidden, kernel_size, forget_bias)
            for layer in range(layers)
        )
        self.head = nn.Conv2d(hidden, patch**2, 1)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, output_bias)

    def forecast(self, context: Tensor, horizon: int, truth=None, truth_mask=None, from_start=False) -> Forecast:
        B, C, _, H, W = context.shape
        memory = context.new_zeros(B, self.hidden, H // self.patch, W // self.patch)
        states = [(memory, memory) for _ in self.cells]
        logits: list[Tensor] = []
        for t in range(C + horizon - 1):
            frame = context[:, t] if t < C else logits[-1].sigmoid()
            if t >= C and truth is not None:
                given = truth[:, t - C]
                frame = (
                    given if truth_mask is None else torch.where(truth_mask[:, t - C, None, None, None], given, frame)
                )
            x = F.pixel_unshuffle(frame, self.patch)
            for k, cell in enumerate(self.cells):
                states[k], memory = cell(x, states[k], memory)
                x = states[k][0]
            logits.append(F.pixel_shuffle(self.head(x), self.patch))
        return Forecast(torch.stack(logits[0 if from_start else C - 1 :], 1).float())
