"""Drawing symbols by inverting cumulated probabilities, against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic.generate.token_sampling import GROUP, pick

NEVER = -1e30


@pytest.mark.parametrize("n", [1, 5, GROUP, GROUP + 1, 300])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_symbols_are_those_of_the_inverse_of_the_cumulated_probabilities(n, temperature):
    rng = np.random.default_rng(n)
    log_prob = rng.normal(0, 2, (2000, n)).astype(np.float32)
    uniform = rng.random(2000, dtype=np.float32)
    weight = np.exp((log_prob.astype(np.float64) - log_prob.max(axis=1, keepdims=True)) / temperature)
    cumulated = np.cumsum(weight / weight.sum(axis=1, keepdims=True), axis=1)
    expected = np.sum(cumulated <= uniform[:, None], axis=1)
    clear = np.abs(cumulated - uniform[:, None]).min(axis=1) > 1e-5
    drawn = np.asarray(pick(jnp.asarray(log_prob), jnp.asarray(uniform), jnp.float32(temperature)))
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(drawn[clear], expected[clear])
    assert drawn.min() >= 0 and drawn.max() < n


@pytest.mark.parametrize("uniform", [0.0, 0.25, 1 - 2**-24])
def test_the_impossible_is_never_drawn(uniform):
    rng = np.random.default_rng(1)
    log_prob = np.where(rng.random((500, 100)) < 0.9, NEVER, rng.normal(0, 3, (500, 100)))
    log_prob[:, 57] = 0.0
    drawn = np.asarray(pick(jnp.asarray(log_prob, jnp.float32), jnp.full(500, uniform, jnp.float32), jnp.float32(1.0)))
    assert (np.take_along_axis(log_prob, drawn[:, None], axis=1) > NEVER).all()
