"""What torch.compile is asked to compile: a whole training step, or the parts that a network repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import get_args

import torch

from framepred.models.base import FramePredictor
from framepred.models.layers.convlstm_cell import ConvLSTMCell
from framepred.models.layers.masked import ResidualBlock
from framepred.training.config import CompileMode


@contextmanager
def compiled(model: FramePredictor, how: bool | str = False) -> Iterator[Callable]:
    """The network's `loss`, compiled as long as the context lasts.

    Meanwhile cuDNN tries which of its algorithms is the fastest for each shape of a convolution, and keeps to it.

    Args:
        how: False, not at all. True or "default", all time steps of the loss as one graph: the fastest code, after
            minutes of compilation that grow with depth and length. "reduce-overhead", the same with CUDA graphs, which
            replay all launches at once: for networks so small that launching takes longer than computing.
            "max-autotune", that and a search for the best kernels. "parts", only what is repeated, the update of a
            cell's state and the residual block: most of the gain, after seconds.

    Raises:
        ValueError: for anything else.
    """
    known = (False, True, *get_args(CompileMode))
    if how not in known:
        raise ValueError(f"compile is {how!r}; expected one of {', '.join(map(str, known))}")
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        if how == "parts":
            with _compiled_parts(model):
                yield model.loss
        elif how:
            yield torch.compile(model.loss, mode=None if how in (True, "default") else str(how))
        else:
            yield model.loss
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def _compiled_parts(model: FramePredictor) -> Iterator[None]:
    import torch._dynamo  # which takes two seconds

    # accelerate.utils.compile_regions wraps modules, whose `forward` it compiles. A cell is also run by `run` and `step`,
    # and an encoder is cut by index: a wrapped module does neither.
    cells = [module for module in model.modules() if isinstance(module, ConvLSTMCell)]
    blocks = [module for module in model.modules() if isinstance(module, ResidualBlock)]
    for cell in cells:
        cell.update = torch.compile(cell.update, dynamic=False)  # type: ignore[method-assign]
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=False)  # type: ignore[method-assign]
    # All cells share one piece of code, of which PyTorch compiles eight forms and then silently stops. Every width is a
    # form, and so is a first step, a state in another precision, a validation.
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    try:
        with torch._dynamo.config.patch({limit: 64}):
            yield
    finally:  # the methods of the classes show again
        for cell in cells:
            del cell.update
        for block in blocks:
            del block.forward
