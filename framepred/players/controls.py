"""Live controls for a function that shows something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from framepred.players._player import is_live


def explore(show: Callable[..., Any], controls: Mapping[str, Any]) -> Any:
    """Let the reader choose the arguments of `show`, where there is a kernel to compute what they choose.

    In a live notebook there is a control for each argument, and what `show` returns follows it. A page has no kernel:
    there, what `show` returns for the first choices stands under a sentence that says so.

    Args:
        show: called with one keyword for each control; what it returns is displayed.
        controls: name → the values to choose from, a list of (label, value) pairs or of values; the first is shown first.

    Raises:
        ValueError: if a control has no values.

    Example:
        >>> explore(lambda speed: player(speed), {"speed": [0.1, 0.2, 0.3]})  # doctest: +SKIP
    """
    empty = [name for name, values in controls.items() if not values]
    if empty or not controls:
        raise ValueError(f"no values to choose from for {', '.join(empty) or 'any control'}; expected a list for each")
    if is_live():
        import ipywidgets

        style = {"description_width": "initial"}
        widgets = {
            name: ipywidgets.Dropdown(options=values, description=name.replace("_", " "), style=style)
            for name, values in controls.items()
        }
        return ipywidgets.interactive(show, **widgets)
    first = {name: values[0] for name, values in controls.items()}
    labels = {name: value[0] if isinstance(value, tuple) else value for name, value in first.items()}
    choice = ", ".join(f"{name.replace('_', ' ')} = {label}" for name, label in labels.items())
    print(f"Shown: {choice}. In a running notebook there are controls here.")
    return show(**{name: value[1] if isinstance(value, tuple) else value for name, value in first.items()})
