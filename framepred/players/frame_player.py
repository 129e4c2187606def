"""FramePlayer: predictions beside the truth, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from framepred.players import _data
from framepred.players._player import Player, source
from framepred.players.stills import overlay


class FramePlayer(Player):
    """Rows of frames, played together; in a live notebook a widget with the traits `frame`, `sample` and `view`.

    Args:
        rows: name → frames (T, 1, H, W) or (T, H, W), in [0, 1] or uint8; with several clips (N, T, 1, H, W). All rows
            of one shape.
        context: what the networks saw. A number: the first frames of every row. Frames, of the shapes above: they are
            shown before those of every row.
        nats: name → (T,) or (N, T), an error for every frame that is not context.
        truth: the row that the others are compared with; the first, unless told.
        view: "frames"; "overlay" (T Fig. 4.4 to 4.8: the truth is white, and a prediction that leaves it is red: the
            colour is (max(t, p), t, t) for truth t and prediction p); or "difference" (|t - p|).
        frame, sample: what is shown first, from 0.
        zoom: size of a pixel; chosen from the width of the page, unless told.
        speed: frames per second.
        loop: whether to begin again at the end.
        autoplay: whether to play at once, unless the reader's system asks for less motion.

    Raises:
        ValueError: rows that differ in shape, values outside [0, 1], or more pixels than a browser plays smoothly; the
            message names the row.

    Example:
        >>> FramePlayer({"truth": target[0], "ConvLSTM": forecast.frames[0]})  # doctest: +SKIP
    """

    VIEWS = ("frames", "overlay", "difference")
    _esm = source("frame_player.js")

    def __init__(
        self,
        rows: Mapping[str, object],
        *,
        context: object = 0,
        nats: Mapping[str, object] | None = None,
        truth: str | None = None,
        view: str = "frames",
        **options,
    ):
        if not rows:
            raise ValueError("no rows; expected at least one name with its frames")
        self.rows = {str(name): _data.grey_values(name, frames) for name, frames in rows.items()}
        if isinstance(context, int | np.integer):
            n_context = context
        else:
            before = _data.grey_values("context", context)
            for name, row in self.rows.items():
                _data.same_shape({name: row[:, :1], "context": before[:, :1]})
                self.rows[name] = np.concatenate([before, row], 1)
            n_context = before.shape[1]
        N, T, H, W = _data.same_shape(self.rows)
        if not 0 <= n_context < T:
            raise ValueError(f"context is {n_context}; of {T} frames, 0 to {T - 1} can be context")
        _data.check_size(N * T * H * W * len(rows), f"{N} clips × {len(rows)} rows × {T} frames of {W}×{H}")
        self.truth = next(iter(self.rows)) if truth is None else truth
        if self.truth not in self.rows:
            raise ValueError(f"truth is {truth!r}; the rows are {', '.join(self.rows)}")
        # Rows of one frame are neighbours: what they have in common (the context, black) compresses to almost nothing.
        clips = [_data.pack(np.stack(clip, 1).tobytes()) for clip in zip(*self.rows.values())]
        errors = {name: _nats(name, values, (N, T - n_context), self.rows) for name, values in (nats or {}).items()}
        spec = {
            "rows": list(self.rows),
            "context": n_context,
            "nats": errors,
            "truth": list(self.rows).index(self.truth),
        }
        super().__init__((N, T, H, W), spec, clips, view=view, **options)

    def pictures(self, sample: int) -> dict[str, np.ndarray]:
        clip = {name: row[sample] for name, row in self.rows.items()}
        t = clip[self.truth]
        if self.view == "overlay":
            return {name: p if name == self.truth else overlay(t, p) for name, p in clip.items()}
        if self.view == "difference":
            return {name: p if name == self.truth else np.maximum(t, p) - np.minimum(t, p) for name, p in clip.items()}
        return clip


def _nats(name: str, values: object, shape: tuple[int, int], rows: Mapping[str, object]) -> list[list[float | None]]:
    """Errors as JSON can carry them: rounded, and None for what is not finite."""
    if name not in rows:
        raise ValueError(f"nats are given for {name!r}; the rows are {', '.join(rows)}")
    array = _data.to_numpy(values).astype(np.float64)
    if array.shape != shape and (1, *array.shape) != shape:
        raise ValueError(f"nats of {name!r} have shape {array.shape}; expected {shape}: clips and predicted frames")
    return [[round(x, 2) if np.isfinite(x) else None for x in clip] for clip in array.reshape(shape).tolist()]
