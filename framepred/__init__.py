"""Video frame prediction on Moving MNIST: the data, three networks, their measures. See the book for the story."""

from framepred.digits import Digits, load_digits
from framepred.evaluation import PROTOCOLS, Scores, evaluate, predict
from framepred.metrics import absolute_error, cross_entropy, entropy_floor, psnr, squared_error, ssim
from framepred.models import Forecast, FramePredictor, build
from framepred.moving import Clips, MovingDigits, test_set
from framepred.runs import load, published_runs
from framepred.training import TrainConfig, train

__version__ = "0.1.0"


def __getattr__(name: str):
    if name in ("FlowPlayer", "FramePlayer"):  # they need a notebook's widgets, so they are imported when asked for
        from framepred import players

        return getattr(players, name)
    raise AttributeError(f"module 'framepred' has no attribute {name!r}")


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
    "build",
    "cross_entropy",
    "entropy_floor",
    "evaluate",
    "load",
    "load_digits",
    "predict",
    "psnr",
    "published_runs",
    "squared_error",
    "ssim",
    "test_set",
    "train",
]
