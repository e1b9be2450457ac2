"""Quadrature weights against integrals in closed form and the golden values of information.md, section 5."""

import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.information import quadrature
from tests.information import analytic

WIDTHS = [1.0, 0.3, 0.05]
LINEAR = np.linspace(1e-4, 0.02, 1000)


def marginal(width):
    return np.zeros(1), np.array([1 + width**2]), None


def flow_value(nodes, width, y):
    return quadrature.flow(nodes) @ analytic.densities(nodes, y, width, marginal(width))[0]


def test_trapezoid_by_hand():
    # Cells 0 .. 0.2 .. 0.5 .. 1: (0.5 - 0) / 2 and (1 - 0.2) / 2.
    np.testing.assert_allclose(quadrature.trapezoid([0.2, 0.5], [10.0, 1.0]), [2.5, 0.4], rtol=1e-12)
    # Nodes on the ends have weight 0, whatever the factor is there, and bound their neighbours' cells.
    made = quadrature.trapezoid([0.0, 0.5, 1.0], [np.nan, 2.0, np.inf])
    np.testing.assert_allclose(made, [0.0, 1.0, 0.0], rtol=1e-12)
    np.testing.assert_allclose(quadrature.trapezoid([3.0, 1.5], [1.0, 1.0], low=1.0, high=5.0), [1.75, 1.0], rtol=1e-12)


@pytest.mark.parametrize("edges", [quadrature.uniform(400), quadrature.geometric(400, 1e-4)], ids=["uniform", "geom"])
def test_trapezoid_integrates_what_vanishes_at_the_ends(edges):
    nodes = edges[:-1]
    made = quadrature.trapezoid(nodes, 6 * nodes) @ (1 - nodes)
    assert abs(made - 1) < 2e-3
    np.testing.assert_allclose(quadrature.trapezoid(nodes[::-1], 6 * nodes[::-1])[::-1] @ (1 - nodes), made, rtol=1e-12)


def test_grids():
    np.testing.assert_allclose(quadrature.uniform(4), [0, 0.25, 0.5, 0.75, 1])
    edges = quadrature.geometric(5, 1e-2)
    assert edges.shape == (6,) and edges[0] == 0 and edges[-1] == 1
    np.testing.assert_allclose((1 - edges[1:5]) / (1 - edges[:4]), 10**-0.5)
    np.testing.assert_allclose(1 - edges[-2], 1e-2)


@pytest.mark.parametrize(
    "width, expected",
    [(1.0, (1.0955, 1.0964, 1.0965)), (0.3, (2.6197, 2.6227, 2.6231)), (0.05, (4.3956, 4.4795, 4.4898))],
)
def test_trapezoid_converges_as_published(width, expected):
    made = [flow_value(quadrature.uniform(steps)[:-1], width, 2.0) for steps in (20, 50, 100)]
    np.testing.assert_allclose(made, expected, atol=6e-5)
    errors = np.abs(np.array(made) - analytic.kl(width, 2.0))
    assert errors[0] > errors[1] > errors[2]


def test_geometric_grid_is_for_concentrated_conditionals():
    """At a width of 0.005 a uniform grid of 50 steps passes the information in its last step."""
    true = analytic.kl(0.005, 2.0)
    uniform, geometric = (
        flow_value(edges[:-1], 0.005, 2.0) for edges in (quadrature.uniform(50), quadrature.geometric(50, 1e-4))
    )
    assert abs(geometric - true) < 0.03 < 0.8 < abs(uniform - true)


@pytest.mark.parametrize(
    "width, y, expected", [(1.0, 2.0, 1.0977), (0.3, 2.0, 2.6196), (0.05, 2.0, 4.4481), (0.05, 0.0, 2.4532)]
)
def test_ddpm_weights_give_the_kl_to_two_per_cent(width, y, expected):
    alpha_bar = np.cumprod(1 - LINEAR)
    density = analytic.noise_density(np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar), y, width)
    weight = quadrature.ddpm(LINEAR)
    np.testing.assert_allclose(weight @ density, expected, atol=6e-5)
    np.testing.assert_allclose(weight @ density, analytic.kl(width, y), rtol=0.02)
    if (width, y) == (0.05, 2.0):
        # The released code of MI-TUNE: no alpha_t, t > 50 alone, the mean over those. Here for the size of the loss.
        mean = (weight * (1 - LINEAR) * 1000 * density)[51:].mean()
        np.testing.assert_allclose(mean, 3.3237, atol=2e-2)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("y", [0.0, 2.0])
