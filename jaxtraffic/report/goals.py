"""A metric of the tables of judgements, and where a good generator ends: which of several values is the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

_GOALS = {
    "": "",
    "higher": "higher",
    "lower": "lower",
    "zero": "\N{RIGHTWARDS ARROW} 0",
    "half": "\N{RIGHTWARDS ARROW} 0.5",
    "real": "\N{RIGHTWARDS ARROW} real flows",
}


TARGETS = ("random_half", "fresh_real")
"""Real flows that the goal "real" means, the first of them that was judged.

Generators learn from the captures of the training flows. One random half of these against the other says what real
flows of the same captures score; held-out flows may come from other captures, whose shift a generator cannot know.
"""


@dataclasses.dataclass(frozen=True)
class Group:
    """A section of metrics: prefix of most of its keys, heading, and one line of what it is about."""

    key: str
    title: str
    about: str


@dataclasses.dataclass(frozen=True)
class Metric:
    """One row of the tables of judgements.

    Attributes:
        key: flat key without the reference prefix; a `*` stands for any name without a dot, such as a model.
        title: name of the row.
        goal: "higher", "lower", "zero", "half" or "real": where a good generator ends; "" where the row is there
            to compare with.
        meaning: one line for a reader who has not met the metric; "" where the row above says it.
        blind_spot: what it cannot see, or what flatters it; "" likewise.
        section: key of its group where that is not the first part of `key`.
        short: name of the row where it stands below the one that it varies; "" for a row of its own.
        stderr: key of its standard error, if there is one.
        n: key of the number of flows behind it, if there is one.
        digits: decimals shown.
        signed: whether positive values carry a plus.
        headline: whether it is one of the few rows that tables show first.
    """

    key: str
    title: str
    goal: str
    meaning: str
    blind_spot: str
    section: str = ""
    short: str = ""
    stderr: str | None = None
    n: str | None = None
    digits: int = 3
    signed: bool = False
    headline: bool = False

    @property
    def group(self) -> str:
        """Key of the group that the row belongs to."""
        return self.section or self.key.split(".")[0]

    @property
    def goal_text(self) -> str:
        """The goal as the tables show it."""
        return _GOALS.get(self.goal, self.goal)

    def best(self, values: Sequence[float | None], real: float | None) -> frozenset[int]:
        """Indices of the values that no other beats, those that read alike included.

        Empty where fewer than two can be compared, where the row has no goal, or where the goal is missing.

        Args:
            values: of the sets that may win; None where there is none.
            real: the value of real flows (see `TARGETS`), for that goal.
        """
        centre = {"zero": 0.0, "half": 0.5, "real": real}.get(self.goal)
        if self.goal == "higher":
            losses = [None if value is None else -value for value in values]
        elif self.goal == "lower":
            losses = list(values)
        elif centre is not None:
            losses = [None if value is None else abs(value - centre) for value in values]
        else:
            return frozenset()
        found = {index: round(loss, self.digits) for index, loss in enumerate(losses) if loss is not None}
        if len(found) < 2:
            return frozenset()
        return frozenset(index for index, loss in found.items() if loss == min(found.values()))


def once(key: str, title: str, goal: str, **options: object) -> Metric:
    """The row below a metric: the same figure with every sequence once on both sides."""
    return Metric(
        key,
        f"{title}, every sequence once",
        goal,
        "",
        "",
        short="every sequence once",
        **options,
    )


def matched(key: str, title: str, goal: str, **options: object) -> Metric:
    """The row below a metric: the same figure with one number of flows for all sets."""
    return Metric(
        key,
        f"{title}, equal numbers",
        goal,
        "",
        "",
        short="equal numbers",
        **options,
    )
