"""IP addresses as pairs of 64-bit numbers: as text, and inside networks."""

from __future__ import annotations

import ipaddress
import socket

import numpy as np
import polars as pl

from jaxtraffic.errors import ConfigError

_HALF = (1 << 64) - 1


def texts(high: np.ndarray, low: np.ndarray, version: np.ndarray) -> pl.Series:
    """[flow] addresses as people write them, given their upper and lower halves (uint64) and IP versions."""
    pairs = np.stack([high, low], axis=1).astype(">u8")
    written = [
        socket.inet_ntop(socket.AF_INET, raw[12:]) if four else socket.inet_ntop(socket.AF_INET6, raw)
        for raw, four in zip((row.tobytes() for row in pairs), (version == 4).tolist(), strict=True)
    ]
    return pl.Series("address", written, dtype=pl.String)


class Networks:
    """Networks of clients, such as "10.0.0.0/8" or "10.0.0.0/8, fd00::/8".

    Raises:
        ConfigError: text that says no network.
    """

    def __init__(self, text: str):
        self._networks = []
        for part in text.split(","):
            try:
                network = ipaddress.ip_network(part.strip())
            except ValueError as error:
                raise ConfigError(
                    f"client_network: {error}; expected a network such as 10.0.0.0/8, several with commas between"
                ) from error
            self._networks.append((network.version, int(network.network_address), int(network.netmask)))

    def contain(self, high: np.ndarray, low: np.ndarray, version: np.ndarray) -> np.ndarray:
        """[flow] bool, whether addresses are in one of the networks."""
        inside = np.zeros(low.size, bool)
        for of_version, address, mask in self._networks:
            match = version == of_version
            match &= (low & np.uint64(mask & _HALF)) == np.uint64(address & _HALF)
            if of_version == 6:
                match &= (high & np.uint64(mask >> 64)) == np.uint64(address >> 64)
            inside |= match
        return inside
