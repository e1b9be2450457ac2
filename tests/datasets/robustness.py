"""Damaged copies of valid files, for the tests that nothing but our own errors leaves a reader."""

import numpy as np

ABSURD = (
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"9" * 400,
    b"-1",
    b"1e999",
    b"NaN",
)


def mutated_copies(data, n, seed):
    """Yields n damaged copies of the bytes: flipped bits, truncation, duplication, splices, absurd lengths, noise."""
    rng = np.random.default_rng(seed)
    for index in range(n):
        copy = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            _mutate(copy, index % 6 if _ == 0 else int(rng.integers(0, 6)), rng)
        yield bytes(copy)


def _mutate(copy, kind, rng):
    size = max(len(copy), 1)
    at = int(rng.integers(0, size))
    length = int(min(rng.integers(1, 65), size))
    if kind == 0:  # flipped bits
        for place in rng.integers(0, size, int(rng.integers(1, 9))):
            if place < len(copy):
                copy[place] ^= 1 << int(rng.integers(0, 8))
    elif kind == 1:  # truncation
        del copy[at:]
    elif kind == 2:  # duplication
        copy[at:at] = copy[at : at + length * int(rng.integers(1, 20))]
    elif kind == 3:  # a piece from elsewhere
        other = int(rng.integers(0, size))
        copy[at : at + length] = copy[other : other + length]
    elif kind == 4:  # an absurd length or number
        value = ABSURD[int(rng.integers(0, len(ABSURD)))]
        copy[at : at + len(value)] = value
    else:  # noise
        copy[at : at + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
