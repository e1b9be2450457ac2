"""Classifiers of packet series: single runs, campaigns of many, and XGBoost."""

from jaxtraffic.classify.campaign import campaign
from jaxtraffic.classify.config import ClassifierConfig, RunResult
from jaxtraffic.classify.models import Fitted
from jaxtraffic.classify.models import load as load_model

__all__ = ["ClassifierConfig", "Fitted", "RunResult", "campaign", "load_model"]
