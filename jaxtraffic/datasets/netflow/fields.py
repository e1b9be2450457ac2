"""Cells of NetFlow tables as numbers: addresses, ports, protocols, counts with magnitudes, times.

Every function takes a column of text and gives the values with null where a cell cannot be read, so that the reader can
name the first such row.
"""

from __future__ import annotations

import ipaddress
import re

import polars as pl

PROTOCOLS = {
    "HOPOPT": 0, "ICMP": 1, "IGMP": 2, "IPIP": 4, "TCP": 6, "EGP": 8, "IGP": 9, "UDP": 17, "RDP": 27, "DCCP": 33,
    "IPV6": 41, "RSVP": 46, "GRE": 47, "ESP": 50, "AH": 51, "ICMP6": 58, "EIGRP": 88, "OSPF": 89, "ETHERIP": 97,
    "PIM": 103, "VRRP": 112, "L2TP": 115, "SCTP": 132, "UDPLITE": 136,
}  # fmt: skip
"""Names as nfdump and NetShare write them, upper case -> IANA protocol number."""

_OTHER_NAMES = {"IPV6-ICMP": 58, "ICMPV6": 58, "IP": 4, "IPENCAP": 4, "IPV4": 4, "OSPFIGP": 89, "UDP-LITE": 136}

PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()} | {41: "IPv6"}
"""IANA protocol number -> name as written."""

MAX_COUNT = 2**53
"""Largest count; above it float64 no longer tells neighbours apart."""

FIRST_HOST = 2**32
"""Addresses from here on number the hosts that have no IPv4 address."""

_DOTTED = r"^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"
_MAGNITUDE = r"^(\d+(?:\.\d+)?) *([kKMGT]?)$"
# names that CIDDS puts in the place of public addresses (EXT_SERVER, 10008_34), and no damaged address
_HOST_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,62}|\d{1,10}_\d{1,10}")


def trimmed(column: pl.Series) -> pl.Series:
    """Text without the spaces that nfdump fills its fields with; an empty cell is null."""
    column = column.cast(pl.String).str.strip_chars()
    return column.set(column.str.len_bytes() == 0, None) if column.len() else column


def numbers(column: pl.Series) -> pl.Series:
    """Finite numbers as float64."""
    value = column.set(~column.str.contains(_NUMBER).fill_null(False), None).cast(pl.Float64, strict=False)
    return value.set(~value.is_finite().fill_null(False), None)


