"""Judging generated packet series: utility, augmentation gain, discriminative score, fidelity, with reference values.

Every judge here reads the signed sizes of the first 30 packets and uses one classifier, XGBoost, with fixed parameters.
"""

from jaxtraffic.evaluate.classification import XGBOOST_PARAMETERS, features
from jaxtraffic.evaluate.discriminate import discriminative_score, distinct_discriminative_score
from jaxtraffic.evaluate.fidelity import fidelity
from jaxtraffic.evaluate.judge import judge
from jaxtraffic.evaluate.resample import bootstrap, halves
from jaxtraffic.evaluate.train_on_synthetic import augmentation, utility
from jaxtraffic.evaluate.tuning import tune

__all__ = [
    "XGBOOST_PARAMETERS",
    "augmentation",
    "bootstrap",
    "discriminative_score",
    "distinct_discriminative_score",
    "features",
    "fidelity",
    "halves",
    "judge",
    "tune",
    "utility",
]
