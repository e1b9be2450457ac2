"""Judging generated packet series: utility, augmentation gain, discriminative score, fidelity, with reference values.

Every judge here reads the signed sizes of the first 30 packets and uses one classifier, XGBoost, with fixed parameters.
"""

from jaxtraffic.classify.trees import XGBOOST_PARAMETERS
from jaxtraffic.evaluate.classification import features
from jaxtraffic.evaluate.discriminate import discriminative_score, distinct_discriminative_score
from jaxtraffic.evaluate.fidelity import fidelity
from jaxtraffic.evaluate.judge import judge
from jaxtraffic.evaluate.resample import bootstrap, halves
from jaxtraffic.evaluate.statistics import (
    compare,
    critical_distance,
    friedman,
    mean_interval,
    paired_difference,
    ranks,
    wilcoxon,
)
from jaxtraffic.evaluate.train_on_synthetic import augmentation, utility
from jaxtraffic.evaluate.tuning import tune

__all__ = [
    "XGBOOST_PARAMETERS",
    "augmentation",
    "bootstrap",
    "compare",
    "critical_distance",
    "discriminative_score",
    "distinct_discriminative_score",
    "features",
    "fidelity",
    "friedman",
    "halves",
    "judge",
    "mean_interval",
    "paired_difference",
    "ranks",
    "tune",
    "utility",
    "wilcoxon",
]
