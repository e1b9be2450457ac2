"""Toeplitz and FFT convolutions against the definition, written as loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.nn import convolution


def by_definition(kernel, u):
    directions, channels, length = kernel.shape
    y = np.zeros(u.shape)
    for i in range(length):
        for j in range(length):
            if i >= j:
                y[:, i] += kernel[0, :, i - j] * u[:, j]
            elif directions == 2:
                y[:, i] += kernel[1, :, j - i - 1] * u[:, j]
    return y


@pytest.mark.parametrize("length", [1, 2, 7, 30, 33])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("method", ["toeplitz", "fft"])
def test_convolution_equals_its_definition(length, directions, method):
    rng = np.random.default_rng(length)
    kernel = rng.standard_normal((directions, 3, length)).astype(np.float32)
    u = rng.standard_normal((4, length, 3)).astype(np.float32)
    y = jax.jit(lambda k, u: convolution.convolve(convolution.operator(k, method), u))(kernel, u)
    assert y.shape == u.shape and y.dtype == jnp.float32
    np.testing.assert_allclose(y, by_definition(kernel, u), atol=1e-4)


def test_both_methods_agree_in_value_and_gradient():
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.standard_normal((2, 4, 30)), jnp.float32)
    u = jnp.asarray(rng.standard_normal((5, 30, 4)), jnp.float32)

    def score(kernel, u, method):
        return jnp.sum(jnp.sin(convolution.convolve(convolution.operator(kernel, method), u)))

    for argument in (0, 1):
        one, other = (jax.grad(score, argument)(kernel, u, method) for method in ("toeplitz", "fft"))
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_long_series_take_the_fft_and_bfloat16_is_kept():
    kernel = jnp.ones((1, 2, convolution.TOEPLITZ_MAX_LENGTH + 1), jnp.float32)
    assert jnp.iscomplexobj(convolution.operator(kernel))
    assert not jnp.iscomplexobj(convolution.operator(kernel[..., :30]))
    u = jnp.ones((1, kernel.shape[-1], 2), jnp.bfloat16)
    assert convolution.convolve(convolution.operator(kernel), u).dtype == jnp.bfloat16


def test_unknown_method_is_refused():
    with pytest.raises(ConfigError, match="convolution"):
        convolution.operator(jnp.ones((1, 1, 4)), "winograd")
