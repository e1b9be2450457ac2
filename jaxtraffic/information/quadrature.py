"""Weights that turn the steps of a sampling grid into an integral over noise levels; float64, on the host.

All of them are the same integral on different grids. With lambda = ln(signal^2 / noise^2) and a Gaussian corruption,

    KL(p(x | y) || p(x)) = int 1/2 E |eps_conditional - eps_unconditional|^2 d lambda            (nats, per y)

(Kong et al., "Information-Theoretic Diffusion" (2023), equation 12; Franzese et al., "MINDE" (2024), equation 9). On
the straight path x_t = t x_1 + (1 - t) x_0 a difference of noises is t times one of velocities and d lambda is
2 dt / (t (1 - t)), so that the integrand becomes t / (1 - t) |u_conditional - u_unconditional|^2 dt. Everything here
takes and returns NumPy arrays, in the order of the grid it is given: weights belong to the nodes, stage 0 of each step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jaxtraffic.errors import ConfigError


def uniform(steps: int) -> np.ndarray:
    """Edges [steps + 1] from 0 to 1, equally far apart; the nodes are all but the last."""
    _check_steps(steps, 1)
    return np.linspace(0.0, 1.0, steps + 1)


def geometric(steps: int, last: float = 1e-3) -> np.ndarray:
    """Edges [steps + 1] from 0 to 1, geometric in 1 - t down to `last`, then 1; the nodes are all but the last.

    For very concentrated conditionals: information sits where 1 - t is about the width of p(x | y), which a uniform
    grid passes in one step. It is coarse near t = 0: the first of 20 steps with last = 1e-3 is 0.3 long.

    Args:
        steps: number of steps, at least 2.
        last: 1 - t of the last node, in (0, 1).
    """
    _check_steps(steps, 2)
    if not 0 < last < 1:
        raise ConfigError(f"last must be in (0, 1), the 1 - t of the last node; got {last}")
    return np.append(1 - last ** (np.arange(steps) / (steps - 1)), 1.0)


def trapezoid(t: ArrayLike, factor: ArrayLike, *, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Weights [node] with which sum weight f(t) is the trapezoid rule for int factor(t) f(t) dt over [low, high].

    The integrand is taken to be 0 at both ends, whatever the factor is there: a node that lies on an end has weight 0,
    and an end without a node closes its cell with a triangle. That holds for information: at low noise as at high, the
    difference of two networks' noises vanishes for densities with a finite score.

    Args:
        t: [node], strictly increasing or strictly decreasing, inside [low, high].
        factor: [node], what the integrand is multiplied by; may be infinite or NaN on the ends.
        low: lower end of the integral.
        high: upper end of the integral.
    """
    t, factor = np.asarray(t, np.float64), np.asarray(factor, np.float64)
    _check_grid(t)
    if t.min() < low or t.max() > high:
        raise ConfigError(f"the grid must lie in [{low}, {high}], got {t.min()} to {t.max()}")
    ends = (low, high) if t.size == 1 or t[0] < t[-1] else (high, low)
    cell = np.abs(np.diff(np.concatenate([ends[:1], t, ends[1:]])))
    inside = (t > low) & (t < high)
    return np.where(inside, np.where(inside, factor, 0.0) * (cell[:-1] + cell[1:]) / 2, 0.0)


def flow(t: ArrayLike) -> np.ndarray:
    """Weights [node] of |u_conditional - u_unconditional|^2 on the straight path: int t / (1 - t) |du|^2 dt.

    The trapezoid rule with both ends 0 has an error of 0.02 % of KL = 1.10 nats at 50 uniform steps where a left rule
    with exact cell weights has 5 % (Gaussian of width 1, information.md 5b).

    Args:
        t: [node] process times in [0, 1], 0 the noise; uniform(steps)[:-1] for Euler's method.
    """
    t = np.asarray(t, np.float64)
    with np.errstate(divide="ignore"):
        return trapezoid(t, t / (1 - t))


