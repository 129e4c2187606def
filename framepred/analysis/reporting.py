"""The evaluation chapter for one predictor: its tables and figures in a folder, as HTML with players and as CSV."""

from __future__ import annotations

import base64
import html
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from framepred import baselines
from framepred.analysis import difficulty, figures, inference
from framepred.analysis.drift import drift_and_blur
from framepred.data.glyphs import load_digits
from framepred.data.moving import Clips, MovingDigits
from framepred.data.test_sets import test_set
from framepred.evaluation import Scores, applicable, device_of, evaluate, informed
from framepred.files import save_arrays, write_text, write_whole
from framepred.metrics import cross_entropy, entropy_floor
from framepred.models.base import FramePredictor
from framepred.players import FramePlayer
from framepred.precision import autocast

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAINING_CLIPS = 1000  # that the baselines are fitted on
DRIFT_CLIPS = 60
MARK = "<!-- framepred report -->"  # what tells a folder of ours from another
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:54rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
    "table{border-collapse:collapse;display:block;overflow-x:auto;margin:1rem 0}"
    "td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #ddd}th:first-child{text-align:left}"
    "img{max-width:100%}figure{margin:1rem 0}figcaption{color:#444}"
)


def report(
    model: FramePredictor,
    out: str | os.PathLike = "report",
    n: int = 500,
    name: str | None = None,
    source: str = "auto",
    batch_size: int = 50,
    precision: str = "auto",
) -> Path:
    """Evaluate a predictor as Chapter 4 of the book evaluates its three: write tables, figures and players to a folder.

    Every test set is scored under rollout, and that of two digits under each protocol that applies. Beside the predictor
    stand the baselines and the floor.

    Args:
        model: any `FramePredictor`, on any device.
        out: the folder; `index.html` shows everything. A report there is replaced.
        n: clips of two digits, at least 20; of each other test set a fifth of it, but not fewer than 20.
        name: of the predictor, in tables and figures; that of its network, unless told.
        source: of the test digits: "mnist", "uci", or "auto" (MNIST if it can be had).
        batch_size, precision: as in `evaluate`.

    Returns:
        The path of `index.html`.

    Raises:
        FileExistsError: if `out` holds something else than a report.
    """
    if n < 20:
        raise ValueError(f"n is {n}; expected at least 20 clips, or no interval means much")
    if source not in ("auto", "mnist", "uci"):
        raise ValueError(f"unknown source {source!r}; known: auto, mnist, uci")
    folder = Path(out)
    index = folder / "index.html"
    if folder.exists() and any(folder.iterdir()) and not (index.is_file() and MARK in index.read_text("utf-8")):
        raise FileExistsError(f"{folder} holds something else than a report; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    work = _Report(model, name or model.network, load_digits(source, "test").source, n, batch_size, precision)
    for section in (_protocols, _frames, _distributions, _samples, _training_digits, _more_digits, _letters, _drift):
        section(work)
    work.write(folder)
    return index


@dataclass
class _Report:
    """What is measured once and used by several sections, and what they have written so far."""

    model: FramePredictor
    name: str
    source: str
    n: int
    batch_size: int
    precision: str
    parts: list[str] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    others: dict[str, Scores] = field(default_factory=dict)  # rollout of the baselines, two digits

    def score(self, digits: str, protocol: str = "rollout", n: int | None = None) -> Scores:
        """The predictor's scores on a test set, computed at the first call."""
        key = f"{digits}/{protocol}"
        if key not in self.scores:
            clips = test_set(digits, n or max(20, self.n // 5))
            self.scores[key] = evaluate(
                self.model, clips, protocol, batch_size=self.batch_size, precision=self.precision
            )
        return self.scores[key]

    def two(self, protocol: str = "rollout") -> Scores:
        return self.score(f"{self.source}-2", protocol, self.n)

    def section(self, title: str, text: str) -> None:
        self.parts.append(f"<h2>{html.escape(title)}</h2>\n<p>{html.escape(text)}</p>")

    def table(self, file: str, table: pd.DataFrame) -> None:
        self.tables[file] = table
        self.parts.append(f'{table.to_html(border=0)}<p><a href="{file}.csv">{file}.csv</a></p>')

    def figure(self, figure: Figure, caption: str) -> None:
        import matplotlib.pyplot as plt

        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=150, facecolor="white")
        plt.close(figure)
        picture = base64.b64encode(buffer.getvalue()).decode()
        caption = html.escape(caption, quote=True)
        self.parts.append(
            f'<figure><img alt="{caption}" src="data:image/png;base64,{picture}"><figcaption>{caption}</figcaption></figure>'
        )

    def write(self, folder: Path) -> None:
        for file, table in self.tables.items():
            write_whole(folder / f"{file}.csv", lambda path, table=table: table.to_csv(path))  # type: ignore[misc]
        nats = {key: scores.nats for key, scores in self.scores.items()}
        save_arrays(folder / "scores.npz", nats)
        title = html.escape(f"{self.name} on moving digits")
        page = (
            f'<!doctype html>\n{MARK}\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n'
            + "\n".join(self.parts)
            + "\n</body></html>\n"
        )
        write_text(folder / "index.html", page)


# --- the sections, in the order of the chapter -----------------------------------------------------------------------


def _protocols(work: _Report) -> None:
    """T Table 4.1."""
    training = MovingDigits(load_digits(work.source), 2)
    fitted = {
        "mean image": baselines.MeanImage.fit(training, TRAINING_CLIPS),
        "calibrated copy": baselines.CalibratedCopy.fit(training, TRAINING_CLIPS),
        "constant velocity": baselines.ConstantVelocity.fit(training, TRAINING_CLIPS),
        "oracle": baselines.Oracle(),
    }
    two_digits = test_set(f"{work.source}-2", work.n)
    work.others = {label: evaluate(model, two_digits, batch_size=work.batch_size) for label, model in fitted.items()}
    rows = {(work.name, protocol): work.two(protocol) for protocol in applicable(work.model)}
    rows |= {(label, "rollout"): scores for label, scores in work.others.items()}
    table = {
        key: {
            "nats per frame": str(inference.interval(scores.nats)),
            "first frame": f"{scores.nats[:, 0].mean():.1f}",
            "last frame": f"{scores.nats[:, -1].mean():.1f}",
            "squared error": f"{scores.squared_error.mean():.1f}",
        }
        for key, scores in rows.items()
    }
    parameters = sum(p.numel() for p in work.model.parameters())
    work.section(
        "Errors",
        f"{work.n} clips of {work.source}-2, ten frames seen and ten predicted; {parameters:,} parameters. Nats per frame with "
        f"95% intervals; nobody can be below the floor, {work.two().floor.mean():.1f}. Protocols are different questions, and "
        "only rows of one protocol can be compared.",
    )
    frame = pd.DataFrame(table).T
    frame.index.names = ["predictor", "protocol"]
    work.table("errors", frame)


def _frames(work: _Report) -> None:
    networks = {f"{work.name}, {protocol}": work.two(protocol).nats for protocol in applicable(work.model)}
    others = {label: scores.nats for label, scores in work.others.items()}
    work.section("Frame by frame", "In rollout a predictor builds on its own frames, so its error grows.")
    work.figure(
        figures.errors_by_frame(networks, floor=work.two().floor, baselines=others),
        "Mean error of each predicted frame, with 95% intervals.",
    )
    table = {label: inference.per_frame(nats)["mean"] for label, nats in (networks | others).items()}
    work.table("frames", pd.DataFrame(table).round(1))


def _distributions(work: _Report) -> None:
    """T Figures 4.1 to 4.3."""
    nats = work.two().nats
    last = nats.shape[1]
    panels = {"mean over the frames": nats.mean(1), "frame 1": nats[:, 0], f"frame {last}": nats[:, -1]}
    work.section("Distribution", "Easy and hard clips, in rollout, and what makes a clip hard.")
    work.figure(
        figures.box_plots({work.name: nats}, frames=("mean", 1, last)),
        "Errors of single clips: boxes span the quartiles, whiskers reach to 1.5 times their length.",
    )
    work.table("distribution", pd.DataFrame({key: vars(inference.box(v)) for key, v in panels.items()}).T.round(2))
    features = difficulty.clip_features(test_set(f"{work.source}-2", work.n).sample())
    features = features.loc[:, features.nunique() > 1]
    regression = difficulty.regress(features, nats)
    work.figure(
        figures.coefficients({work.name: regression}),
        f"What one standard deviation more of a feature costs; together they explain {100 * regression.r2:.0f}% of the variance.",
    )
    work.table("hard-clips", regression.table.round(1))


def _samples(work: _Report) -> None:
    """T Figures 4.4 to 4.8."""
    mean = work.two().nats.mean(1)
    order = mean.argsort()
    drawn = np.random.default_rng(2021).choice(work.n, size=5, replace=False)
    chosen = {"easiest": order[0], "median": order[work.n // 2], "hardest": order[-1]}
    chosen |= {f"random {i}": k for i, k in enumerate(drawn, 1)}
    clips = [test_set(f"{work.source}-2", work.n).sample(1, start=int(k)) for k in chosen.values()]
    context, target = (torch.cat(parts) for parts in zip(*(clip.split() for clip in clips)))
    forecasts = [_predict(work, clip) for clip in clips]
    logits = torch.cat(forecasts)
    player = FramePlayer(
        {"truth": target, work.name: logits.sigmoid()},
        context=context,
        nats={work.name: cross_entropy(logits, target)},
    )
    work.section(
        "Single clips", "In this order: " + ", ".join(f"clip {int(k)} ({what})" for what, k in chosen.items()) + "."
    )
    work.parts.append(player.html())


def _training_digits(work: _Report) -> None:
    """T Table 4.3. Clip k of both sets moves along the same paths, so the comparison is paired."""
    train = work.score(f"{work.source}-train-2")
    test = work.two().nats[: len(train.nats)]
    excess = {"training digits": train.nats - train.floor, "test digits": test - work.two().floor[: len(test)]}
    found = inference.compare_paired(excess["training digits"], excess["test digits"])
    rows = {key: {"nats per frame above the floor": str(inference.interval(values))} for key, values in excess.items()}
    rows["difference"] = {"nats per frame above the floor": str(found)}
    work.section("Training digits and test digits", "The same paths with digits of the training and of the test set.")
    work.table("over-fitting", pd.DataFrame(rows).T)


def _more_digits(work: _Report) -> None:
    """T Figure 4.9."""
    scores = {k: work.two() if k == 2 else work.score(f"{work.source}-{k}") for k in (1, 2, 3, 4)}
    by_digits = {k: s.nats for k, s in scores.items()}
    floor = {k: s.floor for k, s in scores.items()}
    work.section("More digits", "One to four digits in a clip.")
    work.figure(
        figures.errors_by_digits({work.name: by_digits}, floor),
        "Mean error in rollout, with 95% intervals, and the floor.",
    )
    rows = {
        k: {
            "nats per frame": str(inference.interval(nats)),
            "above the floor": str(inference.interval(nats - floor[k])),
        }
        for k, nats in by_digits.items()
    }
    work.table("more-digits", pd.DataFrame(rows).T.rename_axis("digits"))


def _letters(work: _Report) -> None:
    """T Figure 4.11."""
    scores = {f"{work.source}-1": work.score(f"{work.source}-1")}
    missing = []
    for name in ("emnist-1", "omniglot-1"):
        try:
            scores[name] = work.score(name)
        except (FileNotFoundError, ConnectionError):
            missing.append(name)
    text = "One digit and one letter in a clip."
    work.section("Letters", f"{text} Not here: {', '.join(missing)}." if missing else text)
    if len(scores) > 1:
        nats = {name: {work.name: s.nats} for name, s in scores.items()}
        work.figure(figures.box_plots(nats, frames=("mean",)), "Errors of clips with one digit and with one letter.")
    rows = {
        name: {
            "nats per frame": str(inference.interval(s.nats)),
            "above the floor": str(inference.interval(s.nats - s.floor)),
        }
        for name, s in scores.items()
    }
    work.table("letters", pd.DataFrame(rows).T)


def _drift(work: _Report) -> None:
    """RQ1 and RQ2 of the thesis."""
    clips = test_set(f"{work.source}-2", min(work.n, DRIFT_CLIPS)).sample()
    context, target = clips.split()
    mean = baselines.MeanImage.fit(MovingDigits(load_digits(work.source), 2), TRAINING_CLIPS)
    oracle = baselines.Oracle().given(clips)
    logits = {work.name: _predict(work, clips)}
    logits |= {
        label: model(context, target.shape[1]).logits for label, model in (("mean image", mean), ("oracle", oracle))
    }
    found = {label: drift_and_blur(z, clips) for label, z in logits.items()}
    work.section(
        "Drift or blur",
        f"The error above the floor ({entropy_floor(target).mean():.1f} nats) in two parts: structure, which no shift of the glyphs "
        "repairs, and displacement. The mean image shows no glyph; what it reads means nothing but that.",
    )
    grey = {label: f for label, f in found.items() if label != work.name}
    work.figure(
        figures.drift_by_frame({work.name: found[work.name]}, grey), "Distance of the glyphs from their places."
    )
    work.figure(figures.drift_or_blur(found), "Structure and displacement in each predicted frame.")
    frames = (0, target.shape[1] // 2 - 1, target.shape[1] - 1)
    rows = {
        (label, t + 1): {
            "drift, px": str(inference.interval(f.drift[:, t].mean(1))),
            "structure, nats": str(inference.interval(f.structure[:, t])),
            "displacement, nats": str(inference.interval(f.displacement[:, t])),
        }
        for label, f in found.items()
        for t in frames
    }
    table = pd.DataFrame(rows).T
    table.index.names = ["predictor", "frame"]
    work.table("drift", table)


# --- small things ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def _predict(work: _Report, clips: Clips) -> torch.Tensor:
    """Logits of a rollout, on the CPU."""
    device = device_of(work.model)
    parts = []
    for start in range(0, len(clips), work.batch_size):
        part = clips[start : start + work.batch_size]
        context, target = part.split()
        with autocast(device, work.precision):
            parts.append(informed(work.model, part)(context.to(device), target.shape[1]).logits.cpu())
    return torch.cat(parts)
