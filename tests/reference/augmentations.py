"""The augmentations as plain NumPy loops over flows: the reference of the tests and the baseline of the benchmark.

`SAMPLE[name](rng, mask, alpha, stats=None, **options) -> params` draws for one flow (cutmix: for a batch) and
`APPLY[name](x, mask, params, **options) -> (x, mask)` applies what was drawn. Sources: Wang et al. 2024 (PAM), Xie et
al. 2023 (Rosetta), Horowicz et al. 2022 (flowpic); nothing here looks at the library.
"""

from tests.reference import amplitude_and_masking, sequence

SAMPLE = {**amplitude_and_masking.SAMPLE, **sequence.SAMPLE}
APPLY = {**amplitude_and_masking.APPLY, **sequence.APPLY}
