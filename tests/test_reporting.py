"""The whole evaluation for one predictor, in a folder."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import framepred as fp
from framepred.analysis import reporting

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


def test_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "index.html").write_text("my own page")
    with pytest.raises(FileExistsError, match="choose another folder"):
        fp.report(fp.build("convlstm", "tiny"), tmp_path, source="uci")
    assert (tmp_path / "index.html").read_text() == "my own page"


@pytest.mark.parametrize(
    ("changes", "message"), [({"n": 5}, "n is 5"), ({"source": "latin"}, "unknown source 'latin'")]
)
def test_bad_arguments_are_refused_before_anything_is_written(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fp.report(fp.build("convlstm", "tiny"), tmp_path / "new", **changes)
    assert not (tmp_path / "new").exists()


def test_prediction_in_parts_is_that_of_all_clips(monkeypatch):
    model = fp.build("convlstm", "tiny").eval()
    clips = fp.test_set("uci-2", n=5).sample()
    work = reporting._Report(model, "mine", "uci", 5, 2, "fp32")
    with torch.no_grad():
        torch.testing.assert_close(reporting._predict(work, clips), model(clips.split()[0], 10).logits)
