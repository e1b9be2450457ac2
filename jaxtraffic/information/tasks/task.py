"""A benchmark task: two variables to draw and the mutual information that an estimator should find."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from jaxtraffic.errors import ConfigError
from jaxtraffic.information.tasks.distributions import Distribution
from jaxtraffic.information.tasks.transforms import Change


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """X and Y with known mutual information: a distribution, then maps that leave the information as it is."""

    name: str
    """Key in `TASKS`, as the bmi package spells it."""
    title: str
    """What tables call it."""
    dim_x: int
    dim_y: int
    mutual_information: float
    """Nats, from a closed form in float64."""
    description: str
    """What it is and what is hard about it, in a sentence."""
    distribution: Distribution = dataclasses.field(repr=False)
    """What is drawn first."""
    changes: tuple[Change, ...] = dataclasses.field(default=(), repr=False)
    """What is done to the draws, in order."""
    base: Task | None = dataclasses.field(default=None, repr=False)
    """The task that the last change was made to, which has the same truth; None where nothing was changed."""

    @property
    def family(self) -> str:
        """Of the distribution drawn first: "normal", "student" or "uniform"."""
        return self.distribution.family

    @property
    def transforms(self) -> tuple[str, ...]:
        """Names of the changes, the first to be applied first."""
        return tuple(change.name for change in self.changes)

    def draw(self, key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
        """Draws pairs, to be traced: jit, vmap over keys and so on; n is static.

        A changed task and its base give, for one key, the same points before and after the change.

        Args:
            key: typed key, shape [].
            n: number of pairs.

        Returns:
            x [n, dim_x], y [n, dim_y], float32.
        """
        x, y = self.distribution.draw(key, n)
        for change in self.changes:
            x, y = change.x.forward(x), change.y.forward(y)
        return x, y

    def sample(self, key: jax.Array, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws pairs, as `draw` does, in one compiled program.

        Args:
            key: typed key, shape [].
            n: number of pairs, at least 1.

        Returns:
            x [n, dim_x], y [n, dim_y], float32 NumPy.

        Raises:
            ConfigError: not a typed key, or n below 1.
        """
        if not (isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) and not key.shape):
            raise ConfigError(f"key must be one typed key such as jax.random.key(0), got {type(key).__name__}")
        if not isinstance(n, int | np.integer) or n < 1:
            raise ConfigError(f"n must be a number of pairs, at least 1, got {n!r}")
        x, y = _draw(self, key, int(n))
        return np.asarray(x), np.asarray(y)

    def pointwise(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Point-wise mutual information log p(x, y) - log p(x) - log p(y), whose mean over pairs is the truth.

        The changes are undone in float64, then the closed form of the distribution is used; points are taken to lie in
        the image of the changes.

        Args:
            x: [n, dim_x].
            y: [n, dim_y].

        Returns:
            [n] float64 nats; -inf for pairs that cannot occur.

        Raises:
            ConfigError: other shapes.
        """
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if x.ndim != 2 or y.ndim != 2 or (x.shape[1], y.shape[1]) != (self.dim_x, self.dim_y) or len(x) != len(y):
            raise ConfigError(
                f"{self.name} needs x [n, {self.dim_x}] and y [n, {self.dim_y}], got {x.shape} and {y.shape}"
            )
        for change in reversed(self.changes):
            x, y = change.x.inverse(x), change.y.inverse(y)
        return self.distribution.pointwise(x, y)


def changed(base: Task, change: Change, *, name: str = "", title: str = "", description: str = "") -> Task:
    """The task that a change makes of another; by default named "change-base"."""
    return Task(
        name=name or f"{change.name}-{base.name}",
        title=title or f"{change.title} @ {base.title}",
        dim_x=base.dim_x + change.x.added,
        dim_y=base.dim_y + change.y.added,
        mutual_information=base.mutual_information,
        description=description or f"{base.description} {change.title} of X and of Y.",
        distribution=base.distribution,
        changes=(*base.changes, change),
        base=base,
    )


@functools.partial(jax.jit, static_argnums=(0, 2))
def _draw(task: Task, key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    return task.draw(key, n)
