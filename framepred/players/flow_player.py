"""FlowPlayer: what a network thinks moves where."""

from __future__ import annotations

import numpy as np
import torch

from framepred.models.layers.warp import warp
from framepred.players import _data
from framepred.players._player import Player, source

STEP = 1 / 32  # pixels; a vector in the browser is at most half of this off


class FlowPlayer(Player):
    """Frames with the motion in them; in a live notebook a widget with the traits `frame`, `sample` and `view`.

    A flow tells where to look: out(p) = in(p + flow(p)). What is seen at p came from p + flow(p), so it moved by
    -flow(p), and that is what is drawn.

    Args:
        frames: the frames that move, (T, 1, H, W) or (T, H, W), in [0, 1] or uint8; with several clips (N, T, 1, H, W).
        flow: (T, 2, H, W) or (N, T, 2, H, W), the (x, y) of where to look, in pixels.
        target: the frames that follow, of the shape of `frames`, to compare the moved frames with.
        view: "arrows" (on the frame, each from where a pixel was to where it goes), "colour" (hue: direction, strength:
            distance; white stands still), or "warped" (the frame as the flow moves it, beside the target).
        every: pixels between two arrows.
        context: how many frames at the start are context.
        options: frame, sample, zoom, speed, loop and autoplay, as in `FramePlayer`.

    Raises:
        ValueError: shapes that differ, a flow that is not finite or beyond ±1000 pixels, values outside [0, 1], or more
            pixels than a browser plays smoothly.

    Example:
        >>> FlowPlayer(previous[0], forecast.flow[0])  # doctest: +SKIP
    """

    VIEWS = ("arrows", "colour", "warped")
    _esm = source("flow_player.js")

    def __init__(
        self,
        frames: object,
        flow: object,
        target: object = None,
        *,
        view: str = "arrows",
        every: int = 4,
        context: int = 0,
        **options,
    ):
        self.rows = {"frames": _data.grey_values("frames", frames)}
        N, T, H, W = self.rows["frames"].shape
        self.motion = -_flow(flow, (N, T, 2, H, W))
        if not 0 <= context < T or every < 1:
            raise ValueError(
                f"context is {context} and every {every}; expected 0 to {T - 1} frames, and at least 1 pixel"
            )
        _data.check_size(7 * N * T * H * W, f"{N} clips × {T} frames and flows of {W}×{H}")
        self.rows["warped"] = _warped(self.rows["frames"], -self.motion)
        if target is not None:
            self.rows["target"] = _data.grey_values("target", target)
        _data.same_shape(self.rows)
        self.reach = max(float(np.hypot(*np.moveaxis(self.motion, 2, 0)).max()), 1.0)
        clips = [
            _data.pack(np.stack([row[n] for row in self.rows.values()], 1).tobytes() + _planes(self.motion[n]))
            for n in range(N)
        ]
        spec = {"rows": list(self.rows), "context": context, "step": STEP, "reach": self.reach, "every": every}
        super().__init__((N, T, H, W), spec, clips, view=view, **options)

    def pictures(self, sample: int) -> dict[str, np.ndarray]:
        rows = {name: row[sample] for name, row in self.rows.items()}
        if self.view != "warped":
            rows = {"frames": rows["frames"], "motion": colours(self.motion[sample], self.reach)}
        return rows


def colours(motion: np.ndarray, reach: float) -> np.ndarray:
    """Motion (T, 2, H, W) as uint8 (T, H, W, 3): hue for direction (red to the right), saturation for distance / reach."""
    x, y = np.moveaxis(motion, 1, 0)
    strength = np.minimum(np.hypot(x, y) / reach, 1)[..., None]
    k = (np.array([5, 3, 1]) + np.arctan2(y, x)[..., None] / (np.pi / 3)) % 6
    return np.rint(255 * (1 - strength * np.minimum(k, 4 - k).clip(0, 1))).astype(np.uint8)


def _flow(flow: object, shape: tuple[int, ...]) -> np.ndarray:
    """The flow in steps of `STEP` pixels, as float32 of `shape`."""
    array = _data.to_numpy(flow)
    if array.shape != shape and (1, *array.shape) != shape:
        expected = shape if shape[0] > 1 else shape[1:]
        raise ValueError(f"'flow' has shape {array.shape}; 'frames' need {expected}: an (x, y) for every pixel")
    if not np.abs(array).max() <= 1000:
        raise ValueError("'flow' is not finite, or beyond ±1000 pixels")
    return (np.rint(array.reshape(shape) / STEP) * STEP).astype(np.float32)


def _warped(frames: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The frames as the flow moves them, in grey values."""
    N, T, H, W = frames.shape
    features = torch.from_numpy(frames.astype(np.float32)).reshape(N * T, 1, H, W)
    moved = warp(features, torch.from_numpy(flow).reshape(N * T, 2, H, W))
    return moved.round().clamp(0, 255).to(torch.uint8).reshape(N, T, H, W).numpy()


def _planes(motion: np.ndarray) -> bytes:
    """Motion as differences between neighbours in a line, all low bytes before all high bytes: smooth flows compress."""
    steps = np.rint(motion / STEP).astype("<i2")
    differences = np.diff(steps, axis=-1, prepend=np.int16(0)).astype("<i2")
    return differences.view(np.uint8).reshape(-1, 2).T.tobytes()
