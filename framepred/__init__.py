"""Video frame prediction on Moving MNIST: the data, three networks, their measures. See the book for the story."""

from framepred.digits import Digits, load_digits
from framepred.evaluation import PROTOCOLS, Scores, evaluate, predict
from framepred.metrics import absolute_error, cross_entropy, entropy_floor, psnr, squared_error, ssim
from framepred.models import Forecast, FramePredictor, build
from framepred.moving import Clips, MovingDigits, test_set
from framepred.runs import load, published_runs
from framepred.training import TrainConfig, train

__version__ = "0.1.0"

__all__ = [
    "PROTOCOLS",
    "Clips",
    "Digits",
    "Forecast",
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
