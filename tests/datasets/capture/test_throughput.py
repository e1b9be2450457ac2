"""Packets a second on a file of 50 MB, flows included. A loop over scapy's packets makes about 4,000, without flows."""

import struct
import time

import numpy as np
import pytest

from jaxtraffic.datasets.capture.reader import read_capture
from jaxtraffic.datasets.flow_block import ReadOptions
from tests.datasets.capture.captures import pcap, random_frames

FLOOR = 200_000


@pytest.mark.slow
def test_ten_times_a_scapy_loop_and_far_more(tmp_path):
    frames = random_frames(2000)
    body = pcap(frames)[24:]
    starts = np.cumsum([0] + [16 + len(frame) for _, frame in frames[:-1]])
    span = (frames[-1][0] - frames[0][0]) // 1_000_000 + 1
    path, n = tmp_path / "big.pcap", 0
    with path.open("wb") as stream:
        stream.write(pcap([]))
        while stream.tell() < 50_000_000:
            again = np.frombuffer(body, np.uint8).copy()
            seconds = again[starts[:, None] + np.arange(4)].view("<u4")[:, 0] + np.uint32(n // len(frames) * span)
            again[starts[:, None] + np.arange(4)] = np.frombuffer(
                struct.pack(f"<{len(frames)}I", *seconds), np.uint8
            ).reshape(-1, 4)
            stream.write(again.tobytes())
            n += len(frames)
    begin = time.process_time()
    packets = sum(int(block.facts["packets"].sum()) for block in read_capture(path, ReadOptions(), label="x"))
    rate = n / (time.process_time() - begin)
    assert packets == n
    assert rate > FLOOR, f"{rate:,.0f} packets a second of processor time"
