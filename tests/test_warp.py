"""The sampler and the smoothness penalty, against arithmetic and scipy."""

from inspect import unwrap

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from framepred.models.layers.warp import flow_smoothness, identity_grid, warp


def constant_flow(x, y, size=(2, 9, 12)):
    B, H, W = size
    return torch.tensor([x, y], dtype=torch.float32).reshape(1, 2, 1, 1).expand(B, 2, H, W)


def test_grid_of_5_by_5_is_that_of_equation_3_4():
    steps = [-1.0, -0.5, 0.0, 0.5, 1.0]
    grid = identity_grid(5, 5)
    assert grid[..., 0].tolist() == [steps] * 5
    assert grid[..., 1].tolist() == [[y] * 5 for y in steps]


def test_grid_of_an_oblong_map_reaches_its_corners():
    grid = identity_grid(3, 4)
    assert grid.shape == (3, 4, 2)
    assert grid[0, 0].tolist() == [-1, -1] and grid[0, -1].tolist() == [1, -1] and grid[-1, 0].tolist() == [-1, 1]


def test_zero_flow_is_the_identity():
    features = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(warp(features, torch.zeros(2, 2, 64, 64)), features, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (0, 1), (-3, 2), (5, -4), (11, 8), (12, 0)])
def test_integer_flow_shifts_and_fills_with_zeros(dx, dy):
    features = torch.rand(2, 3, 9, 12)
    padded = torch.nn.functional.pad(features, (12, 12, 9, 9))
    expected = padded[:, :, 9 + dy : 18 + dy, 12 + dx : 24 + dx]  # out(p) = in(p + flow)
    torch.testing.assert_close(warp(features, constant_flow(dx, dy)), expected, atol=1e-5, rtol=0)


def test_fractional_flow_equals_linear_interpolation_by_scipy():
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(2, 3, 9, 12, generator=generator, dtype=torch.float64)
    flow = 6 * torch.randn(2, 2, 9, 12, generator=generator, dtype=torch.float64)  # many look-ups fall outside
    rows, columns = np.mgrid[:9, :12]
    moved = warp(features, flow).numpy()
    for b in range(2):
        places = [rows + flow[b, 1].numpy(), columns + flow[b, 0].numpy()]
        for c in range(3):
            expected = map_coordinates(features[b, c].numpy(), places, order=1, mode="grid-constant", cval=0.0)
            np.testing.assert_allclose(moved[b, c], expected, atol=1e-12)


def test_every_clip_has_its_own_flow():
    features = torch.rand(1, 3, 9, 12).expand(2, -1, -1, -1)
    flow = torch.cat([constant_flow(2, 0, (1, 9, 12)), constant_flow(0, -1, (1, 9, 12))])
    together = warp(features, flow)
    for b in range(2):
        torch.testing.assert_close(together[b : b + 1], warp(features[b : b + 1], flow[b : b + 1]))


def test_gradients_of_warp_are_right():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(1, 2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    # Whole pixels are kinks of the interpolation: keep away from them.
    fraction = 0.1 + 0.8 * torch.rand(1, 2, 4, 5, generator=generator, dtype=torch.float64)
    flow = (torch.randint(-3, 3, fraction.shape, generator=generator) + fraction).requires_grad_()
    assert torch.autograd.gradcheck(warp, (features, flow))


def test_bfloat16_features_are_looked_up_at_exact_places():
    features = torch.zeros(1, 1, 4, 129)
    features[..., 101] = 1
    flow = torch.zeros(1, 2, 4, 129)
    flow[:, 0] = 0.5
    moved = warp(features.bfloat16(), flow)
    assert moved.dtype == torch.bfloat16
    torch.testing.assert_close(moved.float(), warp(features, flow), atol=1e-3, rtol=0)
    assert moved[0, 0, 0, 100] == 0.5 and moved[0, 0, 0, 101] == 0.5


def test_warp_says_what_is_wrong():
    checked = unwrap(warp)  # the annotations, enforced while the tests run, would object first
    features = torch.rand(2, 3, 9, 12)
    with pytest.raises(ValueError, match=r"an \(x, y\) for every pixel"):
        checked(features, torch.zeros(2, 2, 12, 9))
    with pytest.raises(ValueError, match="expected 4"):
        checked(features[0], torch.zeros(2, 2, 9, 12))
    with pytest.raises(ValueError, match="at least 2×2"):
        checked(features[:, :, :1], torch.zeros(2, 2, 1, 12))


def test_constant_flow_is_smooth_up_to_the_border():
    assert flow_smoothness(constant_flow(3.7, -2)).tolist() == [0, 0]


def test_ramp_costs_its_hand_worked_value():
    # 4 rows of 5 pixels, the x channel grows by 1/4 a pixel along x: [-1, 0, 1] gives 1/2 at 4 × 3 places, else 0.
    flow = torch.zeros(2, 4, 5)
    flow[0] = torch.arange(5) / 4
    assert flow_smoothness(flow, delta=1.0).item() == pytest.approx(12 * 0.5**2 / 2)
    assert flow_smoothness(flow, delta=0.5).item() == pytest.approx(12 * 0.5**2 / 2)
    assert flow_smoothness(flow, delta=0.1).item() == pytest.approx(12 * 0.1 * (0.5 - 0.1 / 2))
    assert flow_smoothness(flow).item() == pytest.approx(12 * 1e-3 * (0.5 - 1e-3 / 2))


def test_both_channels_count_in_both_directions():
    ramp = torch.arange(5.0)
    for channel in range(2):
        for picture, places in ((ramp.expand(4, 5), 4 * 3), (ramp.expand(4, 5).T, 3 * 4)):
            flow = torch.zeros(2, *picture.shape)
            flow[channel] = picture
            assert flow_smoothness(flow, delta=10.0).item() == pytest.approx(places * 2**2 / 2)


def test_smoothness_is_per_clip_and_differentiable():
    flow = torch.randn(2, 3, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    costs = flow_smoothness(flow, delta=0.5)
    assert costs.shape == (2, 3)
    torch.testing.assert_close(costs[1, 2], flow_smoothness(flow[1, 2], delta=0.5))
    assert torch.autograd.gradcheck(lambda f: flow_smoothness(f, 0.5), (flow[:1, :1],))


def test_smoothness_says_what_is_wrong():
    with pytest.raises(ValueError, match="height, width"):
        unwrap(flow_smoothness)(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="delta"):
        flow_smoothness(torch.zeros(2, 4, 4), delta=0.0)
