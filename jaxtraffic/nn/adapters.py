"""Low-rank adapters of any model of ours: LoRA and DoRA as a transformation of plain parameters.

A model stays what it is, `apply(params, ...)`; its adapters are a second, small pytree, and `apply_adapters` gives the
parameters that the model then runs with:

    adapters = init_adapters(key, params, config)
    loss = lambda adapters: model_loss(apply_adapters(params, adapters, config))    # gradients reach the adapters only
    params = merge(params, adapters, config)                                        # plain parameters, once trained

Fresh adapters change nothing, to the bit. Kernels are [in, out] here, so the change of a kernel is A B with
A [in, rank] random and B [rank, out] zero (the papers write B A for the transposed matrix), times alpha / rank.

Sources: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1, equation 3; Liu et al.,
"DoRA: Weight-Decomposed Low-Rank Adaptation" (2024), section 4, equation 5, with one magnitude per output as in their
published code. The norm of equation 5 is differentiated too (their section 4.3 treats it as a constant to save memory,
which models of this size do not need).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError

KINDS = ("lora", "dora")

Adapters = dict[str, dict[str, jax.Array]]
"""By name of the adapted kernel, such as "blocks/0/mix/kernel": a [..., in, rank], b [..., rank, out], and for DoRA
magnitude [..., out], the change of the norm of each output's column. All float32, whatever the kernel is."""

