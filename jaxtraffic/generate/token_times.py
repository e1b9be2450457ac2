"""Tokens of inter-arrival times: atoms for frequent timers and 0, log-spaced bins, a uniform-in-log place within them.

An IAT is kept as a whole number of ticks of the stated resolution (one microsecond by default, that of captures):

    token 0             padding
    tokens 1..A         one number of ticks each, exact: 0 (token 1), and those with a share of at least `atom_share`
    tokens A+1..V-1     intervals of ticks without any atom, in ascending order, cut at log-spaced edges and at atoms

Within a bin from `low` to `high` ticks, the fraction in [0, 1) is the place of the time between low - 1/2 and
high + 1/2 on the log scale. A model draws it uniformly, so that n ticks have the probability

    log((n + 1/2) / (n - 1/2)) / log((high + 1/2) / (low - 1/2))

given the bin, and these sum to one: likelihoods are exact, at the resolution. The first packet of a flow has an IAT of
0 by definition; it counts in no statistic, and a model need not emit it.

The bins end at ten times the longest time seen in training, and not before one second: `longest`. Nothing longer is
drawn, and a longer time is read as `longest`, which so means that or more; a last bin without a bound would spread what
little probability a model leaves it over centuries, evenly on the log scale.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxtraffic.errors import ConfigError

PADDING = 0
"""Token of positions without a packet."""
MOST_TICKS = 2**52
"""Longest IAT that is read; 142 years in microseconds. Half ticks below it are exact in float64."""
BEYOND = 10
"""The longest time of a code, over the longest seen in training."""
LEAST_LONGEST = 1.0
"""And at least this, seconds."""


@dataclasses.dataclass(frozen=True, eq=False)
class TimeTokens:
    """The code of IATs; NumPy arrays and plain numbers only.

    Attributes:
        resolution: seconds of a tick.
        atoms: [A] int64 ascending, ticks that have a token of their own; the first is 0.
        bin_low: [B] int64 ascending, fewest ticks of each bin.
        bin_high: [B] int64, most ticks of each bin, itself included; that of the last bin stands for all beyond too.
        counts: [V] int64, how often training flows have each token, first packets not counted.
    """

    resolution: float
    atoms: np.ndarray
    bin_low: np.ndarray
    bin_high: np.ndarray
    counts: np.ndarray

    @property
    def n_tokens(self) -> int:
        """V, the size of the vocabulary, padding included."""
        return 1 + len(self.atoms) + len(self.bin_low)

    @property
    def n_atoms(self) -> int:
        """A, the number of exact times."""
        return len(self.atoms)

    @property
    def longest(self) -> int:
        """Ticks of the longest IAT that is decoded, which longer ones are read as."""
        return int(max(self.bin_high.max(initial=0), self.atoms[-1]))

    def encode(self, iat: np.ndarray, n_packets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """IATs -> tokens and places within bins.

        Args:
            iat: [flow, T] seconds, finite and >= 0; those above `longest` count as it.
            n_packets: [flow] integers; what follows is padding.

        Returns:
            token [flow, T] int32 and fraction [flow, T] float64 in [0, 1), 0 for atoms and padding.

        Raises:
            ConfigError: an IAT that is not finite, negative or longer than 2^52 ticks.
        """
        iat = np.asarray(iat, np.float64)
        mask = np.arange(iat.shape[1]) < np.asarray(n_packets)[:, None]
        ticks = np.minimum(_ticks(np.where(mask, iat, 0.0), self.resolution), self.longest)
        place = np.clip(np.searchsorted(self.atoms, ticks, side="right") - 1, 0, None)
        is_atom = self.atoms[place] == ticks
        index = np.where(is_atom, 0, np.searchsorted(self.bin_low, ticks, side="right") - 1)
        token = np.where(is_atom, 1 + place, 1 + self.n_atoms + index)
        below, span = self._span(index)
        fraction = np.log(np.maximum(ticks, 1) / below) / span
        fraction = np.where(mask & ~is_atom, np.clip(fraction, 0.0, np.nextafter(1.0, 0.0)), 0.0)
        return np.where(mask, token, PADDING).astype(np.int32), fraction

    def decode(self, token: np.ndarray, fraction: np.ndarray) -> np.ndarray:
        """Tokens and places -> IATs [flow, T] float32, seconds; 0 in padding.

        The inverse of `encode` to half a tick, and what float32 rounds, up to `longest`.

        Raises:
            ConfigError: a token outside the vocabulary.
        """
        return (self._decoded(np.asarray(token), fraction) * self.resolution).astype(np.float32)

    def log_prob(self, token: np.ndarray, fraction: np.ndarray) -> np.ndarray:
        """Log-probability of the ticks given their token, [flow, T] float64 nats; 0 for atoms and padding.

        It does not depend on any model: log p(IAT) is the model's log p(token) plus this.
        """
        token = np.asarray(token)
        ticks = self._decoded(token, fraction)
        _, span = self._span(np.maximum(token - 1 - self.n_atoms, 0))
        mass = np.log1p(1 / (np.maximum(ticks, 1) - 0.5)) / span
        return np.where(token > self.n_atoms, np.log(mass), 0.0)

    def _decoded(self, token: np.ndarray, fraction: np.ndarray) -> np.ndarray:
        """Ticks, int64."""
        if token.size and (token.min() < 0 or token.max() >= self.n_tokens):
            raise ConfigError(f"IAT tokens must be from 0 to {self.n_tokens - 1}, got {token.min()}..{token.max()}")
        index = np.maximum(token - 1 - self.n_atoms, 0)
        below, span = self._span(index)
        within = np.rint(below * np.exp(np.asarray(fraction, np.float64) * span)).astype(np.int64)
        within = np.clip(within, self.bin_low[index], self.bin_high[index])
        exact = np.concatenate([[0], self.atoms])[np.minimum(token, self.n_atoms)]
        return np.where(token > self.n_atoms, within, exact)

    def _span(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower edge of bins, half ticks included, and the logarithm of the upper over it."""
        below = self.bin_low[index] - 0.5
        return below, np.log((self.bin_high[index] + 0.5) / below)


