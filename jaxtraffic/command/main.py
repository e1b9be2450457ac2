"""`python -m jaxtraffic data ...`, `python -m jaxtraffic evaluate` and `python -m jaxtraffic version`."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import tyro

from jaxtraffic.command.data import Command
from jaxtraffic.command.evaluate import Evaluate
from jaxtraffic.command.line import report_errors
from jaxtraffic.command.screen import show


@dataclasses.dataclass(frozen=True)
class Data:
    """Data sets: list, info, verify, convert, export, simulate, head; flow records: records."""

    command: tyro.conf.OmitSubcommandPrefixes[Command]


@dataclasses.dataclass(frozen=True)
class Version:
    """Versions of jaxtraffic, Python and jax, and the devices that jax sees."""

    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Prints them."""
        import jax

        content = {
            "jaxtraffic": version("jaxtraffic"),
            "python": platform.python_version(),
            "jax": jax.__version__,
            "devices": [str(device) for device in jax.devices()],
        }
        lines = [f"{name}: {', '.join(value) if isinstance(value, list) else value}" for name, value in content.items()]
        show(content, lines, as_json=self.json)
        return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0 done, 1 a verification found differences, 2 an error of ours."""
    choice = tyro.cli(
        Annotated[Data, tyro.conf.subcommand("data")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Version, tyro.conf.subcommand("version")],
        prog="python -m jaxtraffic",
        description="Augment, generate, classify and judge packet series, and measure information in them.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff),
    )
    with report_errors():
        code = choice.command.run() if isinstance(choice, Data) else choice.run()
    raise SystemExit(code)
