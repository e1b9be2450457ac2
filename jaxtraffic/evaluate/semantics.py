"""Whether a series could be a flow: impossible series, frequent sizes, runs of direction, lengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxtraffic.evaluate.rows import n_packets, packets_inside
from jaxtraffic.evaluate.support import labelled_rows, zeros_inside
from jaxtraffic.series import PacketSeries

N_ATOMS = 20
"""Most frequent signed sizes of the training flows whose shares are compared one by one."""

MTU = {"ip": 1500, "payload": 1460}
"""Bytes that an Ethernet packet may hold, by size layer: the IP packet, or the TCP payload without options."""

_KEEPS_HANDSHAKE = 0.9
_FIRST_PACKETS, _ACK_BYTES = (40, 100), (40, 80)
"""Bytes of SYN and SYN-ACK, and of ACK: IPv4 or IPv6 header, TCP header, and up to 40 bytes of options (ACK: 20)."""


def semantics(train: PacketSeries, flows: PacketSeries) -> tuple[dict[str, float | int], dict[str, Any]]:
    """Facts of networking that distances do not see; compare with fresh real flows, not with 0.

    Both sides are read by their signed sizes up to the last non-zero one, since a generated series cannot tell a packet
    of size 0 from padding. Where real flows hold packets without payload (`size_layer` "payload"), a zero inside is no
    fault: `zero_inside_share` of real flows says how many have one, and a rule of `impossible_share` is applied only
    where the training flows keep it.

    Args:
        train: the real training flows, which say what is possible.
        flows: generated flows, or real ones as reference, of the same classes and packet positions.

    Returns:
        Figures:

        - `impossible_share`: flows with any of: a size over the limit, a violated handshake, a zero inside the flow
          where no training flow has one, no packet at all where every training flow has one. Training flows have 0.
        - `zero_inside_share`: flows with a zero before the last non-zero signed size, whatever the training flows have.
        - `over_mtu_share`: flows with a size over the largest of `train` or `MTU`, whichever is larger.
        - `handshake_violation_share`: see `handshake_violations`; of the flows in classes that keep the handshake. No
          such key where there are none. `handshake_classes`: the number of these classes.
        - `atom_distance`: total variation distance, 0 to 1, between real and generated packets, told apart as the 20
          most frequent exact signed sizes of `train` and "other" (1 - TVComplement of sdmetrics).
        - `run_length_wasserstein`: Wasserstein-1 distance, in packets, between the lengths of runs of one direction,
          over all runs of all flows. A run ends with the flow or the window; zeros inside make runs of their own.
        - `length_wasserstein`: Wasserstein-1 distance, in packets, between the numbers of packets of a flow.

        Curves: `atom_sizes`, `atom_real`, `atom_synthetic` [20, or as many sizes as there are]: signed sizes (bytes),
        most frequent first, and their shares of packets; `run_lengths_real`, `run_lengths_synthetic` [packets]: shares
        of runs of 1, 2, ... packets; `lengths_real`, `lengths_synthetic` [packets + 1]: shares of flows of 0, 1, ...
        packets. A set without any packet has all its packets at "other" and all its runs at length 0.

    Raises:
        ConfigError: no PacketSeries, other class names, or what `rows.pair_of` refuses.
    """
    known, rows = labelled_rows(train, flows)
    lengths_known, lengths = n_packets(known), n_packets(rows)
    holds_zero = zeros_inside(rows)
    limit = max(MTU[train.size_layer], int(np.abs(known).max()))
    over = np.abs(rows).max(1) > limit
    violated, judged, n_classes = handshake_violations(train, flows)
    impossible = over | violated
    if not zeros_inside(known).any():
        impossible |= holds_zero
    if lengths_known.all():
        impossible |= lengths == 0
    figures: dict[str, float | int] = {
        "impossible_share": float(impossible.mean()),
        "zero_inside_share": float(holds_zero.mean()),
        "over_mtu_share": float(over.mean()),
        "handshake_classes": n_classes,
    }
    if judged.any():
        figures["handshake_violation_share"] = float(violated[judged].mean())
    atoms, shares = _atoms(known, rows)
    runs = [_run_lengths(side) for side in (known, rows)]
    n_positions = rows.shape[1]
    lengths_shares = [np.bincount(n, minlength=n_positions + 1) / len(n) for n in (lengths_known, lengths)]
    figures |= {
        # the part that is no atom differs by as much as all atoms together
        "atom_distance": float((np.abs(shares[0] - shares[1]).sum() + abs((shares[0] - shares[1]).sum())) / 2),
        "run_length_wasserstein": _wasserstein_of_shares(*runs),
        "length_wasserstein": _wasserstein_of_shares(*lengths_shares),
    }
    curves = {"atom_sizes": atoms.tolist()}
    for name, (real, synthetic) in {
        "atom": shares,
        "run_lengths": [run[1:] for run in runs],
        "lengths": lengths_shares,
    }.items():
        curves |= {f"{name}_real": real.tolist(), f"{name}_synthetic": synthetic.tolist()}
    return figures, curves


def handshake_violations(train: PacketSeries, flows: PacketSeries) -> tuple[np.ndarray, np.ndarray, int]:
    """Flows that begin neither with a TCP handshake nor as another training flow of their class did.

    A handshake is read from three signed sizes: +, -, + with 40 to 100 bytes for SYN and SYN-ACK, 40 to 80 bytes for
    the ACK, all multiples of 4 (TCP options are padded to that), and no larger ACK than SYN-ACK. A class keeps it where
    at least 90% of its training flows begin so; sets of payload sizes and sets that leave it out have no such class.
    In those classes, a flow violates it unless its first three signed sizes, as a whole, are a handshake of some
    training flow of any class (options are negotiated: where 60 was answered by -60 the ACK is 52, never 40), or the
    beginning of a training flow of its own class (the other 10%, UDP for instance).

    Args:
        train: the real training flows.
        flows: flows of the same classes.

    Returns:
        [flow] bool, violations; [flow] bool, flows of classes that keep the handshake; the number of these classes.

    Raises:
        ConfigError: no PacketSeries, other class names, or what `rows.pair_of` refuses.
    """
    known, rows = labelled_rows(train, flows)
    if rows.shape[1] < 3:
        return np.zeros(len(rows), bool), np.zeros(len(rows), bool), 0
    known_label, label = np.asarray(train.label), np.asarray(flows.label)
    shaken = _is_handshake(known)
    n_classes = len(train.class_names)
    total = np.bincount(known_label, minlength=n_classes)
    keeps = (total > 0) & (np.bincount(known_label[shaken], minlength=n_classes) >= _KEEPS_HANDSHAKE * total)
    beginnings, known_beginnings = _beginnings(rows), _beginnings(known)
    possible = np.isin(beginnings, known_beginnings[shaken])
    for one in np.flatnonzero(keeps):
        own = label == one
        possible[own] |= np.isin(beginnings[own], known_beginnings[known_label == one])
    judged = keeps[label]
    return judged & ~possible, judged, int(keeps.sum())


def _is_handshake(rows: np.ndarray) -> np.ndarray:
    syn, answer, ack = rows[:, 0], -rows[:, 1], rows[:, 2]
    low, high = _FIRST_PACKETS
    likely = (low <= syn) & (syn <= high) & (low <= answer) & (answer <= high)
    likely &= (_ACK_BYTES[0] <= ack) & (ack <= _ACK_BYTES[1]) & (ack <= answer)
    return likely & (syn % 4 == 0) & (answer % 4 == 0) & (ack % 4 == 0)


def _beginnings(rows: np.ndarray) -> np.ndarray:
    """[flow] one integer for the first three signed sizes, of 16 bits each."""
    first = rows[:, :3].astype(np.int64)
    return (first[:, 0] << 32) + (first[:, 1] << 16) + first[:, 2]


def _atoms(known: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The most frequent signed sizes of `known`, the smaller one of equals first, and their shares of both sides."""
    packets = [side[packets_inside(side)] for side in (known, rows)]
    sizes, counts = np.unique(packets[0], return_counts=True)
    atoms = sizes[np.argsort(-counts, kind="stable")[:N_ATOMS]]
    order = np.sort(atoms)
    shares = []
    for side in packets:
        # between its first and its last place in the sorted packets lie all packets of a size
        side = np.sort(side)
        counted = side.searchsorted(order, side="right") - side.searchsorted(order)
        shares.append(counted[order.searchsorted(atoms)] / max(len(side), 1))
    return atoms, shares


def _run_lengths(rows: np.ndarray) -> np.ndarray:
    """[0 .. packets] share of runs of so many packets of one sign, over all flows."""
    inside = packets_inside(rows)
    sign = np.sign(rows)
    starts = np.ones(rows.shape, bool)
    starts[:, 1:] = sign[:, 1:] != sign[:, :-1]
    at = np.flatnonzero(starts[inside])
    counts = np.bincount(np.diff(np.append(at, inside.sum())), minlength=rows.shape[1] + 1)
    counts[0] = not len(at)
    return counts / counts.sum()


def _wasserstein_of_shares(p: np.ndarray, q: np.ndarray) -> float:
    """Wasserstein-1 distance of two distributions over 0, 1, 2, ..."""
    return float(np.abs(np.cumsum(p - q)[:-1]).sum())
