"""Video frame prediction on Moving MNIST: the data, three networks, their measures. See the book for the story."""

import importlib
from typing import TYPE_CHECKING

from framepred.digits import Digits, load_digits
from framepred.metrics import absolute_error, cross_entropy, entropy_floor, psnr, squared_error, ssim
from framepred.moving import Clips, MovingDigits, test_set

if TYPE_CHECKING:
    from framepred.evaluation import PROTOCOLS, Scores, evaluate, predict
    from framepred.models import Forecast, FramePredictor, baselines, build
    from framepred.players import FlowPlayer, FramePlayer
    from framepred.published import published_runs
    from framepred.reporting import report
    from framepred.runs import load
    from framepred.training import TrainConfig, train

__version__ = "0.1.0"

# Imported when they are first asked for: the networks bring the Hugging Face hub and the players a notebook's widgets,
# which would make up a fifth of the time that importing this package takes.
_LATER = {
    "evaluation": ("PROTOCOLS", "Scores", "evaluate", "predict"),
    "models": ("Forecast", "FramePredictor", "baselines", "build"),
    "cost": (),
    "exercises": (),
    "figures": (),
    "glyphs": (),
    "literature": (),
    "matching": (),
    "plain": (),
    "players": ("FlowPlayer", "FramePlayer"),
    "plots": (),
    "published": ("published_runs",),
    "reporting": ("report",),
    "results": (),
    "runs": ("load",),
    "statistics": (),
    "throughput": (),
    "training": ("TrainConfig", "train"),
}


def __getattr__(name: str):
    for module, names in _LATER.items():
        if name == module or name in names:
            found = importlib.import_module(f"framepred.{module}")
            return found if name == module else getattr(found, name)
    raise AttributeError(f"module 'framepred' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, *__all__})


__all__ = [
    "PROTOCOLS",
    "Clips",
    "Digits",
    "FlowPlayer",
    "Forecast",
    "FramePlayer",
    "FramePredictor",
    "MovingDigits",
    "Scores",
    "TrainConfig",
    "absolute_error",
    "baselines",
    "build",
    "cross_entropy",
    "entropy_floor",
    "evaluate",
    "load",
    "load_digits",
    "predict",
    "psnr",
    "published_runs",
    "report",
    "squared_error",
    "ssim",
    "test_set",
    "train",
]
