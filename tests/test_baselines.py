"""Baselines: what they predict, that they keep to the protocols, and the order in which they must stand."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.optimize
import torch

import framepred
from framepred.baselines.fitted import CalibratedCopy, ConstantVelocity, MeanImage, _logistic_regression
from framepred.baselines.oracle import Oracle
from framepred.data.glyphs import load_digits
from framepred.data.moving import Clips, MovingDigits
from framepred.data.rendering import render, to_float
from framepred.evaluation import evaluate
from framepred.models import NETWORKS, PRESETS

FITTED = (MeanImage, CalibratedCopy, ConstantVelocity)


@pytest.fixture(scope="module")
def training():
    return MovingDigits(load_digits("uci", "train"), n_digits=2)


@pytest.fixture(scope="module")
def fitted(training):
    return {cls.network: cls.fit(training, n=150) for cls in FITTED}


@pytest.fixture(scope="module")
def scores(fitted):
    test_set = framepred.test_set("uci-2", n=60)
    return {name: evaluate(model, test_set) for name, model in {**fitted, "oracle": Oracle()}.items()}


# --- what they predict -----------------------------------------------------------------------------------------------


def test_mean_image_is_the_mean_of_the_frames(training):
    model = MeanImage.fit(training, n=70, seed=3)
    mean = training.sample(70, seed=3).frames.numpy().astype(np.float64).mean((0, 1))
    frames = model(torch.zeros(2, 1, 1, 64, 64), horizon=4).frames
    assert frames.shape == (2, 4, 1, 64, 64) and frames.min() > 0
    np.testing.assert_allclose(frames[1, 3], mean, atol=0.6 / (70 * 20))


def test_mean_image_of_mnist_costs_what_the_literature_says(mnist):
    model = MeanImage.fit(MovingDigits(mnist("train")), n=500)
    nats = evaluate(model, framepred.test_set("mnist-2", n=500)).nats
    assert nats.mean() == pytest.approx(674, abs=15)  # over all 10,000 clips 672 to 676; 500 have a standard error of 6


def test_logistic_regression_is_that_of_a_general_optimiser():
    random = np.random.default_rng(0)
    x, count = random.normal(-3, 1, 40), random.integers(0, 50, 40).astype(float)
    white = count * random.random(40)

    def loss(ab):
        z = ab[0] + ab[1] * x
        return (count * np.logaddexp(0, z) - white * z).sum() + ab[0] ** 2 / 2 + (ab[1] - 1) ** 2 / 2

    expected = scipy.optimize.minimize(loss, [0, 1], tol=1e-10).x
    a, b = _logistic_regression(*(torch.from_numpy(array) for array in (x, white, count)))
    np.testing.assert_allclose([a.item(), b.item()], expected, atol=1e-4)
    a, b = _logistic_regression(torch.from_numpy(x), torch.zeros(40), torch.zeros(40))
    assert (a, b) == (0, 1)  # a grey level that never occurred: the mean image


def test_calibrated_copy_is_brighter_where_the_last_frame_was(fitted, training):
    context = training.sample(5, seed=9).frames[:, :10]
    p = fitted["calibrated-copy"](context, horizon=10).frames
    ink, first = context[:, -1] > 0.9, p[:, 0]
    assert first[ink].mean() > 5 * first[~ink].mean()
    assert p[:, 9][ink].mean() < first[ink].mean()  # ten steps later it says less


def test_the_copy_drifts_by_a_step_a_frame(fitted, training):
    clips = training.sample(30, seed=8)
    logits = fitted["calibrated-copy"](clips.frames[:, :10], horizon=2).logits
    drift = framepred.analysis.drift_and_blur(logits, clips).drift
    assert drift[:, 0].median().item() == pytest.approx(0.1 * 36, abs=0.5)
    assert drift[:, 1].median().item() == pytest.approx(0.2 * 36, abs=1)


def test_a_calibration_balances_the_white_of_the_clips_that_it_was_fitted_to(training):
    """The score equation of a logistic regression whose intercepts are pulled to 0 by half of their squares."""
    model = CalibratedCopy.fit(training, n=3, context=15, seed=5)
    context, target = training.sample(3, seed=5).split(15)
    p = model(context, horizon=5).frames
    torch.testing.assert_close(p.sum((0, 2, 3, 4)) + model.a.sum(1), target.sum((0, 2, 3, 4)), rtol=1e-4, atol=0.01)
    mean = training.sample(3, seed=5).frames.mean((0, 1))
    torch.testing.assert_close(model.mean.sigmoid(), mean, rtol=0, atol=0.6 / (3 * 20))


@pytest.mark.parametrize(
    ("start", "velocity", "horizon"), [((10, 34), (2, -3), 6), ((4, 8), (5, 0), 3), ((8, 6), (3, 4), 3)]
)  # 5 px is the fastest that is tried
def test_constant_velocity_moves_ink_on_as_it_moved(start, velocity, horizon, uci):
    positions = torch.tensor(start) + torch.arange(4 + horizon)[:, None] * torch.tensor(velocity)
    frames = to_float(render(uci.images[None, :1], positions[None, :, None], 64))
    ahead = ConstantVelocity().guess(frames[:, :4], horizon=horizon)
    for t in range(horizon):
        inked = frames[0, 4 + t] > 0.5
        assert ahead[0, t][inked].mean() > 0.4  # blurred, because other velocities explain a block nearly as well
        assert ahead[0, t][~inked].mean() < 0.02
    assert ahead.sum((2, 3, 4)).amax() <= 1.001 * frames[0, 3].sum()  # ink is moved, none is made


@pytest.mark.parametrize("n_digits", [1, 2, 3])
def test_oracle_finds_every_glyph_of_the_context(n_digits, uci):
    clips = MovingDigits(uci, n_digits).sample(20, seed=4)
    target = clips.frames[:, 10:]
    forecast = Oracle().given(clips)(clips.frames[:, :10], horizon=10)
    drift = framepred.analysis.drift_and_blur(forecast.logits, clips).drift
    assert drift[:, 0].mean() < 0.5 and drift.mean() < 1
    assert (framepred.cross_entropy(forecast.logits, target) - framepred.entropy_floor(target)).mean() < 30 * n_digits


def test_oracle_looks_at_glyphs_and_context_only(uci):
    clips = MovingDigits(uci).sample(2)
    context = clips.frames[:, :10]
    blind = Clips(torch.zeros_like(clips.frames), torch.zeros_like(clips.positions), clips.glyphs, clips.labels * 0)
    assert torch.equal(Oracle().given(clips)(context).logits, Oracle().given(blind)(context).logits)


# --- scores ----------------------------------------------------------------------------------------------------------


def test_calibrated_guesses_are_not_worse_than_the_mean_image(scores):
    for name in ("calibrated-copy", "constant-velocity"):
        assert np.isfinite(scores[name].nats).all()
        assert (scores[name].nats.mean(0) <= scores["mean-image"].nats.mean(0) + 5).all()


def test_motion_helps_in_the_first_frames(scores):
    for t in range(3):
        first = {name: score.nats[:, t].mean() for name, score in scores.items()}
        assert first["constant-velocity"] < first["calibrated-copy"] - 20
    assert scores["calibrated-copy"].nats[:, 0].mean() < scores["mean-image"].nats[:, 0].mean() - 20


def test_oracle_beats_everything_and_lies_above_the_floor(scores):
    oracle = scores["oracle"]
    assert (oracle.nats > oracle.floor).all()
    for name in scores.keys() - {"oracle"}:
        assert (oracle.nats.mean(0) < scores[name].nats.mean(0) / 2).all()


def test_nats_exceed_the_floor_by_twice_the_squared_error_at_least(scores):
    for score in scores.values():
        assert (score.nats >= score.floor + 2 * score.squared_error - 0.01).all()


def test_one_step_is_easier_than_rollout_after_the_first_frame(fitted, scores):
    test_set = framepred.test_set("uci-2", n=10)
    for name, model in {**fitted, "oracle": Oracle(particles=128)}.items():
        one_step = evaluate(model, test_set, "one-step")
        assert one_step.protocol == "one-step" and one_step.network == name
        np.testing.assert_allclose(one_step.nats[:, 0], scores[name].nats[:10, 0], rtol=0.3)
        if name != "mean-image":
            assert one_step.nats[:, 9].mean() < scores[name].nats[:10, 9].mean()


# --- the contract of a predictor -------------------------------------------------------------------------------------


@torch.no_grad()
def test_forecasts_know_only_the_frames_before(fitted, training):
    clips = training.sample(2, seed=7)
    context, truth = clips.split(10)
    changed = truth.clone()
    changed[:, 4] = 1 - changed[:, 4]
    for model in [*fitted.values(), Oracle(particles=32, samples=8).given(clips)]:
        before, after = (model(context, 10, truth=frames).logits for frames in (truth, changed))
        assert before.shape == truth.shape and before.dtype == torch.float32
        assert torch.equal(before[:, :5], after[:, :5])


@pytest.mark.parametrize("cls", FITTED)
def test_saved_baselines_come_back(cls, fitted, tmp_path):
    model = fitted[cls.network]
    model.save_pretrained(tmp_path)
    context = torch.rand(1, 4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cls.from_pretrained(tmp_path)(context).logits, model(context).logits)


def test_baselines_are_no_networks_to_build_and_are_imported_when_asked_for():
    names = {cls.network for cls in (*FITTED, Oracle)}
    assert len(names) == 4 and not names & (NETWORKS.keys() | PRESETS.keys())
    assert framepred.baselines.MeanImage is MeanImage
    code = "import framepred, sys; print('framepred.baselines' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_bad_input_is_refused(fitted, training):
    context = torch.zeros(1, 10, 1, 64, 64)
    for name in ("calibrated-copy", "constant-velocity"):
        with pytest.raises(ValueError, match=f"horizon is 11; this {name} was fitted to 10 frames"):
            fitted[name](context, horizon=11)
    for model in fitted.values():
        with pytest.raises(ValueError, match="frames of 32×32 pixels; this baseline was fitted to 64×64"):
            model(context[..., :32, :32])
        with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
            model(context - 1)
    with pytest.raises(ValueError, match="context is 20; clips of 20 frames have 1 to 19"):
        CalibratedCopy.fit(training, n=1, context=20)


def test_oracle_asks_for_the_glyphs(training):
    clips = training.sample(2)
    with pytest.raises(ValueError, match=r"call oracle.given\(clips\)"):
        Oracle()(clips.frames[:, :10])
    with pytest.raises(ValueError, match="context holds 1 clips; the oracle was given the glyphs of 2"):
        Oracle().given(clips)(clips.frames[:1, :10])
    with pytest.raises(ValueError, match="frames of 28×28 pixels; the oracle's glyphs move in a square"):
        Oracle().given(clips)(clips.frames[:, :10, :, :28, :28])
    nameless = Clips(clips.frames, clips.positions[:, :, :0], clips.glyphs[:, :0], clips.labels[:, :0])
    with pytest.raises(ValueError, match="do not record their glyphs"):
        Oracle().given(nameless)
