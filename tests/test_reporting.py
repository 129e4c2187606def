"""The whole evaluation for one predictor, in a folder."""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import special
from sklearn.linear_model import LinearRegression

import framepred as fp
from framepred import precision
from framepred.analysis import difficulty, figures, inference, reporting

TABLES = ("errors", "frames", "distribution", "hard-clips", "over-fitting", "more-digits", "letters", "drift")


@pytest.fixture(autouse=True)
def few_training_clips(monkeypatch):
    monkeypatch.setattr(reporting, "TRAINING_CLIPS", 60)
    monkeypatch.setattr(reporting, "DRIFT_CLIPS", 20)


@pytest.mark.slow
def test_report_holds_every_table_figure_and_player_and_agrees_with_evaluate(tmp_path):
    model = fp.build("convlstm", "tiny")
    index = fp.report(model, tmp_path / "report", n=20, name="mine & yours", source="uci")
    page = index.read_text()
    assert page.count("<h2>") == 8 and page.count("<img") >= 7
    assert "framepred-static" in page and "mine &amp; yours" in page
    assert "http" not in page.replace("http://www.w3.org", "")  # it needs no other host
    for name in TABLES:
        table = pd.read_csv(index.parent / f"{name}.csv")
        assert len(table) and f'href="{name}.csv"' in page
    expected = fp.evaluate(model, fp.test_set("uci-2", n=20)).nats
    with np.load(index.parent / "scores.npz") as scores:
        np.testing.assert_allclose(scores["uci-2/rollout"], expected, rtol=1e-4)
        assert {"uci-1/rollout", "uci-3/rollout", "uci-4/rollout", "uci-train-2/rollout"} <= set(scores)
    errors = pd.read_csv(index.parent / "errors.csv")
    row = errors[(errors["predictor"] == "mine & yours") & (errors["protocol"] == "rollout")].iloc[0]
    assert float(row["first frame"]) == pytest.approx(expected[:, 0].mean(), abs=0.06)
    again = fp.report(model, tmp_path / "report", n=20, source="uci")  # a report may replace a report
    assert "convlstm on moving digits" in again.read_text()


# --- a report on predictors whose every error is known ---------------------------------------------------------------

N, OTHERS, PIXELS = 110, 22, 64 * 64  # clips of two digits, clips of every other test set: a fifth
EASIEST, MEDIAN, HARDEST = 7, 3, 90
TRAINED, STRANGE = -2.0, -0.5  # levels of clips of training digits, and of one, three and four digits


