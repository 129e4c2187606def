"""The statistics: against SciPy, scikit-learn and arithmetic, and against simulated data whose truth is known."""

import dataclasses
import math
from statistics import correlation, quantiles

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LinearRegression

from framepred.analysis import inference as st
from framepred.analysis.difficulty import clip_features, regress
from framepred.analysis.inference import (
    Comparison,
    Estimate,
    box,
    compare_paired,
    compare_unpaired,
    disagreement,
    interval,
    per_clip,
    per_frame,
    rank_correlation,
)
from framepred.data.moving import Clips, MovingDigits
from framepred.data.rendering import render
from framepred.data.streams import uniform, unit_vector


@pytest.fixture
def rng():
    return np.random.default_rng(1)


# --- intervals -------------------------------------------------------------------------------------------------------


FEATURES = pd.DataFrame({"x": [1.0, 2.0, 4.0, 3.0, 5.0]})
ERRORS = [2.0, 3.0, 9.0, 5.0, 8.0]


@pytest.mark.parametrize(
    "found",
    [Estimate(1.0, 0.0, 2.0), compare_paired([1, 2], [2, 4]), box([1, 2, 3]), regress(FEATURES, ERRORS)],
    ids=lambda found: type(found).__name__,
)
def test_what_was_found_is_not_changed_afterwards(found):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(found, dataclasses.fields(found)[0].name, 0.0)


def test_a_regression_is_named_in_one_line_and_is_equal_to_itself_alone():
    found = regress(FEATURES, ERRORS)
    assert repr(found).startswith("Regression(mean=5.") and "\n" not in repr(found)
    assert found == found and found != regress(FEATURES, ERRORS)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(361.52, 358.9, 364.1), "361.5 [359, 364]"),  # five wide: whole nats, and one place for the value
        (Estimate(0.7981, 0.7803, 0.8152), "0.80 [0.78, 0.82]"),
        (Estimate(361.52, 330.0, 390.0), "361.5 [330, 390]"),
        (Estimate(2.0, 2.0, 2.0), "2.000 [2.000, 2.000]"),
        (Estimate(-0.061, -0.124, -0.0004), "-0.06 [-0.12, 0.00]"),
        (Estimate(3.0, -math.inf, math.inf), "3.000 [-inf, inf]"),
    ],
)
def test_an_estimate_prints_the_digits_that_its_interval_resolves(estimate, text):
    assert str(estimate) == text


@pytest.mark.parametrize(
    ("p", "text"), [(0.5, "p = 0.5"), (0.0423, "p = 0.042"), (1e-4, "p = 0.0001"), (9e-5, "p < 0.0001")]
)
def test_a_comparison_prints_two_digits_of_p_down_to_a_ten_thousandth(p, text):
    assert str(Comparison(Estimate(2.0, 1.0, 3.0), p, "a test")) == f"2.0 [1.0, 3.0] ({text}, a test)"


def test_interval_of_a_mean_is_close_to_that_of_student(rng):
    values = rng.normal(360, 50, 500)
    low, high = stats.t.interval(0.95, 499, values.mean(), stats.sem(values))
    found = interval(values)
    assert found.value == values.mean()
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.5)


@pytest.mark.parametrize(
    "estimate",
    [
        lambda a, b, **seed: interval(a, **seed),
        lambda a, b, **seed: per_frame(np.stack([a, b], 1), **seed).iloc[0].tolist(),
        lambda a, b, **seed: compare_paired(a, b, **seed),
        lambda a, b, **seed: rank_correlation(a, b, **seed),
    ],
    ids=["interval", "per_frame", "paired", "rank correlation"],
)
def test_an_interval_is_a_function_of_its_seed_which_is_0_unless_told(estimate, rng):
    a, b = rng.normal(size=(2, 50))
    assert estimate(a, b) == estimate(a, b, seed=0) != estimate(a, b, seed=1)


