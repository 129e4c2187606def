"""How an answer is examined: run it, compare it, and find the words for what is wrong."""

from __future__ import annotations

import html
import linecache
import re
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PACKAGE = str(Path(__file__).parents[1])
LIBRARIES = tuple({sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")})


@dataclass(frozen=True)
class Result:
    """What `check` found. True if the answer is right."""

    name: str
    passed: bool
    message: str

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return f"{'✓' if self.passed else '✗'} {self.name}: {self.message}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The same for a notebook. Sign and words carry the meaning; the colour of the bar only repeats it."""
        text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(str(self)))
        colour = "#029e73" if self.passed else "#d55e00"
        return f'<div role="status" style="border-left: 4px solid {colour}; padding: 0.3em 0.8em">{text}</div>'


@dataclass(frozen=True)
class Case:
    """An input: what it is, in words that end a sentence "… on", and the arguments.

    `hint` is for an answer that is right in all cases but this one (and others with the same hint).
    """

    what: str
    arguments: tuple
    hint: str = ""


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that many give, and the words for whoever gave it."""

    hint: str
    function: Callable


@dataclass(frozen=True)
class Exercise:
    """A code exercise.

    Args:
        name: "chapter.section-slug".
        title: of a few words.
        section: label of the page it belongs to.
        call: how the answer is called and what it returns, as shown to whoever called it wrongly.
        reference: the right answer, a function of a case's arguments.
        cases: the inputs for a seed.
        mistakes: compared with a wrong answer in this order.
        adapt: makes an answer a function of the case's arguments, if it is not one.
    """

    name: str
    title: str
    section: str
    call: str
    reference: Callable
    cases: Callable[[int], list[Case]]
    mistakes: tuple[Mistake, ...]
    adapt: Callable[[Any], Callable] = field(default=lambda answer: answer)


class WrongAnswer(Exception):
    """Raised by `Exercise.adapt` and what it returns: the message is the hint."""


def examine(exercise: Exercise, answer: object, seed: int) -> Result:
    """Run the answer on all cases. See `framepred.exercises.check`."""
    cases = exercise.cases(seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        hint = _fault(exercise, answer, cases)
    return Result(exercise.name, not hint, hint or f"right on all {len(cases)} inputs.")


def _fault(exercise: Exercise, answer: object, cases: list[Case]) -> str:
    """What is wrong, or nothing."""
    if not callable(answer):
        return f"got {_name(answer)}, which cannot be called. Hand over your {exercise.call}"
    if (getattr(answer, "__module__", "") or "").startswith("framepred."):
        return "this is the package's own code. It is right, but the exercise is to write yours."
    found, wrong, changed = [], [], None
    for case in cases:
        arguments = _copy(case.arguments)
        try:
            value = exercise.adapt(answer)(*arguments)
        except WrongAnswer as fault:
            return str(fault)
        except NotImplementedError:
            return "not written yet: it raises NotImplementedError. Replace that line by your code."
        except Exception as error:  # noqa: BLE001 - whatever a student's code raises is for the student to read
            return _crash(error, case, exercise)
        if not _equal(arguments, case.arguments):
            changed = case
        found.append(value)
        expected = exercise.reference(*_copy(case.arguments))
        wrong.append(not _agree(value, expected))
    if not any(wrong):
        if changed is not None:
            return "the values are right, but it changes its arguments in place. Whoever called it still needs them: work on new tensors."
        return ""
    for mistake in exercise.mistakes:
        if all(_agree(value, mistake.function(*_copy(case.arguments))) for value, case in zip(found, cases)):
            return mistake.hint
    hints = {case.hint for case, bad in zip(cases, wrong) if bad}
    if len(hints) == 1 and not all(wrong) and (hint := hints.pop()):
        return hint
    if changed is not None:
        return f"it changes its arguments in place (on {changed.what}), and its values are wrong too. Work on new tensors first."
    k = wrong.index(True)
    return _difference(found[k], exercise.reference(*_copy(cases[k].arguments)), cases[k], exercise)


# --- comparing -------------------------------------------------------------------------------------------------------


def _tensors(value: Any, n: int) -> list[Tensor] | None:
    """What was returned, as n tensors; None if it is not that."""
    if n > 1 and isinstance(value, Tensor) and value.shape == (n,):
        value = tuple(value)  # (x, y) as one tensor
    parts = value if n > 1 and isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if len(parts) != n or any(part is None for part in parts):
        return None
    try:
        return [torch.as_tensor(part).detach().cpu().to(torch.float64) for part in parts]
    except (TypeError, ValueError, RuntimeError):
        return None


def _expected(value: Any) -> list[Tensor]:
    tensors = _tensors(value, len(value) if isinstance(value, tuple) else 1)
    assert tensors is not None
    return tensors


def _agree(value: Any, expected: Any) -> bool:
    right = _expected(expected)
    given = _tensors(value, len(right))
    return given is not None and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True) for a, b in zip(given, right)
    )


def _copy(arguments: tuple) -> tuple:
    return tuple(a.clone() if isinstance(a, Tensor) else a for a in arguments)


def _equal(some: tuple, others: tuple) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others) if isinstance(a, Tensor))


# --- words -----------------------------------------------------------------------------------------------------------


def _crash(error: Exception, case: Case, exercise: Exercise) -> str:
    """The error, and the last line of the student's own code that it came through."""
    said = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((PACKAGE, *LIBRARIES))
    ]
    if not own:
        return f"it could not be called on {case.what}. {said}. It is called as {exercise.call}"
    line = linecache.getline(own[-1].filename, own[-1].lineno or 0).strip()
    place = f"line {own[-1].lineno} of its cell, in {own[-1].name}" + (f", `{line}`" if line else "")
    return f"it stopped on {case.what}, at {place}. {said}"


def _difference(value: Any, expected: Any, case: Case, exercise: Exercise) -> str:
    right = _expected(expected)
    given = _tensors(value, len(right))
    if value is None:
        return "it returns None. Does it end with `return`?"
    if given is None:
        return f"it returns {_name(value)} on {case.what}. It is called as {exercise.call}"
    for number, (a, b) in enumerate(zip(given, right)):
        which = "the result" if len(right) == 1 else f"result {number + 1} of {len(right)}"
        if a.shape != b.shape:
            return f"{which} has shape {tuple(a.shape)} on {case.what}; expected {tuple(b.shape)}. It is called as {exercise.call}"
        if not a.isfinite().all() and b.isfinite().all():
            return f"{which} holds nan or infinity on {case.what}. Look for a logarithm of 0, a division by 0, or inf - inf."
        off = ~torch.isclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
        if off.any():
            place = tuple(int(i) for i in off.nonzero()[0])
            at = f" at index {place if len(place) != 1 else place[0]}" if place else ""
            share = f" ({int(off.sum())} of {off.numel()} values are off)" if off.numel() > 1 else ""
            return f"{which}{at} is {a[place].item():.5g} on {case.what}; expected {b[place].item():.5g}{share}."
    raise AssertionError("called for an answer that agrees")


def _name(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"an object of type {type(value).__name__}"
