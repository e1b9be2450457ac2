"""What holds for every operation whatever the flow: property-based, at one shape so that nothing compiles twice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jaxtraffic import augment
from tests.augment import flows
from tests.augment.test_equals_loops import SCALED

EVERY = list(augment.AUGMENTATIONS)
ROWS = flows.FEW
KEEPS_PACKETS = ("horizontal_flip", "permutation", "perm_rto", "perm_fast_retransmit", "shuffle")
ONLY_DROPS_OR_REPEATS = (*KEEPS_PACKETS, "translation", "dup_rto", "dup_fast_retransmit", "tail_occlusion", "cutmix")
MAKES_DIRECTION_ZERO = ("interpolation", "wrap", "bernoulli_mask", "window_mask")
"""The first two by the mean of -1 and +1 (option direction="hold"), the others by setting packets to `pad`."""
FIXED_MASK = (
    *("gaussian_noise", "spike_noise", "gaussian_wrapup", "sine_wrapup", "constant_wrapup", "bernoulli_mask"),
    *("window_mask", "horizontal_flip", "permutation", "perm_rto", "perm_fast_retransmit", "iat_scale", "shuffle"),
)
LEAVES_PADDING = [
    *("gaussian_noise", "spike_noise", "gaussian_wrapup", "sine_wrapup", "constant_wrapup", "bernoulli_mask"),
    *("window_mask", "iat_scale"),
]
IDENTITY_AT_ZERO = {
    *("gaussian_noise", "spike_noise", "gaussian_wrapup", "sine_wrapup", "bernoulli_mask", "wrap", "dup_rto"),
    *("dup_fast_retransmit", "perm_rto", "perm_fast_retransmit", "mss_variation", "iat_scale", "time_shift"),
    "tail_occlusion",
}
modest = settings(max_examples=15, deadline=None, derandomize=True, database=None)


def numbers(high):
    return st.floats(0, high, width=32, allow_subnormal=False)


@st.composite
def batches(draw, raw):
    """Eight flows [8, T, 3]: all padding, one packet, full, constant ones and ones that hypothesis shrinks."""
    shape = (ROWS, flows.T)
    lengths = draw(st.lists(st.integers(0, flows.T), min_size=ROWS, max_size=ROWS))
    lengths[0], lengths[1] = 0, flows.T
    sizes = st.integers(0, 1500) if raw else numbers(1)
    x = np.empty((*shape, 3), np.float32)
    x[..., 0] = draw(arrays.arrays(np.float32, shape, elements=sizes.map(float)))
    x[..., 1] = draw(arrays.arrays(np.float32, shape, elements=st.sampled_from([-1.0, 1.0])))
    x[..., 2] = draw(arrays.arrays(np.float32, shape, elements=numbers(1000 if raw else 1)))
    x[2:4] = x[2:4, :1]
    x[:, 0, 2] = 0
    mask = np.arange(flows.T) < np.array(lengths)[:, None]
    x[~mask] = 0
    return x, mask


def run(name, x, mask, alpha, seed, **options):
    """One compiled call on eight flows, whatever the operation."""
    op = flows.operation(name, **options)
    alpha = np.broadcast_to(np.float32(alpha), ROWS)
    if op.batch:
        return flows.as_numpy(call_on_batch(op)(jax.random.key(seed), x, mask))
    return flows.as_numpy(flows.caller(op)(flows.keys(ROWS, seed), x, mask, alpha, flows.statistics(ROWS)))


@functools.cache
def call_on_batch(op):
    return jax.jit(lambda key, x, mask: op(key, x, mask), compiler_options=flows.QUICKLY)


def check_flows(name, x, mask, out, new, high):
    assert out.dtype == x.dtype and out.shape == x.shape and new.dtype == bool and new.shape == mask.shape
    assert np.isfinite(out).all()
    assert (new[:, 1:] <= new[:, :-1]).all(), "the mask is a prefix"
    assert (out[~new] == 0).all()
    assert (new.any(axis=1) == mask.any(axis=1)).all() or name == "cutmix", "no flow is emptied or made up"
    assert (out[..., 0] >= 0).all() and (out[..., 0] <= high).all()
    assert (out[..., 2] >= 0).all()
    if high == 1:
        assert (out[..., 2] <= 1).all()
    directions = [-1, 0, 1] if name in MAKES_DIRECTION_ZERO else [-1, 1]
    assert np.isin(out[..., 1][new], directions).all()
    if name in FIXED_MASK:
        np.testing.assert_array_equal(new, mask)


@pytest.mark.parametrize("name", EVERY)
def test_output_is_a_flow(name):
    raw = augment.AUGMENTATIONS[name].needs_seconds

    @modest
    @given(batches(raw), st.sampled_from([0.0, 1.0]) | numbers(1), st.integers(0, 2**31 - 1))
    def holds(batch, alpha, seed):
        x, mask = batch
        out, new = run(name, x, mask, alpha, seed)
        check_flows(name, x, mask, out, new, 1500 if raw else 1)
        if name in ("packet_loss", "time_shift"):
            slack = 1.0 if name == "time_shift" else 0.0
            assert (out[..., 2].sum(axis=1) <= x[..., 2].sum(axis=1) * (1 + 1e-5) + slack).all()

    holds()


@pytest.mark.parametrize("name", [name for name in ONLY_DROPS_OR_REPEATS if name != "cutmix"])
def test_packets_stay_whole(name):
    """Permuting operations keep the multiset of packets, those that drop or repeat invent none."""

    @modest
    @given(batches(False), numbers(1), st.integers(0, 2**31 - 1))
    def holds(batch, alpha, seed):
        x, mask = batch
        out, new = run(name, x, mask, alpha, seed)
        for i in range(ROWS):
            before, after = sorted(map(tuple, x[i][mask[i]])), sorted(map(tuple, out[i][new[i]]))
            assert before == after if name in KEEPS_PACKETS else set(after) <= set(before)

    holds()


def test_cutmix_moves_columns_between_the_flows_of_a_batch():
    @modest
    @given(batches(False), st.integers(0, 2**31 - 1))
    def holds(batch, seed):
        x, mask = batch
        x[..., 0] = np.arange(ROWS * flows.T, dtype=np.float32).reshape(ROWS, flows.T) / 1000
        out, new = run("cutmix", x, mask, 1.0, seed)
        assert sorted(map(tuple, out[new])) == sorted(map(tuple, x[mask]))
        assert (np.diff(np.round(out[..., 0] * 1000) % flows.T, axis=1)[new[:, 1:]] > 0).all(), "in order of columns"

    holds()


@pytest.mark.parametrize("name", ["interpolation", "wrap"])
def test_direction_can_be_held(name):
    x, mask = flows.normalised_flows(count=ROWS * 21, padding=0)
    for row in range(0, len(x), ROWS):
        out, new = run(name, x[row : row + ROWS], mask[row : row + ROWS], 1.0, row, direction="hold")
        assert np.isin(out[..., 1][new], [-1, 1]).all()


def test_registry_names_the_identities():
    assert {name for name, entry in augment.AUGMENTATIONS.items() if entry.identity_at_zero} == IDENTITY_AT_ZERO


@pytest.mark.parametrize("name", sorted(IDENTITY_AT_ZERO))
def test_identity_at_zero(name):
    """To the bit, on values of any range, and whether or not the flows are normalised."""

    @modest
    @given(batches(True), batches(False), st.integers(0, 2**31 - 1))
    def holds(raw, normalised, seed):
        # Sizes below the 40 bytes of a header and above the largest segment are no packets that mss_variation knows.
        for x, mask in (raw,) if augment.AUGMENTATIONS[name].needs_seconds else (raw, normalised):
            out, new = run(name, x, mask, 0.0, seed)
            np.testing.assert_array_equal(new, mask)
            np.testing.assert_array_equal(out, x)

    holds()


@pytest.mark.parametrize("name", sorted(set(flows.PER_FLOW) - IDENTITY_AT_ZERO))
def test_others_change_something_at_zero(name):
    x, mask = flows.suitable_flows(name, padding=0)
    alpha = np.zeros(flows.FLOWS, np.float32)
    _, out, _ = flows.replayer(flows.operation(name))(flows.keys(), x, mask, alpha, flows.statistics())
    assert not np.array_equal(out, x)


@pytest.mark.parametrize("name", flows.PER_FLOW)
def test_magnitude_matters_where_the_registry_says(name):
    x, mask = flows.suitable_flows(name)
    key, stats, program = flows.keys(), flows.statistics(), flows.replayer(flows.operation(name))
    low, high = (
        flows.as_numpy(program(key, x, mask, np.full(flows.FLOWS, alpha, np.float32), stats)[0]) for alpha in (0.1, 0.9)
    )
    differ = any(not np.array_equal(low[field], high[field]) for field in low)
    assert differ == augment.AUGMENTATIONS[name].has_magnitude


@pytest.mark.parametrize("name", LEAVES_PADDING)
def test_amplitude_and_masking_never_touch_padding(name):
    x, mask = flows.suitable_flows(name)
    inputs = (flows.keys(), x, mask, flows.alphas(), flows.statistics())
    _, out, new = flows.as_numpy(flows.replayer(flows.operation(name))(*inputs))
    np.testing.assert_array_equal(new, mask)
    np.testing.assert_array_equal(out[~mask], x[~mask])


def odd_flows(raw):
    """Eight flows: no packet, one, constant at 0 and at the top, full, two and equal times."""
    make = flows.raw_flows if raw else flows.normalised_flows
    x, mask = make(count=ROWS, padding=0, seed=5)
    n = np.array([0, 1, flows.T, flows.T, flows.T, 2, 3, 19])
    mask = np.arange(flows.T) < n[:, None]
    x[..., 1] = 1
    x[2] = [0, 1, 0]
    x[3] = [1500, 1, 1] if raw else [1, -1, 1]
    x[:, 0, 2] = 0
    x[~mask] = 0
    return x, mask


GRADIENTS = [*((name, {}) for name in EVERY), ("packet_loss", SCALED), ("time_shift", SCALED), ("iat_scale", SCALED)]


@pytest.mark.parametrize("name,options", GRADIENTS, ids=lambda value: value if isinstance(value, str) else len(value))
def test_gradients_are_finite(name, options):
    op = flows.operation(name, **options)
    x, mask = odd_flows(augment.AUGMENTATIONS[name].needs_seconds and not options)
    stats, key = flows.statistics(ROWS), jax.random.key(3)

    def loss(x, alpha):
        if op.batch:
            return jnp.sum(jnp.sin(op(key, x, jnp.asarray(mask))[0]))
        call = jax.vmap(lambda key, x, mask, stats: op(key, x, mask, alpha, stats=stats))
        return jnp.sum(jnp.sin(call(jax.random.split(key, ROWS), x, mask, stats)[0]))

    gradient = jax.jit(jax.grad(loss), compiler_options=flows.QUICKLY)
    for alpha in (0.0, 0.5, 1.0):
        slope = gradient(x, jnp.float32(alpha))
        assert slope.dtype == jnp.float32 and np.isfinite(slope).all()
    assert np.any(slope != 0)


@pytest.mark.parametrize("name", EVERY)
def test_dtypes_are_kept(name):
    """bfloat16 for all, float16 where its range could be left."""
    raw = augment.AUGMENTATIONS[name].needs_seconds
    for dtype in (jnp.bfloat16, jnp.float16) if raw else (jnp.bfloat16,):
        x, mask = odd_flows(raw)
        x = jnp.asarray(x, dtype)
        for alpha in (0.0, 1.0):
            out, new = run(name, x, mask, alpha, 4)
            assert out.dtype == dtype and new.dtype == bool and out.shape == x.shape
            values = out.astype(np.float32)
            assert np.isfinite(values).all() and (values[..., [0, 2]] >= 0).all()
            assert np.isin(values[..., 1], [-1, 0, 1]).all()
            if name in ONLY_DROPS_OR_REPEATS:
                assert np.isin(values, np.asarray(x, np.float32)).all()
            if alpha == 0 and name in IDENTITY_AT_ZERO and (name != "mss_variation" or dtype == jnp.float16):
                np.testing.assert_array_equal(values, np.asarray(x, np.float32))
