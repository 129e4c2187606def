from . import (
    checkpoints as checkpoints,
    compilation as compilation,
    config as config,
    feedback as feedback,
    fits as fits,
    folder as folder,
    loop as loop,
    optimisers as optimisers,
    processes as processes,
    progress as progress,
    schedule as schedule,
    step as step,
    validation as validation,
)
from .config import TrainConfig as TrainConfig
from .loop import train as train
