"""Features of tokens against a loop over the values that a symbol holds."""

from __future__ import annotations

import math

import numpy as np

from jaxtraffic.generate import tokens
from jaxtraffic.generate.token_features import WAVES, size_features
from jaxtraffic.generate.token_vocabulary import Vocabulary
from jaxtraffic.series import from_signed_size


def test_features_are_those_of_the_middle_of_the_values():
    rng = np.random.default_rng(0)
    signed = rng.choice([-1500, -52, 40, 60, 700, 1500], size=(300, 6))
    signed[:40, 5] = rng.integers(100, 400, 40)
    flows = from_signed_size(signed, np.zeros(300, np.int32), class_names=("a",))
    vocabulary = Vocabulary.of(tokens.fit(flows, atom_share=0.02, bin_bytes=16), flows)
    found = size_features(vocabulary)
    assert found.shape == (vocabulary.n_symbols, 5 + 4 * len(WAVES))
    assert not found[0].any() and not found[-1].any()
    kinds = set()
    for symbol in range(1, vocabulary.n_symbols - 1):
        token = vocabulary.seen[symbol]
        offsets = np.flatnonzero(vocabulary.tokeniser.offset_mask[token])
        kinds.add(len(offsets) > 1)
        value = int(vocabulary.tokeniser.low[token]) + math.floor(sum(offsets) / len(offsets))
        size, direction = abs(value), math.copysign(1, value)
        own = [size / 1500, math.log1p(size) / 4 - 1]
        own += [math.sin(2 * math.pi * size / wave) for wave in WAVES]
        own += [math.cos(2 * math.pi * size / wave) for wave in WAVES]
        np.testing.assert_allclose(found[symbol], [direction, *own, *(direction * x for x in own)], atol=1e-5)
    assert kinds == {False, True}
