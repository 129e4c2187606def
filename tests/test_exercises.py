"""The code exercises: the solution passes, the stub fails, typical wrong answers fail, each with a hint of its own."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import textwrap
import tomllib
from pathlib import Path

import coursework
import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F
from torch import nn

import framepred as fp
from framepred import exercises
from framepred.analysis.drift import drift_and_blur
from framepred.exercises.checking import examine
from framepred.models.layers.convlstm_cell import ConvLSTMCell

ROOT = Path(__file__).parents[1]
NAMES = exercises.names()

# --- the notebooks ---------------------------------------------------------------------------------------------------


def run(notebook) -> dict[str, exercises.Result]:
    """Execute a notebook's cells but the one that installs the package; what its checks said."""
    space, results = {}, {}
    for cell in notebook.cells:
        if cell.cell_type == "code" and "remove-cell" not in cell.metadata.get("tags", []):
            exec(cell.source, space)
            if "result" in space:
                result = space.pop("result")
                results[result.name] = result
    return results


def all_checks(read) -> dict[str, exercises.Result]:
    return {name: result for path in coursework.solutions() for name, result in run(read(path)).items()}


@pytest.fixture(scope="module")
def solved():
    # With the hidden tests, which raise where a solution fails.
    return all_checks(coursework.read)


@pytest.fixture(scope="module")
def unsolved():
    return all_checks(coursework.student_notebook)


def test_there_are_twelve_and_each_has_its_place_in_a_notebook(solved, unsolved):
    assert len(NAMES) == 12
    assert list(solved) == list(unsolved) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_solution_passes(name, solved):
    assert solved[name], solved[name]


@pytest.mark.parametrize("name", NAMES)
def test_stub_fails_and_is_told_that_nothing_is_written_yet(name, unsolved):
    assert not unsolved[name]
    assert "not written yet" in unsolved[name].message


def test_students_notebooks_are_up_to_date_and_hold_no_solution():
    assert coursework.generate(check=True) == 0
    for path in coursework.STUDENT.glob("*.ipynb"):
        notebook = coursework.nbformat.read(path, 4)
        text = "\n".join(cell.source for cell in notebook.cells)
        assert "SOLUTION" not in text and "HIDDEN" not in text
        assert not any("nbgrader" in cell.metadata for cell in notebook.cells)


@pytest.mark.parametrize("marker", ["SOLUTION", "HIDDEN TESTS"])
def test_a_marker_without_its_partner_is_an_error(marker, tmp_path):
    page = tmp_path / "1.md"
    code = f"def f():\n    ### BEGIN {marker}\n    return 1\n"
    notebook = coursework.nbformat.v4.new_notebook(cells=[coursework.nbformat.v4.new_code_cell(code)])
    coursework.jupytext.write(notebook, page, fmt="md:myst")
    with pytest.raises(ValueError, match="a marker without its partner"):
        coursework.student_notebook(page)


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_an_exercise_is_that_of_its_section_in_the_book(name):
    chapter, section = name.split("-")[0].split(".")
    label = exercises.EXERCISES[name].section
    for page in ROOT.glob(f"book/{chapter}-*/{section}-*.md"):
        assert f"({label})=" in page.read_text(encoding="utf-8")
    index = (ROOT / "book" / "exercises" / "index.md").read_text(encoding="utf-8")
    assert f"`{name}`" in index and f"{{ref}}`{label}`" in index


def test_page_links_the_students_notebooks_which_install_the_package_first():
    address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    index = (ROOT / "book" / "exercises" / "index.md").read_text(encoding="utf-8")
    links = re.findall(r"https://colab\.research\.google\.com/github/(\S+)/blob/main/(\S+)\)", index)
    assert {address.removeprefix("https://github.com/")} == {repository for repository, _ in links}
    assert {ROOT / path for _, path in links} == set(coursework.STUDENT.glob("*.ipynb"))
    for path in coursework.STUDENT.glob("*.ipynb"):
        assert f'"framepred @ git+{address}"' in coursework.nbformat.read(path, 4).cells[0].source


# --- typical wrong answers -------------------------------------------------------------------------------------------


def conv(x, weight, stride=1, **options):
    return F.conv2d(x[None], weight, stride=stride, **options)[0]


def in_place(x, reduce, spatial, expand):
    y = reduce(F.relu(x, inplace=True))
    return x + expand(F.relu(spatial(F.relu(y))))


def normal_equations(I_x, I_y, change, sign=1, coupled=1):
    xx, xy, yy = (I_x * I_x).sum(), coupled * (I_x * I_y).sum(), (I_y * I_y).sum()
    xc, yc = (I_x * change).sum(), (I_y * change).sum()
    return sign * torch.stack([yy * xc - xy * yc, xx * yc - xy * xc]) / (xx * yy - xy * xy)