_SMALLEST_SQUARE = 1e-24
"""Squared norm below which a column counts as zero: it has no direction that could be kept apart from its magnitude."""


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Which adapters; the defaults are those of MI-TUNE."""

    kind: str = "dora"
    """lora, or dora (direction by LoRA, and a magnitude for every output)."""
    rank: int = 32
    """Rank of the change; at most the smaller side of the largest kernel, and clipped to that of smaller kernels."""
    alpha: float = 32.0
    """The change is multiplied by alpha / rank."""

    def check(self) -> AdapterConfig:
        """Returns itself, or raises ConfigError for values that cannot work."""
        if self.kind not in KINDS:
            raise ConfigError(f"unknown adapters {self.kind!r}; choose from {', '.join(KINDS)}")
        if self.rank < 1:
            raise ConfigError(f"the rank of adapters must be at least 1, got {self.rank}")
        if not 0 < self.alpha < float("inf"):
            raise ConfigError(f"alpha of adapters must be above 0 and finite, got {self.alpha}")
        return self


def dense_kernels(name: str, leaf: Any) -> bool:
    """What is adapted by default: the kernels of all linear maps (project, mix, up, down, modulation, time, out).

    Not the leaves of S4: they are poles, steps and per-channel weights behind exp, cos and sin, not matrices that
    multiply, so a sum over a low rank means nothing for them, and a small one can make a slow mode unstable. Not the
    tables of classes and positions: each row is seen by one class or packet only, so that a low rank, which shares
    directions between rows, saves little and moves classes that were not meant.
    """
    parts = name.split("/")
    return parts[-1] == "kernel" and "s4" not in parts and leaf.ndim >= 2


def init_adapters(
    key: jax.Array,
    params: Any,
    config: AdapterConfig = AdapterConfig(),
    *,
    select: Callable[[str, Any], bool] = dense_kernels,
) -> Adapters:
    """Fresh adapters, which change nothing.

    Args:
        key: typed key.
        params: parameters of a model, any pytree of arrays. The last two axes of a selected leaf are [in, out]; axes
            before them are a stack of kernels, each with its own adapter.
        config: kind, rank and alpha.
        select: (name such as "blocks/0/mix/kernel", leaf) -> whether to adapt it.

    Returns:
        Adapters; A is normal with variance 1 / in, everything else 0.

    Raises:
        ConfigError: nothing is selected, a selected leaf is no matrix of floats, or the rank is above the smaller side
            of every selected kernel, so that nothing would be of low rank. (Where it is above that of some only, such
            as the maps from and to one number a packet, those get the rank of their smaller side.)
    """
    config.check()
    chosen = {name: leaf for name, leaf in _named(params) if select(name, leaf)}
    if not chosen:
        raise ConfigError("no parameter was selected for adapters; see `select` of init_adapters")
    for name, leaf in chosen.items():
        if leaf.ndim < 2 or not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ConfigError(f"adapters need kernels [in, out] of floats, {name} is {leaf.dtype} {leaf.shape}")
    largest = max(min(leaf.shape[-2:]) for leaf in chosen.values())
    if config.rank > largest:
        raise ConfigError(f"rank {config.rank} of adapters is above {largest}, the largest rank of a selected kernel")
    adapters = {}
    for name, leaf in chosen.items():
        *stack, rows, columns = leaf.shape
        rank = min(config.rank, rows, columns)
        draws = jax.random.normal(prng.stream(key, name), (*stack, rows, rank)) / np.float32(rows**0.5)
        adapters[name] = {"a": draws, "b": jnp.zeros((*stack, rank, columns), jnp.float32)}
        if config.kind == "dora":
            adapters[name]["magnitude"] = jnp.zeros((*stack, columns), jnp.float32)
    return adapters


def apply_adapters(params: Any, adapters: Adapters, config: AdapterConfig) -> Any:
    """The parameters to run the model with; traceable, differentiable in the adapters, vmappable over them.

    Leaves without an adapter are passed on; those of `params` take no gradient through this function. Fresh adapters
    give `params` to the bit in every program (see `_dora` for how). Every kernel keeps its dtype; the sum is made in
    float32.

    Raises:
        ConfigError: adapters of another model or another kind.
    """
    known = {name: leaf.shape for name, leaf in _named(params)}
    for name, adapter in adapters.items():
        _check(name, adapter, known, config)
    effective = _dora if config.kind == "dora" else _lora
    scale = np.float32(config.alpha / config.rank)

    def adapted(path: Any, leaf: jax.Array) -> jax.Array:
        adapter, leaf = adapters.get(_name(path)), jax.lax.stop_gradient(leaf)
        if adapter is None:
            return leaf
        change = scale * jnp.matmul(adapter["a"], adapter["b"], precision=jax.lax.Precision.HIGHEST)
        return effective(leaf.astype(jnp.float32), change, adapter).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(adapted, params)


def _lora(kernel: jax.Array, change: jax.Array, adapter: dict[str, jax.Array]) -> jax.Array:
    return kernel + change


def _dora(kernel: jax.Array, change: jax.Array, adapter: dict[str, jax.Array]) -> jax.Array:
    """m V / |V| by column with V = W + change and m = |W| + magnitude, written so that no change gives W to the bit.

    Two norms of the same column need not agree in the last bit, since compilers order sums as they like. So m / |V| is
    built from quantities that are exactly 0 where nothing changed: |V|^2 - |W|^2 = sum change (2 W + change), and
    m / |V| = (1 + magnitude / |W|) / sqrt(1 + that / |W|^2). A zero column has no direction: there it is LoRA.
    """
    square = (kernel**2).sum(-2)
    whole = square > _SMALLEST_SQUARE
    safe = jnp.where(whole, square, 1)
    growth = 1 + (change * (2 * kernel + change)).sum(-2) / safe
    # A column that the change has all but cancelled has no direction either; the bound keeps its gradient finite.
    growth = jnp.where(whole, jnp.maximum(growth, 1e-6), 1)
    scale = jnp.where(whole, (1 + adapter["magnitude"] / jnp.sqrt(safe)) / jnp.sqrt(growth), 1)
    return scale[..., None, :] * (kernel + change)


def merge(params: Any, adapters: Adapters, config: AdapterConfig) -> Any:
    """Plain parameters with the adapters inside, computed on the host in float64 by the papers' own formulas.

    Equal to `apply_adapters` up to rounding of float32, and to `params` to the bit where the adapters are fresh.

    Returns:
        NumPy arrays in the structure and dtypes of `params`.

    Raises:
        ConfigError: adapters of another model or another kind.
    """
    known = {name: leaf.shape for name, leaf in _named(params)}
    for name, adapter in adapters.items():
        _check(name, adapter, known, config)

    def merged(path: Any, leaf: Any) -> np.ndarray:
        leaf, adapter = np.asarray(leaf), adapters.get(_name(path))
        if adapter is None:
            return leaf
        kernel = leaf.astype(np.float64)
        a, b = (np.asarray(adapter[part], np.float64) for part in ("a", "b"))
        made = kernel + config.alpha / config.rank * (a @ b)
        if config.kind == "dora":
            before, after = (np.sqrt((matrix**2).sum(-2)) for matrix in (kernel, made))
            magnitude = before + np.asarray(adapter["magnitude"], np.float64)
            whole = (before**2 > _SMALLEST_SQUARE) & (after > 0)
            made = made * np.where(whole, magnitude / np.where(whole, after, 1), 1)[..., None, :]
        return made.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(merged, params)


def count_parameters(tree: Any) -> int:
    """Numbers in a pytree of arrays: of adapters, those that are trained; of parameters, all."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def _check(name: str, adapter: dict[str, Any], known: dict[str, tuple[int, ...]], config: AdapterConfig) -> None:
    config.check()
    wanted = {"a", "b", "magnitude"} if config.kind == "dora" else {"a", "b"}
    if set(adapter) != wanted:
        raise ConfigError(f"the adapter of {name} holds {sorted(adapter)}, {config.kind} has {sorted(wanted)}")
    shape = known.get(name)
    if shape is None:
        raise ConfigError(f"there is an adapter of {name}, but no such parameter; it belongs to another model")
    if (*adapter["a"].shape[:-1], adapter["b"].shape[-1]) != shape:
        raise ConfigError(
            f"the adapter of {name} is {adapter['a'].shape} times {adapter['b'].shape}, the kernel {shape}"
        )


def _named(params: Any) -> list[tuple[str, Any]]:
    return [(_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
