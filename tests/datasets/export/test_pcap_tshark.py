import json
import shutil
import subprocess

import pytest

from jaxtraffic.datasets.export.pcap import write_pcap
from tests.datasets.export.test_pcap import KINDS, packets_of, series, size_of


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("handshake", [False, True])
@pytest.mark.parametrize(("layer", "transport", "version"), KINDS)
def test_tshark_finds_nothing_wrong_and_the_same_lengths(tmp_path, layer, transport, version, handshake):
    flows, path = series(layer, transport, version), tmp_path / "x.pcap"
    write_pcap(flows, path, transport=transport, ip_version=version, handshake=handshake)
    checks = [
        part
        for name in ("ip", "tcp", "udp")
        if (name, version) != ("ip", 6)
        for part in ("-o", f"{name}.check_checksum:TRUE")
    ]
    fields = ["frame.time_epoch", "ip.len", "ipv6.plen", "tcp.len", "udp.length", "_ws.malformed", "ip.checksum.status"]
    fields += ["tcp.checksum.status", "udp.checksum.status", "_ws.expert.severity"]
    command = ["tshark", "-r", str(path), *checks, "-T", "json", "--no-duplicate-keys"]
    command += [part for field in fields for part in ("-e", field)]
    shown = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    packets = packets_of(path)
    assert len(shown) == len(packets)
    for entry, (_, ip, segment) in zip(shown, packets):
        layers = entry["_source"]["layers"]
        assert "_ws.malformed" not in layers
        states = [layers[name][0] for name in layers if name.endswith("checksum.status")]
        assert states and set(states) == {"1"}  # good
        # notes and chats are about duplicate acknowledgements; 6 MiB is a warning, 8 MiB an error
        severities = [int(value) for value in layers.get("_ws.expert.severity", [])]
        assert max(severities, default=0) < 0x600000
        total = int(layers["ip.len"][0]) if version == 4 else int(layers["ipv6.plen"][0]) + 40
        assert total == size_of(ip, "ip")
        seen = int(layers["tcp.len"][0]) if transport == "tcp" else int(layers["udp.length"][0]) - 8
        assert seen == len(segment.data)
