"""A generator: what is needed to sample, and to train, a class-conditional model of packet series."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxtraffic import parallel, prng, scaling
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.generate import ddpm, sampler
from jaxtraffic.generate.config import GeneratorConfig, from_dict
from jaxtraffic.generate.schedules import make_schedule
from jaxtraffic.nn import is_state_space, make_denoiser
from jaxtraffic.series import PacketSeries, from_signed_size
from jaxtraffic.train import Checkpoints, TrainState, init_state, make_optimizer, total_steps, train

CPU_BLOCK, ACCELERATOR_BLOCK = 64, 4096
"""Flows that one device samples at a time. Fixed shapes per device keep samples equal to the bit on 1 and 8 devices."""


@dataclasses.dataclass(frozen=True)
class DataCard:
    """What a generator must know of the flows it was trained on."""

    name: str
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    """Training flows of each class."""
    length: int
    """Packets in a series."""
    size_layer: str
    zeros_inside: bool
    """Whether real flows have a packet of size 0 before their last packet."""

    @classmethod
    def of(cls, train: PacketSeries) -> DataCard:
        """Describes the training flows."""
        inside = (np.asarray(train.signed_size) == 0) & np.asarray(train.mask)
        counts = tuple(int(count) for count in train.counts())
        return cls(train.name, train.class_names, counts, train.length, train.size_layer, bool(inside.any()))


class Generator:
    """A DDPMS4 with its parameters, scale and class names.

    `params` are those that sampling uses: the moving average where the run keeps one.
    """

    def __init__(self, config: GeneratorConfig, card: DataCard, scale: scaling.Scaling, params: Any = None):
        """Builds the functions of the model; `params` may come later from `fit`."""
        self.config, self.card, self.scale, self.params = config.check(), card, scale, params
        diffusion = config.diffusion
        self.schedule = make_schedule(diffusion.schedule, diffusion.steps, diffusion.variance)
        self.no_class = len(card.class_names)
        self.init, self.apply = make_denoiser(config.denoiser, self.no_class, card.length)

    def loss(self, params: Any, batch: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        """Per-flow training loss [flow] of a batch {"signed_size": [flow, T] int16, "label": [flow] int32}."""
        operators = self.apply(params, self.card.length, method="operators")

        def denoise(x: jax.Array, t: jax.Array, label: jax.Array) -> jax.Array:
            condition = self.apply(params, t, method="embed_time") + self.apply(params, label, method="embed_class")
            return self.apply(params, x, condition, operators)

        return ddpm.loss(
            denoise,
            self.schedule,
            key,
            self.scale.apply(prng.stream(key, "scale"), batch["signed_size"]),
            batch["label"],
            prediction=self.config.diffusion.prediction,
            class_dropout=self.config.train.class_dropout,
            no_class=self.no_class,
        )

    def fit(self, flows: PacketSeries, *, key: jax.Array, mesh: Mesh, folder: Path, **options: Any) -> TrainState:
        """Trains on flows (see `jaxtraffic.train.train` for the options) and keeps the parameters to sample with."""
        arrays = {"signed_size": np.asarray(flows.signed_size), "label": np.asarray(flows.label)}
        state = train(
            self.loss,
            self.init,
            arrays,
            self.config.train,
            key=key,
            mesh=mesh,
            folder=folder,
            is_state_space=is_state_space,
            **options,
        )
        self.params = state.averaged
        return state

    def draw_labels(self, n: int, *, seed: int = 0) -> np.ndarray:
        """n labels [n] int32 drawn from the class shares of the training flows."""
        counts = np.array(self.card.class_counts, np.float64)
        return np.random.default_rng(seed).choice(len(counts), n, p=counts / counts.sum()).astype(np.int32)

    def sample(
        self,
        key: jax.Array,
        labels: np.ndarray | Sequence[int],
        *,
        mesh: Mesh | None = None,
        guidance: float | None = None,
        block: int | None = None,
        report: Callable[[int], None] = lambda done: None,
    ) -> PacketSeries:
        """Samples one flow a label on every device; any number of flows.

        Sample i depends on (key, i, label i) only, not on the other labels; to the bit for any number of devices of one
        kind, and up to rounding for another block.

        Args:
            key: typed key.
            labels: [flow] integers, index into the class names.
            mesh: devices; all of them by default.
            guidance: weight of classifier-free guidance; the run's by default.
            block: flows a device samples at a time, the bound of memory.
            report: called with the number of finished flows.

        Returns:
            PacketSeries of len(labels) flows, source "simulated".

        Raises:
            ConfigError: a label outside the classes, or guidance without class dropout in training.
        """
        flows, _ = self.sample_observed(key, labels, mesh=mesh, guidance=guidance, block=block, report=report)
        return flows

    def sample_observed(
        self,
        key: jax.Array,
        labels: np.ndarray | Sequence[int],
        *,
        observers: tuple[sampler.Observer, ...] = (),
        mesh: Mesh | None = None,
        guidance: float | None = None,
        block: int | None = None,
        report: Callable[[int], None] = lambda done: None,
    ) -> tuple[PacketSeries, tuple[Any, ...]]:
        """`sample` with observers in the scan; their results come back as host arrays with leading axis flow."""
        labels = np.asarray(labels, np.int32)
        if labels.ndim != 1 or not labels.size or labels.min() < 0 or labels.max() >= self.no_class:
            raise ConfigError(f"labels must be a non-empty list of integers from 0 to {self.no_class - 1}")
        guidance = self.config.diffusion.guidance if guidance is None else float(guidance)
        dataclasses.replace(
            self.config, diffusion=dataclasses.replace(self.config.diffusion, guidance=guidance)
        ).check()
        mesh = parallel.make_mesh() if mesh is None else mesh
        block = (CPU_BLOCK if jax.default_backend() == "cpu" else ACCELERATOR_BLOCK) if block is None else block
        chunk = block * mesh.shape["data"]
        with jax.set_mesh(mesh):
            params, scale = parallel.put_replicated((self.params, self.scale), mesh)
            prepared = jax.jit(self._prepare, out_shardings=parallel.replicated(mesh))(params)
            program = self.sampling_program(mesh, guidance, observers)
            parts = []
            for start in range(0, labels.size, chunk):
                index = np.arange(start, start + chunk, dtype=np.int32)
                padded = labels[np.minimum(index, labels.size - 1)]
                arguments = parallel.put_over_data((index, padded), mesh)
                result = program(params, scale, prepared, key, *arguments)
                # To the host one chunk at a time: this is what bounds the memory.
                parts.append(jax.tree.map(parallel.to_host, result))
                report(min(start + chunk, labels.size))
        signed, observed = jax.tree.map(lambda *leaves: np.concatenate(leaves)[: labels.size], *parts)
        return self._to_series(signed, labels), observed

    def sampling_program(self, mesh: Mesh, guidance: float, observers: tuple[sampler.Observer, ...] = ()) -> Any:
        """The jitted (params, scale, prepared, key, index [chunk], label [chunk]) -> (signed sizes, results)."""
        return _sampling_program(self, mesh, guidance, observers)

    def _prepare(self, params: Any) -> dict[str, Any]:
        """What depends on the parameters alone, once per sampling run: kernels and the table of time embeddings."""
        return {
            "operators": self.apply(params, self.card.length, method="operators"),
            "time": self.apply(params, jnp.arange(self.schedule.steps), method="embed_time"),
        }

    def _sample_chunk(
        self,
        guidance: float,
        observers: tuple[sampler.Observer, ...],
        params: Any,
        scale: scaling.Scaling,
        prepared: dict[str, Any],
        key: jax.Array,
        index: jax.Array,
        label: jax.Array,
    ) -> tuple[jax.Array, tuple[Any, ...]]:
        classes = self.apply(params, label, method="embed_class")
        if guidance != 1:
            none = self.apply(params, jnp.full_like(label, self.no_class), method="embed_class")

        def predict(x: jax.Array, time: jax.Array) -> tuple[jax.Array, jax.Array | None]:
            conditional = self.apply(params, x, time + classes, prepared["operators"])
            if guidance == 1:
                return conditional, None
            return conditional, self.apply(params, x, time + none, prepared["operators"])

        x, observed = ddpm.sample(
            predict,
            self.schedule,
            sampler.sample_keys(key, index),
            label,
            self.card.length,
            prediction=self.config.diffusion.prediction,
            guidance=guidance,
            clip=scale.bound if self.config.diffusion.clip_x0 else None,
            per_step=prepared["time"],
            observers=observers,
        )
        return scale.invert(x), observed

    def _to_series(self, signed: np.ndarray, labels: np.ndarray) -> PacketSeries:
        if not self.card.zeros_inside:
            signed = close_gaps(signed)
        return from_signed_size(
            signed,
            labels,
            class_names=self.card.class_names,
            name=f"{self.card.name}-ddpms4",
            size_layer=self.card.size_layer,
        )


@functools.lru_cache(maxsize=16)
def _sampling_program(
    generator: Generator, mesh: Mesh, guidance: float, observers: tuple[sampler.Observer, ...]
) -> Any:
    """One jitted function per (model, mesh, guidance, observers), so that repeated sampling compiles once."""
    split = parallel.over_data(mesh)
    return jax.jit(functools.partial(generator._sample_chunk, guidance, observers), out_shardings=(split, split))


def close_gaps(signed_size: np.ndarray) -> np.ndarray:
    """Moves packets over zeros that stand before them, so that zeros are padding only; [flow, T] int16, order kept.

    For sets whose real flows never have a zero inside: a zero there is padding drawn in the wrong place.
    """
    order = np.argsort(signed_size == 0, axis=1, kind="stable")
    return np.take_along_axis(signed_size, order, axis=1)


def load_run(folder: str | Path) -> Generator:
    """Loads the generator of a run folder: newest checkpoint, scale and class names.

    Raises:
        DataError: the folder is not a run folder, or holds no finished checkpoint.
    """
    folder = Path(folder)
    try:
        stored = json.loads((folder / "config.json").read_text())
        config = from_dict(stored["generator"])
        card = DataCard(**{name: _tupled(stored["card"][name]) for name in DataCard.__dataclass_fields__})
        n_train = sum(card.class_counts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(folder, f"not a run folder ({error})", expected="config.json of a training run") from error
    generator = Generator(config, card, scaling.load(folder / "scaling.npz"))
    transform, _ = make_optimizer(config.train, total_steps(config.train, n_train), is_state_space)
    like = jax.eval_shape(lambda: init_state(generator.init(jax.random.key(0)), transform, config.train))
    keep = parallel.replicated(parallel.make_mesh())
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = checkpoints.restore(like, keep)
    generator.params = state.averaged
    return generator


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
