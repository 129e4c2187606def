from . import (
    analysis as analysis,
    baselines as baselines,
    benchmark as benchmark,
    data as data,
    evaluation as evaluation,
    exercises as exercises,
    files as files,
    metrics as metrics,
    models as models,
    players as players,
    precision as precision,
    runs as runs,
    training as training,
)
from .analysis import report as report
from .data import (
    Clips as Clips,
    GlyphSet as GlyphSet,
    MovingDigits as MovingDigits,
    load_digits as load_digits,
    test_set as test_set,
)
from .evaluation import PROTOCOLS as PROTOCOLS, Scores as Scores, evaluate as evaluate, predict as predict
from .metrics import (
    absolute_error as absolute_error,
    cross_entropy as cross_entropy,
    entropy_floor as entropy_floor,
    psnr as psnr,
    squared_error as squared_error,
    ssim as ssim,
)
from .models import Forecast as Forecast, FramePredictor as FramePredictor, build as build
from .players import FlowPlayer as FlowPlayer, FramePlayer as FramePlayer
from .runs import load as load, published_runs as published_runs
from .training import TrainConfig as TrainConfig, train as train

__version__: str