def levels():
    """The level at which clip k of two test digits is predicted: the higher, the worse."""
    level = np.repeat([-1.0, 1.0], N // 2)  # nearly half of them easy, nearly half hard
    level[[EASIEST, MEDIAN, HARDEST]] = -2.0, 0.0, 4.0
    level[N // 2 + 1] = -1.0  # for the easiest and the median were easy ones
    return level


def logit(level):
    """Of the pixels of ten frames, (clips, frames): a clip that begins well ends badly."""
    return np.multiply.outer(level, [-1.0] + 9 * [1.0]) + 0.05 * np.arange(10)


class Shade(fp.FramePredictor):
    """Predicts one shade for all of a frame, the sigmoid of `logit(level)`, whatever it has seen.

    The level is that of the clip, and 0.3 less where the network is given the truth.
    """

    network = "shade"
    autocast: ClassVar[set[bool]] = set()

    def __init__(self, level: float = 0.0, known: dict | None = None):
        super().__init__()
        self.level, self.known = level, known or {}
        self.weight = torch.nn.Parameter(torch.zeros(7))  # which has no effect

    def given(self, clips):
        seen = Shade(self.level, self.known)
        seen.clips = [self.known.get(glyphs.numpy().tobytes(), self.level) for glyphs in clips.glyphs]
        return seen

    def forecast(self, context, horizon, truth=None, truth_mask=None):
        if self.known:  # the predictor, and no baseline
            self.autocast.add(torch.is_autocast_enabled("cpu"))
        levels = np.array(getattr(self, "clips", [self.level] * len(context))) - 0.3 * (truth is not None)
        logits = torch.from_numpy(logit(levels)).float()
        return fp.Forecast(logits[:, :horizon, None, None, None].expand(-1, -1, 1, 64, 64))


BASELINES = {"mean image": -1.5, "calibrated copy": -1.2, "constant velocity": -0.9, "oracle": -2.5}


def errors_of(level, target):
    """By hand: nats, their floor, and squared error, (clips, frames), of clips that are predicted at a level."""
    z = logit(np.broadcast_to(level, (len(target),)))
    t = target.double().numpy()[:, :, 0]
    nats = PIXELS * np.log1p(np.exp(z)) - z * t.sum((2, 3))
    p = 1 / (1 + np.exp(-z))
    squared = (t**2).sum((2, 3)) - 2 * p * t.sum((2, 3)) + PIXELS * p**2
    return nats, (special.entr(t) + special.entr(1 - t)).sum((2, 3)), squared


def targets(name, n):
    return fp.test_set(name, n).sample().split()[1]


@pytest.fixture(scope="module")
def shades(tmp_path_factory):
    """The folder of a report on such a predictor beside such baselines, where one set of letters is to be had; what the
    baselines were fitted on; what was played; what was drawn, by the function that drew it."""
    two = fp.test_set("uci-2", N).sample()
    known = {glyphs.numpy().tobytes(): level for glyphs, level in zip(two.glyphs, levels().tolist())}
    trained = fp.test_set("uci-train-2", N).sample().glyphs
    known |= {glyphs.numpy().tobytes(): TRAINED for glyphs in trained}
    fits, played, drawn = [], [], {}

    def noted(draw):
        def note(*args, **options):
            drawn.setdefault(draw.__name__, []).append((args, options))
            return draw(*args, **options)

        return note

    def features_and_a_constant(clips):
        return clip_features(clips).assign(constant=1.0)

    clip_features = difficulty.clip_features

    def baseline(level):
        class Baseline(Shade):
            def __init__(self):
                super().__init__(level)

            @classmethod
            def fit(cls, clips, n):
                fits.append((clips.digits.split, clips.n_digits, n))
                return cls()

        return Baseline

    def test_set(name, n):
        if name == "omniglot-1":
            raise FileNotFoundError(name)
        return fp.test_set(name.replace("emnist-1", "uci-4"), n)

    class Player(reporting.FramePlayer):
        def __init__(self, tracks, **options):
            played.append((tracks, options))
            super().__init__(tracks, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reporting, "TRAINING_CLIPS", 33)
        patch.setattr(reporting, "DRIFT_CLIPS", 3)
        patch.setattr(reporting, "test_set", test_set)
        patch.setattr(reporting, "FramePlayer", Player)
        patch.setattr(difficulty, "clip_features", features_and_a_constant)
        for name in (
            "box_plots",
            "errors_by_frame",
            "errors_by_digits",
            "coefficients",
            "drift_by_frame",
            "drift_or_blur",
        ):
            patch.setattr(figures, name, noted(getattr(figures, name)))
        patch.setattr(precision, "computes_bf16", lambda kind: False)  # so that "auto" would mean float32
        for label, level in BASELINES.items():
            patch.setattr(reporting.baselines, label.title().replace(" ", ""), baseline(level))
        out = tmp_path_factory.mktemp("new") / "folder" / "report"
        index = fp.report(Shade(STRANGE, known), out, N, "mine", "uci", batch_size=20, precision="bf16")
    return index.parent, fits, played[0], drawn


def table(shades, name, columns=1):
    return pd.read_csv(shades[0] / f"{name}.csv", index_col=list(range(columns)))


def value(text):
    """The number before its interval."""
    return float(str(text).split()[0])


def test_table_of_errors_has_every_predictor_under_every_protocol(shades):
    found = table(shades, "errors", 2)
    expected = {("mine", "rollout"): levels(), ("mine", "one-step"): levels() - 0.3}
    expected |= {(label, "rollout"): level for label, level in BASELINES.items()}
    assert set(found.index) == set(expected)
    for row, level in expected.items():
        nats, _, squared = errors_of(level, targets("uci-2", N))
        assert value(found.loc[row, "nats per frame"]) == pytest.approx(nats.mean(), abs=0.06)
        assert found.loc[row, "first frame"] == pytest.approx(nats[:, 0].mean(), abs=0.06)
        assert found.loc[row, "last frame"] == pytest.approx(nats[:, 9].mean(), abs=0.06)
        assert found.loc[row, "squared error"] == pytest.approx(squared.mean(), abs=0.06)


def test_baselines_are_fitted_on_clips_of_two_training_digits(shades):
    assert len(shades[1]) >= 3 and set(shades[1]) == {("train", 2, 33)}


def test_the_predictor_computes_in_the_precision_asked_for_throughout(shades):
    assert Shade.autocast == {True}


def test_page_names_the_parameters_and_the_floor(shades):
    page = (shades[0] / "index.html").read_text()
    _, floor, _ = errors_of(0, targets("uci-2", N))
    assert "; 7 parameters" in page and f"below the floor, {floor.mean():.1f}." in page


def test_table_of_frames_has_the_mean_of_each_frame(shades):
    found = table(shades, "frames")
    assert found.index.tolist() == list(range(1, 11))
    for label, level in {"mine, rollout": levels(), "mine, one-step": levels() - 0.3, **BASELINES}.items():
        nats, _, _ = errors_of(level, targets("uci-2", N))
        np.testing.assert_allclose(found[label], nats.mean(0), atol=0.06)
        np.testing.assert_allclose(found[label], found[label].round(1), rtol=0)


def test_table_of_the_distribution_has_the_clips_of_the_mean_the_first_and_the_last_frame(shades):
    found = table(shades, "distribution")
    nats, _, _ = errors_of(levels(), targets("uci-2", N))
    for row, errors in {"mean over the frames": nats.mean(1), "frame 1": nats[:, 0], "frame 10": nats[:, 9]}.items():
        expected = [errors.min(), np.median(errors), errors.mean(), errors.max()]
        np.testing.assert_allclose(found.loc[row, ["minimum", "median", "mean", "maximum"]], expected, atol=0.02)
    np.testing.assert_allclose(found, found.round(2), rtol=0)


def test_what_makes_a_clip_hard_is_told_from_the_features_of_its_own_frames(shades):
    found = table(shades, "hard-clips")
    assert set(found.index) == {"overlap", "bounces_seen", "bounces_ahead", "ink"}  # and not what is the same in all
    features = difficulty.clip_features(fp.test_set("uci-2", N).sample())[list(found.index)]
    nats = errors_of(levels(), targets("uci-2", N))[0].mean(1)
    standardised = ((features - features.mean()) / features.std(ddof=0)).to_numpy()
    fit = LinearRegression().fit(standardised, nats)
    np.testing.assert_allclose(found["nats"], fit.coef_, atol=0.06)
    np.testing.assert_allclose(found, found.round(1), rtol=0)
    share = 100 * fit.score(standardised, nats)
    assert f"together they explain {share:.0f}% of the variance" in (shades[0] / "index.html").read_text()


def test_single_clips_are_the_easiest_the_median_and_the_hardest_in_rollout_and_five_others(shades):
    page = (shades[0] / "index.html").read_text()
    named = re.findall(r"clip (\d+) \(([\w ]+)\)", page)
    assert named[:3] == [(str(EASIEST), "easiest"), (str(MEDIAN), "median"), (str(HARDEST), "hardest")]
    chosen = [int(clip) for clip, _ in named]
    assert len(set(chosen[3:])) == 5 and max(chosen) < N
    assert [what for _, what in named[3:]] == [f"random {i}" for i in (1, 2, 3, 4, 5)]
    assert chosen[3:] == np.random.default_rng(2021).choice(N, 5, replace=False).tolist()  # as on page 4.4
    tracks, options = shades[2]
    clips = fp.test_set("uci-2", N).sample()
    assert torch.equal(tracks["truth"], clips.frames[chosen, 10:])
    assert torch.equal(options["context"], clips.frames[chosen, :10])
    expected, _, _ = errors_of(levels(), targets("uci-2", N))
    np.testing.assert_allclose(options["nats"]["mine"], expected[chosen], rtol=1e-4)
    np.testing.assert_allclose(tracks["mine"][:, 0, 0, 5, 5], 1 / (1 + np.exp(levels()[chosen])), rtol=1e-4)


def test_figures_are_drawn_of_the_predictor_in_colour_and_of_the_baselines_in_grey(shades):
    drawn = shades[3]
    ((networks,), options), *others = drawn["errors_by_frame"]
    assert others == [] and set(networks) == {"mine, rollout", "mine, one-step"}
    assert options["baselines"].keys() == BASELINES.keys()
    _, floor, _ = errors_of(0, targets("uci-2", N))
    np.testing.assert_allclose(options["floor"], floor, rtol=1e-4)
    (((one,), options), ((by_set,), _)) = drawn["box_plots"]
    assert options["frames"] == ("mean", 1, 10)
    assert one.keys() == {"mine"} and {name: set(of) for name, of in by_set.items()} == {
        "uci-1": {"mine"},
        "emnist-1": {"mine"},
    }
    (((networks, floors), _),) = drawn["errors_by_digits"]
    assert networks.keys() == {"mine"} and list(networks["mine"]) == list(floors) == [1, 2, 3, 4]
    (((regressions,), _),) = drawn["coefficients"]
    assert regressions.keys() == {"mine"}
    (((networks, baselines), _),) = drawn["drift_by_frame"]
    assert networks.keys() == {"mine"} and baselines.keys() == {"mean image", "oracle"}
    (((parts,), _),) = drawn["drift_or_blur"]
    assert list(parts) == ["mine", "mean image", "oracle"]
    page = (shades[0] / "index.html").read_text()
    assert page.count("<figure><img") == sum(map(len, drawn.values()))


def test_training_digits_are_compared_with_test_digits_on_the_same_paths(shades):
    found = table(shades, "over-fitting")["nats per frame above the floor"]
    train, floor, _ = errors_of(TRAINED, targets("uci-train-2", OTHERS))
    train = (train - floor).mean()
    test, floor, _ = errors_of(levels(), targets("uci-2", N))
    test = (test - floor)[:OTHERS].mean()
    assert value(found["training digits"]) == pytest.approx(train, abs=0.06)
    assert value(found["test digits"]) == pytest.approx(test, abs=0.06)
    assert value(found["difference"]) == pytest.approx(test - train, abs=0.06) and test > train


def test_tables_of_more_digits_and_of_letters_have_errors_and_what_is_above_the_floor(shades):
    digits, letters = table(shades, "more-digits"), table(shades, "letters")
    assert digits.index.tolist() == [1, 2, 3, 4] and letters.index.tolist() == ["uci-1", "emnist-1"]
    rows = {n: digits.loc[n] for n in (1, 2, 3, 4)} | {5: letters.loc["uci-1"], 6: letters.loc["emnist-1"]}
    for n, row in rows.items():
        level, n_clips = (levels(), N) if n == 2 else (STRANGE, OTHERS)
        nats, floor, _ = errors_of(level, targets(f"uci-{ {5: 1, 6: 4}.get(n, n) }", n_clips))
        assert value(row["nats per frame"]) == pytest.approx(nats.mean(), abs=0.06)
        assert value(row["above the floor"]) == pytest.approx((nats - floor).mean(), abs=0.06)
    assert "Not here: omniglot-1." in (shades[0] / "index.html").read_text()


def test_drift_and_blur_add_up_to_the_error_above_the_floor(shades):
    found = table(shades, "drift", 2)
    for label, level in {"mine": levels()[:3], "mean image": -1.5, "oracle": -2.5}.items():
        nats, floor, _ = errors_of(level, targets("uci-2", 3))
        for frame in (1, 5, 10):
            row = found.loc[(label, frame)]
            parts = value(row["structure, nats"]) + value(row["displacement, nats"])
            assert parts == pytest.approx((nats - floor)[:, frame - 1].mean(), abs=0.6)


def test_intervals_of_drift_are_over_clips_whose_glyphs_were_averaged(shades):
    clips = fp.test_set("uci-2", 3).sample()
    shades_of_grey = torch.from_numpy(logit(levels()[:3])).float()[..., None, None, None].expand(-1, -1, 1, 64, 64)
    drift = fp.analysis.drift_and_blur(shades_of_grey, clips).drift.numpy()
    for frame in (1, 5, 10):
        told = table(shades, "drift", 2).loc[("mine", frame), "drift, px"]
        assert told == str(inference.interval(drift[:, frame - 1].mean(1)))


def test_scores_are_kept_under_the_names_of_test_set_and_protocol(shades):
    with np.load(shades[0] / "scores.npz") as scores:
        for key, level, n in (("uci-2/rollout", levels(), N), ("uci-2/one-step", levels() - 0.3, N),
                              ("uci-train-2/rollout", TRAINED, OTHERS), ("uci-3/rollout", STRANGE, OTHERS)):  # fmt: skip
            np.testing.assert_allclose(scores[key], errors_of(level, targets(key.split("/")[0], n))[0], rtol=1e-4)


def test_unless_told_a_report_is_of_500_clips_beside_baselines_of_1000(monkeypatch, tmp_path):
    monkeypatch.undo()  # the smaller numbers of these tests
    fitted, scored = [], []

    def fit(clips, n):
        fitted.append(n)

    def evaluate(model, clips, protocol="rollout", **options):
        scored.append((len(clips), options["batch_size"]))
        raise StopIteration

    for kind in ("MeanImage", "CalibratedCopy", "ConstantVelocity"):
        monkeypatch.setattr(getattr(reporting.baselines, kind), "fit", fit)
    monkeypatch.setattr(reporting, "evaluate", evaluate)
    with pytest.raises(StopIteration):
        fp.report(fp.build("convlstm", "tiny"), tmp_path / "report", source="uci")
    assert fitted == [1000, 1000, 1000] and scored == [(500, 50)]


def test_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "index.html").write_text("my own page")
    with pytest.raises(FileExistsError, match="choose another folder"):
        fp.report(fp.build("convlstm", "tiny"), tmp_path, n=20, source="uci")
    assert (tmp_path / "index.html").read_text() == "my own page"


@pytest.mark.parametrize(
    ("changes", "message"), [({"n": 19}, "n is 19"), ({"source": "latin"}, "unknown source 'latin'")]
)
def test_bad_arguments_are_refused_before_anything_is_written(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fp.report(fp.build("convlstm", "tiny"), tmp_path / "new", **changes)
    assert not (tmp_path / "new").exists()
