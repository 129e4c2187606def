"""Counting what a network costs."""

from __future__ import annotations

import pytest
import torch

import framepred as fp
from framepred.cost import operations_per_clip


def test_convlstm_costs_what_its_convolutions_do_by_hand():
    model = fp.build("convlstm", "tiny")  # patches of 4x4, cells of 16, 8, 8 channels, kernels of 3x3
    steps = 4 + 5 - 1  # the last prediction is not read
    places = (32 // 4) ** 2
    weights = sum(4 * 9 * n * (m + n) for m, n in [(16, 16), (16, 8), (8, 8)])
    head = 32 * 16
    no_state_yet = 4 * 9 * (16 * 16 + 8 * 8 + 8 * 8)  # in the first step
    assert operations_per_clip(model, 4, 5, 32) == 3 * 2 * places * (steps * weights - no_state_yet + 5 * head)


@pytest.mark.parametrize("network", ["convlstm", "spatiotemporal", "vpn"])
def test_counting_leaves_the_network_as_it_was(network):
    model = fp.build(network, "tiny")
    before = [p.clone() for p in model.parameters()]
    assert operations_per_clip(model, 2, 2, 32) > 0
    assert all(p.requires_grad and torch.equal(p, b) for p, b in zip(model.parameters(), before))


def test_kernel_and_frame_size_raise_the_cost_in_proportion():
    small, large = (operations_per_clip(fp.build("convlstm", "tiny"), 2, 2, size) for size in (32, 64))
    assert large == 4 * small
