"""HiPPO-LegS and its initialisations, in float64 NumPy on the host (JAX has no eigendecomposition on GPU).

Source: Gu, Goel, Re, "Efficiently Modeling Long Sequences with Structured State Spaces" (2022), sections 3.1 and C;
Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models" (2022), section 4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxtraffic.errors import ConfigError

DIAGONAL_INITS = ("lin", "inv", "legs", "real")


class Nplr(NamedTuple):
    """Normal plus low-rank form of HiPPO-LegS, A = V (diag(eigenvalue) - p p*) V*.

    Attributes:
        eigenvalue: [n] complex128, real part -1/2.
        p: [n] complex128, low-rank vector in the eigenbasis.
        b: [n] complex128, input vector in the eigenbasis.
        basis: [n, n] complex128, the unitary V, one eigenvector a column.
    """

    eigenvalue: np.ndarray
    p: np.ndarray
    b: np.ndarray
    basis: np.ndarray


def legs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The HiPPO-LegS matrices A [n, n] and B [n], float64."""
    order = np.arange(n)
    root = np.sqrt(2 * order + 1.0)
    a = -np.tril(np.outer(root, root), -1) - np.diag(order + 1.0)
    return a, root


def nplr(n: int) -> Nplr:
    """Diagonalises the normal part of HiPPO-LegS of (even) state size n.

    The normal part A + P P^T is -1/2 I plus a skew-symmetric S; eigh of the Hermitian -i S is exact and unitary.
    """
    if n < 2 or n % 2:
        raise ConfigError(f"the state size must be even and at least 2, got {n}")
    a, b = legs(n)
    p = np.sqrt(np.arange(n) + 0.5)
    skew = a + np.outer(p, p) + 0.5 * np.eye(n)
    frequency, basis = np.linalg.eigh(-1j * skew)
    return Nplr(-0.5 + 1j * frequency, basis.conj().T @ p, basis.conj().T @ b, basis)


def conjugate_half(form: Nplr) -> Nplr:
    """Keeps the n/2 eigenpairs of positive imaginary part; real outputs are twice the real part of sums over them."""
    keep = form.eigenvalue.imag > 0
    return Nplr(form.eigenvalue[keep], form.p[keep], form.b[keep], form.basis[:, keep])


def diagonal(n: int, init: str = "lin") -> np.ndarray:
    """Eigenvalues [n / 2] complex128 of an S4D initialisation: "lin", "inv", "legs" or "real"."""
    order = np.arange(n // 2)
    if init == "lin":
        return -0.5 + 1j * np.pi * order
    if init == "inv":
        return -0.5 + 1j * n / np.pi * (n / (2 * order + 1) - 1)
    if init == "legs":
        return conjugate_half(nplr(n)).eigenvalue
    if init == "real":
        return -(order + 1.0) + 0j
    raise ConfigError(f"unknown S4D initialisation {init!r}; choose from {', '.join(DIAGONAL_INITS)}")
