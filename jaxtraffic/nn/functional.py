"""The border between flax and everything else: a module becomes two pure functions over a plain dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx


def functional(make: Callable[[nnx.Rngs], nnx.Module]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Turns a module into `init(key) -> params` and `apply(params, *args, method="__call__", **kwargs)`.

    Args:
        make: builds the module from its Rngs; the module keeps parameters only (no statistics, no stored keys).

    Returns:
        `init`, traceable, whose result is a nested dict of arrays, and `apply`, which calls the named method.
    """
    graph, _ = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))

    def init(key: jax.Array) -> dict[str, Any]:
        return nnx.to_pure_dict(nnx.split(make(nnx.Rngs(key)))[1])

    def apply(params: dict[str, Any], *args: Any, method: str = "__call__", **kwargs: Any) -> Any:
        return getattr(nnx.merge(graph, params), method)(*args, **kwargs)

    return init, apply
