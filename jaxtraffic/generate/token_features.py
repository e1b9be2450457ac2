"""What numbers say of tokens: sizes that are close are alike, which a table of independent embeddings has to relearn.

Every symbol gets a fixed vector of its signed size; the network adds a learnt map of it to its embeddings and to its
output weights (`nn.tied`). Held-out likelihood, one run each with the defaults otherwise: doh_tunnels_iot
56.2 -> 53.5 nats a flow, iot_sentinel 8.21 -> 8.04.
"""

from __future__ import annotations

import numpy as np

from jaxtraffic.generate.token_vocabulary import Vocabulary

WAVES = (3000, 1200, 480, 192, 77, 31)
"""Wavelengths, bytes: from twice a packet of Ethernet down to two bins."""


def size_features(vocabulary: Vocabulary) -> np.ndarray:
    """Features of all symbols [symbol, 5 + 4 x waves] float32; zeros for the end and for the unseen.

    Direction, size and its logarithm with and without it, and sines and cosines of the size with and without it, after
    Fourier features (Tancik et al. 2020). A bin stands at the middle of its values.
    """
    tokeniser, seen = vocabulary.tokeniser, vocabulary.seen[1:]
    offsets = tokeniser.offset_mask[seen]
    middle = (offsets * np.arange(offsets.shape[1])).sum(axis=1) / offsets.sum(axis=1)
    signed = tokeniser.low[seen] + np.floor(middle)
    size, direction = np.abs(signed), np.sign(signed)
    logarithm = np.log1p(size) / 4 - 1
    phase = 2 * np.pi * size[:, None] / np.array(WAVES)
    waves = np.concatenate([np.sin(phase), np.cos(phase)], axis=1)
    own = np.column_stack([size / 1500, logarithm, waves])
    made = np.column_stack([direction, own, direction[:, None] * own])
    return np.pad(made, ((1, 1), (0, 0))).astype(np.float32)
