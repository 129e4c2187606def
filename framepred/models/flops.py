"""What training a network costs: FLOPs and bytes, which no machine and no other user of it can change.

Two numbers bound the time of a training step from below. Its floating-point operations (FLOPs: multiplications and
additions, each counted) need FLOPs / rate of the unit that does them; the bytes that it must move between memory and that
unit need bytes / bandwidth. No program is faster than the larger of the two, the roofline bound (Williams et al. 2009).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from framepred.models.base import FramePredictor


@dataclass(frozen=True)
class Hardware:
    """The two rates of a machine that bound every program on it.

    flops_per_second: of its fastest dense matrix product with bfloat16 operands.
    bytes_per_second: between its memory and the unit that computes, reads and writes together.
    """

    name: str
    flops_per_second: float
    bytes_per_second: float


# As their data sheets have it (dense, without sparsity). A large matrix product reaches about 80% of the first number:
# `framepred.benchmark.throughput.peak` measures what it is.
H200 = Hardware("NVIDIA H200", 989.5e12, 4.8e12)
H100 = Hardware("NVIDIA H100", 989.5e12, 3.35e12)


@dataclass(frozen=True)
class Cost:
    """What a training step on B clips costs at the least: B times what a clip does, and what a step does once.

    flops: multiplications and additions of the convolutions for a clip, forward and backward; those with the zeros
        around a frame, too, as is customary. A program may skip them: with 5×5 kernels on 16×16 places, one in seven.
    activation_bytes: a clip's: what the convolutions read and write.
    weight_bytes: a step's: kernels read and their gradients written by the convolutions; the optimiser.
    convolutions: calls in the forward pass. Each is at least one launch of a kernel, and two in the backward pass.
    """

    flops: int
    activation_bytes: int
    weight_bytes: int
    convolutions: int

    def bytes(self, batch_size: int) -> int:
        """Bytes that a step on a batch moves."""
        return batch_size * self.activation_bytes + self.weight_bytes

    def roofline_seconds(self, hardware: Hardware, batch_size: int) -> float:
        """The roofline bound: the time that no training step on a batch can fall below, on one such machine."""
        arithmetic = batch_size * self.flops / hardware.flops_per_second
        return max(arithmetic, self.bytes(batch_size) / hardware.bytes_per_second)


def training_cost(
    model: FramePredictor, context: int = 10, horizon: int = 10, frame_size: int = 64, value_bytes: int = 2
) -> Cost:
    """The cost of a training step with Adam, counted without computing anything.

    The model of the bytes, which leaves out whatever a good program need not move:

    - Forward, a convolution reads its input and writes its output once. Backward, it reads the input and the gradient of
      the output, and writes the gradient of the input (as FLOPs are counted: frames are thought to have one too).
      All that lies between two convolutions (gates, sigmoids, sums) is taken to be part of one of them and moves nothing.
    - It reads its kernel twice and writes the kernel's gradient.
    - These are values of `value_bytes`: 2 for bfloat16. Once a step Adam, in float32, reads weight, gradient and its two
      averages, and writes all but the gradient: 28 bytes a parameter.

    Args:
        value_bytes: size of an activation or of a kernel's value.
    """
    # On the device "meta" tensors have shapes and no content: all that is computed with them is the shape of the result.
    stand_in = copy.deepcopy(model).to("meta")
    clip = torch.zeros(1, context + horizon, 1, frame_size, frame_size, device="meta")
    with torch.no_grad(), _Convolutions() as counted, FlopCounterMode(display=False) as counter:
        stand_in.loss(clip[:, :context], clip[:, context:])
    return Cost(
        flops=3 * counter.get_total_flops(),
        activation_bytes=value_bytes * counted.activations,
        weight_bytes=value_bytes * counted.weights + 28 * sum(p.numel() for p in model.parameters()),
        convolutions=counted.calls,
    )


def flops_per_clip(model: FramePredictor, context: int = 10, horizon: int = 10, frame_size: int = 64) -> int:
    """Operations to train on one clip: multiplications and additions of the convolutions, forward and backward.

    Backward counts twice forward, for the gradients of inputs and weights. Nothing is computed: tensors are
    stand-ins that know their shapes, so that counting takes as long for a large network as for a small one.
    """
    return training_cost(model, context, horizon, frame_size).flops


class _Convolutions(TorchDispatchMode):
    """Counts the values that the convolutions of a training step must read and write."""

    def __init__(self):
        super().__init__()
        self.activations = self.weights = self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self._count(args[0], args[1], out)
        return out

    def _count(self, x: Tensor, weight: Tensor, y: Tensor) -> None:
        self.calls += 1
        self.activations += 3 * x.numel() + 2 * y.numel()
        self.weights += 3 * weight.numel()
