from . import (
    difficulty as difficulty,
    drift as drift,
    figures as figures,
    inference as inference,
    prior_work as prior_work,
    recognition as recognition,
    reporting as reporting,
    results as results,
    retrieval as retrieval,
)
from .drift import DriftAndBlur as DriftAndBlur, drift_and_blur as drift_and_blur
from .reporting import report as report
