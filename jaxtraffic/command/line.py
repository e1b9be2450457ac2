"""The command line of every experiment and command: options by tyro, errors of ours in one line, exit codes."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import tyro
from rich.console import Console
from rich.logging import RichHandler

from jaxtraffic.errors import Interrupted, JaxTrafficError, TrainingError

Options = TypeVar("Options")


def command_line(options: type[Options], run: Callable[[Options, Console], None], description: str) -> None:
    """Parses the command line into `options` and runs; an error of ours is one line and exit code 2 (1: training)."""
    parsed = tyro.cli(options, description=description)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    with report_errors():
        run(parsed, console)


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Warnings in colour on standard error; an error of ours becomes one line there and an exit code."""
    errors = Console(stderr=True)
    # By force: some imported packages set up logging of their own.
    handler = RichHandler(console=errors, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    try:
        yield
    except Interrupted as error:
        errors.print(f"interrupted: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(143)
    except KeyboardInterrupt:
        errors.print("interrupted", highlight=False)
        sys.exit(130)
    except JaxTrafficError as error:
        errors.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1 if isinstance(error, TrainingError) else 2)