def test_every_grid_gives_the_same_integral(width, y):
    """VP in eps and in v, EDM, and the flow: the same KL from four processes and their own weights."""
    true = analytic.kl(width, y)
    alpha_bar = np.cumprod(1 - LINEAR)
    log_snr = np.log(alpha_bar / (1 - alpha_bar))
    eps = analytic.noise_density(np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar), y, width)
    np.testing.assert_allclose(quadrature.logsnr(log_snr) @ eps, true, rtol=1e-3)
    np.testing.assert_allclose(quadrature.logsnr(log_snr, alpha_bar) @ (eps / alpha_bar), true, rtol=1e-3)
    sigma = np.geomspace(80, 2e-3, 60)
    eps = analytic.noise_density(np.ones(60), sigma, y, width)
    np.testing.assert_allclose(quadrature.edm(sigma) @ (sigma**2 * eps), true, rtol=2e-3)
    np.testing.assert_allclose(quadrature.edm(sigma[::-1]), quadrature.edm(sigma)[::-1], rtol=1e-12)
    nodes = quadrature.geometric(1000, 1e-4)[:-1]
    np.testing.assert_allclose(flow_value(nodes, width, y), true, rtol=1e-3)
    t = nodes[1:]
    eps = t**2 * analytic.densities(t, y, width, marginal(width))[0]
    np.testing.assert_allclose(quadrature.logsnr(quadrature.flow_logsnr(t)) @ eps, true, rtol=3e-3)


def test_tails_are_what_lies_beyond_the_grid():
    grid = np.linspace(-2.0, 9.0, 4000)
    density = 2 * np.where(grid < 0, np.exp(grid), np.exp(-grid))
    closed, cut = (quadrature.logsnr(grid, tails=tails) @ density for tails in (True, False))
    np.testing.assert_allclose(closed, 2.0, rtol=1e-5)
    np.testing.assert_allclose(cut, 2 - np.exp(-2) - np.exp(-9), rtol=1e-5)


@pytest.mark.parametrize(
    "width, cut, expected",
    # The third decimals of the reference are for y = 2; averaged over y the first is 0.3715.
    [(0.05, 0.05, 0.376), (0.05, 0.01, 0.020), (0.05, 1e-3, 0.0002), (0.005, 0.05, 2.36), (0.005, 1e-3, 0.020)],
)
def test_lost_range(width, cut, expected):
    end = quadrature.flow_logsnr(1 - cut)
    below, above = quadrature.lost_range(-np.inf, end, width)
    assert below == 0 and above == pytest.approx(expected, abs=0.006)
    # The same from the integral, averaged over y = N(0, 1) by Gauss-Hermite (the density is quadratic in y).
    log_snr = np.linspace(-20, end, 8000)
    signal, noise = np.exp(log_snr / 4) / np.cosh(log_snr / 4), np.exp(-log_snr / 4) / np.cosh(log_snr / 4)
    density = (
        analytic.noise_density(signal, noise, 1.0, width) + analytic.noise_density(signal, noise, -1.0, width)
    ) / 2
    kept = quadrature.logsnr(log_snr, tails=False) @ density
    assert analytic.information(width) - kept == pytest.approx(above, abs=2e-4)
    assert quadrature.lost_range(end, np.inf, width)[0] == pytest.approx(kept, abs=2e-4)
    assert quadrature.lost_range(-np.inf, np.inf, width) == (0.0, 0.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: quadrature.uniform(0),
        lambda: quadrature.geometric(1),
        lambda: quadrature.geometric(5, 1.0),
        lambda: quadrature.flow([0.0, 0.5, 0.4]),
        lambda: quadrature.flow([0.0, np.nan]),
        lambda: quadrature.flow([-0.1, 0.5]),
        lambda: quadrature.flow([]),
        lambda: quadrature.ddpm([0.1, 1.0]),
        lambda: quadrature.edm([1.0, 0.0]),
        lambda: quadrature.lost_range(1.0, 0.0, 1.0),
        lambda: quadrature.lost_range(0.0, 1.0, 0.0),
    ],
    ids=range(11),
)
def test_bad_arguments_are_refused(call):
    with pytest.raises(ConfigError):
        call()
