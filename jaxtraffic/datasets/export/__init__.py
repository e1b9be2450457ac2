"""Packet series into files that other tools read: pcap, npz, tables of tcbench."""
