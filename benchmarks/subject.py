"""What the model benchmarks measure: generators of a preset's size over random flows, with random parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxtraffic import generate, prng, scaling
from jaxtraffic.generate.config import GeneratorConfig, preset
from jaxtraffic.generate.model import DataCard, Generator
from jaxtraffic.generate.token_config import TokenConfig
from jaxtraffic.generate.token_model import TokenGenerator
from jaxtraffic.nn.token_net import TokenNetConfig
from jaxtraffic.series import from_signed_size

LENGTH, CLASSES, FLOWS = 30, 10, 20_000
FREQUENT, FREQUENT_SHARE = 110, 0.85
"""Frequent signed sizes, and the share of packets that have them: as in iot_sentinel (110, 0.85) and doh_tunnels_iot
(90, 0.86), so that the vocabulary is as large as there."""


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


def frequent_flows(flows: dict[str, np.ndarray], *, seed: int = 0) -> dict[str, np.ndarray]:
    """The same flows with most packets of a few signed sizes, as traffic has them; lengths and labels stay.

    Random sizes alone are all rare: a vocabulary of them would have bins only.
    """
    rng = np.random.default_rng((seed, 1))
    signed = flows["signed_size"]
    frequent = rng.choice(np.arange(40, 1500), FREQUENT, replace=False) * rng.choice([-1, 1], FREQUENT)
    drawn = np.where(rng.random(signed.shape) < FREQUENT_SHARE, rng.choice(frequent, signed.shape), signed)
    return flows | {"signed_size": np.where(signed == 0, 0, drawn).astype(np.int16)}


def make_token_generator(config: GeneratorConfig, flows: dict[str, np.ndarray]) -> TokenGenerator:
    """A token generator with width, blocks and precision of a preset's denoiser, otherwise its own; no parameters."""
    own = config.denoiser
    net = TokenNetConfig(width=own.width, blocks=own.blocks, mlp_ratio=own.mlp_ratio, precision=own.precision)
    train = from_signed_size(
        flows["signed_size"],
        flows["label"],
        class_names=[f"class {i}" for i in range(CLASSES)],
        name="random",
        size_layer="ip",
    )
    return TokenGenerator.of(TokenConfig(net=net), train)


def random_parameters(generator: Generator | TokenGenerator, seed: int = 0) -> Any:
    """Initial parameters moved by a little noise: a fresh network has gates of 0 and would output 0."""
    rng = np.random.default_rng(seed)
    params = jax.jit(generator.init)(prng.stream(jax.random.key(seed), "init"))
    return jax.tree.map(lambda leaf: np.asarray(leaf) + rng.normal(0, 0.02, leaf.shape).astype(np.float32), params)
