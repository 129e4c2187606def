from . import (
    checkpoints as checkpoints,
    compilation as compilation,
    config as config,
    feedback as feedback,
    fits as fits,
    loop as loop,
    optimisers as optimisers,
    processes as processes,
    progress as progress,
    run_folder as run_folder,
    schedule as schedule,
    step as step,
    validation as validation,
)
from .config import TrainConfig as TrainConfig
from .loop import Trainer as Trainer, train as train
