"""Counting what a network costs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import framepred as fp
from framepred.models.flops import H100, H200, Cost, Hardware, flops_per_clip, training_cost


def test_convlstm_costs_what_its_convolutions_do_by_hand():
    model = fp.build("convlstm", "tiny")  # patches of 4x4, cells of 16, 8, 8 channels, kernels of 3x3
    steps = 4 + 5 - 1  # the last prediction is not read
    places = (32 // 4) ** 2
    weights = sum(4 * 9 * n * (m + n) for m, n in [(16, 16), (16, 8), (8, 8)])
    head = 32 * 16
    no_state_yet = 4 * 9 * (16 * 16 + 8 * 8 + 8 * 8)  # in the first step
    assert flops_per_clip(model, 4, 5, 32) == 3 * 2 * places * (steps * weights - no_state_yet + 5 * head)


def test_convlstm_moves_what_its_convolutions_read_and_write_by_hand():
    model = fp.build("convlstm", "tiny")
    seen, predicted, places = 4, 5, (32 // 4) ** 2
    steps = seen + predicted - 1
    activations = weights = calls = 0
    for m, n in [(16, 16), (16, 8), (8, 8)]:
        activations += steps * places * (3 * m + 2 * 4 * n)  # of the input
        activations += (steps - 1) * places * (3 * n + 2 * 4 * n)  # of the state, which the first step has not
        calls_of_input, calls_of_state = 1 + steps - seen, steps - 1  # all frames seen are one call
        weights += 3 * 4 * 9 * n * (calls_of_input * m + calls_of_state * n)
        calls += calls_of_input + calls_of_state
    activations += predicted * places * (3 * 32 + 2 * 16)  # the head
    weights, calls = weights + 3 * predicted * 32 * 16, calls + predicted
    adam = 28 * sum(p.numel() for p in model.parameters())
    cost = training_cost(model, seen, predicted, 32)
    assert (cost.activation_bytes, cost.weight_bytes, cost.convolutions) == (2 * activations, 2 * weights + adam, calls)


@pytest.mark.parametrize("network", ["convlstm", "spatiotemporal", "vpn"])
def test_a_training_step_does_about_the_operations_counted(network):
    """PyTorch's own count of a step; it is less, because the frames seen need no gradient."""
    model = fp.build(network, "tiny")
    clips = torch.rand(1, 7, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model.loss(clips[:, :4], clips[:, 4:])[0].backward()
    counted = flops_per_clip(model, 4, 3, 32)
    assert 0.9 * counted < counter.get_total_flops() <= counted


def test_larger_values_move_more_bytes_but_adam_keeps_its_own():
    model = fp.build("vpn", "tiny")
    half, single = (training_cost(model, 2, 2, 16, value_bytes=size) for size in (2, 4))
    adam = 28 * sum(p.numel() for p in model.parameters())
    assert single.activation_bytes == 2 * half.activation_bytes
    assert single.weight_bytes - adam == 2 * (half.weight_bytes - adam)
    assert single.flops == half.flops


def test_machines_have_the_rates_of_their_data_sheets():
    for machine, terabytes in ((H100, 3.35), (H200, 4.8)):
        assert machine.flops_per_second == 1979e12 / 2  # the sheets give it with sparsity
        assert machine.bytes_per_second == terabytes * 1e12


def test_floor_is_the_larger_of_the_two_times():
    cost = Cost(flops=600, activation_bytes=10, weight_bytes=40, convolutions=1)
    assert cost.bytes(4) == 80
    assert cost.roofline_seconds(Hardware("fast memory", 100.0, 1000.0), 4) == 4 * 600 / 100
    assert cost.roofline_seconds(Hardware("fast unit", 1e9, 20.0), 4) == 80 / 20


@pytest.mark.parametrize(
    ("network", "preset", "tera"),
    [("convlstm", "thesis", 1.73), ("convlstm", "patched", 0.114), ("spatiotemporal", "thesis", 0.120)],
)  # fmt: skip
def test_networks_of_the_thesis_cost_what_was_worked_out_beforehand(network, preset, tera):
    cost = training_cost(fp.build(network, preset))
    assert cost.flops / 1e12 == pytest.approx(tera, rel=0.05)
    assert cost.roofline_seconds(H200, 64) == pytest.approx(64 * cost.flops / H200.flops_per_second)
    assert cost.roofline_seconds(H100, 64) >= cost.roofline_seconds(H200, 64)


@pytest.mark.parametrize("network", ["convlstm", "spatiotemporal", "vpn"])
def test_counting_leaves_the_network_as_it_was(network):
    model = fp.build(network, "tiny")
    before = [p.clone() for p in model.parameters()]
    assert flops_per_clip(model, 2, 2, 32) > 0
    assert all(p.requires_grad and torch.equal(p, b) for p, b in zip(model.parameters(), before))


def test_kernel_and_frame_size_raise_the_cost_in_proportion():
    small, large = (flops_per_clip(fp.build("convlstm", "tiny"), 2, 2, size) for size in (32, 64))
    assert large == 4 * small
