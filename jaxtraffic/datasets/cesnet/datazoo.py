"""Flows that cesnet-datazoo has selected and split, as packet series.

cesnet-datazoo (https://github.com/CESNET/cesnet-datazoo, extra `jaxtraffic[datazoo]`) downloads the CESNET sets as
HDF5, selects applications and splits by time. It needs torch, which is not imported here: the adapter asks the objects
it is given for arrays and for nothing else. Whoever wants the flows alone reads the HDF5 file by the name of the set.

Written against the attributes of version 0.2.0: `set_dataset_config_and_initialize`, `get_{train,val,test}_dataloader`,
`dataset_config`, `class_info`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxtraffic.datasets.cesnet.hdf5 import unpad
from jaxtraffic.datasets.cesnet.ppi import MAX_PACKETS
from jaxtraffic.datasets.ragged import Fields, check_values, pad
from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.series import PacketSeries

log = logging.getLogger("jaxtraffic.datasets")

PARTS = ("train", "val", "test")
"""Parts of a split."""

UNKNOWN = "_unknown"
"""Name of the class of applications outside the known ones, label = number of known applications."""

_NAMES = {"CESNET-QUIC22": "cesnet_quic", "CESNET-TLS22": "cesnet_tls", "CESNET-TLS-Year22": "cesnet_tls_year"}
_FIELDS = Fields(size="PPI SIZE", direction="PPI DIR", iat="PPI IPT", iat_unit="milliseconds")


def from_datazoo(
    config: Any, part: str = "train", max_flows: int | None = None, *, dataset: Any = None
) -> PacketSeries:
    """Flows of a part of a datazoo split.

    Args:
        config: a dataset of cesnet-datazoo that `set_dataset_config_and_initialize` was called on, or a
            `DatasetConfig`. A config forgets its dataset once it is made, so that the dataset has to be given as well;
            it is initialised with the config, without worker processes and tensors, unless it already was.
        part: "train", "val" or "test". The last, incomplete batch of a shuffled training part is kept.
        max_flows: the first so many flows in the order of datazoo; None: all.
        dataset: the dataset of a config.

    Returns:
        Flows of up to 30 packets with sizes of the payload layer; labels as datazoo encodes them, where applications
        outside the known ones are one class "_unknown" with label = number of known applications.

    Raises:
        ConfigError: an unknown part, a config without dataset, a dataset that is not initialised, transformed or
            scaled packets, or a part that datazoo does not give.
        DataError: arrays that are not packets and labels.
    """
    if part not in PARTS:
        raise ConfigError(f"unknown part {part!r}; choose from: {', '.join(PARTS)}")
    if max_flows is not None and max_flows < 1:
        raise ConfigError(f"max_flows must be at least 1, got {max_flows}")
    ready = _initialised(config, dataset)
    _refuse_transforms(ready.dataset_config)
    where = f"{getattr(ready, 'name', 'datazoo')}:{part}"
    sizes, directions, iats, labels = [], [], [], []
    n_flows = 0
    with _batches(ready, part) as batches:
        for batch in batches:
            ppi, label = _packets_and_labels(batch, where)
            keep = len(label) if max_flows is None else min(len(label), max_flows - n_flows)
            flat = unpad(ppi[:keep], where, first_row=n_flows + 1)
            check_values(flat, where, _FIELDS, first_row=n_flows + 1)
            size, direction, iat = pad(flat, MAX_PACKETS, iat_per_second=1000)
            for values, parts in zip((size, direction, iat, label[:keep]), (sizes, directions, iats, labels)):
                parts.append(values)
            n_flows += keep
            if n_flows == max_flows:
                break
    if not n_flows:
        raise DataError(where, "no flows", expected="at least one batch", remedy="choose other dates or sizes")
    size, direction, iat, label = (np.concatenate(parts) for parts in (sizes, directions, iats, labels))
    names = _class_names(ready, label, where)
    title = str(getattr(ready, "name", "datazoo"))
    name = next((ours for theirs, ours in _NAMES.items() if title.startswith(theirs)), title)
    return PacketSeries(
        size, direction, iat, label.astype(np.int32), class_names=names, name=name, size_layer="payload", source="real"
    ).check()


def _initialised(config: Any, dataset: Any) -> Any:
    """The dataset, initialised."""
    if dataset is None and hasattr(config, "set_dataset_config_and_initialize"):
        dataset, config = config, None
    elif dataset is None:
        dataset = getattr(config, "dataset", None)
    if dataset is None or not hasattr(dataset, "set_dataset_config_and_initialize"):
        raise ConfigError(
            "no dataset of cesnet-datazoo: give from_datazoo(dataset) after dataset.set_dataset_config_and_initialize("
            "config), or from_datazoo(config, dataset=dataset)"
        )
    current = getattr(dataset, "dataset_config", None)
    if config is None and current is None:
        raise ConfigError(
            "the dataset is not initialised: call dataset.set_dataset_config_and_initialize(config) first"
        )
    if config is not None and current is not config:
        for option in ("train_workers", "val_workers", "test_workers"):
            setattr(config, option, 0)
        config.return_tensors = False
        dataset.set_dataset_config_and_initialize(config)
    return dataset


def _refuse_transforms(config: Any) -> None:
    if getattr(config, "ppi_transform", None) is not None:
        raise ConfigError("the config transforms packets (ppi_transform); leave it out: jaxtraffic scales by itself")
    for option in ("psizes_scaler", "ipt_scaler"):
        scaler = getattr(config, option, None)
        if scaler is not None and getattr(scaler, "value", scaler) != "no-scaler":
            raise ConfigError(f"the config scales packets ({option}); choose no scaler: jaxtraffic scales by itself")


@contextlib.contextmanager
def _batches(dataset: Any, part: str) -> Iterator[Any]:
    """The loader of a part; a shuffled training part would lose its last batch, as datazoo itself knows."""
    try:
        loader = getattr(dataset, f"get_{part}_dataloader")()
    except (AttributeError, ValueError, AssertionError) as error:
        raise ConfigError(f"cesnet-datazoo gives no part {part!r}: {error or type(error).__name__}") from error
    sampler = getattr(loader, "sampler", None)
    dropped = getattr(sampler, "drop_last", False)
    if dropped:
        sampler.drop_last = False
    try:
        yield loader
    finally:
        if dropped:
            sampler.drop_last = True


def _packets_and_labels(batch: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """PPI [flow, channel, 30] and labels [flow] of a batch (other fields, PPI, flow statistics, labels)."""
    if not isinstance(batch, tuple | list) or len(batch) not in (3, 4):
        raise DataError(
            where,
            f"a batch of {len(batch) if hasattr(batch, '__len__') else type(batch).__name__}",
            expected="(other fields, PPI, flow statistics, labels)",
            remedy="leave return_raw_fields and return_ips off",
        )
    # version 0.1 gave no other fields
    ppi, label = np.asarray(batch[-3]), np.asarray(batch[-1])
    if ppi.ndim == 2 and ppi.shape[1] in (3 * MAX_PACKETS, 4 * MAX_PACKETS):
        ppi = ppi.reshape(len(ppi), -1, MAX_PACKETS)
    if ppi.ndim != 3 or ppi.shape[1] not in (3, 4) or ppi.shape[2] != MAX_PACKETS or ppi.dtype.kind not in "iuf":
        raise DataError(
            where, f"shape {ppi.shape} of {ppi.dtype}", field="PPI", expected="numbers of (flows, 3 or 4, 30)"
        )
    if label.shape != ppi.shape[:1] or label.dtype.kind not in "iu":
        raise DataError(
            where,
            f"shape {label.shape} of {label.dtype}",
            field="labels",
            expected=f"{len(ppi)} whole numbers, one a flow",
        )
    return ppi, label


def _class_names(dataset: Any, label: np.ndarray, where: str) -> tuple[str, ...]:
    """Names of the classes by label; the class of unknown applications last, where any flow has it."""
    info = getattr(dataset, "class_info", None)
    names = getattr(info, "target_names", None)
    if names is None:
        encoder = getattr(info, "encoder", None) or getattr(dataset, "encoder", None)
        names = getattr(encoder, "classes_", None)
    if names is None:
        raise ConfigError("the dataset has neither class_info.target_names nor an encoder: initialise it first")
    names = [str(name) for name in names]
    n_known = int(getattr(info, "num_classes", len(names) - (names[-1:] == [UNKNOWN])))
    if label.min() < 0 or label.max() > n_known:
        raise DataError(
            where,
            f"label {label.min() if label.min() < 0 else label.max()}",
            field="labels",
            expected=f"0 to {n_known - 1}, or {n_known} for unknown applications",
        )
    known = tuple(names[:n_known])
    return (*known, UNKNOWN) if label.max() == n_known else known
