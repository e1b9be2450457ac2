"""The CESNET sets: QUIC22, TLS22 and TLS-Year22, as day files, as HDF5 files and through cesnet-datazoo."""
