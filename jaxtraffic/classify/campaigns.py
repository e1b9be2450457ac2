"""Campaigns: many configurations on many folds with many seeds, as few compiled programs that train runs side by side.

Runs of one shape share a program (`program.Programs`). It has a number of slots; each holds a run, and when a run is
over its slot takes the next one. Where none is left and half of the slots are idle, the survivors move to a program of
half the width.
"""

from __future__ import annotations

import dataclasses
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxtraffic import parallel
from jaxtraffic.classify import models
from jaxtraffic.classify.config import ClassifierConfig, RunResult, operations
from jaxtraffic.classify.folds import Folds, Side, check_flows, has_iat, make_folds
from jaxtraffic.classify.ledger import Ledger, Standing, shape_of
from jaxtraffic.classify.program import Programs, Shape, Slot, make_programs, pre_augmented
from jaxtraffic.classify.scores import scores_of_confusion
from jaxtraffic.errors import ConfigError, Interrupted, TrainingError
from jaxtraffic.series import PacketSeries
from jaxtraffic.train.loop import signals

CHECKPOINT_SECONDS = 60.0
MEMORY_SHARE = 0.8
"""Share of an accelerator's memory that slots may take."""

Run = tuple[int, int]
"""(fold, seed)."""


def campaign(
    flows: PacketSeries,
    configs: Sequence[ClassifierConfig],
    folds: Iterable[int],
    seeds: Iterable[int],
    *,
    n_folds: int = 10,
    length: int = 20,
    max_train: int | None = None,
    slots: int | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    mesh: Mesh | None = None,
    keep_models: Sequence[str] = (),
    chunk_epochs: int = 5,
    report: Callable[..., None] = lambda done, **figures: None,
) -> list[RunResult]:
    """Trains and judges every configuration on every fold with every seed.

    Args:
        flows: labelled flows; folds keep groups together (`datasets.split`).
        configs: of different names.
        folds: numbers of folds; n_folds and above deal the flows anew (`folds.split_of`).
        seeds: of parameters, order and augmentation; runs of equal fold and seed start alike in all configurations.
        n_folds: parts of a split: one is the test set, one the validation set.
        length: packets of a flow that the networks see (PAM'24: 20).
        max_train: keep at most so many training flows of each fold, drawn in proportion to the classes; validation and
            test flows stay whole.
        slots: runs that train side by side; None: one a device on CPUs, where more only costs cache, and on
            accelerators as many as memory holds.
        folder: where finished runs and checkpoints go; None keeps nothing.
        resume: go on with what the folder holds.
        mesh: devices; None: all.
        keep_models: names of configurations whose networks are kept in folder/models.
        chunk_epochs: epochs between two looks of the host.
        report: called as report(finished runs, epoch=..., loss=..., validation=...) after every chunk.

    Returns:
        A result for each run, by configuration, fold and seed in the order given.

    Raises:
        ConfigError: before anything is trained: options that do not fit, a class with fewer flows than folds, flows
            without inter-arrival times for an operation that needs them.
        TrainingError: a loss that is not finite.
        Interrupted: SIGTERM or SIGINT; a checkpoint holds what was done.
    """
    configs = [config.check() for config in configs]
    folds, seeds = [int(fold) for fold in folds], [int(seed) for seed in seeds]
    for option, value in (("slots", slots), ("chunk_epochs", chunk_epochs)):
        if value is not None and value < 1:
            raise ConfigError(f"{option} must be at least 1, got {value}")
    _check(flows, configs, folds, seeds, keep_models, folder, n_folds, length)
    mesh = parallel.make_mesh() if mesh is None else mesh
    made = make_folds(flows, folds, n_folds=n_folds, length=length, max_train=max_train)
    made = parallel.put_replicated(made, mesh)
    described = _describe(flows, configs, folds, seeds, n_folds, length) | {"max_train": max_train}
    ledger = Ledger(None if folder is None else Path(folder), described, resume=resume)
    work = _Work(
        flows, configs, folds, made, mesh, ledger, slots, n_folds, max_train, chunk_epochs, report, tuple(keep_models)
    )
    runs = [(fold, seed) for fold in folds for seed in seeds]
    try:
        with signals() as interrupted:
            for config in configs:
                work.train(config, runs, interrupted)
    finally:
        ledger.close()
    order = {(config.name, *run): i for i, (config, run) in enumerate((c, r) for c in configs for r in runs)}
    return sorted(ledger.results, key=lambda result: order[result.config, result.fold, result.seed])


