"""Sets that are folders of captures: UNSW24, ISCX VPN-nonVPN 2016, and captures of one's own.

UNSW24 (Wang, Lyu and Sivaraman, IMC 2024) is `<service>_collection/pcap/<device>/<application>.pcapng`, as the
publishers' own code reads it (WYF99/IMC24-VideoUserPlatform). ISCX VPN-nonVPN 2016 (Draper-Gil et al., ICISSP 2016) is
some 150 pcap and pcapng files, some with the ending of the other, whose names are their only labels: see `iscx_names`.
Its captures over a VPN begin with the IP header, those without with Ethernet.

A capture holds all that the device sent. The publishers of UNSW24 keep flows whose TLS or QUIC server name is one of
the service's video hosts; server names are not read here, so flows to other hosts (advertisements, telemetry, the
operating system) carry the label of the service as well, and counts differ from the published ones. So it is with ISCX,
whose captures hold broadcasts and name lookups of the whole network.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

import polars as pl

from jaxtraffic.datasets.capture.files import SURE_ENDINGS, find_captures
from jaxtraffic.datasets.capture.iscx_names import Meaning, meaning
from jaxtraffic.datasets.capture.labels import (
    composed,
    labeller,
    match_template,
    parse_pattern,
    parse_template,
    tables_beside,
)
from jaxtraffic.datasets.capture.reader import read_capture, read_stream
from jaxtraffic.datasets.capture.tables import Labelled
from jaxtraffic.datasets.curation import NO_DNS
from jaxtraffic.datasets.dataset import Dataset, Published
from jaxtraffic.datasets.documents import documents
from jaxtraffic.datasets.flow_block import FlowBlock, ReadOptions, facts_frame, no_flows
from jaxtraffic.datasets.simulated.captures import simulate_iscx_vpn, simulate_pcap, simulate_unsw24
from jaxtraffic.errors import ConfigError, DataError

UNLABELLED_CHOICES = ("refuse", "drop")
"""What to do with captures and flows of which nothing says what their label is."""

ISCX_LABELS = ("application", "traffic", "vpn")
"""What the label of a flow of ISCX VPN-nonVPN can be."""

_UNSW24 = parse_template("{service}_collection/pcap/{device}/{application}")
_UNSW24_FIELDS = ("service", "device", "application")
_ISCX_FOLDERS = ("nonvpn-pcap", "vpn-pcap")
_CAPTURE_PARTS = 4  # folders and name that say which capture a flow came from


def find_pcap(place: Path) -> list[Path]:
    """All captures at a place: by their ending (pcap, pcapng, either also .gz), others by their first bytes."""
    return find_captures(place)


def read_pcap(
    path: Path,
    options: ReadOptions,
    *,
    label: str = "auto",
    compose: str = "{label}",
    unlabelled: str = "refuse",
    **reading: Any,
) -> Iterator[FlowBlock]:
    """Reads a capture with the labels that its name, its folder, a template or a table gives.

    Args:
        path: the capture.
        options: of the reading.
        label: where labels come from: "auto" (the table `labels.csv` or `labels.json` beside the captures or up to
            three folders above, else the folder), "file" (its name), "folder", a template such as
            "{device}/{label}.pcap", or the path of a table: see `labels` and `tables`.
        compose: how the label is composed of the fields of a template, such as "{service} {device}".
        unlabelled: "refuse" captures and flows of which nothing says the label, or "drop" and count them.
        reading: keyword arguments of `read_capture`: idle_timeout, active_timeout, max_flows, client_network,
            allow_truncated.

    Raises:
        ConfigError: an option that does not fit.
        DataError: a capture or table that cannot be read, or nothing says the label.
    """
    if unlabelled not in UNLABELLED_CHOICES:
        raise ConfigError(f"unlabelled must be one of {', '.join(UNLABELLED_CHOICES)}; got {unlabelled!r}")
    found = labeller(label, compose=compose)(path)
    if found is None and unlabelled == "drop":
        yield no_flows({"captures without a label": 1}, options.size_layer or "ip")
        return
    if found is None:
        raise DataError(
            path,
            "nothing says what its label is",
            expected=f"a path that fits the labels {label!r}",
            remedy='name it there, choose other labels, or leave such captures out with unlabelled="drop"',
        )
    if callable(found.label) and unlabelled == "refuse":
        found = dataclasses.replace(found, label=functools.partial(_labels_of_all, label=found.label, path=path))
    capture = _capture_name(path)
    yield from _with_facts(read_capture(path, options, label=found.label, capture=capture, **reading), found)


def _capture_name(path: Path) -> str:
    return "/".join(path.absolute().parts[1:][-_CAPTURE_PARTS:])


def _labels_of_all(flows: pl.DataFrame, *, label: Callable[[pl.DataFrame], pl.Series], path: Path) -> pl.Series:
    """Labels of flows, refusing flows that have none."""
    labels = label(flows)
    if labels.null_count():
        raise DataError(
            path,
            f"a flow is not in the table of labels: {flows.row(int(labels.is_null().arg_max()), named=True)}",
            expected="a label for each flow",
            remedy='add it, or leave such flows out with unlabelled="drop"',
        )
    return labels


def _with_facts(blocks: Iterator[FlowBlock], found: Labelled) -> Iterator[FlowBlock]:
    """Blocks with what the name of the capture says; without its name where it is all of its class."""
    facts = {**found.facts, **({"capture": None} if found.is_class else {})}
    for block in blocks:
        known = facts_frame(facts, len(block)) if facts else pl.DataFrame()
        yield dataclasses.replace(block, facts=block.facts.drop(known.columns, strict=False).hstack(known))


def find_unsw24(place: Path) -> list[Path]:
    """Captures of UNSW24 at a place: a data root, the folder of the set, of a service or device, or one file."""
    return find_captures(place, lambda path: _unsw24(path) is not None)


def _unsw24(path: Path) -> dict[str, str] | None:
    """Service, device and application of a path of UNSW24, else None."""
    # the application ends at the first dot, as in the publishers' code
    return match_template(_UNSW24, path.with_name(path.name.split(".")[0] or path.name))


def read_unsw24(path: Path, options: ReadOptions, *, label: str = "{service}", **reading: Any) -> Iterator[FlowBlock]:
    """Reads a capture of UNSW24; facts: device, and the application (user agent) as activity.

    Args:
        path: the capture.
        options: of the reading.
        label: how the label is composed of service, device and application: "{service}" gives the classes of the
            thesis, "{device} {application}" the user platforms that the publishers tell apart.
        reading: keyword arguments of `read_capture`.

    Raises:
        ConfigError: a label of other fields.
        DataError: the path says nothing, or the capture cannot be read.
    """
    pattern = parse_pattern(label)
    if not pattern.fields or not set(pattern.fields) <= set(_UNSW24_FIELDS):
        raise ConfigError(
            f"a label of UNSW24 must be made of {{{'}, {'.join(_UNSW24_FIELDS)}}}, as in {{service}}; got {label!r}"
        )
    fields = _unsw24(path)
    if fields is None:
        raise DataError(path, "no path of UNSW24", expected="<service>_collection/pcap/<device>/<application>.pcapng")
    facts = {"device": fields["device"], "activity": fields["application"], "category": "video streaming"}
    found = Labelled(composed(pattern, fields), facts)
    blocks = read_capture(path, options, label=found.label, capture=_capture_name(path), **reading)
    yield from _with_facts(blocks, found)


def find_iscx_vpn(place: Path) -> list[Path]:
    """Captures of ISCX VPN-nonVPN at a place: those whose names the table knows, and all in the archives' folders.

    Where no capture is found, the archives `NonVPN-PCAPs-0*.zip` and `VPN-PCAPs-0*.zip` are sources, one each.
    """
    captures = find_captures(place, lambda path: _iscx(path) is not None or _in_iscx_folder(path))
    if captures or place.is_file():
        return captures or [path for path in (place,) if _is_iscx_archive(path)]
    archives = (path for pattern in ("*.zip", "*/*.zip", "*/*/*.zip") for path in place.glob(pattern))
    return sorted(path for path in archives if _is_iscx_archive(path))


def _iscx(path: PurePath) -> Meaning | None:
    return meaning(path.name.split(".")[0])


def _in_iscx_folder(path: Path) -> bool:
    return any(part.lower().startswith(_ISCX_FOLDERS) for part in path.absolute().parts[:-1])


def _is_iscx_archive(path: Path) -> bool:
    return path.name.lower().startswith(_ISCX_FOLDERS) and path.suffix.lower() == ".zip"


def read_iscx_vpn(
    path: Path, options: ReadOptions, *, label: str = "application", **reading: Any
) -> Iterator[FlowBlock]:
    """Reads a capture of ISCX VPN-nonVPN, or all captures of one of its archives.

    Facts whatever the label is: activity the application, category the traffic type, partition "vpn" or "nonvpn".

    Args:
        path: the capture or archive.
        options: of the reading.
        label: "application" (skype), "traffic" (voip) or "vpn" (vpn or nonvpn).
        reading: keyword arguments of `read_capture`.

    Raises:
        ConfigError: unknown labels.
        DataError: a name that the table does not know, or a capture that cannot be read.
    """
    if label not in ISCX_LABELS:
        raise ConfigError(f"labels of ISCX VPN-nonVPN are one of {', '.join(ISCX_LABELS)}; got {label!r}")
    for where, name, stream in documents(path, SURE_ENDINGS if _is_iscx_archive(path) else ()):
        if name.name.startswith("."):
            continue  # what macOS puts into archives
        known = _iscx(name)
        if known is None:
            raise DataError(
                where,
                "a name that the table of ISCX VPN-nonVPN does not know",
                expected="names such as vpn_skype_audio1.pcap",
                remedy="move it out of the folder, or read it as one of your own captures (pcap)",
            )
        found = Labelled(
            getattr(known, label), {"activity": known.application, "category": known.traffic, "partition": known.vpn}
        )
        blocks = read_stream(stream, where, options, label=found.label, capture=name.name, **reading)
        yield from _with_facts(blocks, found)


PCAP = Dataset(
    name="pcap",
    title="captures of your own (pcap, pcapng, plain or gzip), labelled by name, folder, template or table",
    obtain="capture with tcpdump, dumpcap or Wireshark; give the folder or file as path, and say with label= what the "
    "classes are",
    licence="yours",
    find=find_pcap,
    read=read_pcap,
    size_layers=("ip", "payload"),
    rules=(NO_DNS,),
    min_flows=10,
    needs_path=True,
    beside=tables_beside,
    simulate=simulate_pcap,
)
"""Captures of one's own."""