def reflecting(x, v):
    x += v
    if x <= 0:
        return -x, -v
    return (2 - x, -v) if x >= 1 else (x, v)


def escaping(x, v):
    x += v
    return x, -v if x <= 0 or x >= 1 else v


def touching(x, v):
    x += v
    return min(max(x, 0.0), 1.0), -v if x < 0 or x > 1 else v


def clamped(logits, target):
    p = torch.sigmoid(logits).clamp(1e-7, 1 - 1e-7)
    return -(target * p.log() + (1 - target) * (1 - p).log()).sum((2, 3, 4))


class Cell(nn.Module):
    order, peepholes, late = "ifgo", True, True

    def __init__(self, M, N, K):
        super().__init__()
        self.input_to_gates = nn.Conv2d(M, 4 * N, K, padding=K // 2)
        self.state_to_gates = nn.Conv2d(N, 4 * N, K, padding=K // 2, bias=False)
        self.peephole = nn.Parameter(torch.zeros(3, N, 1, 1))

    def forward(self, x, state):
        h, c = state
        part = dict(zip(self.order, torch.chunk(self.input_to_gates(x) + self.state_to_gates(h), 4, 1)))
        i, f = (torch.sigmoid(part[k] + self.peephole[n] * c * self.peepholes) for n, k in enumerate("if"))
        new = f * c + i * torch.tanh(part["g"])
        o = torch.sigmoid(part["o"] + self.peephole[2] * (new if self.late else c) * self.peepholes)
        return o * torch.tanh(new), new


class OtherOrder(Cell):
    order = "ifog"


class Blind(Cell):
    peepholes = False


class Early(Cell):
    late = False


def look_up(picture, flow, outside=0.0, sign=1, x=0, interpolate=True):
    """Bilinear look-up in plain Python."""
    H, W = picture.shape
    out = torch.zeros(H, W)

    def at(row, column):
        if outside == "border":
            row, column = min(max(row, 0), H - 1), min(max(column, 0), W - 1)
        return float(picture[row, column]) if 0 <= row < H and 0 <= column < W else 0.0

    for row, column in itertools.product(range(H), range(W)):
        v, u = row + sign * float(flow[1 - x, row, column]), column + sign * float(flow[x, row, column])
        if not interpolate:
            out[row, column] = at(round(v), round(u))
            continue
        i, j = math.floor(v), math.floor(u)
        for k, m in itertools.product((0, 1), (0, 1)):
            out[row, column] += (1 - abs(v - i - k)) * (1 - abs(u - j - m)) * at(i + k, j + m)
    return out


def huber(flow, delta, gap=2, average=False, square=False):
    total = 0.0
    for a in (flow[:, :, gap:] - flow[:, :, :-gap], flow[:, gap:] - flow[:, :-gap]):
        small = a.abs() <= delta
        cost = a**2 / 2 if square else torch.where(small, a**2 / 2, delta * (a.abs() - delta / 2))
        total += cost.mean() if average else cost.sum()
    return total


def raster(K, kind, columns=False, right=False, swap=False):
    kind = {"A": "B", "B": "A"}[kind] if swap else kind
    last = K * K // 2 + (1 + K // 2 if right else kind == "B")
    flat = torch.arange(K * K) < last
    if right and kind == "A":
        flat[K * K // 2] = False
    mask = flat.reshape(K, K).float()
    return mask.T if columns else mask


def drawn(first, second, draws, order="rows", below=True, repeat=1):
    H, W = draws.shape
    frame, features = torch.zeros(1, H + 2, W + 2), torch.zeros(4, H + 2, W + 2)
    pixels = list(itertools.product(range(H), range(W)))
    if order == "columns":
        pixels.sort(key=lambda p: (p[1], p[0]))
    for y, x in pixels:
        for _ in range(repeat):
            features[:, y + 1, x + 1] = first(frame[:, y : y + 3, x : x + 3])
        p = second(features[:, y : y + 3, x : x + 3]).sigmoid()
        frame[0, y + 1, x + 1] = (draws[y, x] < p) == below
    return frame[0, 1:-1, 1:-1]


def correlation(a, b):
    a, b = (np.asarray(v, dtype=float) - np.mean(np.asarray(v, dtype=float)) for v in (a, b))
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def order_of(a):
    return np.argsort(np.asarray(a), kind="stable")


def search(logits, truth, radius, step=1, end=1):
    scores = {}
    for dx, dy in itertools.product(range(-radius, radius + end), repeat=2):
        moved = torch.roll(torch.roll(truth, dx, 1), dy, 0)
        scores[dx, dy] = float((F.softplus(logits) - moved * logits).sum())
    dx, dy = min(scores, key=scores.get)
    return step * dx, step * dy


WRONG = {  # exercise: (answer, a word of its hint), three times
    "2.2-convolution": [
        (lambda x, w, stride=1: conv(x, w.flip((-1, -2)), stride, padding=w.shape[-1] // 2), "180°"),
        (lambda x, w, stride=1: conv(x, w, stride), "zeros on every side"),
        (lambda x, w, stride=1: conv(x, w, padding=w.shape[-1] // 2), "every s-th row"),
    ],
    "2.3-residual-block": [
        (lambda x, a, b, c: c(F.relu(b(F.relu(a(F.relu(x)))))), "shortcut is missing"),
        (in_place, "shortcut carries ReLU(x)"),
        (lambda x, a, b, c: x + F.relu(c(F.relu(b(F.relu(a(x)))))), "before"),
    ],
    "2.5-lucas-kanade": [
        (lambda *window: normal_equations(*window, sign=-1), "sign"),
        (lambda *window: normal_equations(*window).flip(0), "exchanged"),
        (lambda *window: normal_equations(*window, coupled=0), "couples"),
    ],
    "3.1-bounce": [(reflecting, "mirrored"), (escaping, "outside [0, 1]"), (touching, "exactly on a wall")],
    "3.1-cross-entropy": [
        (lambda z, t: F.binary_cross_entropy_with_logits(z, t, reduction="none").mean((2, 3, 4)), "averaged"),
        (lambda z, t: F.binary_cross_entropy_with_logits(z, t, reduction="sum"), "one number"),
        (clamped, "±200"),
    ],
    "3.2-cell": [(OtherOrder, "another order"), (Blind, "peephole is missing"), (Early, "old cell state")],
    "3.3-warp": [
        (lambda p, flow: look_up(p, flow, sign=-1), "wrong way"),
        (lambda p, flow: look_up(p, flow, outside="border"), "repeats the border"),
        (lambda p, flow: look_up(p, flow, x=1), "exchanged"),
    ],
    "3.3-huber": [
        (lambda flow, delta: huber(flow, delta, gap=1), "two apart"),
        (lambda flow, delta: huber(flow, delta, average=True), "mean"),
        (lambda flow, delta: huber(flow, delta, square=True), "straight line"),
    ],
    "3.4-mask": [
        (lambda K, kind: raster(K, kind, swap=True), "changed places"),
        (lambda K, kind: raster(K, kind, columns=True), "column by column"),
        (lambda K, kind: raster(K, kind, right=True), "right of the centre"),
    ],
    "3.4-sampling": [
        (lambda *a: drawn(*a, order="columns"), "raster order"),
        (lambda *a: drawn(*a, below=False), "black and white"),
        (lambda *a: drawn(*a, repeat=2), "once a pixel"),
    ],
    "4.3-spearman": [
        (correlation, "Pearson"),
        (lambda a, b: correlation(order_of(a), order_of(b)), "argsort"),
        (lambda a, b: correlation(order_of(order_of(a)), order_of(order_of(b))), "mean of their ranks"),
    ],
    "4.7-drift": [
        (lambda *a: search(*a)[::-1], "exchanged"),
        (lambda *a: search(*a, step=-1), "sign"),
        (lambda *a: search(*a, end=0), "edge"),
    ],
}
WRONG_ANSWERS = [(name, *pair) for name, answers in WRONG.items() for pair in answers]


@pytest.mark.parametrize(("name", "answer", "word"), WRONG_ANSWERS)
def test_a_typical_wrong_answer_fails_with_its_own_hint(name, answer, word):
    for seed in (0, 1):
        result = exercises.check(name, answer, seed)
        assert not result and word in result.message, result


@pytest.mark.parametrize("name", NAMES)
def test_hints_of_an_exercise_differ(name):
    assert len({exercises.check(name, answer).message for answer, _ in WRONG[name]}) == 3
    mistakes = exercises.EXERCISES[name].mistakes
    assert len({mistake.hint for mistake in mistakes}) == len(mistakes)


@pytest.mark.parametrize("name", NAMES)
def test_every_hint_is_reached_by_its_mistake(name):
    """No mistake is shadowed by one before it, and none of them is right."""
    exercise = dataclasses.replace(exercises.EXERCISES[name], adapt=lambda answer: answer)
    for mistake in exercise.mistakes:
        assert examine(exercise, lambda *a, wrong=mistake.function: wrong(*a), seed=0).message == mistake.hint


# --- references against something else -------------------------------------------------------------------------------


def test_convolution_is_scipys_correlation():
    g = torch.Generator().manual_seed(0)
    x, w = torch.rand(1, 6, 7, generator=g), torch.randn(1, 1, 3, 3, generator=g)
    expected = scipy.signal.correlate2d(x[0].numpy(), w[0, 0].numpy(), mode="same")
    assert np.allclose(exercises.EXERCISES["2.2-convolution"].reference(x, w, 1)[0], expected, atol=1e-6)


def test_bounce_is_what_the_generator_does(uci):
    clips = fp.MovingDigits(uci, n_digits=1, n_frames=60)
    path = clips._positions(20, seed=3, start=0)
    draws = np.random.Philox(key=[3, 0], counter=[0, 0, 0, 0]).random_raw(80) >> np.uint64(11)
    bounce = exercises.EXERCISES["3.1-bounce"].reference
    for clip, (x, y, heading, _) in enumerate((draws * 2.0**-53).reshape(20, 4)):
        velocity = 0.1 * np.cos(2 * np.pi * heading), 0.1 * np.sin(2 * np.pi * heading)
        for axis, (place, v) in enumerate(zip((x, y), velocity)):
            for t in range(60):
                place, v = bounce(place, v)
                assert int(36 * place) == path[clip, t, 0, axis]


def test_drift_is_the_one_that_the_package_measures(uci):
    clips = fp.MovingDigits(uci, n_digits=1, n_frames=4, frame_size=96).sample(30, seed=0)
    inside = ((clips.positions > 6) & (clips.positions < 60)).all(-1).all(-1).all(-1)
    clips = clips[inside]
    assert len(clips) > 2
    logits = (0.02 + 0.95 * torch.roll(clips.frames[:, 1:], (2, -3), (-2, -1))).logit()
    found = drift_and_blur(logits, clips, context=1, radius=4).shift[:, 0, 0]
    for k, shift in enumerate(found):
        assert exercises.EXERCISES["4.7-drift"].reference(logits[k, 0, 0], clips.frames[k, 1, 0], 4) == tuple(
            shift.tolist()
        )


# --- what a check says about other answers ---------------------------------------------------------------------------


def student(code: str):
    space = {}
    exec(compile(textwrap.dedent(code), "cell", "exec"), space)
    return space["answer"]


def test_an_error_of_the_answer_is_reported_with_its_line_and_not_raised():
    answer = student("""
        def answer(x, v):
            step = x + v
            return step / 0, v
    """)
    result = exercises.check("3.1-bounce", answer)
    assert not result
    assert "line 4 of its cell, in answer" in result.message and "ZeroDivisionError" in result.message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (42, "cannot be called"),
        (lambda x: x, "could not be called"),
        (lambda x, v: None, "return"),
        (lambda x, v: x, "returns (x, v)|returns the new"),
        (lambda x, v: (torch.tensor([x]), v), "shape (1,)"),
        (lambda x, v: ("a", v), "tuple"),
        (lambda x, v: (float("nan"), v), "nan"),
        (lambda x, v: (x, 7 * v), "expected"),
    ],
)
def test_other_wrong_answers_get_words_too(answer, words):
    result = exercises.check("3.1-bounce", answer)
    assert not result
    assert any(word in result.message for word in words.split("|")), result


def test_an_answer_that_changes_its_arguments_is_not_right():
    right = exercises.EXERCISES["3.3-warp"].reference

    def tidy(picture, flow):
        moved = right(picture, flow)
        picture.zero_()
        return moved

    assert "in place" in exercises.check("3.3-warp", tidy).message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Cell(3, 2, 3), "the class itself"),
        (type("NoPeephole", (Cell,), {"__init__": lambda self, M, N, K: (Cell.__init__(self, M, N, K), delattr(self, "peephole"))[0]}), "no parameter `peephole`"),
        (type("Derived", (ConvLSTMCell,), {}), "inherited"),
        (ConvLSTMCell, "the package's own"),
    ],
)  # fmt: skip
def test_what_is_not_a_cell_of_ones_own_is_named(answer, words):
    result = exercises.check("3.2-cell", answer)
    assert not result and words in result.message, result


def test_a_patch_of_the_wrong_shape_is_explained():
    result = exercises.check("3.4-sampling", lambda first, second, draws: first(draws))
    assert "margin" in result.message


def test_nothing_random_changes_outside():
    before = torch.get_rng_state()
    for name in NAMES:
        exercises.check(name, WRONG[name][0][0])
    assert torch.equal(before, torch.get_rng_state())


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=re.escape("did you mean '3.2-cell'? Known: 2.2-convolution")):
        exercises.check("3.2-cel", Cell)
    with pytest.raises(ValueError, match="seed is -1"):
        exercises.check("3.2-cell", Cell, seed=-1)


def test_a_result_shows_itself_without_a_way_for_html_to_slip_in():
    result = exercises.Result("3.1-bounce", False, "use `x <= 0` & not <b>")
    assert not result and str(result) == "✗ 3.1-bounce: use `x <= 0` & not <b>"
    shown = result._repr_html_()
    assert "<code>x &lt;= 0</code>" in shown and "<b>" not in shown
    assert bool(exercises.check("3.2-cell", Cell)) and repr(exercises.check("3.2-cell", Cell)).startswith("✓ 3.2-cell")