def test_95_percent_of_the_intervals_hold_the_true_mean_of_a_skewed_population(rng):
    holds = [e.low <= math.exp(0.125) <= e.high
             for e in (interval(rng.lognormal(0, 0.5, 80)) for _ in range(200))]  # fmt: skip
    assert 0.90 <= np.mean(holds) <= 0.99  # 0.95 less what 80 skewed values cost, ± two standard errors of 200 trials


def test_a_higher_confidence_makes_a_wider_interval(rng):
    values = rng.normal(size=100)
    assert interval(values, confidence=0.99).low < interval(values, confidence=0.8).low


def test_interval_takes_any_statistic(rng):
    values = rng.exponential(size=400)
    found = interval(values, stats.skew)
    assert found.value == pytest.approx(stats.skew(values)) and found.low < 2 < found.high + 1
    share = interval(values, lambda sample: (sample > 1).mean())  # one without `axis`
    assert share.low < math.exp(-1) < share.high


def test_frames_are_averaged_before_clips_are_resampled(rng):
    errors = rng.normal(size=(60, 10)).astype(np.float32) + rng.normal(size=(60, 1))
    np.testing.assert_allclose(per_clip(errors), errors.mean(1), rtol=1e-6, atol=1e-6)
    by_frame, pooled = interval(errors), interval(errors.ravel())
    assert by_frame.high - by_frame.low > 1.5 * (pooled.high - pooled.low)  # pooling frames would feign certainty


def test_bands_are_the_intervals_of_each_frame(rng):
    errors = rng.normal(size=(100, 3)) + np.array([0, 5, 9])
    bands = per_frame(errors)
    assert bands.index.tolist() == [1, 2, 3] and bands.columns.tolist() == ["mean", "low", "high"]
    np.testing.assert_allclose(bands["mean"], errors.mean(0))
    for frame in (1, 2, 3):
        alone = interval(errors[:, frame - 1])
        assert bands.loc[frame, ["low", "high"]].tolist() == pytest.approx([alone.low, alone.high], abs=0.06)


# --- comparisons -----------------------------------------------------------------------------------------------------


def test_unpaired_comparison_is_welch(rng):
    train, test = rng.normal(170, 20, 300), rng.normal(205, 60, 200)
    found = compare_unpaired(train, test)
    expected = stats.ttest_ind(test, train, equal_var=False)
    assert found.p == expected.pvalue
    assert found.difference.value == pytest.approx(test.mean() - train.mean())
    assert (found.difference.low, found.difference.high) == tuple(expected.confidence_interval(0.95))


def test_paired_comparison_finds_a_gap_that_the_clips_differences_hide(rng):
    hardness = rng.normal(360, 50, 200)
    a, b = hardness + rng.normal(0, 3, 200), hardness + 2 + rng.normal(0, 3, 200)
    paired, unpaired = compare_paired(a, b), compare_unpaired(a, b)
    assert paired.p == stats.wilcoxon(b, a).pvalue < 1e-6 < 0.05 < unpaired.p
    assert 1 < paired.difference.low < 2 < paired.difference.high < 3
    assert unpaired.difference.low < 0 < unpaired.difference.high
    assert "p < 0.0001, Wilcoxon" in str(paired)


def test_a_network_does_not_differ_from_itself(rng):
    a = rng.normal(size=20)
    found = compare_paired(a, a)
    assert found.p == 1 and found.difference == Estimate(0.0, 0.0, 0.0)


# --- ranks -----------------------------------------------------------------------------------------------------------


def test_rank_correlation_is_spearman_with_ties(rng):
    a = rng.integers(0, 20, 150)  # many ties
    b = a + rng.integers(0, 20, 150)
    found = rank_correlation(a, b)
    rank = [[sum(w < v for w in e) + (sum(w == v for w in e) + 1) / 2 for v in e] for e in (a, b)]  # by counting
    assert found.value == pytest.approx(correlation(*rank), abs=1e-12)  # of the standard library
    fisher = np.tanh(np.arctanh(found.value) + np.array([-1.96, 1.96]) * math.sqrt((1 + found.value**2 / 2) / 147))
    assert (found.low, found.high) == pytest.approx(fisher, abs=0.03)  # Bonett and Wright (2000)


