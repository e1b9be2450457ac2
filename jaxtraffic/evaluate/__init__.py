"""Judging generated packet series: utility, augmentation, discriminative score, density, coverage, privacy, support.

Every judge reads the signed sizes of the first 30 packets. `judge` brings all of them together, each beside the same
figure for real flows; the functions also work by themselves, those without classes on plain arrays too.
"""

from jaxtraffic.classify.trees import XGBOOST_PARAMETERS
from jaxtraffic.evaluate.classification import features
from jaxtraffic.evaluate.coverage import alpha_beta, coverage
from jaxtraffic.evaluate.discriminate import (
    discriminative_score,
    distinct_discriminative_score,
    logistic_discriminative_score,
)
from jaxtraffic.evaluate.distances import nearest
from jaxtraffic.evaluate.distributions import correlation, density, jensen_shannon, ks_complement, wasserstein
from jaxtraffic.evaluate.downstream import MODELS as DOWNSTREAM_MODELS
from jaxtraffic.evaluate.downstream import downstream
from jaxtraffic.evaluate.fidelity import fidelity
from jaxtraffic.evaluate.frechet import frechet
from jaxtraffic.evaluate.judge import Judgement, judge, judge_sets
from jaxtraffic.evaluate.mmd import mmd
from jaxtraffic.evaluate.panel import panel
from jaxtraffic.evaluate.privacy import privacy
from jaxtraffic.evaluate.resample import bootstrap, capture_halves, halves
from jaxtraffic.evaluate.scaling_curves import scaling
from jaxtraffic.evaluate.semantics import semantics
from jaxtraffic.evaluate.statistics import (
    compare,
    critical_distance,
    friedman,
    mean_interval,
    paired_difference,
    ranks,
    wilcoxon,
)
from jaxtraffic.evaluate.support import support
from jaxtraffic.evaluate.train_on_synthetic import augmentation, utility
from jaxtraffic.evaluate.tuning import tune

__all__ = [
    "DOWNSTREAM_MODELS",
    "XGBOOST_PARAMETERS",
    "Judgement",
    "alpha_beta",
    "augmentation",
    "bootstrap",
    "capture_halves",
    "compare",
    "correlation",
    "coverage",
    "critical_distance",
    "density",
    "discriminative_score",
    "distinct_discriminative_score",
    "downstream",
    "features",
    "fidelity",
    "frechet",
    "friedman",
    "halves",
    "jensen_shannon",
    "judge",
    "judge_sets",
    "ks_complement",
    "logistic_discriminative_score",
    "mean_interval",
    "mmd",
    "nearest",
    "paired_difference",
    "panel",
    "privacy",
    "ranks",
    "scaling",
    "semantics",
    "support",
    "tune",
    "utility",
    "wasserstein",
    "wilcoxon",
]
