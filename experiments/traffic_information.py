"""How many packets are enough? Information that the first r packets of a flow hold about its application, r = 1..T.

    python experiments/traffic_information.py --dataset iot_sentinel --data-root DIR --group capture

writes a run folder with report.html: the curve with its confidence band and the ceiling H(label), how many packets hold
90, 95 and 99 %, what each packet adds to those before it, and what every application gives away. Three methods by
default: a classifier (doe), a rectified flow on the data (rf), both with all numbers of packets in one vmapped program,
and a generator trained on prefixes; --methods tokens takes the exact likelihood of a token generator. Runs on a
simulated stand-in where the real data is absent, and says so. Cost: about 8 minutes on 2 CPU cores for 6,000 flows;
--steps and --generator-steps buy time or precision.

Values are estimates of the information that carries over to captures the models have not seen. They are shown as they
came out: a curve that falls with more packets shows a model that overfits, not information that vanishes.
"""

from __future__ import annotations

import dataclasses
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from data_options import DataOptions, describe_data, load
from rich.console import Console
from token_progress import epochs_shown
from traffic_curve import HeldOut, entropy, make_curve
from traffic_methods import Direct, GeneratorMethod, TokenMethod, feature_codes, grid_of

from jaxtraffic import datasets, information, parallel, prng
from jaxtraffic.command import command_line
from jaxtraffic.command.run_folder import environment, make_folder, write_config
from jaxtraffic.errors import ConfigError
from jaxtraffic.report import traffic_pages as pages
from jaxtraffic.series import PacketSeries
from jaxtraffic.train import ProgressReport

GENERATOR, TOKENS = "generator", "tokens"


@dataclasses.dataclass(frozen=True)
class Options(DataOptions):
    """Command line of the measurement."""

    group: str | None = None
    """Column of a parquet set whose values stay on one side, such as capture; intervals resample them as a whole."""
    fold: int = 0
    """Held out are this one of the ten folds and the one after it."""
    seed: int = 0
    """Seed of folds, parameters, noise and resampling."""
    features: str = "signed_sizes"
    """What of a packet is seen: signed_sizes (size and direction), sizes, directions or iats."""
    methods: tuple[str, ...] = ("doe", "rf", "generator")
    """generator, tokens, or methods of information.METHODS that take labels; the first gives the answer."""
    packets: int | None = None
    """Largest number of packets T; default: all that the set has."""
    steps: int | None = None
    """Optimiser steps of the methods but for the generator; default: 1,000."""
    generator_steps: int | None = None
    """Optimiser steps of the generator; default: 1,500."""
    preset: str = "tiny"
    """Named configuration of the generator: tiny, small or thesis."""
    process: str = "flow"
    """Process of the generator: flow, ddpm, vp or edm."""
    draws: int = 16
    """Noise levels at which the generator looks at each held-out flow."""
    devices: int | None = None
    """Use only the first so many devices (generator)."""
    out: Path | None = None
    """Run folder; default: runs/traffic-information-<dataset>-<time>."""