def test_rank_correlation_sees_the_order_alone(rng):
    a = rng.normal(size=40)
    assert rank_correlation(a, np.exp(a)) == Estimate(1.0, 1.0, 1.0)
    same = rank_correlation(a, -(a**3))
    assert (same.value, same.low, same.high) == pytest.approx((-1, -1, -1))


def test_disagreement_ranks_the_clips_by_their_change_of_rank():
    a = [10, 20, 30, 40, 50]
    b = [900, 200, 300, 400, 100]  # clip 0 goes from the easiest to the hardest, clip 4 the other way
    assert set(disagreement(a, b, 2)) == {0, 4}
    assert disagreement(a, [20, 10, 30, 40, 50], 5)[2:].tolist() == [2, 3, 4]
    assert disagreement(a, [50, 10, 20, 30, 40], 1).tolist() == [0]  # by four ranks; the others by one
    assert disagreement([50, 10, 20, 30, 40], a, 1).tolist() == [0]
    assert len(disagreement(range(9), range(9))) == 5


# --- distributions ---------------------------------------------------------------------------------------------------


def test_box_by_arithmetic():
    values = [1.0, 2.0, 3.0, 4.0, 100.0]  # quartiles 2 and 4, so whiskers reach at most -1 and 7
    mean, second, third = 22.0, 0.0, 0.0
    for v in values:
        second += (v - mean) ** 2 / 5
        third += (v - mean) ** 3 / 5
    expected = {
        "mean": 22,
        "minimum": 1,
        "q1": 2,
        "median": 3,
        "q3": 4,
        "maximum": 100,
        "whisker_low": 1,
        "whisker_high": 4,
        "outliers": 1,
    }
    assert dataclasses.asdict(box(values)) == pytest.approx(expected | {"skewness": third / second**1.5})


@pytest.mark.parametrize("n", [57, 300])
def test_quartiles_whiskers_and_outliers_follow_from_their_definitions(rng, n):
    values = rng.lognormal(size=n).tolist()
    found = box(values)
    q1, median, q3 = quantiles(values, n=4, method="inclusive")  # of the standard library
    assert (found.q1, found.median, found.q3) == pytest.approx((q1, median, q3), rel=1e-14)
    inside = [v for v in values if q1 - 1.5 * (q3 - q1) <= v <= q3 + 1.5 * (q3 - q1)]
    assert (found.whisker_low, found.whisker_high) == (min(inside), max(inside))
    assert found.outliers == n - len(inside) > 0


def test_a_whisker_never_ends_inside_the_box():
    found = box([0, 0, 0, 1])  # q3 is 1/4 and the whisker reaches to 5/8 at most: over no value but the zeros
    assert (found.q3, found.whisker_high, found.outliers) == (0.25, 0.25, 1)


def test_skewness_has_the_sign_of_the_longer_tail():
    assert box([1, 2, 3]).skewness == 0 < box([1, 2, 9]).skewness
    assert box([5, 5, 5]).skewness == 0


# --- what makes a clip hard ------------------------------------------------------------------------------------------


def clips_at(*paths, size=64, grey=255):
    """One clip of glyphs with 10×10 pixels of ink in their upper left corners, one path of (x, y) a glyph."""
    glyphs = torch.zeros(1, len(paths), 28, 28, dtype=torch.uint8)
    glyphs[..., :10, :10] = grey
    positions = torch.tensor(paths).transpose(0, 1)[None]
    frames = render(glyphs, positions, size) / 255
    return Clips(frames, positions, glyphs, torch.zeros(1, len(paths), dtype=torch.int64))


def still(x, y, n=20):
    return [(x, y)] * n


