"""The measures, against hand arithmetic and an inequality that any right pair of them obeys."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from framepred.metrics import absolute_error, cross_entropy, entropy_floor, psnr, squared_error, ssim


def frames(*values):
    """One clip, one frame for each list of four pixels (2×2)."""
    return torch.tensor(values).reshape(1, len(values), 1, 2, 2)


def logit(p):
    return math.log(p / (1 - p))


def test_cross_entropy_is_summed_over_the_pixels_of_each_frame():
    logits = frames([logit(0.5)] * 4, [logit(0.9), logit(0.2), logit(0.75), logit(0.5)])
    target = frames([0.0, 1.0, 0.3, 0.8], [1.0, 0.0, 0.5, 0.25])
    second = -math.log(0.9) - math.log(0.8) - 0.5 * math.log(0.75) - 0.5 * math.log(0.25) + math.log(2)
    torch.testing.assert_close(cross_entropy(logits, target), torch.tensor([[4 * math.log(2), second]]))


def test_cross_entropy_stays_finite_where_probabilities_round_to_0_and_1():
    logits, target = frames([200.0, -200.0, 200.0, -200.0]), frames([1.0, 0.0, 0.0, 1.0])
    assert cross_entropy(logits, target).tolist() == [[400.0]]  # two sure and wrong pixels cost |logit| each


def test_cross_entropy_of_half_precision_logits_is_computed_in_float32():
    logits = torch.full((1, 1, 1, 64, 64), -6.0, dtype=torch.bfloat16)  # 4,096 terms: bfloat16 sums would stall
    expected = 4096 * math.log1p(math.exp(-6))
    nats = cross_entropy(logits, torch.zeros(1, 1, 1, 64, 64))
    assert nats.dtype == torch.float32 and nats.item() == pytest.approx(expected, rel=1e-4)


def test_floor_of_known_greys():
    quarter = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    target = frames([0.0, 1.0, 0.0, 1.0], [0.5, 0.5, 0.0, 1.0], [0.25, 0.75, 0.25, 0.5])
    expected = [[0.0, 2 * math.log(2), 3 * quarter + math.log(2)]]
    torch.testing.assert_close(entropy_floor(target), torch.tensor(expected))


@pytest.mark.parametrize("grey", range(1, 255, 23))
def test_floor_is_the_cross_entropy_of_the_target_itself(grey):
    target = torch.full((1, 1, 1, 3, 5), grey / 255)
    torch.testing.assert_close(cross_entropy(target.logit(), target), entropy_floor(target))


pixels = (2, 3, 1, 4, 5)
float_arrays = {"dtype": np.float32, "shape": pixels}


@given(
    arrays(elements=st.floats(-30, 30, width=32), **float_arrays),
    arrays(elements=st.floats(0, 1, width=32), **float_arrays),
)
def test_nats_exceed_the_floor_by_twice_the_squared_error_at_least(logits, target):
    logits, target = torch.from_numpy(logits), torch.from_numpy(target)
    nats, floor = cross_entropy(logits, target), entropy_floor(target)
    squared = squared_error(logits.sigmoid(), target)
    assert nats.shape == floor.shape == squared.shape == (2, 3)
    assert (nats >= floor + 2 * squared - 1e-5 * (1 + nats)).all()


def test_the_inequality_is_nearly_tight_around_even_odds():
    # At t = 1/2 and p = 1/2 + d the excess is 2d² + O(d⁴): a measure that is off by a factor breaks one or the other.
    target, p = torch.full((1, 1, 1, 8, 8), 0.5), torch.full((1, 1, 1, 8, 8), 0.51)
    excess = (cross_entropy(p.double().logit().float(), target) - entropy_floor(target)).item()
    assert excess == pytest.approx(2 * 64 * 0.01**2, rel=0.02)
    assert squared_error(p, target).item() == pytest.approx(64 * 0.01**2, rel=1e-4)


def test_squared_and_absolute_error_are_summed_over_the_pixels_of_each_frame():
    a, b = frames([0.0, 0.5, 1.0, 0.25], [0.0] * 4), frames([1.0, 0.25, 1.0, 0.5], [0.0] * 4)
    assert squared_error(a, b).tolist() == [[1.125, 0.0]]
    assert absolute_error(a, b).tolist() == [[1.5, 0.0]]


@pytest.fixture(scope="module")
def pictures():
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(6, 1, 8, 8, generator=generator), (32, 32), mode="bicubic")
    clean = smooth.clamp(0, 1).reshape(2, 3, 1, 32, 32)
    return clean, (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


def test_psnr_is_that_of_the_mean_squared_error(pictures):
    a, b = pictures
    expected = -10 * np.log10(((a - b).double() ** 2).mean((2, 3, 4)).numpy())
    np.testing.assert_allclose(psnr(b, a).numpy(), expected, rtol=1e-5)
    assert psnr(a, a).isinf().all()
    assert psnr(torch.full((1, 1, 1, 4, 4), 0.1), torch.zeros(1, 1, 1, 4, 4)).item() == pytest.approx(20)


def test_ssim_of_equal_frames_is_one_and_falls_with_noise(pictures):
    a, b = pictures
    torch.testing.assert_close(ssim(a, a), torch.ones(2, 3))
    assert ((ssim(b, a) > 0) & (ssim(b, a) < 0.95)).all()
    assert ssim(1 - a, a).max() < 0  # a negative has the opposite structure


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.6), (0.01, 0.02)])  # of dark frames, what C₁ is shows
def test_ssim_of_two_flat_frames_is_the_luminance_term(a, b):
    # Without contrast only (2ab + C₁) / (a² + b² + C₁) is left, C₁ = 0.01².
    flat = [torch.full((1, 1, 1, 32, 32), grey) for grey in (a, b)]
    assert ssim(*flat).item() == pytest.approx((2 * a * b + 1e-4) / (a**2 + b**2 + 1e-4), rel=1e-3)


def test_ssim_and_psnr_of_a_frame_do_not_depend_on_the_others(pictures):
    clean, noisy = pictures
    for measure in (ssim, psnr):
        together = measure(noisy, clean)
        for b in range(2):
            for t in range(3):
                one = slice(b, b + 1), slice(t, t + 1)
                torch.testing.assert_close(measure(noisy[one], clean[one]), together[one])


def test_ssim_is_that_of_scikit_image(pictures):
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    a, b = pictures
    expected = [
        [
            skimage.structural_similarity(x[0].numpy(), y[0].numpy(), data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
            for x, y in zip(*clip)
        ]
        for clip in zip(a, b)
    ]  # fmt: skip
    np.testing.assert_allclose(ssim(b, a).numpy(), expected, atol=5e-3)
