"""The objects that bmi's runners take, against a small runner of our own, and fit apart from evaluate."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.information import estimate
from jaxtraffic.information.estimators import Estimator

SHORT = {"steps": 40, "hidden": (8,)}


def pairs(seed, n=400):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1))
    return x, 0.75 * x + 0.66 * rng.normal(size=(n, 1))


def run_as_bmi(estimator, x, y):
    """What benchmark-mi's runner asks of an estimator (benchmark-mi 0.1.3, written anew from its protocol)."""
    parameters = estimator.parameters().dict()
    try:
        result = estimator.estimate_with_info(x, y)
        row = {"mi_estimate": result.mi_estimate, "success": True, "seconds": result.time_in_seconds}
        row["additional"] = dict(result.additional_information)
    except Exception:
        row = {"mi_estimate": float("nan"), "success": False}
    return row | {"parameters": parameters}


def test_runs_in_the_shape_of_bmi():
    x, y = pairs(0)
    estimator = Estimator("ksg", k=5, seed=3)
    row = run_as_bmi(estimator, x, y)
    assert row["success"] and isinstance(row["mi_estimate"], float) and row["seconds"] > 0
    expected = estimate(x, y, method="ksg", key=jax.random.key(3), k=5).value
    assert row["mi_estimate"] == estimator.estimate(x, y) == expected
    assert row["parameters"] == {
        **{"method": "ksg", "seed": 3, "test": 0.5, "discrete": None, "preprocess": "gaussianise", "k": 5}
    }
    assert estimator.parameters().model_dump() == row["parameters"]
    assert row["additional"]["n_test"] == 400 and row["additional"]["warnings"] == []
    failed = run_as_bmi(estimator, x * np.nan, y)
    assert not failed["success"] and np.isnan(failed["mi_estimate"])


@pytest.mark.parametrize(
    ("method", "labels"),
    [
        pytest.param("doe", False, id="doe-numbers"),
        *(
            pytest.param(method, labels, marks=pytest.mark.slow, id=f"{method}-{'labels' if labels else 'numbers'}")
            for method, labels in (("doe", True), ("mine", False), ("mine", True), ("rf", False), ("ddpm", True))
        ),
    ],
)
def test_fit_then_evaluate_equals_estimate(method, labels):
    options = {"steps": 40, "repeats": 2} if method in ("rf", "ddpm") else SHORT
    x, y = pairs(1)
    test_x, test_y = pairs(2, 300)
    if labels:
        y, test_y = ((v[:, 0] > 0).astype(int) for v in (y, test_y))
    estimator = Estimator(method, **options)
    apart = estimator.fit(x, y, jax.random.key(7)).evaluate(test_x, test_y, jax.random.key(7))
    whole = estimate(x, y, method=method, key=jax.random.key(7), test=(test_x, test_y), **options)
    assert apart.value == pytest.approx(whole.value, abs=1e-5)
    np.testing.assert_allclose(apart.pointwise, whole.pointwise, atol=1e-4)
    for name in ("n_train", "n_test", "method", "warnings"):
        assert getattr(apart, name) == getattr(whole, name)
    assert dataclasses.is_dataclass(apart)
    other = estimator.evaluate(*((x, y)), jax.random.key(7))
    assert other.n_test == 400 and other.value != apart.value


def test_what_cannot_be_fitted_or_evaluated():
    x, y = pairs(3, 60)
    with pytest.raises(ConfigError, match="no training apart"):
        Estimator("cca").fit(x, y)
    with pytest.raises(ConfigError, match="call fit"):
        Estimator("mine").evaluate(x, y)
    with pytest.raises(ConfigError, match="unknown method"):
        Estimator("magic")
    with pytest.raises(ConfigError, match="no option"):
        Estimator("mine", k=3)
    with pytest.raises(ConfigError, match="too few"):
        Estimator("mine").fit(x[:5], y[:5])
    fitted = Estimator("doe", **SHORT).fit(x, (y[:, 0] > 0).astype(int))
    with pytest.raises(ConfigError, match="labels go up to 2"):
        fitted.evaluate(x, np.arange(60) % 3)
    with pytest.raises(ConfigError, match="other dimensions"):
        fitted.evaluate(np.hstack([x, x]), np.arange(60) % 2)
    with pytest.raises(ConfigError, match="discrete y must be labels"):
        fitted.evaluate(x, y[:, 0])
