"""How each method looks at prefixes: estimators on data with all prefixes in one program, and two generators."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jax.sharding import Mesh

from jaxtraffic import generate, information, prng, scaling
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import token_likelihood, token_runs
from jaxtraffic.generate.prefix_information import generator_information
from jaxtraffic.generate.token_config import TokenConfig
from jaxtraffic.series import PacketSeries
from jaxtraffic.train import ProgressReport

FEATURES = ("signed_sizes", "sizes", "directions", "iats")
IAT_UNIT, IAT_STEPS = 1e-6, 1000
"""IATs are looked at as 1000 log10(1 + IAT / 1 microsecond), rounded: steps of 0.23 %."""
FEW = (1, 2, 3, 4, 6, 8, 12, 16, 20, 30)
"""Numbers of packets for methods that cost more than a classifier."""
STEPS, GENERATOR_STEPS = 1000, 1500
PREFIXES, CLASS_DROPOUT = 0.75, 0.5
"""Shares of flows that are cut, and that lose their label, in the generator's training. The network without the label
needs as many flows as the one with it: what it predicts worse counts as information."""


Report = Callable[[dict[str, Any]], None]
"""Called with a line of metrics."""


class Found(NamedTuple):
    """What a method returns.

    Attributes:
        pointwise: [point, flow] nats.
        packets: [point] numbers of packets.
        warnings: in words.
        control: the estimate from all packets after the labels were shuffled, or None.
        config: what was run.
    """

    pointwise: np.ndarray
    packets: tuple[int, ...]
    warnings: tuple[str, ...]
    control: float | None
    config: dict[str, Any]


class Setting(NamedTuple):
    """How a method on data is used here.

    Attributes:
        every: whether it sees every number of packets, or those of `FEW`.
        continuous: whether it needs densities: then sizes are made continuous at random, and positions beyond the
            prefix are noise instead of 0 (a point mass has no density).
        waves: frequencies at which sines and cosines of the quantile stand beside each value: neighbouring sizes mean
            different things, and a network sees them apart only so.
        copies: training flows are repeated with fresh randomness so many times.
        options: fields of the method's options.
    """

    every: bool
    continuous: bool
    waves: tuple[int, ...]
    copies: int
    options: dict[str, Any]


DIRECT: dict[str, Setting] = {
    "doe": Setting(True, False, (1, 2, 4, 8), 1, {"hidden": (128, 128)}),
    "rf": Setting(False, True, (), 4, {"width": 128, "batch_size": 256}),
    "ddpm": Setting(False, True, (), 4, {"width": 128, "batch_size": 256}),
    "ksg": Setting(False, True, (), 1, {}),
}
OTHERS = Setting(False, False, (1, 2, 4, 8), 1, {})


def grid_of(method: str, length: int) -> tuple[int, ...]:
    """The numbers of packets that a method looks at, the last of them `length`."""
    if method in DIRECT and DIRECT[method].every:
        return tuple(range(1, length + 1))
    return (*(r for r in FEW if r < length), length)


def feature_codes(flows: PacketSeries, features: str, length: int) -> PacketSeries:
    """The same flows with what is looked at in the place of signed sizes, and their first packets only.

    Padding stays 0. Sizes without directions count from 1, so that an empty packet is none; IATs are put on a fine
    logarithmic scale (`IAT_STEPS`), which can only lose information.

    Raises:
        ConfigError: unknown features.
    """
    cut = flows.replace(**{name: getattr(flows, name)[:, :length] for name in ("size", "direction", "iat")})
    if features == "signed_sizes":
        return cut
    mask = np.asarray(cut.mask)
    if features == "sizes":
        code = np.minimum(np.asarray(cut.size, np.int32) + 1, np.iinfo(np.int16).max)
    elif features == "directions":
        return cut.replace(size=mask.astype(np.int16))
    elif features == "iats":
        code = 1 + np.rint(IAT_STEPS * np.log10(1 + np.asarray(cut.iat, np.float64) / IAT_UNIT))
    else:
        raise ConfigError(f"unknown features {features!r}; choose from {', '.join(FEATURES)}")
    return cut.replace(size=np.where(mask, code, 0).astype(np.int16), direction=mask.astype(np.int8))


@dataclasses.dataclass(frozen=True)
class Direct:
    """An estimator on data, every prefix a run of one vmapped program."""

    name: str
    steps: int | None = None

    def measure(self, key: jax.Array, train: PacketSeries, held: PacketSeries) -> Found:
        """Trains on `train` and measures on `held`.

        Positions beyond a prefix hold a constant (noise where a method needs densities), so that all runs have one
        shape. All runs share their key: the same batches and noise, so that differences between prefixes are steady.
        One more run with shuffled labels says what the method makes of nothing.
        """
        setting = DIRECT.get(self.name, OTHERS)
        packets = grid_of(self.name, train.length)
        scale = scaling.fit("quantile", np.asarray(train.signed_size))
        rows = np.asarray(train.label)
        keys = [prng.at_step(prng.stream(key, "train"), copy) for copy in range(setting.copies)]
        drawn = [_scaled(scale, own, train, setting) for own in keys]
        x, y = np.concatenate(drawn), np.tile(rows, setting.copies)
        test_x, test_y = _scaled(scale, prng.stream(key, "held"), held, setting), np.asarray(held.label)
        xs, tests = [], []
        for r in packets:
            xs.append(_cut(x, r, prng.stream(key, "beyond"), setting))
            tests.append((_cut(test_x, r, prng.stream(key, "beyond held"), setting), test_y))
        ys = [y] * len(packets)
        trains = information.METHODS[self.name].trains
        shuffled = np.random.default_rng(0).permutation
        if trains:
            # Copies of a flow keep one label between them.
            ys.append(np.tile(shuffled(rows), setting.copies))
        else:
            ys.append(y)
        xs.append(xs[-1])
        tests.append((tests[-1][0], shuffled(test_y)))
        steps = {"steps": self.steps or STEPS} if trains else {}
        results = information.estimate_many(
            xs,
            ys,
            method=self.name,
            keys=[prng.stream(key, "estimate")] * len(xs),
            tests=tests,
            discrete=True,
            preprocess="none",
            **setting.options,
            **steps,
        )
        *results, control = results
        if any(result.pointwise is None for result in results):
            raise ConfigError(f"{self.name} gives no values of single flows, which curves are made of")
        return Found(
            np.stack([result.pointwise for result in results]),
            packets,
            tuple(f"{r} packets: {text}" for r, result in zip(packets, results) for text in result.warnings),
            control.value,
            {"copies": setting.copies, "waves": setting.waves, **setting.options, **steps},
        )


def _scaled(scale: scaling.QuantileScaling, key: jax.Array, flows: PacketSeries, setting: Setting) -> np.ndarray:
    """[flow, T, 1 + 2 waves] float32: the random quantile transform, or the middle of each value's range, and waves.

    Both keep the information about the label: they can be inverted (within float32), and the randomness knows no label.
    """
    signed = jnp.asarray(np.asarray(flows.signed_size))
    if setting.continuous:
        return np.asarray(scale.apply(key, signed))[..., None]
    position = jnp.arange(scale.z.shape[0])
    index = jnp.clip(signed.astype(jnp.int32) - scale.low, 0, scale.z.shape[1] - 2)
    middle = np.asarray((scale.cdf[position, index] + scale.cdf[position, index + 1]) / 2)
    angle = [2 * np.pi * k * middle for k in setting.waves]
    return np.stack([np.asarray(norm.ppf(middle)), *map(np.sin, angle), *map(np.cos, angle)], axis=-1)


def _cut(x: np.ndarray, packets: int, key: jax.Array, setting: Setting) -> np.ndarray:
    """[flow, T, feature] -> [flow, T feature] with the positions beyond the first packets overwritten."""
    beyond = np.asarray(jax.random.normal(key, x.shape)) if setting.continuous else 0.0
    inside = np.arange(x.shape[1])[:, None] < packets
    return np.where(inside, x, beyond).astype(np.float32).reshape(len(x), -1)


@dataclasses.dataclass(frozen=True)
class GeneratorMethod:
    """A generator trained on prefixes of every length, and the gap of its errors on held-out flows."""

    preset: str
    process: str
    steps: int | None
    draws: int

    @property
    def total(self) -> int:
        """Optimiser steps."""
        return self.config().train.steps or 0

    def config(self) -> generate.GeneratorConfig:
        """The preset with prefixes and class dropout."""
        made = generate.preset(self.preset)
        return dataclasses.replace(
            made,
            diffusion=dataclasses.replace(made.diffusion, process=self.process, prefixes=PREFIXES),
            train=dataclasses.replace(
                made.train,
                steps=self.steps or GENERATOR_STEPS,
                class_dropout=CLASS_DROPOUT,
            ),
        ).check()

    def measure(
        self,
        key: jax.Array,
        train: PacketSeries,
        held: PacketSeries,
        *,
        mesh: Mesh,
        folder: Path,
        progress: ProgressReport,
        packets: Sequence[int] | None = None,
    ) -> Found:
        """Trains a generator in `folder` and measures on `held`."""
        config = self.config()
        packets = tuple(grid_of("generator", train.length) if packets is None else packets)
        scale = scaling.fit(config.diffusion.scaling, np.asarray(train.signed_size))
        model = generate.Generator(config, generate.DataCard.of(train), scale)
        folder.mkdir()
        model.fit(
            train,
            key=prng.stream(key, "train"),
            mesh=mesh,
            folder=folder,
            report=lambda line: progress.update(line["step"], loss=line["loss"], **{"flows/s": line["flows_per_s"]}),
        )
        values = generator_information(
            model, prng.stream(key, "measure"), held, packets=packets, draws=self.draws, mesh=mesh
        )
        return Found(values, packets, (), None, dataclasses.asdict(config) | {"draws": self.draws})


@dataclasses.dataclass(frozen=True)
class TokenMethod:
    """A token generator, whose exact likelihood gives the information of every prefix at once, by the chain rule."""

    config: TokenConfig = TokenConfig()

    def measure(
        self, key: jax.Array, train: PacketSeries, held: PacketSeries, *, mesh: Mesh, folder: Path, progress: Report
    ) -> Found:
        """Trains a generator in `folder` and measures on `held`, under the mixture of its classes.

        Classes are mixed by their shares among `held`, as H(label), the ceiling, is of them.

        Args:
            key: of the run.
            train: training flows.
            held: flows to measure on.
            mesh: devices.
            folder: for the trained model.
            progress: called with each line of its metrics.
        """
        model = token_runs.fit(
            self.config, train, key=prng.stream(key, "train"), mesh=mesh, folder=folder, report=progress
        )
        found = token_likelihood.information(lambda *asked: model.log_prob_steps(*asked, mesh=mesh), held)
        packets = tuple(range(1, held.length + 1))
        return Found(np.cumsum(found.by_packet, axis=1).T, packets, (), None, dataclasses.asdict(self.config))