def test_overlap_is_the_ink_that_glyphs_share_in_the_frames_to_predict():
    assert clip_features(clips_at(still(5, 5), still(5, 5))).overlap.item() == 100
    assert clip_features(clips_at(still(5, 5), still(5, 5), grey=1)).overlap.item() == 100  # the faintest ink
    assert clip_features(clips_at(still(5, 5), still(10, 6))).overlap.item() == 5 * 9
    assert clip_features(clips_at(still(5, 5), still(16, 5))).overlap.item() == 0
    meet = clips_at(still(5, 5), still(30, 30, 15) + still(5, 5, 5))
    assert clip_features(meet).overlap.item() == 50  # in half of the ten frames
    apart = clips_at(still(5, 5), still(5, 5, 10) + still(30, 30, 10))
    assert clip_features(apart).overlap.item() == 0  # the context does not count
    assert clip_features(clips_at(still(5, 5), still(5, 5), still(5, 5))).overlap.item() == 100


def test_ink_is_that_of_the_glyphs_however_they_overlap():
    assert clip_features(clips_at(still(5, 5), still(5, 5))).ink.item() == 200


def test_a_path_with_one_bounce_ahead():
    xs = [*range(2, 36, 2), 36, 34, 32]  # at the right wall in frame index 17
    features = clip_features(clips_at([(x, 10) for x in xs]))
    assert (features.bounces_seen.item(), features.bounces_ahead.item()) == (0, 1)


def test_a_path_that_shows_the_left_wall_for_two_frames_bounces_once():
    xs = [9, 6, 3, 0, 0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 33, 30, 27]
    features = clip_features(clips_at([(10, x) for x in xs]))
    assert (features.bounces_seen.item(), features.bounces_ahead.item()) == (1, 1)


def test_resting_at_a_wall_or_turning_in_the_open_is_no_bounce():
    turning = [*range(10, 20), *range(20, 10, -1)]
    assert clip_features(clips_at([(x, 0) for x in turning])).iloc[0, 1:3].tolist() == [0, 0]


def test_bounces_agree_with_the_contacts_of_the_generator(uci):
    n = 300
    x, y, heading, _ = uniform(0, 0, 0, 8 * n).reshape(n, 2, 4).transpose(2, 0, 1)
    position, velocity = np.stack([x, y], -1), 0.1 * unit_vector(heading)
    contact = np.zeros((n, 20, 2, 2), bool)
    for t in range(20):
        position = position + velocity
        contact[:, t] = (position <= 0) | (position >= 1)
        velocity = np.where(contact[:, t], -velocity, velocity)
        position = position.clip(0, 1)
    features = clip_features(MovingDigits(uci, 2).sample(n))
    seen, ahead = contact[:, 1:10].sum((1, 2, 3)), contact[:, 10:19].sum((1, 2, 3))
    # Equal but where a glyph creeps along a wall: there whole pixels hide the contact, or the frame of it.
    assert (features.bounces_seen == seen).mean() > 0.85 and (features.bounces_ahead == ahead).mean() > 0.85
    assert features.bounces_seen.sum() == pytest.approx(seen.sum(), rel=0.05)


def test_features_need_positions(uci):
    clips = MovingDigits(uci, 1).sample(2)
    nowhere = Clips(clips.frames, clips.positions[:, :, :0], clips.glyphs[:, :0], clips.labels[:, :0])
    with pytest.raises(ValueError, match="do not say where"):
        clip_features(nowhere)
    with pytest.raises(ValueError, match="context is 20"):
        clip_features(clips, context=20)


def test_regression_recovers_known_coefficients(rng):
    x = pd.DataFrame({"overlap": rng.exponential(12, 2000), "ink": rng.normal(200, 50, 2000)})
    x["ink"] += 2 * x["overlap"]  # correlated, as features are
    y = 300 + 4 * x["overlap"] + 0.5 * x["ink"] + rng.normal(0, 20, 2000)
    found = regress(x, y)
    expected = np.array([4, 0.5]) * x.std(ddof=0)
    assert ((found.table["low"] < expected) & (expected < found.table["high"])).all()
    np.testing.assert_allclose(found.table["nats"], expected, atol=2)
    reference = LinearRegression().fit(((x - x.mean()) / x.std(ddof=0)).to_numpy(), y)
    np.testing.assert_allclose(found.table["nats"], reference.coef_)
    assert found.r2 == pytest.approx(reference.score(((x - x.mean()) / x.std(ddof=0)).to_numpy(), y))
    assert found.mean == pytest.approx(y.mean())


