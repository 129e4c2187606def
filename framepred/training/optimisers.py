"""What changes the weights: Adam and RMSProp as PyTorch has them, and Muon for the weights between two layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import groupby

import torch
from torch import Tensor, nn

from framepred.precision import computes_bf16
from framepred.training.config import TrainConfig


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimiser that `config` names, or Muon and the Adam that takes the rest.

    Each group of parameters has its largest learning rate in "initial_lr", as PyTorch's schedulers have it.
    """
    rest = dict(model.named_parameters())
    optimizers: list[torch.optim.Optimizer] = []
    if config.optimizer == "muon":
        parts = hidden_weights(model)
        weights = [(rest.pop(name), n) for name, n in parts.items()]
        exact = config.precision == "fp32" or not computes_bf16(next(model.parameters()).device.type)
        if weights:
            dtype = torch.float32 if exact else torch.bfloat16
            optimizers.append(Muon(weights, config.muon_learning_rate, dtype=dtype))
    kinds = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop, "muon": torch.optim.Adam}
    if rest:
        optimizers.append(kinds[config.optimizer](rest.values(), lr=config.learning_rate))
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["initial_lr"] = group["lr"]
    return optimizers


def hidden_weights(model: nn.Module) -> dict[str, int]:
    """The weights that Muon takes, by name, and how many matrices each holds, one below the other.

    They are those of two axes or more, but for the layers in `model.adam_layers`, or for the first and the last one where
    that is None or missing. A layer says with an attribute `gates` that its weights hold a matrix for each of so many gates.
    """
    layers: dict[str, dict[str, Tensor]] = {}  # a layer's weights, by the layer's name
    gates: dict[str, int] = {}
    for name, module in model.named_modules():
        gates[name] = getattr(module, "gates", 1)
        own = {key: p for key, p in module.named_parameters(recurse=False) if key.startswith("weight") and p.ndim > 1}
        if own:
            layers[name] = own
    names = list(layers)
    adam = getattr(model, "adam_layers", None)
    if adam is None:
        adam = (*names[:1], *names[-1:])
    return {
        f"{name}.{key}" if name else key: gates[name]
        for name, weights in layers.items()
        if not any(name == layer or name.startswith(f"{layer}.") for layer in adam)
        for key in weights
    }


class Muon(torch.optim.Optimizer):
    """Momentum whose direction is orthogonalised (Jordan et al. 2024).

    A weight of a convolution, (out, in, height, width), is read as a matrix of out rows. Its update is the momentum's
    nearest orthogonal matrix: all its singular values become about 1, so that rare directions move as far as common ones.
    As in Jordan's code, and in `torch.optim.Muon`, which takes matrices only: Nesterov momentum, five Newton-Schulz
    steps, and an update √max(1, rows/columns) times as large. No weight decay.

    Args:
        weights: each with the number of matrices of equal height that it holds, such as the four gates of an LSTM.
        lr: the learning rate.
        momentum: share of the old direction that is kept.
        dtype: what the Newton-Schulz steps compute in. bfloat16 is exact enough, and fast where a device has it.
    """

    def __init__(
        self,
        weights: Iterable[tuple[nn.Parameter, int]],
        lr: float = 0.02,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
    ):
        shaped = [((n, p.shape[0] // n, p.numel() // p.shape[0]), p) for p, n in weights]
        for (n, rows, _), p in shaped:
            if n * rows != p.shape[0]:
                raise ValueError(f"a weight of shape {tuple(p.shape)} cannot be cut into {n} matrices of equal height")
        # Weights of one shape form a group, because their matrices are orthogonalised together.
        shaped.sort(key=lambda pair: pair[0])
        grouped = groupby(shaped, key=lambda pair: pair[0])
        self.dtype = dtype
        super().__init__(
            [{"params": [p for _, p in pairs], "shape": shape} for shape, pairs in grouped],
            {"lr": lr, "momentum": momentum},
        )

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            updates = [self._nesterov(p, p.grad, group["momentum"]).reshape(group["shape"]) for p in weights]
            _, rows, columns = group["shape"]
            scale = math.sqrt(max(1, rows / columns))
            for p, update in zip(weights, orthogonalized(torch.stack(updates), self.dtype)):
                p.sub_(update.reshape(p.shape), alpha=group["lr"] * scale)
        return loss

    def _nesterov(self, p: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum"], momentum)


def orthogonalized(matrices: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Matrices (…, rows, columns) with the same singular vectors and singular values between about 0.7 and 1.2.

    Each of five steps applies 3.4445 s - 4.7750 s³ + 2.0315 s⁵ to the singular values s (Jordan et al. 2024).
    """
    X = matrices.to(dtype).flatten(0, -3) if matrices.ndim > 2 else matrices.to(dtype)[None]
    X = X / X.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    tall = X.shape[-2] > X.shape[-1]
    if tall:  # the smaller of the two square products
        X = X.mT
    for _ in range(5):
        A = X @ X.mT
        X = torch.baddbmm(X, torch.baddbmm(A, A, A, beta=-4.7750, alpha=2.0315), X, beta=3.4445)
    return (X.mT if tall else X).to(matrices.dtype).reshape(matrices.shape)


def parameter_groups(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[dict]:
    """The groups of all optimisers."""
    for optimizer in optimizers:
        yield from optimizer.param_groups
