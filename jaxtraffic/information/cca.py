"""Mutual information of Gaussian variables from canonical correlations."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic.information.result import Method, Outcome, Pairs

RANK = 1e-5
"""Directions whose spread is below this share of the largest are dropped: float32 holds no more of them."""
RESIDUAL = 1e-10
"""1 - rho^2 below which a correlation cannot be told from 1."""


@dataclasses.dataclass(frozen=True)
class CCAOptions:
    """CCA has no hyper-parameters."""


def canonical(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Canonical variates and correlations.

    Args:
        x: [n, dim_x] float32.
        y: [n, dim_y] float32.

    Returns:
        Variates of x and of y [n, min(dim_x, dim_y)] with unit mean square, correlations rho [min(dim_x, dim_y)], and
        1 - rho^2, taken from the residual of one variate on the other, which stays accurate where rho is nearly 1.
    """
    basis_x, basis_y = _basis(x), _basis(y)
    left, rho, right = jnp.linalg.svd(basis_x.T @ basis_y, full_matrices=False)
    a, b = basis_x @ left, basis_y @ right.T
    residual = ((b - a * rho) ** 2).sum(axis=0)
    # A dropped direction has no variate at all: nothing correlates with it.
    missing = (b**2).sum(axis=0) < 0.5
    root = jnp.sqrt(jnp.float32(x.shape[0]))
    return a * root, b * root, jnp.where(missing, 0.0, rho), jnp.where(missing, 1.0, residual)


def _basis(x: jax.Array) -> jax.Array:
    """Orthonormal columns that span the centred columns of x; zero columns where x has fewer directions."""
    x = x - x.mean(axis=0)
    spread = jnp.sqrt((x**2).mean(axis=0))
    q, r = jnp.linalg.qr(x / jnp.where(spread > 0, spread, 1.0))
    u, s, _ = jnp.linalg.svd(r)
    return jnp.where(s > RANK * s[0], q @ u, 0.0)


def _program(options: Any, n_classes: int, key: jax.Array, train: Pairs | None, test: Pairs) -> Outcome:
    """-1/2 sum of ln(1 - rho^2) over canonical correlations; the key decides nothing.

    Pointwise terms are the log-ratios of the fitted Gaussian, whose mean is the value; their standard deviation over
    sqrt(n) is the standard error (the delta method for Gaussian samples).
    """
    n = test.x.shape[0]
    a, b, rho, residual = canonical(test.x, test.y)
    exact = residual < RESIDUAL
    safe = jnp.where(exact, 1.0, residual)
    own = -0.5 * jnp.log(safe) - 0.5 * ((b - rho * a) ** 2 / safe - b**2)
    pointwise = jnp.where(exact.any(), jnp.inf, own.sum(axis=1))
    value = jnp.where(exact.any(), jnp.inf, -0.5 * jnp.log(safe).sum())
    stderr = jnp.where(exact.any(), jnp.nan, own.sum(axis=1).std() / jnp.sqrt(jnp.float32(n)))
    bias = jnp.float32(test.x.shape[1] * test.y.shape[1] / (2 * n))
    return Outcome(value, stderr, pointwise, {"correlations": rho, "bias": bias})


def _warn(options: Any, diagnostics: dict[str, np.ndarray], value: float) -> list[str]:
    found = []
    if not np.isfinite(value):
        found.append("a canonical correlation is 1 as far as float32 can tell: the value is infinite")
    bias = float(diagnostics["bias"])
    if bias > max(0.02, 0.02 * abs(value)):
        found.append(f"with so few samples the value is about {bias:.3f} too high (dim_x dim_y / 2n); use more samples")
    return found


CCA = Method(
    name="cca",
    options=CCAOptions,
    program=_program,
    trains=False,
    # With normal margins it is the Gaussian-copula estimator (Ince et al. 2017), which heavy tails do not upset.
    preprocess="gaussianise",
    discrete=False,
    warn=_warn,
    source="Gelfand and Yaglom 1957; Kay 1992; with gaussianised margins Ince et al. 2017",
)