def test_regression_on_one_feature_has_the_interval_of_linregress(rng):
    x = rng.normal(size=3000)
    y = 2 * x + rng.normal(size=3000)
    found, line = regress(pd.DataFrame({"x": x}), y), stats.linregress(x, y)
    width = found.table.loc["x", "high"] - found.table.loc["x", "low"]
    assert width == pytest.approx(2 * 1.96 * line.stderr * x.std(), rel=0.05)


def test_regression_errors_are_those_of_leaving_out_one_clip_at_a_time(rng):
    """MacKinnon and White (1985), on the jackknife: clip k moves the coefficients by the inverse of Z'Z times its row
    times its residual over 1 minus its leverage, and HC3 sums the squares of these moves."""
    x = rng.normal(size=(25, 2)) * (3, 0.1)
    y = x[:, 0] + rng.normal(size=25) * np.abs(x[:, 0])
    z = np.column_stack([np.ones(25), (x - x.mean(0)) / x.std(0)])
    whole = np.linalg.lstsq(z, y)[0]
    moves = [np.linalg.lstsq(np.delete(z, k, 0), np.delete(y, k))[0] - whole for k in range(25)]
    reach = stats.t.ppf(0.95, 25 - 3) * np.sqrt(np.square(moves).sum(0))
    found = regress(pd.DataFrame(x, columns=["a", "b"]), y, confidence=0.9)
    assert found.table.index.tolist() == ["a", "b"]
    assert found.mean == pytest.approx(whole[0], rel=1e-12)
    expected = np.column_stack([whole, whole - reach, whole + reach])[1:]
    np.testing.assert_allclose(found.table[["nats", "low", "high"]], expected, rtol=1e-11)


def test_errors_that_do_not_vary_leave_nothing_to_explain(rng):
    found = regress(pd.DataFrame({"a": rng.normal(size=9)}), [0.1] * 9)
    assert found.r2 == 0 and found.mean == pytest.approx(0.1)


def test_regression_intervals_hold_where_hard_clips_scatter_more(rng):
    held = 0
    for _ in range(300):
        x = rng.normal(size=100)
        found = regress(pd.DataFrame({"x": x}), x + rng.normal(size=100) * np.abs(x)).table.loc["x"]
        held += found["low"] <= x.std() <= found["high"]
    assert held / 300 > 0.90  # intervals that assume equal scatter hold in about three quarters


@pytest.mark.parametrize(
    "interval_of",
    [
        lambda a, b, c: interval(a, confidence=c),
        lambda a, b, c: Estimate(*per_frame(np.stack([a, b], 1), c).loc[1], c),
        lambda a, b, c: compare_unpaired(a, b, c).difference,
        lambda a, b, c: compare_paired(a, b, c).difference,
        lambda a, b, c: rank_correlation(a, b, c),
        lambda a, b, c: Estimate(*regress(pd.DataFrame({"a": a}), b, c).table.loc["a"], c),
    ],
    ids=["interval", "per_frame", "unpaired", "paired", "rank correlation", "regression"],
)
def test_the_width_of_an_interval_is_that_of_the_confidence_asked_for(interval_of, rng):
    a = rng.normal(size=400)
    b = a + rng.normal(size=400)
    usual, narrow = interval_of(a, b, 0.95), interval_of(a, b, 0.5)
    assert (usual.confidence, narrow.confidence) == (0.95, 0.5)
    quantiles = stats.norm.ppf(0.75) / stats.norm.ppf(0.975)  # of 400 clips, all are nearly normal
    assert (narrow.high - narrow.low) / (usual.high - usual.low) == pytest.approx(quantiles, rel=0.1)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [interval, per_frame, box, lambda bad: compare_unpaired([1, 2], bad), lambda bad: compare_paired([1, 2], bad),
     lambda bad: rank_correlation([1, 2], bad), lambda bad: disagreement([1, 2], bad, 1)],
)  # fmt: skip
def test_wrong_shapes_and_numbers_are_refused(call):
    for bad in (np.array(3.0), [1.0], np.zeros((2, 2, 2)), np.zeros((3, 0))):
        with pytest.raises(ValueError, match="has shape"):
            call(bad)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"holds {bad} at clip 1"):
            call([[1.0, 2.0], [3.0, bad]])
        with pytest.raises(ValueError, match=f"holds {bad} at clip 0"):
            call([[1.0, bad], [3.0, 4.0]])
        with pytest.raises(ValueError, match=f"holds {bad} at clip 0"):  # the first of them is told
            call([[1.0, bad], [3.0, -math.inf]])
        with pytest.raises(ValueError, match=f"holds {bad} at clip 1"):
            call([[1.0, 2.0], [bad, -math.inf]])


