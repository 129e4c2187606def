"""What both players share: one output that a live notebook, a page, a PDF and a code host can each show."""

from __future__ import annotations

import base64
import html
import json
import os
import sys
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from framepred.players import _data

HERE = Path(__file__).parent
BUDGET = 400 * 2**10  # characters of HTML; a heavier player does without the picture for hosts that run no scripts
NOTEBOOK_LIMIT = 2**20  # a live notebook gets no HTML form beyond this: Jupyter drops outputs of several MB


def source(name: str) -> str:
    """A player's JavaScript: one ES module without imports, made of the shared part and its own."""
    return (HERE / "player.js").read_text("utf-8") + (HERE / name).read_text("utf-8")


class Player(anywidget.AnyWidget):
    """A player of `n_frames` frames of several clips. `frame`, `sample` and `view` are traits that widgets can link to.

    Where a browser is connected to the kernel, the player is a widget; everywhere else its output is HTML that needs
    neither kernel nor network, or a film strip. Widgets leave their state in a page, and the page then loads a widget
    manager from another host; so the widget's connection opens only when a live notebook asks for it.
    """

    frame = traitlets.Int(0, help="frame shown, from 0").tag(sync=True)
    sample = traitlets.Int(0, help="clip shown, from 0").tag(sync=True)
    view = traitlets.Unicode(help="how the frames are drawn").tag(sync=True)
    _spec = traitlets.Dict().tag(sync=True)
    _clips = traitlets.List(traitlets.Unicode()).tag(sync=True)
    _css = (HERE / "players.css").read_text("utf-8")
    VIEWS: tuple[str, ...] = ()

    def __init__(self, shape, spec, clips, *, view, frame=0, sample=0, zoom=None, speed=5, loop=True, autoplay=False):
        N, T, H, W = shape
        if view not in self.VIEWS:
            raise ValueError(f"view is {view!r}; known: {', '.join(self.VIEWS)}")
        if not speed > 0 or (zoom is not None and zoom < 1):
            raise ValueError(f"speed is {speed} and zoom {zoom}; expected frames per second above 0, and at least 1")
        for name, value, n in (("frame", frame, T), ("sample", sample, N)):
            if not 0 <= value < n:
                raise ValueError(f"{name} is {value}; expected 0 to {n - 1}")
        self.n_samples, self.n_frames, self.speed = N, T, speed
        spec = dict(spec, frames=T, height=H, width=W, zoom=zoom, speed=speed, loop=loop, autoplay=autoplay)
        super().__init__(frame=frame, sample=sample, view=view, _spec=spec, _clips=clips)

    @traitlets.validate("frame", "sample", "view")
    def _known(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if name == "view":
            known, expected = value in self.VIEWS, ", ".join(self.VIEWS)
        else:
            n = self.n_frames if name == "frame" else self.n_samples
            known, expected = 0 <= value < n, f"0 to {n - 1}"
        if not known:
            raise traitlets.TraitError(f"{name} is {value!r}; expected {expected}")
        return value

    def pictures(self, sample: int) -> dict[str, np.ndarray]:
        """Name → uint8 (frames, height, width), or (…, 3) for colours: a clip as the present view shows it."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike, *, fps: int | float | None = None, zoom: int = 1) -> None:
        """Write the clip that is shown, in the view that is shown.

        Args:
            path: ends in .gif for an animation, or in .png for a film strip.
            fps: frames per second of the animation; the player's speed, unless told.
            zoom: size of a pixel.

        Grey values are exact. An animation holds at most 256 colours a frame, so an overlay may be off by a shade.
        """
        if zoom < 1 or not (fps is None or fps > 0):
            raise ValueError(f"fps is {fps} and zoom {zoom}; expected frames per second above 0, and at least 1")
        _data.save(Path(path), self.pictures(self.sample), self._spec["context"], fps or self.speed, zoom)

    def html(self) -> str:
        """The player as HTML that needs no other file, no kernel and no network."""
        kind = type(self).__name__
        state = {
            "frame": self.frame,
            "sample": self.sample,
            "view": self.view,
            "_spec": self._spec,
            "_clips": self._clips,
        }
        data = json.dumps(state, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
        script = self._esm + (HERE / "static.js").read_text("utf-8")
        alt = html.escape(f"Film strip: {self}", quote=True)
        picture = f'<img class="dark-light" alt="{alt}" src="data:image/png;base64,{self._strip()}">'

        def page(inside: str) -> str:
            return (
                f'<div class="framepred-static" data-player="{kind}"><style>{self._css}</style>{inside}'
                f'<script type="application/json">{data}</script></div>\n'
                f'<script type="module">\n{script}start({kind});\n</script>'
            )

        return full if len(full := page(picture)) <= BUDGET else page(f"<p>{alt}</p>")

    def _strip(self) -> str:
        rows = self.pictures(self.sample)
        return base64.b64encode(_data.png(_data.contact_sheet(rows, self._spec["context"], columns=10))).decode()

    def __str__(self) -> str:
        names, spec = ", ".join(self._spec["rows"]), self._spec
        clips = f" in each of {self.n_samples} clips" if self.n_samples > 1 else ""
        return f"{names}; {self.n_frames} frames of {spec['width']}×{spec['height']} pixels{clips}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    # --- the output --------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Called by ipywidgets on construction. Does nothing: `model_id` opens the connection when it is needed."""

    @property
    def model_id(self) -> str:
        super().open()
        return super().model_id

    def _repr_mimebundle_(self, **kwargs) -> tuple[dict, dict]:
        """Every form of the output, and no metadata; the host takes the one it can show."""
        page, live = self.html(), is_live()
        bundle: dict[str, object] = {"text/plain": repr(self), "image/png": self._strip()}
        if not live or len(page) <= NOTEBOOK_LIMIT:
            bundle["text/html"] = page
        if live:
            view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
            bundle["application/vnd.jupyter.widget-view+json"] = view
        return bundle, {}


def is_live() -> bool:
    """Whether what is shown can reach the kernel: in a notebook that somebody has open.

    A kernel cannot know who will look at its output, so who runs notebooks unattended says so with
    FRAMEPRED_PLAYERS=static, as the build of the book and the training notebooks do. Without a kernel nothing is live;
    FRAMEPRED_PLAYERS=live overrules that.
    """
    if choice := os.environ.get("FRAMEPRED_PLAYERS"):
        return choice == "live"
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")
