"""Plain implementations, written from the definitions only, that tests and benchmarks compare the library with."""