@pytest.mark.parametrize("call", [compare_paired, rank_correlation, disagreement])
def test_clips_that_cannot_be_paired_are_refused(call):
    with pytest.raises(ValueError, match="first has 3 clips and second 2"):
        call([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="first has 2 clips and second 3"):
        call([1, 2], [1, 2, 3])


def test_questions_without_an_answer_are_refused(rng):
    for confidence in (95.0, 1.0, 0.0, -0.5):
        with pytest.raises(ValueError, match=f"confidence is {confidence}"):
            interval([1, 2, 3], confidence=confidence)
    with pytest.raises(ValueError, match="do not vary"):
        compare_unpaired([1, 1], [2, 2])
    with pytest.warns(RuntimeWarning, match="nearly identical"):  # SciPy says so of one such sample, and has an answer
        assert compare_unpaired([1, 1], [2, 4]).difference.value == 2
    with pytest.raises(ValueError, match="no order"):
        rank_correlation([1] * 12, range(12))
    with pytest.raises(ValueError, match="no order"):
        rank_correlation(range(12), [1] * 12)
    with pytest.raises(ValueError, match="9 clips are too few"):
        rank_correlation(range(9), range(9))
    assert rank_correlation(range(10), range(10)).value == 1
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"k is {k}"):
            disagreement([1, 2, 3], [1, 2, 3], k)
    x = pd.DataFrame({"a": rng.normal(size=9), "b": 1.0})
    with pytest.raises(ValueError, match="same in every clip: b"):
        regress(x, rng.normal(size=9))
    with pytest.raises(ValueError, match="follows from the others"):
        regress(x.assign(b=-2 * x["a"]), rng.normal(size=9))
    with pytest.raises(ValueError, match="follows from the others"):
        regress(x.assign(b=-2 * x["a"], c=3 * x["a"]), rng.normal(size=9))
    with pytest.raises(ValueError, match="clip 3 alone decides a coefficient"):
        regress(x.assign(b=np.arange(9) == 3), rng.normal(size=9))
    for n in (8, 10):
        with pytest.raises(ValueError, match=f"9 clips and errors {n}"):
            regress(x[["a"]], rng.normal(size=n))
    with pytest.raises(ValueError, match="3 clips are too few for 1 features; expected at least 4"):
        regress(x[["a"]][:3], rng.normal(size=3))
    assert regress(x[["a"]][:4], rng.normal(size=4)).table.index.tolist() == ["a"]
    with pytest.raises(ValueError, match="4 clips are too few for 2 features; expected at least 5"):
        regress(x.assign(b=x["a"] ** 2)[:4], rng.normal(size=4))


def test_resampling_10_000_clips_keeps_memory_small():
    assert st.RESAMPLES * 10_000 * 8 > 100e6  # so all resamples at once would not do
    import tracemalloc

    errors = np.random.default_rng(0).normal(size=10_000)
    tracemalloc.start()
    interval(errors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6
