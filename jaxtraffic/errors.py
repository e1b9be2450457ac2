"""Errors that people read: each names the file or option, what was expected and what to do.

The command line prints the message of a `JaxTrafficError` in one line and exits with code 2.
"""

from __future__ import annotations

import functools
from pathlib import Path


class JaxTrafficError(Exception):
    """Base of every error that jaxtraffic raises on purpose."""


def _shorten(text: str, most: int = 500) -> str:
    """Text without its middle where it is very long: damaged files hold names and values of any length."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


class DataError(JaxTrafficError):
    """A file or a folder that cannot be read whole and right.

    Args:
        path: the file or folder.
        problem: what is wrong, as a phrase.
        row: 1-based row of the data (header not counted), where one is known.
        field: column or field name, where one is known.
        expected: what a right value looks like.
        remedy: what the user can do.
    """

    def __init__(
        self,
        path: str | Path,
        problem: str,
        *,
        row: int | None = None,
        field: str | None = None,
        expected: str | None = None,
        remedy: str | None = None,
    ):
        self.path, self.problem, self.row, self.field = str(path), problem, row, field
        self.expected, self.remedy = expected, remedy
        where = [_shorten(self.path)]
        if row is not None:
            where.append(f"row {row}")
        if field is not None:
            where.append(f"field {_shorten(field)}")
        message = f"{', '.join(where)}: {_shorten(problem)}"
        if expected is not None:
            message += f"; expected {_shorten(expected)}"
        if remedy is not None:
            message += f"; {remedy}"
        super().__init__(" ".join(message.split()))

    def __reduce__(self) -> tuple:
        """How it travels between processes, which would otherwise call it with its message alone."""
        fields = {name: getattr(self, name) for name in ("row", "field", "expected", "remedy")}
        return functools.partial(DataError, self.path, self.problem, **fields), ()


class ConfigError(JaxTrafficError, ValueError):
    """An option, a name or an argument that does not fit."""


class TrainingError(JaxTrafficError):
    """Training cannot go on: a non-finite loss, or a checkpoint that does not fit the run."""


class Interrupted(JaxTrafficError):
    """SIGTERM or SIGINT arrived; a checkpoint was written first."""
