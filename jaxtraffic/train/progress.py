"""Progress on the terminal: a bar with loss, flows/s and time left, or a line now and then without a terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressReport:
    """Shows how far a task is; `update` takes what is done and named figures to print beside it."""

    def __init__(self, console: Console, title: str, total: int, *, enabled: bool = True, lines: int = 10):
        """Shows `total` units under `title`; without a terminal it writes about `lines` lines in all."""
        self.console, self.title, self.total, self.enabled, self.lines = console, title, total, enabled, lines
        self._bar: Progress | None = None
        self._printed = 0
        self._start: tuple[float, int] | None = None

    def __enter__(self) -> ProgressReport:
        if self.enabled and self.console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._bar = Progress(TextColumn("{task.description}"), *columns, TextColumn("{task.fields[figures]}"))
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, figures="")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, **figures: float) -> None:
        """Shows that `done` of the total units are finished."""
        if not self.enabled:
            return
        now = time.perf_counter()
        if self._start is None:
            self._start = (now, done)
        text = "  ".join(f"{name} {value:,.4g}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=done, figures=text)
        elif done * self.lines // self.total > self._printed or done == self.total:
            self._printed = done * self.lines // self.total
            begun, first = self._start
            left = (now - begun) / max(done - first, 1) * (self.total - done)
            self.console.print(f"{self.title} {done:,}/{self.total:,}  {text}  {left:.0f} s left")
