"""Synthetic files in the true raw formats (recipes 1 and 2 of the reference), for the tests of the readers."""

import csv
import gzip
import io
import json
import lzma
from pathlib import Path

import numpy as np

from jaxtraffic.datasets.cesnet import day_files as cesnet
from jaxtraffic.datasets.cesnet import hdf5 as cesnet_hdf5
from jaxtraffic.datasets.flow_block import ReadOptions
from jaxtraffic.datasets.labelled import from_blocks

FIXTURE_HEADER = (
    "ID,SRC_IP,DST_IP,DST_ASN,SRC_PORT,DST_PORT,PROTOCOL,QUIC_VERSION,QUIC_SNI,QUIC_USERAGENT,TIME_FIRST,TIME_LAST,"
    "DURATION,BYTES,BYTES_REV,PACKETS,PACKETS_REV,PPI,PPI_LEN,PPI_DURATION,PPI_ROUNDTRIPS,PHIST_SRC_SIZES,"
    "PHIST_DST_SIZES,PHIST_SRC_IPT,PHIST_DST_IPT,APP,CATEGORY,FLOW_ENDREASON_IDLE,FLOW_ENDREASON_ACTIVE,"
    "FLOW_ENDREASON_OTHER"
)
FIXTURE_ROW = (
    "1,10.0.0.1,192.0.2.7,64500,50123,443,17,1,video.example,,2022-10-31T10:00:00.000001,2022-10-31T10:00:01.5,"
    '1.499999,1291,2541,2,3,"[[0, 7, 14, 0, 2], [1, -1, -1, -1, 1], [1250, 1250, 1250, 41, 41]]",5,0.023,2,'
    '"[0, 0, 1, 0, 0, 0, 0, 1]","[0, 0, 1, 0, 0, 0, 0, 2]","[0, 1, 0, 0, 0, 0, 0, 0]","[2, 0, 0, 0, 0, 0, 0, 0]",'
    "youtube,Streaming media,1,0,0"
)
YEAR22_HEADER = (
    "ID,SRC_IP,DST_IP,DST_ASN,DST_PORT,PROTOCOL,TLS_SNI,TLS_JA3,TIME_FIRST,TIME_LAST,DURATION,BYTES,BYTES_REV,PACKETS,"
    "PACKETS_REV,PPI_LEN,PPI_DURATION,PPI_ROUNDTRIPS,APP,CATEGORY,FLAG_CWR,FLAG_CWR_REV,FLAG_ECE,FLAG_ECE_REV,FLAG_URG,"
    "FLAG_URG_REV,FLAG_ACK,FLAG_ACK_REV,FLAG_PSH,FLAG_PSH_REV,FLAG_RST,FLAG_RST_REV,FLAG_SYN,FLAG_SYN_REV,FLAG_FIN,"
    "FLAG_FIN_REV,FLOW_ENDREASON_IDLE,FLOW_ENDREASON_ACTIVE,FLOW_ENDREASON_END,FLOW_ENDREASON_OTHER,PPI,"
    "PHIST_SRC_SIZES,PHIST_DST_SIZES,PHIST_SRC_IPT,PHIST_DST_IPT"
)
YEAR22_ROW = (
    "7,10.0.0.1,192.0.2.7,64500,443,6,www.example,0123456789abcdef0123456789abcdef,2022-05-07T22:30:00,"
    "2022-05-07T22:30:01.5,1.5,663,51,7,6,4,0.019,2,outlook,Mail,0,0,0,0,0,0,1,1,1,1,0,0,1,1,1,1,0,0,1,0,"
    '"[[0, 1, 18, 0], [1, -1, 1, 1], [517, 146, 51, 0], [1, 1, 1, 0]]","[0, 0, 1, 0, 0, 0, 1, 0]",'
    '"[0, 0, 0, 0, 1, 0, 0, 0]","[0, 1, 0, 0, 0, 0, 0, 0]","[1, 0, 0, 0, 0, 0, 0, 0]"'
)
"""A row of CESNET-TLS-Year22; its last packet has size 0, time 0 and push flag 0, and counts all the same."""

GOOD_PPI = "[[0, 5], [1, -1], [1200, 40]]"


def row(ppi=GOOD_PPI, app="alpha", **cells):
    """Cells of a data row; PPI_LEN follows PPI where it can."""
    values = dict(zip(FIXTURE_HEADER.split(","), next(csv.reader([FIXTURE_ROW])), strict=True))
    try:
        length = len(json.loads(ppi)[0])
    except (ValueError, TypeError, IndexError):
        length = 2
    return values | {"PPI": ppi, "APP": app, "PPI_LEN": str(length)} | cells


