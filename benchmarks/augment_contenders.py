"""What `augment.py` measures: random flows, and programs of every operation, composition and rival on them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np

from jaxtraffic import augment

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.reference import augmentations as loops  # noqa: E402

CLASSES = 20
MEMBERS = ("gaussian_noise", "translation", "wrap")
"""What the compositions are made of: one operation that draws much, one that draws little, one that moves packets."""
WEIGHTS = (0.5, 0.25, 0.25)
Call = Callable[[], Any]
Run = Callable[..., tuple[Any, Any]]


class Batch:
    """Random flows, normalised and raw, on the host and on the device, with magnitudes and class statistics."""

    def __init__(self, flows: int, packets: int):
        rng = np.random.default_rng(0)
        shape = flows, packets
        self.flows, self.packets = shape
        self.mask = np.arange(packets) < rng.integers(1, packets + 1, (flows, 1))
        self.alpha = rng.random(flows, dtype=np.float32)
        direction = np.where(rng.random(shape, np.float32) < 0.5, np.float32(1), np.float32(-1))
        self._scaled = np.stack([rng.random(shape, np.float32), direction, rng.random(shape, np.float32)], axis=-1)
        self._scaled *= self.mask[..., None]
        label = rng.integers(0, CLASSES, flows)
        std = rng.uniform(0.05, 0.3, (CLASSES, packets, 3)).astype(np.float32)
        flat_std = rng.uniform(0.05, 0.3, (CLASSES, 3)).astype(np.float32)
        self.stats = augment.FlowStatistics(std[label], flat_std[label])
        self._on_device: dict[str, Any] = {}

    def x(self, raw: bool) -> np.ndarray:
        """[flow, packet, 3]: sizes and IATs in [0, 1], or raw bytes and seconds."""
        if not raw:
            return self._scaled
        return np.float32([1460, 1, 0.05]) * self._scaled + np.float32([40, 0, 0]) * self.mask[..., None]

    def device(self, name: str) -> Any:
        """scaled, raw, mask, alpha or stats, put there when it is first asked for."""
        if name not in self._on_device:
            value = self.x(name == "raw") if name in ("scaled", "raw") else getattr(self, name)
            self._on_device[name] = jax.device_put(value)
        return self._on_device[name]

    def arguments(self, name: str) -> tuple[Any, ...]:
        """(x, mask, alpha, stats) of one operation on the device; stats None where it takes none."""
        x = self.device("raw" if _is_raw(name) else "scaled")
        return x, self.device("mask"), self.device("alpha"), self.device("stats") if _takes_stats(name) else None

    @property
    def bytes(self) -> int:
        """What one pass reads and writes: float32 features and the mask."""
        return 2 * self.flows * self.packets * (3 * 4 + 1)


def _member(name: str) -> Any:
    return augment.AUGMENTATIONS[name].op


def _is_raw(name: str) -> bool:
    return name in augment.AUGMENTATIONS and augment.AUGMENTATIONS[name].needs_seconds


def _takes_stats(name: str) -> bool:
    return bool(subject(name).needs_stats)


COMPOSITIONS: dict[str, Callable[..., Any]] = {
    "sequential": augment.sequential,
    "one_of": lambda *ops: augment.one_of(*ops, weights=WEIGHTS),
    "ensemble": augment.ensemble,
    "random_stack": augment.random_stack,
    "masked_stack": augment.masked_stack,
    "maybe": lambda *ops: augment.maybe(ops[1], 0.5),
}


def subject(name: str) -> Any:
    """The operation of this name, or the composition of `MEMBERS`."""
    return COMPOSITIONS[name](*map(_member, MEMBERS)) if name in COMPOSITIONS else _member(name)


def looped(name: str) -> Run:
    """The same for one flow in plain NumPy: f(rng, x, mask, alpha, stats) -> (x, mask)."""
    if name not in COMPOSITIONS:
        sample, apply = loops.SAMPLE[name], loops.APPLY[name]
        return lambda rng, x, mask, alpha, stats: apply(x, mask, sample(rng, mask, alpha, stats))
    members = [looped(member) for member in MEMBERS]
    choose: dict[str, Callable[[np.random.Generator], Any]] = {
        "sequential": lambda rng: range(len(members)),
        "one_of": lambda rng: [rng.choice(len(members), p=WEIGHTS)],
        "ensemble": lambda rng: [rng.integers(len(members))],
        "random_stack": lambda rng: rng.permutation(len(members)),
        "masked_stack": lambda rng: np.flatnonzero(rng.random(len(members)) < 0.5),
        "maybe": lambda rng: [1] if rng.random() < 0.5 else [],
    }

    def run(rng: np.random.Generator, x: Any, mask: Any, alpha: float, stats: Any) -> tuple[Any, Any]:
        for i in choose[name](rng):
            x, mask = members[i](rng, x, mask, alpha, stats)
        return x, mask

    return run


def common_calls(batch: Batch) -> dict[str, Call]:
    """What every race of this batch also runs: the splitting of the key, and a copy of x and mask."""
    x, mask, key = batch.device("scaled"), batch.device("mask"), jax.random.key(0)
    copy = jax.jit(lambda x, mask: (x + 1, ~mask)).lower(x, mask).compile()
    split = jax.jit(lambda key: jax.random.split(key, batch.flows)).lower(key).compile()
    return {"split": lambda: split(key), "copy": lambda: copy(x, mask)}


def programs(name: str, batch: Batch) -> tuple[dict[str, measure.Program], dict[str, Call]]:
    """Compiled programs of one operation or composition, and calls of them."""
    op, key = subject(name), jax.random.key(1)
    x, mask, alpha, stats = batch.arguments(name)
    params: Any = None

    def keys(key: jax.Array) -> jax.Array:
        return jax.random.split(key, batch.flows)

    def each(f: Any) -> Any:
        """f of one flow on a batch; stats=None is no leaf, so vmap passes it on."""
        return jax.vmap(lambda *args: f(*args[:-1], stats=args[-1]) if args[-1] is not None else f(*args[:-1]))

    jitted = {"batched": (jax.jit(_on_batch(op)), (key, x, mask, alpha, stats))}
    if op.batch:
        draw, apply = jax.jit(lambda key, mask: op.sample(key, mask)), jax.jit(op.apply)
        jitted["draw"] = draw, (key, mask)
    else:
        jitted["vmap"] = jax.jit(lambda key, *flows: each(op)(keys(key), *flows)), (key, x, mask, alpha, stats)
        if name in augment.AUGMENTATIONS:
            draw, apply = jax.jit(lambda key, *flows: each(op.sample)(keys(key), *flows)), jax.jit(jax.vmap(op.apply))
            jitted["draw"] = draw, (key, mask, alpha, stats)
    made = {title: measure.compile_program(f, *args) for title, (f, args) in jitted.items()}
    if "draw" in made:
        params = made["draw"].call(*jitted["draw"][1])
        jitted["apply"] = apply, (x, mask, params)
        made["apply"] = measure.compile_program(*(jitted["apply"][0], *jitted["apply"][1]))
    return made, {title: (lambda title=title: made[title].call(*jitted[title][1])) for title in made}


def _on_batch(op: Any) -> Run:
    run = augment.batched(op)
    return lambda key, x, mask, alpha, stats: run(key, x, mask, alpha, stats=stats)


def numpy_call(name: str, batch: Batch, count: int) -> Call:
    """The loop over the first `count` flows of the batch."""
    rng, one = np.random.default_rng(2), looped(name)
    x, mask, alpha = batch.x(_is_raw(name))[:count], batch.mask[:count], batch.alpha[:count]
    if subject(name).batch:
        return lambda: one(rng, x, mask, alpha, None)
    # Indexing is not part of the figure, which favours the loop.
    stats = [augment.FlowStatistics(*pair) for pair in zip(batch.stats.std, batch.stats.flat_std)][:count]
    flows = list(zip(x, mask, alpha.tolist(), stats, strict=True))
    return lambda: [one(rng, *flow) for flow in flows]


def torch_calls(name: str, batch: Batch, threads: int | None) -> dict[str, Call]:
    """The PyTorch version on `threads` threads, by default on all cores and on one; empty if there is none."""
    import torch
    import torch_augment

    if name not in torch_augment.SAMPLE:
        return {}
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    arrays = batch.x(_is_raw(name)), batch.mask, batch.alpha, *batch.stats
    x, mask, alpha, *stats = (torch.from_numpy(array).to(device) for array in arrays)
    run, stats = torch_augment.program(name), augment.FlowStatistics(*stats)

    class Pending:
        """Lets `race` queue calls on an accelerator, and wait for the last, as it does with JAX."""

        def block_until_ready(self) -> None:
            torch_augment.settle(device)

    def call(threads: int) -> Pending:
        if device == "cpu":
            torch.set_num_threads(threads)
        run(x, mask, alpha, stats)
        return Pending()

    if device != "cpu":
        return {"torch": lambda: call(1)}
    choices = {1, os.cpu_count() or 1} if threads is None else {threads}
    return {f"torch, {n} threads": (lambda n=n: call(n)) for n in sorted(choices, reverse=True)}


def strategies() -> dict[str, dict[str, Run]]:
    """Ways of running a composition on a batch: f(key, x, mask, alpha, stats) -> (x, mask), by composition and way."""
    ops = [_member(name) for name in MEMBERS]
    alone = {f"{name} alone": _on_batch(op) for name, op in zip(MEMBERS, ops, strict=True)}

    def shuffled(key: jax.Array, x: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> tuple[Any, Any]:
        """A random third of the flows for each operation: gathered, run, scattered back."""
        order = jax.random.permutation(jax.random.fold_in(key, len(ops)), x.shape[0])
        parts = []
        for i, op in enumerate(ops):
            mine = order[i * len(order) // len(ops) : (i + 1) * len(order) // len(ops)]
            flows = jax.tree.map(lambda leaf, mine=mine: leaf[mine], (x, mask, alpha, stats))
            parts.append(_on_batch(op)(jax.random.fold_in(key, i), *flows))
        done = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
        back = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)), unique_indices=True)
        return jax.tree.map(lambda leaf: leaf[back], done)

    def half(key: jax.Array, x: jax.Array, mask: jax.Array, alpha: jax.Array, stats: Any) -> tuple[Any, Any]:
        """Every second flow is taken out, run and put back: the least that a subset of flows can cost."""
        part = jax.tree.map(lambda leaf: leaf[::2], (x, mask, alpha, stats))
        new_x, new_mask = _on_batch(ops[1])(key, *part)
        return x.at[::2].set(new_x, unique_indices=True), mask.at[::2].set(new_mask, unique_indices=True)

    def blocks(compose: Callable[..., Any], *counts: int) -> dict[str, Run]:
        titles = {0: "select for each flow", 1: "one switch a batch"}
        return {titles.get(n, f"{n} blocks"): _on_batch(compose(*ops, blocks=n)) for n in counts}

    return {
        "ensemble": {"default": _on_batch(augment.ensemble(*ops))}
        | blocks(augment.ensemble, 0, 1, 3, 12, 48)
        | {"shuffled thirds": shuffled}
        | alone,
        "random_stack": {"default": _on_batch(augment.random_stack(*ops))}
        | blocks(augment.random_stack, 0, 1, 2, 6, 24)
        | {"fixed order (sequential)": _on_batch(augment.sequential(*ops))},
        "masked_stack": {"default": _on_batch(augment.masked_stack(*ops))}
        | blocks(augment.masked_stack, 0, 1, 2, 32)
        | {"all of them (sequential)": _on_batch(augment.sequential(*ops))},
        "maybe": {
            "default": _on_batch(augment.maybe(ops[1], 0.5)),
            "select for each flow": _on_batch(augment.maybe(ops[1], 0.5, blocks=0)),
            "every second flow": half,
            f"{MEMBERS[1]} alone": _on_batch(ops[1]),
        },
    }
