"""Captures of UTMobileNet2021 written cell by cell, for the tests of its reader."""

import csv
import io

from jaxtraffic.datasets import utmobilenet
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.simulated.utmobilenet import HEADER

PHONE, SERVER = "10.145.31.196", "162.125.8.7"
NAME = "dropbox_man-download_2019-04-30_19-07-09_4fd1c357.csv"
WHOLE = ReadOptions(length=1_000)


def packet(milliseconds=0, *, up=True, tcp=True, payload=0, phone=PHONE, server=SERVER, ports=(40_000, 443), **cells):
    """Cells of a row."""
    ends, sides = (phone, server) if up else (server, phone), ports if up else ports[::-1]
    kind = "tcp" if tcp else "udp"
    values = dict.fromkeys(HEADER.split(","), "") | {
        "frame.time": f"Apr 30, 2019 19:07:17.{milliseconds:03d}000000 CDT",
        "ip.len": f"{payload + (52 if tcp else 28)}.0",
        "ip.proto": "6.0" if tcp else "17.0",
        "ip.src": ends[0],
        "ip.dst": ends[1],
        f"{kind}.srcport": f"{sides[0]}.0",
        f"{kind}.dstport": f"{sides[1]}.0",
        "tcp.len" if tcp else "udp.length": f"{payload + (0 if tcp else 8)}.0",
    }
    return values | cells


def write(folder, rows, *, columns=None, name=NAME, partition="Wild Test Data"):
    columns = columns or HEADER.split(",")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row[column] for column in columns] for row in rows)
    path = folder / "csvs" / partition / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(out.getvalue())
    return path


def read_one(path, options=WHOLE):
    (block,) = utmobilenet.read(path, options)
    return block