def epoch_steps(flows: int, n_folds: int, fresh: int, *, max_train: int | None = None, copies: int = 0) -> int:
    """Steps of an epoch: one pass over the average training set, the same number in every fold."""
    train = flows * (n_folds - 2) / n_folds
    return max(1, round(min(train, max_train or train) * (copies + 1) / fresh))


@dataclasses.dataclass
class _Work:
    """A campaign while it runs."""

    flows: PacketSeries
    configs: list[ClassifierConfig]
    folds: list[int]
    made: Folds
    mesh: Mesh
    ledger: Ledger
    slots: int | None
    n_folds: int
    max_train: int | None
    chunk_epochs: int
    report: Callable[..., None]
    keep_models: tuple[str, ...]
    programs: dict[Shape, tuple[list[str], Programs]] = dataclasses.field(default_factory=dict)
    widths: dict[Shape, int] = dataclasses.field(default_factory=dict)

    def train(self, config: ClassifierConfig, runs: list[Run], interrupted: Any) -> None:
        """All runs of one configuration that are not finished."""
        finished = {(one.fold, one.seed) for one in self.ledger.results if one.config == config.name}
        pending = [run for run in runs if run not in finished]
        if not pending:
            return
        names, programs = self._programs(config)
        which = jnp.int32(names.index(config.name))
        sets = self._sets(config, runs)
        standing, devices = self.ledger.standing, self.mesh.shape["data"]
        if standing is not None and standing.config == config.name and any(standing.runs):
            holding, spent = list(standing.runs), list(standing.seconds)
            if len(holding) % devices:
                raise ConfigError(
                    f"the checkpoint holds {len(holding)} slots, which {devices} devices do not divide; resume with as "
                    "many devices as before"
                )
            slots = self.ledger.restore(shape_of(programs.start, len(holding)), parallel.over_data(self.mesh))
            pending = [run for run in pending if run not in holding]
        else:
            width = self._width(config, programs, sets, len(runs))
            width = -(-min(width, len(pending)) // devices) * devices
            holding, spent = [None] * width, [0.0] * width
            holding, slots = self._fill(holding, None, pending, programs, config, runs)
        saved = time.monotonic()
        while any(holding):
            clock = time.perf_counter()
            slots = programs.train(slots, which, sets, self.made)
            done, epochs, losses, best = (
                np.asarray(leaf) for leaf in (slots.done, slots.epoch, slots.loss, slots.best)
            )
            seconds = time.perf_counter() - clock
            live = np.array([run is not None for run in holding])
            _require_finite(config, holding, losses)
            spent = [old + seconds / live.sum() for old in spent]
            over = live & done
            if over.any():
                self._judge(config, programs, slots, holding, over, spent)
                holding = [None if ended else run for run, ended in zip(holding, over, strict=True)]
                spent = [0.0 if ended else old for old, ended in zip(spent, over, strict=True)]
                if pending:
                    holding, slots = self._fill(holding, slots, pending, programs, config, runs)
                elif any(holding):
                    holding, spent, slots = self._compact(holding, spent, slots)
            figures = {
                "epoch": float(epochs[live].mean()),
                "loss": float(losses[live].mean()),
                "validation": float(best[live].mean()),
            }
            self.ledger.line(config=config.name, finished=len(self.ledger.results), seconds=seconds, **figures)
            self.report(len(self.ledger.results), **figures)
            stop = interrupted.is_set()
            if over.any() or stop or time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.ledger.save(Standing(config.name, holding, len(self.ledger.results), spent), slots)
                saved = time.monotonic()
            if stop:
                raise Interrupted(f"stopped after {len(self.ledger.results)} finished runs; --resume goes on")

    def _programs(self, config: ClassifierConfig) -> tuple[list[str], Programs]:
        shape = Shape.of(config)
        if shape not in self.programs:
            alike = [one for one in self.configs if Shape.of(one) == shape]
            made = make_programs(
                shape,
                alike,
                classes=len(self.flows.class_names),
                length=self.made.train.x.shape[2],
                epoch_steps=self.steps(config),
                chunk_epochs=self.chunk_epochs,
                mesh=self.mesh,
            )
            self.programs[shape] = [one.name for one in alike], made
        return self.programs[shape]

    def steps(self, config: ClassifierConfig) -> int:
        """Steps of an epoch of a configuration; copies made before training make epochs longer."""
        return epoch_steps(
            len(self.flows), self.n_folds, config.fresh, max_train=self.max_train, copies=config.made_before
        )

    def _sets(self, config: ClassifierConfig, runs: list[Run]) -> Side:
        """The training flows: those of the folds, or with pre_augment a set for each run."""
        if config.policy != "pre_augment":
            return self.made.train
        places = [(self.folds.index(fold), fold, seed) for fold, seed in runs]
        sets = [
            pre_augmented(config, self.made.train, self.made, part=part, fold=fold, seed=seed)
            for part, fold, seed in places
        ]
        rows = max(len(label) for *_, label in sets)
        padded = [[jnp.pad(a, [(0, rows - len(a))] + [(0, 0)] * (a.ndim - 1)) for a in one] for one in sets]
        counts = np.asarray([len(label) for *_, label in sets], np.int32)
        side = Side(*(jnp.stack(leaves) for leaves in zip(*padded, strict=True)), counts)
        return parallel.put_replicated(side, self.mesh)

    def _fill(
        self,
        holding: list[Run | None],
        slots: Slot | None,
        pending: list[Run],
        programs: Programs,
        config: ClassifierConfig,
        runs: list[Run],
    ) -> tuple[list[Run | None], Slot]:
        """Puts pending runs (taken from the list) into idle slots; slots without a run are done."""
        fresh = np.zeros(len(holding), bool)
        holding = list(holding)
        for place, run in enumerate(holding):
            if run is None and pending:
                holding[place], fresh[place] = pending.pop(0), True
        chosen = [run or runs[0] for run in holding]
        part = [self.folds.index(fold) for fold, _ in chosen]
        source = [runs.index(run) for run in chosen] if config.policy == "pre_augment" else part
        numbers = [seed for _, seed in chosen], [fold for fold, _ in chosen], part, source
        new = programs.start(*(np.asarray(column, np.int32) for column in numbers))
        idle = np.array([run is None for run in holding])
        return holding, _merge(new if slots is None else slots, new, fresh, idle)

    def _compact(
        self, holding: list[Run | None], spent: list[float], slots: Slot
    ) -> tuple[list[Run | None], list[float], Slot]:
        """Moves the survivors to fewer slots once half are idle; each width is compiled once a campaign."""
        devices, live = self.mesh.shape["data"], sum(run is not None for run in holding)
        width = len(holding)
        while width % (2 * devices) == 0 and width // 2 >= live:
            width //= 2
        if width == len(holding):
            return holding, spent, slots
        rows = sorted(range(len(holding)), key=lambda place: holding[place] is None)[:width]
        moved = jax.device_put(jax.tree.map(lambda leaf: leaf[np.array(rows)], slots), parallel.over_data(self.mesh))
        return [holding[row] for row in rows], [spent[row] for row in rows], moved

    def _judge(
        self,
        config: ClassifierConfig,
        programs: Programs,
        slots: Slot,
        holding: list[Run | None],
        over: np.ndarray,
        spent: list[float],
    ) -> None:
        """Notes the results of the runs that are over."""
        confusion = np.asarray(programs.judge(slots, self.made))
        epochs, best, best_epoch = (np.asarray(leaf) for leaf in (slots.epoch, slots.best, slots.best_epoch))
        for place in np.flatnonzero(over):
            fold, seed = holding[place]
            part = self.folds.index(fold)
            counts = {
                f"n_{name}": int(getattr(self.made, name).count[part]) for name in ("train", "validation", "test")
            }
            if config.name in self.keep_models:
                high = float(self.made.scale_high[part])
                params, state = jax.tree.map(lambda leaf, place=place: np.asarray(leaf[place]), slots.kept)
                models.save_model(
                    self.ledger.folder / "models" / models.file_name(config.name, fold, seed),
                    models.Fitted(config.model, params, state, high, self.flows.class_names),
                )
            self.ledger.add(
                RunResult(
                    config=config.name,
                    fold=fold,
                    seed=seed,
                    epochs=int(epochs[place]),
                    best_epoch=int(best_epoch[place]),
                    validation_accuracy=float(best[place]),
                    confusion=confusion[place].tolist(),
                    **scores_of_confusion(confusion[place]),
                    **counts,
                    seconds=spent[place],
                )
            )

    def _width(self, config: ClassifierConfig, programs: Programs, sets: Side, runs: int) -> int:
        """Slots of a configuration's program."""
        devices = self.mesh.shape["data"]
        if self.slots is not None:
            return self.slots
        if self.mesh.devices.flat[0].platform == "cpu":
            return devices
        shape = Shape.of(config)
        if shape not in self.widths:
            numbers = [jax.ShapeDtypeStruct((devices,), jnp.int32)] * 4
            slots = jax.eval_shape(programs.start, *numbers)
            needs = programs.train.lower(slots, jnp.int32(0), sets, self.made).compile().memory_analysis()
            limit = self.mesh.devices.flat[0].memory_stats()["bytes_limit"] * MEMORY_SHARE
            free = limit - sum(leaf.nbytes for leaf in jax.tree.leaves((sets, self.made)))
            one = needs.temp_size_in_bytes + 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(slots))
            self.widths[shape] = max(1, int(free // one)) * devices
        return min(self.widths[shape], runs)


@jax.jit
def _merge(slots: Slot, new: Slot, fresh: jax.Array, idle: jax.Array) -> Slot:
    def take(now: jax.Array, then: jax.Array) -> jax.Array:
        return jnp.where(fresh.reshape(-1, *(1,) * (now.ndim - 1)), now, then)

    merged = jax.tree.map(take, new, slots)
    return merged._replace(done=merged.done | idle)


def _require_finite(config: ClassifierConfig, holding: list[Run | None], losses: np.ndarray) -> None:
    for run, loss in zip(holding, losses, strict=True):
        if run is not None and not np.isfinite(loss):
            raise TrainingError(
                f"{config.name}, fold {run[0]}, seed {run[1]}: the loss is {loss}; try a smaller learning rate"
            )


def _check(
    flows: PacketSeries,
    configs: list[ClassifierConfig],
    folds: list[int],
    seeds: list[int],
    keep_models: Sequence[str],
    folder: str | Path | None,
    n_folds: int,
    length: int,
) -> None:
    names = [config.name for config in configs]
    for what, values in (("configurations", names), ("folds", folds), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise ConfigError(f"a campaign needs {what}, each once; got {values}")
    if min(folds) < 0 or min(seeds) < 0:
        raise ConfigError("folds and seeds are numbers from 0")
    if set(keep_models) - set(names):
        raise ConfigError(f"keep_models: no configuration {sorted(set(keep_models) - set(names))[0]!r}")
    if keep_models and folder is None:
        raise ConfigError("keep_models needs a folder to keep them in")
    check_flows(flows, n_folds, length)
    if not has_iat(flows):
        for config in configs:
            if config.needs_iat:
                op = ", ".join(op.name for op in operations(config.augmentation))
                raise ConfigError(
                    f"{config.name}: {op} needs inter-arrival times and {flows.name} has none; leave it out"
                )


def _describe(
    flows: PacketSeries,
    configs: list[ClassifierConfig],
    folds: list[int],
    seeds: list[int],
    n_folds: int,
    length: int,
) -> dict[str, Any]:
    x, mask = flows.arrays()
    arrays = [x, mask, np.asarray(flows.label)] + ([] if flows.group is None else [np.asarray(flows.group)])
    prints = [zlib.crc32(np.ascontiguousarray(array).tobytes()) for array in arrays]
    return {
        "configs": [repr(config) for config in configs],
        "folds": folds,
        "seeds": seeds,
        "n_folds": n_folds,
        "length": length,
        "flows": [flows.name, len(flows), list(flows.class_names), prints],
    }
