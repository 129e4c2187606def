"""The book's code exercises: `check(name, answer)` says at once whether an answer is right, and if not, what is wrong.

    fp.exercises.names()
    fp.exercises.check("3.2-cell", MyCell)

An answer is run on random and on hand-made inputs and compared with the package's own code. If it differs, it is also
compared with typical mistakes; the one that it agrees with names the hint. The solution is never shown.
"""

from __future__ import annotations

import difflib

from framepred.exercises import background, convlstm, evaluation, flow, moving, vpn
from framepred.exercises.checking import Exercise, Result, examine
from framepred.exercises.vpn import decoder_layers

__all__ = ["EXERCISES", "Exercise", "Result", "check", "decoder_layers", "names"]

EXERCISES: dict[str, Exercise] = {
    exercise.name: exercise
    for module in (background, moving, convlstm, flow, vpn, evaluation)
    for exercise in module.EXERCISES
}


def names() -> list[str]:
    """The names of all code exercises, "chapter.section-slug", in the order of the book."""
    return list(EXERCISES)


def check(name: str, answer: object, seed: int = 0) -> Result:
    """Whether an answer to an exercise is right; if not, a hint.

    Args:
        name: one of `names()`.
        answer: the function or class that the exercise asks for. An error that it raises becomes part of the hint.
        seed: of the random inputs, 0 or more. A right answer passes for every seed.

    Returns:
        A result that shows itself in a notebook and is true if the answer is right: `assert check(…)`.
    """
    if name not in EXERCISES:
        near = difflib.get_close_matches(name, EXERCISES, 1, 0.4)
        meant = f"; did you mean {near[0]!r}?" if near else ";"
        raise ValueError(f"unknown exercise {name!r}{meant} Known: {', '.join(EXERCISES)}")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected 0 or more")
    return examine(EXERCISES[name], answer, seed)