def fit_times(
    iat: np.ndarray,
    n_packets: np.ndarray,
    *,
    atom_share: float = 0.001,
    resolution: float = 1e-6,
    bins_per_decade: int = 10,
) -> TimeTokens:
    """Fits the code on the IATs of training flows, from the second packet on.

    Args:
        iat: [flow, T] seconds.
        n_packets: [flow] integers.
        atom_share: least share of the IATs for a number of ticks to be an atom.
        resolution: seconds of a tick.
        bins_per_decade: bins of a factor of ten, from one tick to `BEYOND` times the longest IAT seen.

    Raises:
        ConfigError: options out of range, or an IAT that is not finite, negative or longer than 2^52 ticks.
    """
    if not 0 < atom_share <= 1 or not resolution > 0 or not np.isfinite(resolution) or bins_per_decade < 1:
        raise ConfigError(
            "iat_atom_share must be in (0, 1], iat_resolution above 0 and iat_bins_per_decade at least 1; got "
            f"{atom_share}, {resolution} and {bins_per_decade}"
        )
    iat, n_packets = np.asarray(iat, np.float64), np.asarray(n_packets)
    later = (np.arange(iat.shape[1]) < n_packets[:, None]) & (np.arange(iat.shape[1]) > 0)
    value, count = np.unique(_ticks(iat[later], resolution), return_counts=True)
    atoms = np.union1d([0], value[count >= max(atom_share * count.sum(), 1)]).astype(np.int64)
    beyond = BEYOND * max(int(value.max(initial=1)), 1)
    most = min(max(beyond, round(LEAST_LONGEST / resolution)), MOST_TICKS)
    edges = np.ceil(10 ** (np.arange(int(np.log10(beyond) * bins_per_decade) + 1) / bins_per_decade)).astype(np.int64)
    start = np.unique(np.concatenate([edges[edges <= most], atoms[1:], atoms[1:] + 1]))
    high = np.append(start[1:] - 1, most)
    kept = ~np.isin(start, atoms) & (start <= most)
    code = TimeTokens(resolution, atoms, start[kept], high[kept], np.zeros(0, np.int64))
    token, _ = code.encode(iat, n_packets)
    return dataclasses.replace(code, counts=np.bincount(token[later], minlength=code.n_tokens))


def _ticks(iat: np.ndarray, resolution: float) -> np.ndarray:
    """Seconds float64 -> whole ticks int64."""
    if iat.size and not (np.isfinite(iat).all() and iat.min() >= 0 and iat.max() / resolution <= MOST_TICKS):
        raise ConfigError(f"IATs must be finite, >= 0 and at most {MOST_TICKS * resolution:g} seconds")
    return np.rint(iat / resolution).astype(np.int64)
