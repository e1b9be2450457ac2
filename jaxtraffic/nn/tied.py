"""The functions of a token network, with learnt maps of fixed features beside its tables: tokens are numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxtraffic import prng
from jaxtraffic.errors import ConfigError
from jaxtraffic.nn.functional import functional

Functions = TypeVar("Functions", bound=tuple)

TABLES = {"token": "embedding", "offset_token": "embedding", "iat_token": "embedding", "token_out": "kernel"}
"""Tables with a row (kernels: a column) for each token, and their leaf. A network may lack some; further rows of one
(a mask is no size) stay free.
"""


def tied(
    init: Callable[..., Any], apply: Callable[..., Any], features: np.ndarray
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The functions of a token network whose tables are a free part plus a learnt map of features of the tokens.

    What is learnt of a token then also moves those that are like it, and rare tokens rest on the map, since weight
    decay draws their free part to 0. The maps are parameters "features" beside those of the network: [F, width] each;
    that of the output starts at 0.

    Args:
        init: key -> params, with the tables of `TABLES` or some of them.
        apply: (params, ...) -> anything.
        features: [V, F] float32.
    """
    n_features = features.shape[1]

    def both(key: jax.Array) -> Any:
        params = init(key)
        maps = {}
        for name in TABLES.keys() & params.keys():
            shape = params[name][TABLES[name]].shape
            width = shape[0] if TABLES[name] == "kernel" else shape[1]
            scale = 0.0 if TABLES[name] == "kernel" else n_features**-0.5
            maps[name] = scale * jax.random.normal(prng.stream(key, name), (n_features, width))
        return params | {"features": maps}

    def joined(params: Any, *args: Any, **options: Any) -> Any:
        known, rest = jnp.asarray(features), {name: part for name, part in params.items() if name != "features"}
        for name, weights in params["features"].items():
            rows, leaf, table = known @ weights, TABLES[name], rest[name]
            if leaf == "embedding":
                rows = jnp.pad(rows, ((0, table[leaf].shape[0] - len(rows)), (0, 0)))
            rest[name] = table | {leaf: table[leaf] + (rows.T if leaf == "kernel" else rows)}
        return apply(rest, *args, **options)

    return both, joined


def token_functions(
    kind: type[Functions],
    make: Callable[[nnx.Rngs], nnx.Module],
    sizes: dict[str, int],
    features: np.ndarray | None,
) -> Functions:
    """The methods of a module as pure functions, by the names of the fields of `kind`; the first is init.

    Args:
        kind: NamedTuple of functions.
        make: builds the module from its Rngs.
        sizes: by name, each at least 1.
        features: see `tied`; None: nothing is known of the tokens.

    Raises:
        ConfigError: sizes below 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{name} must be at least 1, got {size}")
    init, apply = functional(make)
    if features is not None:
        init, apply = tied(init, apply, features)

    def method(name: str) -> Callable[..., Any]:
        return lambda params, *args, **options: apply(params, *args, method=name, **options)

    return kind(init, *(method(name) for name in kind._fields[1:]))
