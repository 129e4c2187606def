"""The code exercise of Section 3.2: the step of the ConvLSTM cell."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from framepred.exercises.checking import Case, Exercise, Mistake, WrongAnswer
from framepred.models.layers.convlstm_cell import ConvLSTMCell

Weights = dict[str, Tensor]


def _cell_reference(weights: Weights, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    return _with_weights(ConvLSTMCell, weights)(x, (h, c))


def _with_weights(kind: Callable, weights: Weights) -> nn.Module:
    """A cell of that kind with those weights."""
    gates, M, K, _ = weights["input_to_gates.weight"].shape
    cell = kind(M, gates // 4, K)
    if not isinstance(cell, nn.Module):
        raise WrongAnswer(
            f"MyCell(3, 2, 3) gives an object of type {type(cell).__name__}; expected a module. Does the class derive from nn.Module?"
        )
    own = dict(cell.named_parameters())
    for name, weight in weights.items():
        if name not in own and name == "peephole":
            raise WrongAnswer(
                "there is no parameter `peephole`. Without it the gates cannot look at the memory: it is nn.Parameter(torch.zeros(3, N, 1, 1)), with the rows W_ci, W_cf, W_co."
            )
        if name not in own:
            raise WrongAnswer(f"there is no parameter `{name}`. Leave `__init__` as the exercise gives it.")
        if own[name].shape != weight.shape:
            raise WrongAnswer(
                f"`{name}` has shape {tuple(own[name].shape)}; expected {tuple(weight.shape)} for M = {M}, N = {gates // 4} and a kernel of {K}×{K}."
            )
    if more := own.keys() - weights.keys():
        raise WrongAnswer(f"the cell has parameters that Eq. 3.1 does not know: {', '.join(sorted(more))}.")
    cell.load_state_dict(weights, strict=False)
    return cell


def _adapt_cell(answer: Any) -> Callable:
    if not isinstance(answer, type):
        raise WrongAnswer(
            "hand over the class itself, MyCell, not a cell or a function: the check makes its own cells."
        )
    if getattr(answer, "step", None) is ConvLSTMCell.step and getattr(answer, "forward", None) is ConvLSTMCell.forward:
        raise WrongAnswer("the step is inherited from the package's cell. Write your own `forward`.")
    return lambda weights, x, h, c: _with_weights(answer, weights)(x, (h, c))


def _step(
    weights: Weights, x: Tensor, h: Tensor, c: Tensor, order="ifgo", late=True, peep="ifo", squash=torch.tanh, shown=torch.tanh
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Eq. 3.1 with one thing done differently."""
    cell = cast(ConvLSTMCell, _with_weights(ConvLSTMCell, weights))
    gates = cell.input_to_gates(x) + cell.state_to_gates(h)
    part = dict(zip(order, gates.chunk(4, 1)))
    rows = {gate: weights["peephole"][row] * (gate in peep) for row, gate in enumerate("ifo")}
    i, f = (torch.sigmoid(part[gate] + rows[gate] * c) for gate in "if")
    new = f * c + i * squash(part["g"])
    o = torch.sigmoid(part["o"] + rows["o"] * (new if late else c))
    return o * shown(new), new


def _cell_cases(seed: int) -> list[Case]:
    g = torch.Generator().manual_seed(seed)

    def case(what: str, M: int, N: int, K: int, hint: str = "") -> Case:
        shapes = {
            "input_to_gates.weight": (4 * N, M, K, K),
            "input_to_gates.bias": (4 * N,),
            "state_to_gates.weight": (4 * N, N, K, K),
            "peephole": (3, N, 1, 1),
        }
        weights = {name: 0.5 * torch.randn(shape, generator=g) for name, shape in shapes.items()}
        x, h, c = (torch.randn(2, channels, 5, 6, generator=g) for channels in (M, N, N))
        return Case(what, (weights, x, h, c), hint)

    return [
        case("a cell of 3 input and 2 hidden channels", 3, 2, 3),
        case("a cell of 1 input and 4 hidden channels with a kernel of 5×5", 1, 4, 5),
    ]


ORDER = "the gates are in another order. The four parts of the convolutions' result are i, f, g (the content) and o, in this order; yours take {}."
PEEPHOLE = "a peephole is missing: {} not look at the memory. Each of i, f and o adds its row of `peephole`, times a cell state."

CELL = Exercise(
    "3.2-cell",
    "The step of the ConvLSTM",
    "sec-convlstm",
    "MyCell, a class; MyCell(M, N, K)(x, (h, c)) returns (h, c), each (B, N, H, W)",
    _cell_reference,
    _cell_cases,
    (
        *(
            Mistake(ORDER.format(", ".join(order)), partial(_step, order=order))
            for order in ("ifog", "figo", "fiog", "iofg", "iogf", "gifo", "igfo")
        ),
        Mistake(
            "o looks at the old cell state. Its peephole comes last in Eq. 3.1, and sees the new one, c'.",
            partial(_step, late=False),
        ),
        Mistake(PEEPHOLE.format("the gates do"), partial(_step, peep="")),
        *(Mistake(PEEPHOLE.format(f"{gate} does"), partial(_step, peep="ifo".replace(gate, ""))) for gate in "ifo"),
        Mistake(
            "the content goes through σ like a gate. It goes through tanh, so that it can also be negative and take away from the memory.",
            partial(_step, squash=torch.sigmoid),
        ),
        Mistake("the content enters without its tanh.", partial(_step, squash=lambda a: a)),
        Mistake(
            "h' is o ∘ c'. Before it is shown, the cell state goes through tanh, which keeps h' in (-1, 1).",
            partial(_step, shown=lambda a: a),
        ),
        Mistake(
            "the two results have changed places: first the hidden state h', then the cell state c'.",
            lambda *arguments: _cell_reference(*arguments)[::-1],
        ),
    ),
    _adapt_cell,
)

EXERCISES = (CELL,)
