"""The processes that train one network together: one, or those that `accelerate launch` or a notebook started."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

REASONS = (None, "minutes", "SIGINT", "SIGTERM")  # to stop; of several, the last one counts


class Processes:
    """How many processes train together, which of them this one is, and what they tell one another.

    All of them have to call the same methods in the same order. One process alone waits for nobody and sends nothing.

    count: of the processes.
    rank: the number of this one. Number 0 writes the files.
    """

    def __init__(self):
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env

        cpu = not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
        self._state = PartialState(cpu=cpu)
        if self._state.num_processes != int(os.environ.get("WORLD_SIZE", "1")):
            # A notebook that trained alone has now forked into several processes, which still have its state. For as long as
            # a process lives there is one, and accelerate has no public way to begin another.
            PartialState._reset_state()
            self._state = PartialState(cpu=cpu)
        self.count, self.rank = self._state.num_processes, self._state.process_index
        # On the CPU: asking must not wait for a GPU.
        self._group = torch.distributed.new_group(backend="gloo") if self.count > 1 else None

    def device(self, model: nn.Module) -> torch.device:
        """The device of this process; one that trains alone stays where the network is."""
        return self._state.device if self.count > 1 else next(model.parameters()).device

    def in_turn(self) -> AbstractContextManager:
        """A context that number 0 goes through before the others."""
        return self._state.main_process_first()

    def wait(self) -> None:
        """Until all processes are here."""
        self._state.wait_for_everyone()

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give the tensors of all processes the values that they have in number 0."""
        from accelerate.utils import broadcast

        broadcast([tensor.data for tensor in tensors])

    def mean_(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their means over all processes: as one vector, because a message costs more than its size."""
        from accelerate.utils import reduce

        if self.count == 1:
            return
        flat = reduce(torch.cat([tensor.flatten() for tensor in tensors]), "mean")
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the tensors of all processes."""
        from accelerate.utils import reduce

        return reduce(tensor, "sum")

    def agree(self, reason: str | None) -> str | None:
        """Why any of the processes wants to stop, so that all stop after the same step: one of REASONS."""
        if self._group is None:
            return reason
        code = torch.tensor(REASONS.index(reason))
        torch.distributed.all_reduce(code, torch.distributed.ReduceOp.MAX, self._group)
        return REASONS[int(code)]
