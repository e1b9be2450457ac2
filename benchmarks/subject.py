"""What the model benchmarks measure: a generator of a preset over random flows, with random parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxtraffic import generate, prng, scaling
from jaxtraffic.generate.config import GeneratorConfig, preset
from jaxtraffic.generate.model import DataCard, Generator

LENGTH, CLASSES, FLOWS = 30, 10, 20_000


def configure(name: str, *, diffusion_steps: int | None = None, **architecture: Any) -> GeneratorConfig:
    """A preset, with the diffusion steps or parts of the architecture (precision, blocks) replaced where given."""
    config = preset(name)
    given = {key: value for key, value in architecture.items() if value is not None}
    config = dataclasses.replace(config, denoiser=dataclasses.replace(config.denoiser, **given))
    if diffusion_steps is not None:
        config = dataclasses.replace(config, diffusion=dataclasses.replace(config.diffusion, steps=diffusion_steps))
    return config


def random_flows(n: int = FLOWS, *, length: int = LENGTH, seed: int = 0) -> dict[str, np.ndarray]:
    """Signed sizes [flow, packet] int16, zero after a random number of packets, and labels [flow] int32."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 1501, (n, length)) * rng.choice([-1, 1], (n, length))
    padding = np.arange(length) >= rng.integers(1, length + 1, (n, 1))
    return {
        "signed_size": np.where(padding, 0, size).astype(np.int16),
        "label": rng.integers(0, CLASSES, n).astype(np.int32),
    }


def make_generator(config: GeneratorConfig, flows: dict[str, np.ndarray]) -> Generator:
    """The generator, without parameters, as a training run would build it on these flows."""
    length = flows["signed_size"].shape[1]
    card = DataCard(
        name="random",
        class_names=tuple(f"class {i}" for i in range(CLASSES)),
        class_counts=tuple(int(n) for n in np.bincount(flows["label"], minlength=CLASSES)),
        length=length,
        size_layer="ip",
        zeros_inside=False,
    )
    return generate.Generator(config, card, scaling.fit(config.diffusion.scaling, flows["signed_size"]))


def random_parameters(generator: Generator, seed: int = 0) -> Any:
    """Initial parameters moved by a little noise: a fresh network has gates of 0 and would output 0."""
    rng = np.random.default_rng(seed)
    params = jax.jit(generator.init)(prng.stream(jax.random.key(seed), "init"))
    return jax.tree.map(lambda leaf: np.asarray(leaf) + rng.normal(0, 0.02, leaf.shape).astype(np.float32), params)
