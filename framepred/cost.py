"""What a network costs in arithmetic, which no machine and no other user of it can change."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from framepred.models.base import FramePredictor


def operations_per_clip(model: FramePredictor, context: int = 10, horizon: int = 10, frame_size: int = 64) -> int:
    """Operations to train on one clip: multiplications and additions of the convolutions, forward and backward.

    Backward counts twice forward, for the gradients of inputs and weights. Nothing is computed: tensors are
    stand-ins that know their shapes, so that counting takes as long for a large network as for a small one.
    """
    stand_in = copy.deepcopy(model).requires_grad_(False)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.no_grad():
        for module in stand_in.modules():
            kinds: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for kind in kinds:
                kind.update({name: fake.from_tensor(tensor) for name, tensor in kind.items() if tensor is not None})
        seen = torch.zeros(1, context, 1, frame_size, frame_size)
        target = torch.zeros(1, horizon, 1, frame_size, frame_size)
        with FlopCounterMode(display=False) as counter:
            stand_in.loss(seen, target)
    return 3 * counter.get_total_flops()