def run(options: Options, console: Console) -> None:
    """Measures with every method and writes the run folder."""
    _check(options)
    mesh = parallel.make_mesh(devices=options.devices)
    flows, dropped = load(options)
    length = flows.length if options.packets is None else options.packets
    if not 1 <= length <= flows.length:
        raise ConfigError(f"--packets must be from 1 to {flows.length}, the packets of the set; got {length}")
    parts = datasets.split(feature_codes(flows, options.features, length), fold=options.fold, seed=options.seed)
    train, held = parts.train, _joined(parts.validation, parts.test)
    described = describe_data(options, flows, dropped, train=train, test=held) | {
        "n_train_groups": None if train.group is None else len(np.unique(train.group)),
        "n_test_groups": None if held.group is None else len(np.unique(held.group)),
    }
    folder = options.out or Path("runs") / f"traffic-information-{flows.name}-{datetime.now():%Y%m%d-%H%M%S}"
    make_folder(folder)
    label = np.asarray(held.label)
    held_out = HeldOut(label, None if held.group is None else np.asarray(held.group), flows.class_names)
    plain, corrected = entropy(label)
    captures = f" from {len(np.unique(held.group)):,} captures" if held.group is not None else ""
    console.print(
        f"{flows.name} ({flows.source}): {len(flows):,} flows of {len(flows.class_names)} classes; train {len(train):,}"
        f", held out {len(held):,}{captures}; {options.features}, {length} packets; H(label) {plain:.3f} nats",
        highlight=False,
    )
    key, curves, configs = jax.random.key(options.seed), [], {}
    for name in options.methods:
        clock = time.perf_counter()
        own = prng.stream(key, name)
        if name == GENERATOR:
            method = _generator(options)
            with ProgressReport(console, "generator", method.total) as progress:
                found = method.measure(own, train, held, mesh=mesh, folder=folder / GENERATOR, progress=progress)
        elif name == TOKENS:
            method = TokenMethod()
            with epochs_shown(console, name, method.config.train.epochs) as progress:
                found = method.measure(own, train, held, mesh=mesh, folder=folder / TOKENS, progress=progress)
        else:
            console.print(f"{name}: {len(grid_of(name, length))} numbers of packets in one program", highlight=False)
            method = Direct(name, options.steps)
            found = method.measure(own, train, held)
        configs[name] = found.config
        curves.append(
            make_curve(
                name,
                found.pointwise,
                found.packets,
                held_out,
                seed=options.seed,
                seconds=time.perf_counter() - clock,
                warnings=found.warnings,
                control=found.control,
            )
        )
    config = {
        "experiment": "traffic_information",
        "seed": options.seed,
        "options": _plain(dataclasses.asdict(options)),
        "data": described,
        "methods": configs,
    } | environment()
    device = config["device"]
    config["device"] = f"{device['count']} x {device['kind']}"
    write_config(folder, config)
    labels = pages.Labels(
        class_names=flows.class_names,
        counts=np.bincount(label, minlength=len(flows.class_names)),
        captures=_captures(held, len(flows.class_names)),
        entropy=plain,
        corrected=corrected,
    )
    path = pages.write_traffic(folder, curves=curves, labels=labels, config=config, features=options.features)
    console.print(pages.traffic_table(curves, labels))
    for curve in curves:
        console.print(f"{curve.name}: {pages.answer(curve)}", highlight=False)
        for remark in (pages.above_text(curve, labels), pages.fall_text(curve)):
            if remark:
                console.print(remark, highlight=False)
    console.print(f"report: {path}", highlight=False, soft_wrap=True)


def _check(options: Options) -> None:
    if not options.methods or len(set(options.methods)) < len(options.methods):
        raise ConfigError("--methods takes at least one method, and each once")
    known = (GENERATOR, TOKENS, *(name for name, method in information.METHODS.items() if method.discrete))
    for name in options.methods:
        if name not in known:
            raise ConfigError(f"unknown method {name!r}; choose from {', '.join(known)}")
    for name in ("steps", "generator_steps", "draws"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if GENERATOR in options.methods:
        _generator(options).config()


def _generator(options: Options) -> GeneratorMethod:
    return GeneratorMethod(options.preset, options.process, options.generator_steps, options.draws)


def _joined(one: PacketSeries, other: PacketSeries) -> PacketSeries:
    """Both series with their groups: nothing is chosen on the validation side here, so it serves as test too."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), one, other)


def _captures(held: PacketSeries, n_classes: int) -> np.ndarray | None:
    if held.group is None:
        return None
    pairs = np.unique(np.stack([np.asarray(held.label), np.asarray(held.group)]), axis=1)
    return np.bincount(pairs[0], minlength=n_classes)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


if __name__ == "__main__":
    command_line(Options, run, __doc__)
