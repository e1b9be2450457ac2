"""Meshes, shardings, padding to devices, and the start of several processes.

Programs are jitted over a mesh with Auto axes: "data" splits the batch, and an optional "channel" splits the S4
channels. `jax.pmap` is in maintenance and is itself built on jit and shard_map, so nothing here uses it.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtraffic.errors import ConfigError

AXES = ("data", "channel")


def make_mesh(spec: str | None = None, *, devices: int | None = None) -> Mesh:
    """Builds the mesh of a run.

    Args:
        spec: such as "data=4,channel=2"; None means all devices on "data".
        devices: use only the first so many devices (single process only); None means all.

    Raises:
        ConfigError: unknown axis, or sizes that do not fit the devices.
    """
    available = jax.devices()
    if devices is not None:
        if not 1 <= devices <= len(available):
            raise ConfigError(f"--devices must be between 1 and {len(available)} here, got {devices}")
        available = available[:devices]
    sizes = {"data": len(available)} if spec is None else parse_mesh(spec)
    if int(np.prod(list(sizes.values()))) != len(available):
        raise ConfigError(
            f"--mesh {spec} needs {int(np.prod(list(sizes.values())))} devices, there are {len(available)}"
        )
    grid = np.array(available).reshape(tuple(sizes.values()))
    return Mesh(grid, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def local_mesh() -> Mesh:
    """All devices of this process on "data": for work that one of several processes does alone, such as judging."""
    return Mesh(np.array(jax.local_devices()), ("data",), axis_types=(AxisType.Auto,))


def parse_mesh(spec: str) -> dict[str, int]:
    """Parses "data=4,channel=2" into axis sizes; "data" comes first and may be left out (size 1)."""
    sizes: dict[str, int] = {"data": 1}
    for part in spec.split(","):
        match = re.fullmatch(r"\s*(\w+)=([1-9]\d*)\s*", part)
        if not match or match[1] not in AXES:
            raise ConfigError(f'--mesh takes axes {" and ".join(AXES)}, such as "data=4,channel=2"; got "{spec}"')
        sizes[match[1]] = int(match[2])
    return sizes


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, P())


def over_data(mesh: Mesh) -> NamedSharding:
    """The sharding that splits the leading axis over "data"."""
    return NamedSharding(mesh, P("data"))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Asks for a layout of x inside a program, one mesh axis (or None) a dimension.

    Does nothing on a mesh without a "channel" axis (plain data parallelism needs no advice inside a model) or where
    the sizes do not divide.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape.get("channel", 1) == 1:
        return x
    named = [axis if axis in mesh.shape and x.shape[i] % mesh.shape[axis] == 0 else None for i, axis in enumerate(axes)]
    return jax.lax.with_sharding_constraint(x, P(*named))


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Places host arrays, the same in every process, whole on every device."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(np.shape(leaf), sharding, lambda _: np.asarray(leaf)), tree
    )


def put_over_data(tree: Any, mesh: Mesh) -> Any:
    """Places host arrays, the same in every process, split over "data" along their leading axis."""
    sharding = over_data(mesh)

    def place(leaf: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(place, tree)


def to_host(x: jax.Array) -> np.ndarray:
    """The whole array in every process, also where its shards live in several."""
    if x.is_fully_addressable:
        return np.asarray(x)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def start_processes(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins several processes into one run through jax.distributed; does nothing when no coordinator is given.

    Args:
        coordinator: "HOST:PORT" of process 0, the same in every process.
        num_processes: how many processes there are.
        process_id: which one this is, 0-based.

    Raises:
        ConfigError: only some of the three given, or values that do not fit.
    """
    given = (coordinator, num_processes, process_id)
    if all(value is None for value in given):
        return
    if any(value is None for value in given):
        raise ConfigError("--coordinator, --num-processes and --process-id go together")
    if not re.fullmatch(r".+:\d+", coordinator) or not 0 <= process_id < num_processes:
        raise ConfigError(
            f"--coordinator must be HOST:PORT and 0 <= --process-id < --num-processes, got {coordinator}, "
            f"{process_id} of {num_processes}"
        )
    # Between CPU processes the collectives go through gloo; accelerators ignore the option.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(coordinator, num_processes, process_id)


def is_main() -> bool:
    """True in the process that writes files and prints."""
    return jax.process_index() == 0
