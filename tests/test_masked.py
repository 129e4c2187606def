"""Masked convolutions and residual blocks: what they compute, and what they can see."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from framepred.models.layers.masked import MaskedConv2d, ResidualBlock, causal_mask


def test_masks_of_the_thesis():
    assert causal_mask(3, "A").tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]  # T Eq. 3.11
    assert causal_mask(3, "B").tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0]]  # T Eq. 3.12


@pytest.mark.parametrize("size", [1, 3, 7])
def test_masks_keep_the_pixels_before(size):
    order = torch.arange(size**2).reshape(size, size)
    centre = size**2 // 2
    assert torch.equal(causal_mask(size, "A").bool(), order < centre)
    assert torch.equal(causal_mask(size, "B").bool(), order <= centre)


@pytest.mark.parametrize("mask", ["A", "B"])
@pytest.mark.parametrize(("size", "dilation"), [(3, 1), (3, 2), (7, 1), (1, 1)])
def test_equals_a_whole_kernel_with_zeros(mask, size, dilation):
    conv = MaskedConv2d(3, 4, size, mask, dilation)
    x = torch.rand(2, 3, 9, 11)
    expected = F.conv2d(x, conv.weight * causal_mask(size, mask), conv.bias, padding="same", dilation=dilation)
    torch.testing.assert_close(conv(x), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("mask", "sees_itself"), [("A", False), ("B", True)])
def test_gradient_reaches_only_pixels_before(mask, sees_itself):
    conv, x = MaskedConv2d(2, 2, 7, mask), torch.rand(1, 2, 9, 9, requires_grad=True)
    y, x_ = 4, 5
    (gradient,) = torch.autograd.grad(conv(x)[..., y, x_].sum(), x)
    reached = gradient.abs().sum((0, 1)) > 0
    before = torch.arange(81).reshape(9, 9) < y * 9 + x_ + sees_itself
    nearby = torch.zeros(9, 9, dtype=torch.bool)
    nearby[y - 3 : y + 4, x_ - 3 : x_ + 4] = True
    assert torch.equal(reached, before & nearby)


def test_masked_taps_have_no_effect_whatever_an_optimiser_does():
    conv, x = MaskedConv2d(2, 3, 7, "A"), torch.rand(1, 2, 8, 8)
    optimizer = torch.optim.AdamW(conv.parameters(), lr=0.1, weight_decay=0.5)
    masked = (causal_mask(7, "A") == 0).expand_as(conv.weight)
    for _ in range(3):
        optimizer.zero_grad()
        conv(x).square().sum().backward()
        assert not conv.weight.grad[masked].any() and conv.weight.grad[~masked].all()
        optimizer.step()
    before = conv(x)
    with torch.no_grad():
        conv.weight[masked] = 1e30
    assert torch.equal(conv(x), before)


def test_masked_taps_count_as_parameters():
    assert sum(p.numel() for p in MaskedConv2d(5, 6, 7, "A").parameters()) == 5 * 6 * 7 * 7 + 6
    assert sum(p.numel() for p in MaskedConv2d(5, 6, 7, "A", bias=False).parameters()) == 5 * 6 * 7 * 7


@pytest.mark.parametrize(("mask", "dilation"), [(None, 1), (None, 4), ("B", 1)])
def test_residual_block_is_a_pre_activation_bottleneck(mask, dilation):
    block, x = ResidualBlock(6, mask, dilation), torch.randn(2, 6, 8, 9)
    kernel = block.spatial.weight if mask is None else block.spatial.weight * causal_mask(3, mask)
    y = F.conv2d(x.relu(), block.reduce.weight, block.reduce.bias)
    y = F.conv2d(y.relu(), kernel, block.spatial.bias, padding="same", dilation=dilation)
    y = F.conv2d(y.relu(), block.expand.weight, block.expand.bias)
    assert block.reduce.weight.shape == (3, 6, 1, 1) and block.expand.weight.shape == (6, 3, 1, 1)
    torch.testing.assert_close(block(x), x + y, atol=1e-6, rtol=1e-5)


def always_active(*layers):
    """The layers with positive weights: on positive inputs every ReLU is open, and every path shows in the gradient."""
    network = nn.Sequential(*layers).double()
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0.1, 1, generator=torch.Generator().manual_seed(0))
    return network


def seen(network, size, y, x):
    """The pixels of a size × size input that the output at (y, x) depends on."""
    image = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(image)[0, :, y, x].sum(), image)
    return gradient[0, 0] != 0


def test_sixteen_blocks_see_what_one_33_by_33_kernel_sees():
    blocks = always_active(nn.Conv2d(1, 2, 1), *(ResidualBlock(2) for _ in range(16)))
    one = always_active(nn.Conv2d(1, 1, 33, padding=16))
    field = seen(blocks, 41, 20, 20)
    assert torch.equal(field, seen(one, 41, 20, 20)) and field.sum() == 33**2


def test_dilated_blocks_see_further():
    blocks = always_active(nn.Conv2d(1, 2, 1), *(ResidualBlock(2, dilation=d) for d in 2 * [1, 2, 4, 8]))
    assert seen(blocks, 81, 40, 40).sum() == (1 + 2 * 2 * (1 + 2 + 4 + 8)) ** 2


def test_masked_blocks_have_the_blind_spot_of_the_pixelcnn():
    n_blocks, size, y, x = 5, 31, 20, 12
    decoder = always_active(MaskedConv2d(1, 2, 7, "A"), *(ResidualBlock(2, "B") for _ in range(n_blocks)))
    field = seen(decoder, size, y, x)
    expected = torch.zeros(size, size, dtype=torch.bool)
    for up in range(3 + n_blocks + 1):
        # To the right it sees 3 pixels by the first layer, in a row above, and 1 more for each further row up.
        right = -1 if up == 0 else 3 + min(up - 1, n_blocks)
        expected[y - up, max(0, x - 3 - n_blocks) : x + right + 1] = True
    assert torch.equal(field, expected)
    assert not field[y - 1, x + 4]  # in the row just above, and never seen, at any depth


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="unknown mask 'C'; known: A"):
        MaskedConv2d(1, 1, 3, "C")
    with pytest.raises(ValueError, match="kernel_size is 4"):
        MaskedConv2d(1, 1, 4, "A")
    with pytest.raises(ValueError, match="channels is 7"):
        ResidualBlock(7)
