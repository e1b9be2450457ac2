"""The commands below `python -m jaxtraffic data`."""

from __future__ import annotations

from typing import Annotated

import tyro

from jaxtraffic.command.look_at_data import Head, Info, List, Verify
from jaxtraffic.command.look_at_records import Records
from jaxtraffic.command.write_data import Convert, Export, Simulate

Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Convert, tyro.conf.subcommand("convert")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Simulate, tyro.conf.subcommand("simulate")]
    | Annotated[Head, tyro.conf.subcommand("head")]
    | Annotated[Records, tyro.conf.subcommand("records")]
)