def ddpm(beta: ArrayLike) -> np.ndarray:
    """kappa_t / T [step] of DDPM, the weights of |eps_conditional - eps_unconditional|^2, in the order of `beta`.

    kappa_t = beta_t T / (2 alpha_t (1 - alpha_bar_t)), the sum divided by T (MI-TUNE, arXiv 2405.20759, equation 2).
    It is a Riemann sum of the integral in log SNR: with the linear schedule 1e-4 .. 0.02 and T = 1000 within 1 % of
    the KL of Gaussians of width 1 and 0.3, 1 to 2 % below at width 0.05. The released code of that paper leaves out
    alpha_t (under 1 %), skips t <= 50 and takes the mean over the steps that are left: that loses 26 % at width 0.05.
    """
    beta = np.asarray(beta, np.float64)
    if beta.ndim != 1 or not beta.size or beta.min() <= 0 or beta.max() >= 1:
        raise ConfigError("beta must be a list of numbers between 0 and 1, in the order of training")
    return beta / (2 * (1 - beta) * (1 - np.cumprod(1 - beta)))


def logsnr(grid: ArrayLike, factor: ArrayLike = 1.0, *, tails: bool = True) -> np.ndarray:
    """Weights [node] of a squared difference on a grid of lambda = log SNR: int 1/2 factor |d|^2 d lambda.

    Args:
        grid: [node] lambda = ln(signal^2 / noise^2), strictly increasing or decreasing. VP: ln(alpha_bar / (1 -
            alpha_bar)); EDM: -2 ln sigma.
        factor: [node] or a number, |d eps|^2 over |d output|^2: 1 for a network that predicts the noise, alpha_bar for
            velocities of VP (v-prediction), 1 / sigma^2 for a denoiser D(x, sigma) of EDM.
        tails: add what lies beyond the two end nodes as if the integrand fell there like exp(-|lambda - end|), which
            it does once everything (or nothing) is noise: half the integrand at the end node each.
    """
    grid = np.asarray(grid, np.float64)
    _check_grid(grid)
    cell = np.zeros(grid.size + 1)
    cell[1:-1] = np.abs(np.diff(grid))
    if tails:
        # int_0^inf exp(-s) ds = 1, and a cell counts half in either of its two nodes.
        cell[[0, -1]] = 2.0
    return np.asarray(factor, np.float64) * (cell[:-1] + cell[1:]) / 4


def edm(sigma: ArrayLike, *, tails: bool = True) -> np.ndarray:
    """Weights [node] of |D_conditional - D_unconditional|^2 on a grid of noise levels sigma > 0 (see `logsnr`)."""
    sigma = np.asarray(sigma, np.float64)
    if sigma.size and sigma.min() <= 0:
        raise ConfigError("sigma must be above 0; leave out the end of the grid, where nothing is evaluated")
    return logsnr(-2 * np.log(sigma), sigma**-2.0, tails=tails)


def flow_logsnr(t: ArrayLike) -> np.ndarray:
    """lambda = 2 ln(t / (1 - t)) of process times t in (0, 1) on the straight path."""
    t = np.asarray(t, np.float64)
    return 2 * (np.log(t) - np.log1p(-t))


def lost_range(low: float, high: float, width: float) -> tuple[float, float]:
    """Nats a dimension that an integral over lambda in [low, high] leaves out, at noise above and at noise below it.

    For the reference case X | y ~ N(y, width^2), Y ~ N(0, 1), averaged over y, in closed form: the integral up to
    lambda is the information that x at this noise level has about y. State it beside any estimate whose grid is
    truncated or whose steps are skipped, with the width that one expects of p(x | y) (in units of the spread of X).

    Args:
        low: smallest log SNR that is kept; -inf for all.
        high: largest log SNR that is kept; inf for all.
        width: standard deviation of X given y.

    Returns:
        (nats lost below `low`, nats lost above `high`).
    """
    if not width > 0 or not low <= high:
        raise ConfigError(f"need width > 0 and low <= high, got width {width}, range {low} to {high}")

    def known(value: float) -> float:
        # 1/2 ln((snr (1 + width^2) + 1) / (snr width^2 + 1)), written so that snr = inf is finite.
        inverse = np.exp(-value)
        return 0.5 * float(np.log1p(1 / (width**2 + inverse)))

    return known(low), known(np.inf) - known(high)


def _check_steps(steps: int, least: int) -> None:
    if steps < least:
        raise ConfigError(f"steps must be at least {least}, got {steps}")


def _check_grid(grid: np.ndarray) -> None:
    difference = np.diff(grid) if grid.ndim == 1 else np.zeros(1)
    if not grid.size or not np.isfinite(grid).all() or not ((difference > 0).all() or (difference < 0).all()):
        raise ConfigError("a grid must be a list of finite numbers that strictly rise or strictly fall")
