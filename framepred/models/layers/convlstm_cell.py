"""The convolutional LSTM cell, which all three networks share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from framepred.models.base import check_kernel

State = tuple[Float[Tensor, "B N H W"], Float[Tensor, "B N H W"]]  # hidden state H, cell state C


class ConvLSTMCell(nn.Module):
    """One step of a convolutional LSTM (Shi et al. 2015; T Eq. 3.1).

    With x the input, h and c the hidden and the cell state, * a convolution and ∘ the elementwise product:

        i  = σ(W_xi * x + W_hi * h + W_ci ∘ c + b_i)      input gate: how much of the new content enters
        f  = σ(W_xf * x + W_hf * h + W_cf ∘ c + b_f)      forget gate: how much of the old state stays
        c' = f ∘ c + i ∘ tanh(W_xc * x + W_hc * h + b_c)  cell state
        o  = σ(W_xo * x + W_ho * h + W_co ∘ c' + b_o)     output gate: how much of the state shows
        h' = o ∘ tanh(c')                                 hidden state

    The peepholes W_c· are per channel, of shape (N, 1, 1): only these give the published parameter counts. As in the
    thesis there is one bias for each gate. A departure that can be switched off: the bias of the forget gate starts at
    1, so that a new cell remembers (Gers et al. 2000; Jozefowicz et al. 2015).

    The convolutions of the input and of the state are separate: that of the input needs no recurrence, so for frames
    known in advance it is done for all time steps at once (`input_gates`), and `step` adds the rest.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int = 5,
        peepholes: bool = True,
        forget_bias: float = 1.0,
    ):
        super().__init__()
        check_kernel(kernel_size)
        gates, padding = 4 * hidden_channels, kernel_size // 2
        self.hidden_channels = hidden_channels
        self.input_to_gates = nn.Conv2d(in_channels, gates, kernel_size, padding=padding)
        self.state_to_gates = nn.Conv2d(hidden_channels, gates, kernel_size, padding=padding, bias=False)
        for layer in (self.input_to_gates, self.state_to_gates):
            layer.gates = 4  # type: ignore[assignment]  # for Muon: each gate's kernel is a matrix of its own
        # Rows: W_ci, W_cf, W_co. They start at zero: a plain LSTM.
        self.peephole = nn.Parameter(torch.zeros(3, hidden_channels, 1, 1)) if peepholes else None
        with torch.no_grad():
            bias = self.input_to_gates.bias
            assert bias is not None
            bias.zero_()
            bias[hidden_channels : 2 * hidden_channels] = forget_bias

    def forward(self, x: Float[Tensor, "B M H W"], state: State | None = None) -> State:
        """One step from `state` (None: all zeros) with input x."""
        return self.step(self.input_to_gates(x), state)

    def input_gates(self, x: Float[Tensor, "B T M H W"]) -> Float[Tensor, "B T gates H W"]:
        """The input's share of all four gates for T steps at once."""
        return self.input_to_gates(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def run(
        self, x: Float[Tensor, "B T M H W"], state: State | None = None
    ) -> tuple[Float[Tensor, "B T N H W"], State]:
        """T steps with known inputs: all hidden states, and the last state."""
        hidden = []
        for gates in self.input_gates(x).unbind(1):
            state = self.step(gates, state)
            hidden.append(state[0])
        assert state is not None
        return torch.stack(hidden, 1), state

    def step(self, gates: Float[Tensor, "B gates H W"], state: State | None) -> State:
        """One step, given the input's share of the gates."""
        if state is None:
            return self.update(gates, None)
        h, c = state
        return self.update(gates + self.state_to_gates(h), c)

    def update(self, gates: Float[Tensor, "B gates H W"], c: Float[Tensor, "B N H W"] | None) -> State:
        """The new state, from all of the gates before their sigmoids and the old cell state: pixel by pixel."""
        i, f, g, o = gates.chunk(4, 1)
        if c is None:  # h = c = 0: nothing to forget
            c = torch.sigmoid(i) * torch.tanh(g)
        else:
            if self.peephole is not None:
                i, f = i + self.peephole[0] * c, f + self.peephole[1] * c
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        if self.peephole is not None:
            o = o + self.peephole[2] * c
        return torch.sigmoid(o) * torch.tanh(c), c
