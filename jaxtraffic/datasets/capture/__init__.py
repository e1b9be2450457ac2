"""Packet captures (pcap and pcapng) read into flows.

`reader.read_capture` is the entry. Below it, in the order of the bytes: `containers` and `pcapng` find the packets of a
file, `layers` finds the IP header of each, `network` reads IP, TCP and UDP, `fragments` gives ports to the fragments
that have none, and `flow_table` puts packets into flows. All of it works on blocks of packets with NumPy.
"""