def counts(column: pl.Series) -> pl.Series:
    """Whole numbers from 0 as int64, with the decimal magnitudes of nfdump (`1.2 M` is 1,200,000)."""
    part = column.to_frame("c").select(
        pl.col("c").str.extract(_MAGNITUDE, 1).cast(pl.Float64, strict=False).alias("value"),
        pl.col("c")
        .str.extract(_MAGNITUDE, 2)
        .str.to_lowercase()
        .replace_strict({"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}, default=None, return_dtype=pl.Float64)
        .alias("factor"),
    )
    value = part.select((pl.col("value") * pl.col("factor")).alias("c"))["c"]
    # 1.1 times a million is not whole in binary
    whole = value.round()
    fine = ((whole - value).abs() <= 1e-6 * whole.clip(1)) & (value < MAX_COUNT)
    return whole.to_frame("c").select(pl.when(fine).then(pl.col("c")).cast(pl.Int64).alias("c"))["c"]


def ports(column: pl.Series, protocol: pl.Series) -> pl.Series:
    """Ports as int32; `8.0` of an ICMP record, its type and code, becomes 256 * type + code as in NetFlow itself.

    Args:
        column: text; `443.0`, as pandas may write it, is 443 where the protocol is none of ICMP.
        protocol: numbers, null where unknown.
    """
    icmp = protocol.is_in([1, 58]).fill_null(False).alias("icmp")
    parts = pl.DataFrame([column.alias("c"), icmp]).select(
        pl.col("c").str.extract(r"^(\d{1,5})(?:\.0)?$", 1).cast(pl.Int64).alias("plain"),
        (pl.col("icmp") & pl.col("c").str.contains(r"^\d{1,3}\.\d{1,3}$")).alias("typed"),
        pl.col("c").str.extract(r"^(\d{1,3})\.", 1).cast(pl.Int64).alias("type"),
        pl.col("c").str.extract(r"\.(\d{1,3})$", 1).cast(pl.Int64).alias("code"),
    )
    fine = (pl.col("type") < 256) & (pl.col("code") < 256)
    typed = pl.when(fine).then(pl.col("type") * 256 + pl.col("code"))
    value = parts.select(pl.when("typed").then(typed).otherwise(pl.col("plain")).alias("c"))["c"]
    return value.set(~value.is_between(0, 65_535).fill_null(False), None).cast(pl.Int32)


def protocols(column: pl.Series) -> pl.Series:
    """IANA protocol numbers as int64, from names in any case or from numbers."""
    upper = column.str.to_uppercase()
    table = PROTOCOLS | _OTHER_NAMES
    named = upper.replace_strict(table, default=None, return_dtype=pl.Int64)
    numeric = upper.str.extract(r"^(\d{1,3})$", 1).cast(pl.Int64)
    both = named.to_frame("c").select(pl.coalesce("c", numeric.alias("n")).alias("c"))["c"]
    return both.set(~both.is_between(0, 255).fill_null(False), None)


def addresses(column: pl.Series, hosts: dict[str, int]) -> pl.Series:
    """Addresses as int64: IPv4 as its number, other hosts from `FIRST_HOST` on in the order of `hosts`.

    Args:
        column: dotted text, a whole number below 2**32, IPv6, or a name as in CIDDS.
        hosts: names met so far -> their order; new ones are added.
    """
    frame = column.to_frame("c")
    octets = frame.select(
        pl.col("c").str.extract(_DOTTED, part).cast(pl.Int64).alias(str(part)) for part in (1, 2, 3, 4)
    )
    dotted = octets.select(
        pl.when(pl.all_horizontal(pl.all() < 256)).then(
            pl.col("1") * (1 << 24) + pl.col("2") * (1 << 16) + pl.col("3") * 256 + pl.col("4")
        ).alias("c")
    )["c"]  # fmt: skip
    number = column.str.extract(r"^(\d{1,10})(?:\.0)?$", 1).cast(pl.Int64)
    number = number.set(~(number < FIRST_HOST).fill_null(False), None)
    value = dotted.to_frame("c").select(pl.coalesce("c", number.alias("n")).alias("c"))["c"]
    other = column.filter(value.is_null() & column.is_not_null()).unique(maintain_order=True)
    if not other.len():
        return value
    known: dict[str, int] = {}
    for text in other.to_list():
        name = _host_name(text)
        if name is not None:
            known[text] = FIRST_HOST + hosts.setdefault(name, len(hosts))
    named = column.replace_strict(known, default=None, return_dtype=pl.Int64) if known else value
    return value.to_frame("c").select(pl.coalesce("c", named.alias("n")).alias("c"))["c"]


def _host_name(text: str) -> str | None:
    if _HOST_NAME.fullmatch(text):
        return text
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        return None


def seconds(microseconds: pl.Series) -> pl.Series:
    """Microseconds as float64 seconds, rounded right: polars multiplies by the inverse, which is another number."""
    return pl.Series(microseconds.cast(pl.Float64).to_numpy() / 1e6, nan_to_null=True)


def moments(column: pl.Series) -> pl.Series:
    """Text such as `2016-06-20 00:07:11.250`, taken as UTC, as float64 seconds since 1970."""
    time = column.str.replace("T", " ", literal=True).str.to_datetime(
        "%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False
    )
    return seconds(time.cast(pl.Int64))
