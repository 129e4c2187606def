from . import (
    drift as drift,
    figures as figures,
    prior_work as prior_work,
    recognition as recognition,
    reporting as reporting,
    results as results,
    retrieval as retrieval,
)
from .drift import DriftAndBlur as DriftAndBlur, drift_and_blur as drift_and_blur
from .reporting import report as report
