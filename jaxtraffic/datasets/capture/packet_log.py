"""The packets that are kept of flows that are not finished yet, in memory that grows with them and not with the file.

Packets are only ever added at the end of three arrays. What one flow got at one time is a run; each run knows the run
of the same flow before it, so that a flow is a chain of runs.
"""

from __future__ import annotations

import numpy as np

from jaxtraffic.datasets.ragged import starts_of

_SLACK = 1 << 20
NO_RUN = -1
"""Stands for no run before."""


class PacketLog:
    """Sizes, senders and times of kept packets."""

    def __init__(self) -> None:
        self._size = np.empty(0, np.int32)
        self._forward = np.empty(0, bool)
        self._time = np.empty(0, np.int64)
        self._start = np.empty(0, np.int64)
        self._count = np.empty(0, np.int64)
        self._before = np.empty(0, np.int64)
        self._used = self._runs = self._live = 0

    def append(
        self, size: np.ndarray, forward: np.ndarray, time: np.ndarray, counts: np.ndarray, before: np.ndarray
    ) -> np.ndarray:
        """Adds a run to each of some flows.

        Args:
            size: [packet] bytes, flow after flow.
            forward: [packet] bool.
            time: [packet] nanoseconds.
            counts: [flow] packets of each; with 0 no run is made.
            before: [flow] the last run of each so far, or NO_RUN.

        Returns:
            [flow] the last run of each now.
        """
        n, used = size.size, self._used
        self._size = _grown(self._size, used + n)
        self._forward = _grown(self._forward, used + n)
        self._time = _grown(self._time, used + n)
        self._size[used : used + n] = size
        self._forward[used : used + n] = forward
        self._time[used : used + n] = time
        made = np.flatnonzero(counts)
        runs, first = made.size, self._runs
        self._start = _grown(self._start, first + runs)
        self._count = _grown(self._count, first + runs)
        self._before = _grown(self._before, first + runs)
        self._start[first : first + runs] = used + starts_of(counts)[made]
        self._count[first : first + runs] = counts[made]
        self._before[first : first + runs] = before[made]
        self._used, self._runs, self._live = used + n, first + runs, self._live + n
        last = before.copy()
        last[made] = np.arange(first, first + runs)
        return last

    def take(self, last: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Counts [flow], and sizes, forward and times [packet] of flows that are finished, given their last runs."""
        counts, place = self._places(last)
        self._live -= place.size
        return counts, self._size[place], self._forward[place], self._time[place]

    def compact(self, last: np.ndarray) -> np.ndarray:
        """Gives back the memory of finished flows once it is most of it.

        Args:
            last: [flow] last runs of all flows that are not finished.

        Returns:
            [flow] their last runs now.
        """
        if max(self._used, self._runs) <= 2 * self._live + _SLACK:
            return last
        counts, place = self._places(last)
        size, forward, time = self._size[place], self._forward[place], self._time[place]
        self.__init__()
        return self.append(size, forward, time, counts, np.full(last.size, NO_RUN))

    def _places(self, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Packets of each flow, and where they stand, flow after flow in the order of their times."""
        flows, runs = [], []
        flow = np.flatnonzero(last >= 0)
        run = last[flow]
        while flow.size:
            flows.append(flow)
            runs.append(run)
            run = self._before[run]
            flow, run = flow[run >= 0], run[run >= 0]
        if not flows:
            return np.zeros(last.size, np.int64), np.zeros(0, np.int64)
        # oldest runs first, then flow by flow
        flow, run = np.concatenate(flows[::-1]), np.concatenate(runs[::-1])
        order = np.argsort(flow, kind="stable")
        flow, run = flow[order], run[order]
        length = self._count[run]
        place = np.repeat(self._start[run] - starts_of(length), length) + np.arange(length.sum())
        counts = np.bincount(flow, weights=length, minlength=last.size).astype(np.int64)
        return counts, place


def _grown(values: np.ndarray, size: int) -> np.ndarray:
    if size <= values.size:
        return values
    out = np.empty(max(size, 2 * values.size, 1024), values.dtype)
    out[: values.size] = values
    return out
