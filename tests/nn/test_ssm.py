"""S4 mathematics against golden kernels, dense float64 matrices and the recurrence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.nn import hippo, ssm


def pair(z):
    return jnp.stack([jnp.asarray(np.real(z), jnp.float32), jnp.asarray(np.imag(z), jnp.float32)], -1)


def bank(lam, b, c, dt, p=None):
    """A bank of one channel from complex NumPy vectors; c [direction, n]."""
    return ssm.Ssm(
        log_neg_re=jnp.log(jnp.asarray(-lam.real, jnp.float32))[None],
        im=jnp.asarray(lam.imag, jnp.float32)[None],
        b=pair(b)[None],
        c=pair(np.atleast_2d(c))[:, None],
        log_dt=jnp.log(jnp.asarray([dt], jnp.float32)),
        p=None if p is None else pair(p)[None],
    )


def legs_bank(n, dt, seed=None):
    """HiPPO-LegS with C of ones (or random) in the original basis; also that C."""
    half = hippo.conjugate_half(hippo.nplr(n))
    c = np.ones(n) if seed is None else np.random.default_rng(seed).standard_normal(n)
    return bank(half.eigenvalue, half.b, c @ half.basis, dt, half.p), c


def dense_kernel(n, dt, c, length):
    """K[l] = C Ab^l Bb with dense float64 matrices, bilinear."""
    a, b = hippo.legs(n)
    inverse = np.linalg.inv(np.eye(n) - dt / 2 * a)
    a_bar, b_bar = inverse @ (np.eye(n) + dt / 2 * a), dt * inverse @ b
    kernel, state = [], b_bar
    for _ in range(length):
        kernel.append(c @ state)
        state = a_bar @ state
    return np.array(kernel)


def test_legs_matrix_is_golden():
    a, b = hippo.legs(4)
    golden = [
        [-1, 0, 0, 0],
        [-1.732051, -2, 0, 0],
        [-2.236068, -3.872983, -3, 0],
        [-2.645751, -4.582576, -5.91608, -4],
    ]
    np.testing.assert_allclose(a, golden, atol=1e-6)
    np.testing.assert_allclose(b, np.sqrt([1, 3, 5, 7]))


@pytest.mark.parametrize(
    "n, frequencies",
    [
        (4, [0.5565011151, 4.6032930071]),
        (8, [0.42748871, 1.95779415, 19.85741037]),
        (64, [0.26385693, 0.90585941, 1303.27384298]),
        (128, [0.23524180, 0.78269061, 5214.66561]),
    ],
)
def test_nplr_reconstructs_legs_with_golden_spectrum(n, frequencies):
    form = hippo.nplr(n)
    rebuilt = form.basis @ (np.diag(form.eigenvalue) - np.outer(form.p, form.p.conj())) @ form.basis.conj().T
    np.testing.assert_allclose(rebuilt, hippo.legs(n)[0], atol=2e-12 * n)
    np.testing.assert_allclose(form.eigenvalue.real, -0.5)
    positive = np.sort(form.eigenvalue.imag[form.eigenvalue.imag > 0])
    np.testing.assert_allclose(positive[[0, 1]], frequencies[:2], rtol=1e-7)
    np.testing.assert_allclose(positive[-1], frequencies[-1], rtol=1e-7)
    np.testing.assert_allclose([np.sum(abs(form.p) ** 2), np.sum(abs(form.b) ** 2)], [n**2 / 2, n**2])


@pytest.mark.parametrize("form", ["powers", "generating"])
@pytest.mark.parametrize("length", [30, 31])
def test_dplr_kernel_is_golden_at_even_and_odd_length(form, length):
    parameters, _ = legs_bank(8, 0.05)
    kernel = ssm.kernel(parameters, length, form=form)[0, 0]
    golden = [0.5978811503, 0.0241588407, -0.0596847068, -0.007623163, 0.0479337296]
    np.testing.assert_allclose(kernel[:5], golden, atol=1e-6)
    np.testing.assert_allclose(kernel[29], -0.0011910372, atol=1e-6)
    np.testing.assert_allclose(kernel[:30].sum(), 0.9620762167, atol=2e-6)


def test_diagonal_kernels_are_golden():
    ones = np.ones(4, complex)
    parameters = bank(hippo.diagonal(8, "lin"), ones, ones, 0.05)
    zoh = ssm.kernel(parameters, 30, method="zoh")[0, 0]
    np.testing.assert_allclose(
        zoh[:5], [0.3894394787, 0.3480221532, 0.2825615313, 0.2041279214, 0.1250558355], atol=1e-6
    )
    np.testing.assert_allclose([zoh[29], zoh.sum()], [0.0081317715, 2.0643081559], atol=2e-6)
    bilinear = ssm.kernel(parameters, 30, method="bilinear")[0, 0]
    np.testing.assert_allclose(
        bilinear[:5], [0.3870759318, 0.3472289021, 0.2839433808, 0.207534511, 0.1296285315], atol=1e-6
    )
    np.testing.assert_allclose(bilinear[29], 0.0193899457, atol=1e-6)
    np.testing.assert_allclose(
        hippo.diagonal(8, "inv").imag, [17.8253536263, 4.2441318158, 1.5278874537, 0.3637827271], atol=1e-9
    )


@pytest.mark.parametrize("n, length, dt", [(4, 16, 0.1), (8, 30, 0.01), (64, 30, 0.05), (64, 33, 0.003), (16, 1, 0.1)])
@pytest.mark.parametrize("form", ["powers", "generating"])
def test_dplr_kernel_equals_powers_of_the_dense_matrix(n, length, dt, form):
    parameters, c = legs_bank(n, dt, seed=n)
    dense = dense_kernel(n, dt, c, length)
    kernel = ssm.kernel(parameters, length, form=form)[0, 0]
    np.testing.assert_allclose(kernel, dense, atol=2e-5 * np.abs(dense).max())


@pytest.mark.parametrize("space", ["dplr", "diag-lin", "diag-inv", "diag-real"])
@pytest.mark.parametrize("method", ["bilinear", "zoh"])
def test_recurrence_equals_convolution(space, method):
    if space == "dplr":
        parameters, _ = legs_bank(16, 0.02, seed=1)
        if method == "zoh":
            with pytest.raises(ConfigError, match="diagonal"):
                ssm.discretise(parameters, method)
            return
    else:
        rng = np.random.default_rng(2)
        c = rng.standard_normal(8) + 1j * rng.standard_normal(8)
        parameters = bank(hippo.diagonal(16, space.removeprefix("diag-")), np.ones(8, complex), c, 0.02)
    u = np.random.default_rng(0).standard_normal((3, 40, 1)).astype(np.float32)
    recurrence = ssm.recurrence(ssm.discretise(parameters, method))
    _, y = jax.lax.scan(
        lambda state, packet: ssm.step(recurrence, state, packet),
        ssm.initial_state(recurrence, 3),
        jnp.moveaxis(jnp.asarray(u), 1, 0),
    )
    kernel = np.asarray(ssm.kernel(parameters, 40, method=method)[0, 0], np.float64)
    expected = np.stack([np.convolve(row[:, 0], kernel)[:40] for row in u])
    np.testing.assert_allclose(np.moveaxis(y, 0, 1)[..., 0], expected, atol=2e-5 * np.abs(expected).max())


def test_gradients_are_real_and_match_finite_differences():
    parameters, _ = legs_bank(8, 0.05, seed=3)
    weight = jnp.asarray(np.random.default_rng(4).standard_normal(30), jnp.float32)

    def score(p):
        return jnp.sum(ssm.kernel(p, 30)[0, 0] * weight)

    gradient = jax.grad(score)(parameters)
    assert all(leaf.dtype == jnp.float32 and bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
    for name in ("log_neg_re", "im", "b", "c", "log_dt", "p"):
        leaf = getattr(parameters, name)
        direction = jnp.asarray(np.random.default_rng(5).standard_normal(leaf.shape), jnp.float32)
        h = 1e-2 / jnp.linalg.norm(direction)
        ahead, behind = (parameters._replace(**{name: leaf + sign * h * direction}) for sign in (1, -1))
        numeric = (score(ahead) - score(behind)) / (2 * h)
        exact = jnp.sum(getattr(gradient, name) * direction)
        np.testing.assert_allclose(exact, numeric, rtol=2e-2, atol=2e-3)


def test_unknown_names_are_refused():
    parameters, _ = legs_bank(4, 0.1)
    with pytest.raises(ConfigError, match="discretisation"):
        ssm.kernel(parameters, 8, method="euler")
    with pytest.raises(ConfigError, match="form"):
        ssm.kernel(parameters, 8, form="magic")
    with pytest.raises(ConfigError, match="even"):
        hippo.nplr(5)
    with pytest.raises(ConfigError, match="S4D"):
        hippo.diagonal(8, "none")
