"""What the README shows of the published runs: a table of their errors, and a moving picture of one test clip.

    python book/readme.py            write both, after a run in book/runs changed
    python book/readme.py --check    fail if the table is not that of the runs

The clip is the first one of the test set mnist-2, chosen by nobody. The predictions are the stored ones (samples.npz).
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import framepred as fp
from framepred.runs import load_samples, load_scores, read_record, run_folder, run_record

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PICTURE = ROOT / "book" / "prediction.png"
BEGIN, END = "<!-- made by `make readme`: the errors of the runs -->", "<!-- until here -->"
CONTEXT, HORIZON, SIZE, ZOOM, GAP, LINE = 10, 10, 64, 3, 8, 24
INK, PAPER = 0, 255
SPEEDRUN = "convlstm-book-speedrun"
NAMES = {"ConvLSTM": "ConvLSTM", "spatio-temporal": "spatio-temporal autoencoder", "VPN": "Video Pixel Network"}


def table() -> str:
    """Rollout errors on the MNIST test digits: the thesis' and ours, each network's with the run that has it and its cost."""
    thesis = fp.analysis.prior_work.reported("rollout").query("cite == 'feist2021' and test_set == 'own'")
    thesis = thesis.set_index("network")["nats"]
    errors = fp.analysis.results.errors("mnist-2", "rollout")
    lines = [
        "| network | thesis | ours | first frame | tenth frame | parameters | hours | run |",
        "| --- | --: | --: | --: | --: | --: | --: | --- |",
    ]
    hardware: dict[str, None] = {}  # a set that keeps its order
    for label, run in fp.analysis.results.shown_runs().items():
        nats = errors[label].astype(np.float64)  # float32 would round the mean of so many clips
        record = run_record(run)
        assert record is not None  # published runs have one
        hardware[record["hardware"]] = None
        hours = fp.analysis.results.history(run, kept=True)["seconds"].iloc[-1] / 3600
        errors_of_run = (thesis[label], nats.mean(), nats[:, 0].mean(), nats[:, -1].mean())
        numbers = [*(f"{value:.1f}" for value in errors_of_run), f"{record['parameters']:,}", f"{hours:.1f}"]
        lines.append(f"| {NAMES[label]} | {' | '.join(numbers)} | [`{run}`](book/runs/{run}) |")
    counts = {len(nats) for nats in errors.values()}
    few = f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,} to {max(counts):,}"
    note = (
        f"Nats per frame on two digits of MNIST's test part, ten frames predicted from ten (*rollout*), on {few} clips; less is better, "
        f"and no predictor can be below the floor, about 86. Hours of training, of the run and of those that it started from, "
        f"on: {'; '.join(hardware)}."
    )
    return "\n".join([*lines, "", note, "", speedrun(thesis["ConvLSTM"])])


def speedrun(thesis: float) -> str:
    """How long the run took that was made to reach the error of the thesis' ConvLSTM, and what it reached."""
    folder = run_folder(SPEEDRUN)
    record = read_record(folder)
    assert record is not None  # published runs have one
    nats = load_scores(folder)["mnist-2/rollout"].astype(np.float64)
    return (
        f"**Speedrun**: {record['seconds'] / 60:.1f} minutes of training took a ConvLSTM to {nats.mean():.1f} nats on {len(nats):,} clips; "
        f"that of the thesis is at {thesis:.1f} after two days of a GPU. Hardware: {record['hardware']}. Run: "
        f"[`{SPEEDRUN}`](book/runs/{SPEEDRUN}); `make speedrun` measures your machine."
    )


def filled(readme: str) -> str:
    """The README with the table of today's runs between its markers."""
    before, found, rest = readme.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise ValueError(f"README.md has no line {BEGIN!r} with {END!r} after it; put both where the table belongs")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def place(row: int) -> tuple[int, int]:
    """The top left corner of a film's frame in the picture."""
    return GAP + row * (SIZE * ZOOM + GAP), LINE


def draw(films: dict[str, np.ndarray]) -> list[Image.Image]:
    """Twenty pictures: frame t of every film, uint8 (20, 64, 64), beside one another under their names.

    Grey values are exact: pixel (y, x) of a frame is a square of ZOOM×ZOOM pixels.
    """
    width, tile = GAP + len(films) * (SIZE * ZOOM + GAP), SIZE * ZOOM
    small, large = ImageFont.load_default(13), ImageFont.load_default(14)
    pictures = []
    for t in range(CONTEXT + HORIZON):
        picture = Image.new("L", (width, 2 * LINE + tile + 6), PAPER)
        pen = ImageDraw.Draw(picture)
        for row, (name, film) in enumerate(films.items()):
            x, y = place(row)
            pen.text((x, y - 4), name, INK, large, anchor="ls")
            picture.paste(Image.fromarray(film[t].repeat(ZOOM, 0).repeat(ZOOM, 1)), (x, y))
        seen = t < CONTEXT
        what = "given to the networks" if seen else "predicted by the networks"
        pen.text((GAP, LINE + tile + 14), f"frame {t + 1} of {CONTEXT + HORIZON}, {what}", INK, small, anchor="lm")
        left = width - GAP - 210  # the time line: how much of the clip has passed, and where prediction begins
        right, middle = width - GAP, LINE + tile + 14
        pen.line((left, middle, right, middle), 170, 2)
        half = (left + right) // 2
        pen.line((half, middle - 5, half, middle + 5), 110, 1)
        at = left + (right - left) * t // (CONTEXT + HORIZON - 1)
        pen.ellipse((at - 4, middle - 4, at + 4, middle + 4), INK if not seen else 110)
        pictures.append(picture)
    return pictures


def films() -> dict[str, np.ndarray]:
    """The first test clip and its predictions, after the ten frames that they were made from; uint8 (20, 64, 64)."""
    clip = fp.test_set("mnist-2", n=1).sample().frames[0, :, 0]
    rows = {"truth": (clip * 255).round().byte().numpy()}
    for label, run in fp.analysis.results.shown_runs().items():
        predicted = load_samples(run_folder(run))["mnist-2/frames"][0, :, 0]
        rows[label] = np.concatenate([rows["truth"][:CONTEXT], predicted])
    return rows


def main() -> int:
    readme = README.read_text(encoding="utf-8")
    new = filled(readme)
    if "--check" in sys.argv:
        if new != readme:
            print("README.md: its table is not that of the runs in book/runs; run `make readme`")
        return int(new != readme)
    README.write_text(new, encoding="utf-8")
    first, *others = draw(films())
    pause = [1500 if t in (CONTEXT - 1, CONTEXT + HORIZON - 1) else 250 for t in range(CONTEXT + HORIZON)]  # ms
    # An animated PNG: a third of the size of a GIF.
    first.save(PICTURE, save_all=True, append_images=others, duration=pause, loop=0, optimize=True)
    print(f"wrote the table and {PICTURE.relative_to(ROOT)}, {PICTURE.stat().st_size / 2**10:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
