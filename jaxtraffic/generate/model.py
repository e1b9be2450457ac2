"""A generator: what is needed to sample, and to train, a class-conditional model of packet series."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxtraffic import parallel, prng, scaling
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import processes, sampler
from jaxtraffic.generate.card import DataCard
from jaxtraffic.generate.config import GeneratorConfig
from jaxtraffic.generate.prefixes import draw_prefixes, on_prefix
from jaxtraffic.generate.schedules import Schedule
from jaxtraffic.information import observers as measures
from jaxtraffic.nn import is_state_space, make_denoiser
from jaxtraffic.series import PacketSeries, from_signed_size
from jaxtraffic.train import TrainState, train

CPU_BLOCK, ACCELERATOR_BLOCK = 64, 4096
"""Flows that one device samples at a time. Fixed shapes per device keep samples equal to the bit on 1 and 8 devices."""

ENDS = sampler.Observer(init=lambda x, label: (x, x), update=lambda state, info: (state[0], info["x_next"]))
"""Hands out the noise that each sample began as, and the sample before the scale is inverted."""


class Generator:
    """A process (DDPM, VP, EDM or rectified flow) on the S4 backbone with its parameters, scale and class names.

    `params` are those that sampling uses: the moving average where the run keeps one.
    """

    def __init__(self, config: GeneratorConfig, card: DataCard, scale: scaling.Scaling, params: Any = None):
        """Builds the functions of the model; `params` may come later from `fit`."""
        self.config, self.card, self.scale, self.params = config.check(), card, scale, params
        self.process = processes.make_process(config.diffusion)
        self.no_class = len(card.class_names)
        self.init, self.apply = make_denoiser(config.denoiser, self.no_class, card.length)
        self._plans: dict[Any, sampler.Plan] = {}
        self._measures: dict[Any, sampler.Observer] = {}
        self.plan()  # made here, of values: a first call inside a trace would keep tracers

    @property
    def schedule(self) -> Schedule:
        """The noise schedule of a DDPM; other processes have none."""
        return self.process.schedule

    @property
    def title(self) -> str:
        """What the model is called in reports, such as DDPMS4."""
        return processes.TITLES[self.config.diffusion.process]

    def with_sampling(self, **changes: Any) -> Generator:
        """The same trained model with other options of sampling.

        Args:
            changes: fields of `DiffusionConfig` that training does not depend on: solver, sampling_steps, eta, churn
                (and churn_min, churn_max, churn_noise), sigma_min, sigma_max, rho, guidance, clip_x0.

        Raises:
            ConfigError: a field that training depends on, or values that do not fit together.
        """
        for name in changes:
            if name not in processes.SAMPLING_OPTIONS:
                raise ConfigError(
                    f"{name} is no option of sampling; choose from {', '.join(processes.SAMPLING_OPTIONS)}"
                )
        diffusion = dataclasses.replace(self.config.diffusion, **changes)
        return Generator(dataclasses.replace(self.config, diffusion=diffusion), self.card, self.scale, self.params)

    def plan(self, **changes: Any) -> sampler.Plan:
        """The solver as data, made once: coefficients, times, weights; without parameters, on the host.

        Args:
            changes: solver, steps, eta, churn or clip in place of the configuration's; see `process.Process.plan`.
        """
        options = tuple(sorted(changes.items()))
        if options not in self._plans:
            clip = float(self.scale.bound) if self.config.diffusion.clip_x0 else None
            own = processes.sampling_options(self.config.diffusion) | {"clip": clip}
            self._plans[options] = self.process.plan(**(own | changes))
        return self._plans[options]

    def loss(self, params: Any, batch: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        """Per-flow training loss [flow].

        Args:
            params: of the network.
            batch: "label" [flow] int32 and either "signed_size" [flow, T] int16 or a coupling: "x" and "noise"
                [flow, T] float32, a scaled series and the noise that belongs to it (see `reflow`).
            key: key of the step.
        """
        operators = self.apply(params, self.card.length, method="operators")

        def denoise(x: jax.Array, t: jax.Array, label: jax.Array) -> jax.Array:
            condition = self.apply(params, t, method="embed_time") + self.apply(params, label, method="embed_class")
            return self.apply(params, x, condition, operators)

        if share := self.config.diffusion.prefixes:
            denoise = on_prefix(denoise, draw_prefixes(key, share, batch["label"].size, self.card.length))
        if "x" in batch:
            x0 = batch["x"]
        else:
            # By the true label, whatever class dropout hides from the network.
            x0 = self.scale.apply(prng.stream(key, "scale"), batch["signed_size"], batch["label"])
        return self.process.loss(
            denoise,
            key,
            x0,
            batch["label"],
            class_dropout=self.config.train.class_dropout,
            no_class=self.no_class,
            noise=batch.get("noise"),
        )

    def fit(self, flows: PacketSeries, *, key: jax.Array, mesh: Mesh, folder: Path, **options: Any) -> TrainState:
        """Trains on flows (see `jaxtraffic.train.train` for the options) and keeps the parameters to sample with."""
        arrays = {"signed_size": np.asarray(flows.signed_size), "label": np.asarray(flows.label)}
        return self._train(self.init, arrays, key=key, mesh=mesh, folder=folder, **options)

    def reflow(
        self,
        labels: np.ndarray | Sequence[int],
        *,
        key: jax.Array,
        mesh: Mesh,
        folder: Path,
        guidance: float | None = None,
        **options: Any,
    ) -> TrainState:
        """One round of reflow: trains on with the noise and the sample that the flow itself makes of it as couplings.

        Straightens the paths, so that few steps do, and keeps the marginals up to the error of the solver (Liu et al.,
        "Flow Straight and Fast" (2022), section 2.2). Samples are taken before the scale is inverted.

        Args:
            labels: [coupling] integers, the classes to draw couplings of.
            key: of this round.
            mesh: devices.
            folder: where metrics.jsonl and checkpoints/ of this round go; `rounds.folder_of(run folder, round)` is
                where `load_run` finds them.
            guidance: with which the couplings are drawn; the run's by default.
            options: of `jaxtraffic.train.train`.

        Raises:
            ConfigError: the process is not flow.
        """
        if self.config.diffusion.process != "flow":
            raise ConfigError(f"reflow is for process flow, this model's is {self.config.diffusion.process}")
        _, ((noise, x),) = self.sample_observed(
            prng.stream(key, "couplings"), labels, observers=(ENDS,), mesh=mesh, guidance=guidance
        )
        start = jax.tree.map(parallel.to_host, self.params)
        arrays = {"noise": noise, "x": x, "label": np.asarray(labels, np.int32)}
        return self._train(lambda _: start, arrays, key=key, mesh=mesh, folder=folder, **options)

    def _train(
        self, init: Callable[[jax.Array], Any], arrays: Any, *, key: jax.Array, mesh: Mesh, folder: Path, **options: Any
    ) -> TrainState:
        state = train(
            self.loss,
            init,
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
        return self.card.draw_labels(n, seed=seed)

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
        if any(observer.needs_unconditional for observer in observers):
            scaling.check_one_for_all(self.scale.kind)
        if self._needs_unconditional(guidance, observers) and not self.config.train.class_dropout:
            raise ConfigError(
                "guidance other than 1 and measuring information need the prediction without a label: train with "
                "--class-dropout above 0"
            )
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

    def sample_with_information(
        self,
        key: jax.Array,
        labels: np.ndarray | Sequence[int],
        *,
        form: str = "squared",
        mesh: Mesh | None = None,
        guidance: float | None = None,
        block: int | None = None,
        report: Callable[[int], None] = lambda done: None,
        **options: Any,
    ) -> tuple[PacketSeries, dict[str, np.ndarray]]:
        """`sample` that also returns how much each flow tells of its label, measured inside the sampling scan.

        With guidance it costs nothing beyond the unconditional evaluation that guidance makes anyway; without it, that
        evaluation is added. What the forms mean, and do not, is told in `information.observers`.

        Args:
            key: as in `sample`, whose flows are the same.
            labels: as in `sample`.
            form: "squared" (every process), "product" or "path_wise" (flow).
            mesh: as in `sample`.
            guidance: as in `sample`.
            block: as in `sample`.
            report: as in `sample`.
            options: of the observer, such as packets, curve or probes.

        Returns:
            PacketSeries, and a dict of host arrays with leading axis flow: "mi" [flow] float32 in nats, and what else
            the observer gives ("packet" [flow, T], the share of each packet).

        Raises:
            ConfigError: a form that the process does not have, or a model that was trained without class dropout, or
                with scales by class.
        """
        flows, (measured,) = self.sample_observed(
            key,
            labels,
            observers=(self.measure(form, **options),),
            mesh=mesh,
            guidance=guidance,
            block=block,
            report=report,
        )
        return flows, measured

    def measure(self, form: str, **options: Any) -> sampler.Observer:
        """The observer of a form ("squared", "product", "path_wise") on this generator's plan, made once for each."""
        made = {"squared": measures.squared, "product": measures.product, "path_wise": measures.path_wise}
        if form not in made:
            raise ConfigError(f"unknown form {form!r}; choose from {', '.join(made)}")
        scaling.check_one_for_all(self.scale.kind)
        key = (form, *sorted(options.items()))
        if key not in self._measures:
            self._measures[key] = made[form](self.plan(), **options)
        return self._measures[key]

    def _needs_unconditional(self, guidance: float, observers: tuple[sampler.Observer, ...]) -> bool:
        return guidance != 1 or any(observer.needs_unconditional for observer in observers)

    def _prepare(self, params: Any) -> dict[str, Any]:
        """What depends on the parameters alone, once per sampling run: kernels and the table of time embeddings."""
        told = self.plan().time
        table = self.apply(params, jnp.asarray(told).reshape(-1), method="embed_time")
        return {
            "operators": self.apply(params, self.card.length, method="operators"),
            "time": table.reshape(*told.shape, -1),
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
        both = self._needs_unconditional(guidance, observers)
        if both:
            none = self.apply(params, jnp.full_like(label, self.no_class), method="embed_class")

        def predict(x: jax.Array, time: jax.Array) -> tuple[jax.Array, jax.Array | None]:
            conditional = self.apply(params, x, time + classes, prepared["operators"])
            if not both:
                return conditional, None
            return conditional, self.apply(params, x, time + none, prepared["operators"])

        x, observed = sampler.run(
            self.plan(),
            predict,
            sampler.sample_keys(key, index),
            label,
            self.card.length,
            guidance=guidance,
            per_step=prepared["time"],
            observers=observers,
        )
        return scale.invert(x, label), observed

    def _to_series(self, signed: np.ndarray, labels: np.ndarray) -> PacketSeries:
        if not self.card.zeros_inside:
            signed = close_gaps(signed)
        return from_signed_size(
            signed,
            labels,
            class_names=self.card.class_names,
            name=f"{self.card.name}-{processes.SUFFIXES[self.config.diffusion.process]}",
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
