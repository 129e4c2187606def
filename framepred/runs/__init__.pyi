from . import folder as folder, loading as loading, published as published, record as record, scores as scores
from .folder import publish as publish
from .loading import load as load, run_folder as run_folder, run_record as run_record
from .published import published_runs as published_runs
from .record import RunRecord as RunRecord, read_record as read_record
from .scores import (
    load_history as load_history,
    load_samples as load_samples,
    load_scores as load_scores,
    save_samples as save_samples,
    save_scores as save_scores,
)