def csv_text(rows, columns=None):
    """A day file as text."""
    columns = columns or FIXTURE_HEADER.split(",")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([entry[name] for name in columns] for entry in rows)
    return out.getvalue()


def write_day(folder, rows=None, *, text=None, data=None, day="20221031", columns=None):
    """Writes a day file from rows, text or raw (compressed) bytes; returns its path."""
    folder = Path(folder) / "cesnet-quic22" / "W-2022-44" / "1_Mon"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"flows-{day}.csv.gz"
    if data is None:
        text = csv_text(rows, columns) if text is None else text
        data = gzip.compress(text if isinstance(text, bytes) else text.encode())
    path.write_bytes(data)
    return path


def write_xz_day(folder, text, *, day="20220508", week="18", data=None):
    """Writes a day file of CESNET-TLS-Year22 from text or raw (compressed) bytes; returns its path."""
    place = Path(folder) / "CESNET-TLS-Year22" / f"WEEK-2022-{week}" / f"{day[:4]}-{day[4:6]}-{day[6:]}"
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"flows-{day}.csv.xz"
    path.write_bytes(lzma.compress(text.encode()) if data is None else data)
    return path


def random_ppi(rng, n):
    """PPI text of a flow of n packets."""
    times = np.r_[0, rng.integers(0, 300_000, n - 1)].tolist()
    return json.dumps([times, rng.choice([1, -1], n).tolist(), rng.integers(0, 1473, n).tolist()])


def reference_arrays(cells, length=30):
    """Size, direction and iat of PPI cells by a plain loop."""
    size = np.zeros((len(cells), length), np.int16)
    direction = np.zeros((len(cells), length), np.int8)
    iat = np.zeros((len(cells), length), np.float32)
    for index, cell in enumerate(cells):
        times, directions, sizes = json.loads(cell)
        for position, values in enumerate(zip(times, directions, sizes, strict=True)):
            iat[index, position] = values[0] / 1000
            direction[index, position], size[index, position] = values[1:]
    return size, direction, iat


def write_hdf5(
    path,
    days,
    *,
    channels=3,
    apps=("alpha", "beta", "quad-dns"),
    ppi_kind="int16",
    codes=None,
    drop=(),
    more=None,
):
    """Writes a datazoo-like file: `days` maps a table name to (ppi [flow, 3, 30], app codes [flow]).

    `more` maps further columns to (PyTables column, values of every table).
    """
    import tables

    more = more or {}

    codes = codes or {name: 10 * index + 3 for index, name in enumerate(apps)}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tables.open_file(str(path), "w") as file:
        group = file.create_group("/", "flows")
        for name, (ppi, labels) in days.items():
            columns = {
                "ID": tables.Int64Col(pos=0),
                "APP": tables.EnumCol(tables.Enum(codes), next(iter(codes)), base="uint16", pos=1),
                "CATEGORY": tables.EnumCol(tables.Enum({"web": 4, "other": 7}), "web", base="uint8", pos=2),
                "PPI": tables.Col.from_kind(
                    ppi_kind.rstrip("0123456789"), itemsize_of(ppi_kind), (channels, 30), pos=3
                ),
                "PPI_LEN": tables.UInt8Col(pos=4),
                "QUIC_SNI": tables.StringCol(16, pos=5),
            }
            columns = {k: v for k, v in columns.items() if k not in drop} | {k: v for k, (v, _) in more.items()}
            table = file.create_table(group, name, columns)
            rows = np.zeros(len(labels), table.dtype)
            if "PPI" in rows.dtype.names:
                rows["PPI"][:, :3] = ppi
            if "APP" in rows.dtype.names:
                rows["APP"] = labels
            rows["CATEGORY"] = 4
            for field, (_, values) in more.items():
                rows[field] = values
            table.append(rows)
    return Path(path)


def itemsize_of(kind):
    """Bytes of a dtype name."""
    return np.dtype(kind).itemsize


def read_day(path):
    """The flows of a day file of CESNET-QUIC22 with its classes in alphabetical order, and is_dns [flow] bool."""
    return _flows(cesnet.read(Path(path), ReadOptions()), path)


def read_hdf5(path):
    """The flows of a file of cesnet-datazoo with its classes in alphabetical order, and is_dns [flow] bool."""
    return _flows(cesnet_hdf5.read(Path(path), ReadOptions()), path)


def _flows(blocks, path):
    table = from_blocks(blocks, path, name="cesnet_quic", length=30)
    return table.flows, table.facts["is_dns"].to_numpy()