UNSW24 = Dataset(
    name="unsw24",
    title="UNSW24: video streaming of YouTube, Netflix, Disney+ and Amazon on many user platforms (captures)",
    obtain="on request from the authors (github.com/WYF99/IMC24-VideoUserPlatform); unpack so that the data root holds "
    "unsw24/<service>_collection/pcap/<device>/<application>.pcapng",
    licence="on request, not to be passed on",
    find=find_unsw24,
    read=read_unsw24,
    size_layers=("ip", "payload"),
    rules=(NO_DNS,),
    published=Published(
        source="C. Wang's thesis (2025), Table 8.4: 4 classes, about 10,600 flows, chosen by server name", classes=4
    ),
    simulate=simulate_unsw24,
)
"""UNSW24 (10.1145/3646547.3688435)."""

ISCX_VPN = Dataset(
    name="iscx_vpn",
    title="ISCX VPN-nonVPN 2016: applications with and without VPN (captures)",
    obtain="https://www.unb.ca/cic/datasets/vpn.html: NonVPN-PCAPs-01.zip to -03.zip, VPN-PCAPS-01.zip and "
    "VPN-PCAPs-02.zip in iscx_vpn/ of the data root (unpacked they are read in more processes)",
    licence="of the Canadian Institute for Cybersecurity: free to use with citation (Draper-Gil et al., ICISSP 2016)",
    find=find_iscx_vpn,
    read=read_iscx_vpn,
    size_layers=("ip", "payload"),
    rules=(NO_DNS,),
    simulate=simulate_iscx_vpn,
)
"""ISCX VPN-nonVPN 2016."""
