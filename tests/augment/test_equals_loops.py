"""Every operation against the plain loops of tests/reference, given the same draws; one device against eight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxtraffic import augment
from tests.augment import flows
from tests.reference.augmentations import APPLY

ARITHMETIC = {
    *("gaussian_noise", "spike_noise", "gaussian_wrapup", "sine_wrapup", "constant_wrapup", "interpolation", "wrap"),
    *("packet_loss", "iat_scale", "time_shift"),
}
"""Operations that compute values; the others only move or replace them and have to agree bit by bit."""
PAD = (0.0, 0.5, -1.0)


def to_seconds(scaled):
    """[0, 1] -> 1 microsecond to 100 seconds."""
    return 10.0 ** (scaled * 8.0 - 6.0)


def from_seconds(seconds):
    library = np if isinstance(seconds, np.ndarray) else jnp
    return (library.log10(library.maximum(seconds, 1e-6)) + 6.0) / 8.0


SCALED = {"to_seconds": to_seconds, "from_seconds": from_seconds}
OPTIONS = [
    ("gaussian_noise", {"clip": None, "pad": PAD, "features": "both"}),
    ("gaussian_noise", {"clip": (0.25, 0.75)}),
    ("spike_noise", {"clip": None, "features": "both"}),
    ("spike_noise", {"max_spikes": 1}),
    ("spike_noise", {"max_spikes": 7, "features": "both"}),
    ("gaussian_wrapup", {"clip": None, "features": "size"}),
    ("gaussian_wrapup", {"clip": (0.25, 0.75), "features": "both"}),
    ("sine_wrapup", {"clip": None, "features": "iat"}),
    ("constant_wrapup", {"clip": None}),
    ("bernoulli_mask", {"per_packet": True, "pad": PAD}),
    ("window_mask", {"rounding": "nearest", "pad": PAD}),
    ("horizontal_flip", {"padding_first": True, "pad": PAD}),
    ("interpolation", {"direction": "hold", "pad": PAD}),
    ("packet_loss", {"mode": "seconds", "pad": PAD}),
    ("packet_loss", {"keep_min": 3}),
    ("packet_loss", {"mode": "seconds", **SCALED}),
    ("packet_loss", SCALED),
    ("translation", {"pad": PAD}),
    ("wrap", {"direction": "hold", "pad": PAD}),
    ("permutation", {"pad": -1.0}),
    ("dup_rto", {"first": 2, "pad": PAD}),
    ("dup_rto", {"lmin": 1, "lmax": 3}),
    ("dup_fast_retransmit", {"first": 1, "pad": PAD}),
    ("perm_rto", {"first": 2, "lmin": 3, "lmax": 10, "pad": PAD}),
    ("perm_fast_retransmit", {"first": 2, "pad": PAD}),
    ("mss_variation", {"mss": (100, 200), "pad": PAD}),
    ("mss_variation", {"mss": (1400, 1400), "rtt_max": 20.0, "header": 52}),
    ("iat_scale", {"width": 1.0, "pad": PAD}),
    ("time_shift", {"max_shift": 20.0, "pad": PAD}),
    ("time_shift", {"rebase": True}),
    ("tail_occlusion", {"fraction": 1.0, "pad": PAD}),
    ("shuffle", {"pad": PAD}),
]
FIRST_IAT = [
    ("packet_loss", {"u": 0.5, "half_width": 0.15}),
    ("time_shift", {"shift": 0.0}),
    ("time_shift", {"shift": 0.5}),
]
LOSSES = [name for name in flows.PER_FLOW if name.startswith(("dup_", "perm_"))]
EAGER = ("gaussian_noise", "packet_loss", "translation", "dup_rto")
"""Without jit every step of an operation is compiled by itself: one operation of each kind is called so."""
ELEMENTWISE = ("gaussian_noise", "gaussian_wrapup", "sine_wrapup", "constant_wrapup", "bernoulli_mask", "iat_scale")
"""Operations that no length of the array is special to."""
BY_WORDS = ("spike_noise", "packet_loss", "time_shift", "wrap", "permutation", "mss_variation", *LOSSES)
"""Operations that hold flags of up to 32 packets in a word."""
LENGTHS = [
    *((name, 1) for name in flows.PER_FLOW),
    *((name, 32) for name in flows.PER_FLOW if name in BY_WORDS),
    *((name, 70) for name in flows.PER_FLOW if name not in ELEMENTWISE),
]


def packet_times(x, mask, options):
    """[flow, packet] float64 seconds since the first packet."""
    iat = options.get("to_seconds", np.asarray)(x[..., 2].astype(np.float64))
    iat = np.where(mask, iat, 0)
    iat[:, :1] = 0
    return np.cumsum(iat, axis=1)


def undecided(name, x, mask, params, options):
    """[flow] bool: flows in which rounding alone decides whether a packet is dropped or joined, and the time scale."""
    time = packet_times(x, mask, options)
    last = time[:, -1] if x.shape[1] else np.zeros(len(x))
    gap = np.full(time.shape, np.inf)
    if name == "packet_loss":
        half = params["half_width"] * (last if options.get("mode", "fraction") == "fraction" else 1.0)
        gap = np.abs(np.abs(time - (params["u"] * last)[:, None]) - half[:, None])
    elif name == "time_shift":
        shifted = time + (mask[:, 0] * x[:, 0, 2])[:, None] + params["shift"][:, None]
        gap, last = np.where(params["shift"][:, None] != 0, np.abs(shifted), np.inf), last + np.abs(params["shift"])
    elif name == "mss_variation":
        between = np.abs(time[:, :, None] - time[:, None, :] - params["rtt"][:, None, None]).min(axis=2)
        gap = np.where(params["rtt"][:, None] > 0, between, np.inf)
        return ((gap < 1e-6 * params["rtt"][:, None] + 1e-9) & mask).any(axis=1), last
    return ((gap < 1e-5 * last[:, None]) & mask & (last[:, None] > 0)).any(axis=1), last


def difference(i, x, mask, drawn, got, want):
    rows = np.flatnonzero((got[0] != want[0]).any(axis=1) | (got[1] != want[1]))[:5]
    lines = [f"{t}: library {got[0][t]} {got[1][t]}, loop {want[0][t]} {want[1][t]}" for t in rows]
    n = mask.sum()
    return "\n".join([f"flow {i} of {n} packets", str(x[: n + 1]), str(drawn), "differs at", *lines])


def compare(name, options, length, x, mask, seed):
    op = flows.operation(name, **options)
    count = len(x)
    if name == "packet_loss" or options.get("rebase"):
        x[mask[:, 0], 0, 2] = 0  # what else becomes of it: test_first_iat_is_rederived
    stats = flows.statistics(count, length, seed)
    inputs = (flows.keys(count, seed), x, mask, flows.alphas(count, seed), stats)
    params, got_x, got_mask = flows.as_numpy(flows.replayer(op, bool(options) or length != flows.T)(*inputs))
    assert got_x.dtype == x.dtype and got_mask.dtype == bool and got_x.shape == x.shape
    skipped, last = undecided(name, x, mask, params, options)
    assert skipped.mean() < 0.01, f"{skipped.sum()} flows at the boundary"
    changed = 0
    for i in np.flatnonzero(~skipped):
        drawn = flows.flow_of(params, i)
        want_x, want_mask = APPLY[name](x[i], mask[i], drawn, **options)
        scale = last[i] if name in ("packet_loss", "time_shift") and not options.get("to_seconds") else 1.0
        near = {"rtol": 2e-6, "atol": 1e-6 * scale} if name in ARITHMETIC else {"rtol": 0, "atol": 0}
        if options.get("to_seconds"):
            near = {"rtol": 1e-4, "atol": 1e-4}
        same = (got_mask[i] == want_mask).all() and np.allclose(got_x[i], want_x, **near)
        assert same, difference(i, x[i], mask[i], drawn, (got_x[i], got_mask[i]), (want_x, want_mask))
        changed += not np.array_equal(want_x, x[i])
    return changed


def labelled(options):
    return "-".join(f"{key}={value}" for key, value in options.items() if not callable(value)) + (
        "-scaled" if "to_seconds" in options else ""
    )


@pytest.mark.parametrize("name", flows.PER_FLOW)
def test_operation_equals_its_loop(name):
    x, mask = flows.suitable_flows(name)
    assert compare(name, {}, flows.T, x, mask, seed=1) > 200, "the comparison is of something"


@pytest.mark.parametrize("name,length", LENGTHS)
def test_operation_equals_its_loop_at_other_lengths(name, length):
    """One packet (or none) in an array of one, flags that fill a whole word, and arrays beyond 64 packets."""
    x, mask = flows.suitable_flows(name, count=284, length=length, seed=2)
    compare(name, {}, length, x, mask, seed=2)


@pytest.mark.parametrize(
    "name,options", OPTIONS, ids=lambda value: value if isinstance(value, str) else labelled(value)
)
def test_options_equal_the_loop(name, options):
    make = flows.normalised_flows if "to_seconds" in options else lambda **sizes: flows.suitable_flows(name, **sizes)
    x, mask = make(count=1052, seed=3)
    compare(name, options, flows.T, x, mask, seed=3)


@pytest.mark.parametrize("name", ["gaussian_noise", "spike_noise", "gaussian_wrapup", "sine_wrapup", "constant_wrapup"])
def test_amplitude_on_raw_values_equals_the_loop(name):
    x, mask = flows.raw_flows(seed=4)
    compare(name, {}, flows.T, x, mask, seed=4)


@pytest.mark.parametrize("name,params", FIRST_IAT)
def test_first_iat_is_rederived(name, params):
    """Flows that (against the data type) begin with an IAT other than 0: the first survivor has 0 all the same."""
    x, mask = jnp.array([[100.0, 1.0, 0.25], [200.0, -1.0, 1.0], [0.0, 0.0, 0.0]]), jnp.array([True, True, False])
    options = {"rebase": True} if name == "time_shift" else {}
    params = {field: jnp.float32(value) for field, value in params.items()}
    apply = jax.jit(flows.operation(name, **options).apply, compiler_options=flows.QUICKLY)
    got_x, got_mask = apply(x, mask, params)
    want_x, want_mask = APPLY[name](np.asarray(x), np.asarray(mask), flows.as_numpy(params), **options)
    np.testing.assert_array_equal(got_mask, want_mask)
    np.testing.assert_array_equal(got_x, want_x)


def every_loss(length=10):
    """All masks of up to seven lost packets in flows of 0..6 and `length`: no pattern is too rare to be met."""
    pattern = (np.arange(128)[:, None] >> np.arange(7)) % 2 == 1
    lost, mask = np.zeros((1024, length), bool), np.zeros((1024, length), bool)
    for n in range(8):
        rows = slice(128 * n, 128 * (n + 1))
        mask[rows] = np.arange(length) < (n if n < 7 else length)
        lost[rows, :7] = pattern
    return lost & mask, mask


def apply_losses(name, x, mask, lost, **options):
    op = flows.operation(name, **options)
    apply = jax.jit(jax.vmap(op.apply), compiler_options=flows.QUICKLY)
    return flows.as_numpy(apply(x, mask, {"lost": lost}))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_pattern_equals_the_loop(name):
    lost, mask = every_loss()
    x, _ = flows.normalised_flows(count=1024, length=10, seed=5)
    got_x, got_mask = apply_losses(name, x, mask, lost)
    for i in range(1024):
        want_x, want_mask = APPLY[name](x[i], mask[i], {"lost": lost[i]})
        np.testing.assert_array_equal(got_mask[i], want_mask, str(lost[i]))
        np.testing.assert_array_equal(got_x[i], want_x, str(lost[i]))


@pytest.mark.parametrize("name", LOSSES)
def test_recomputed_iats_equal_the_loop(name):
    """Every pattern with seconds (sums in float32 here, in float64 there), and all but IATs as without the option."""
    lost, mask = every_loss()
    x, _ = flows.raw_flows(count=1024, length=10, seed=5)
    got_x, got_mask = apply_losses(name, x, mask, lost, iat="recompute", pad=PAD)
    recomputed = 0
    for i in range(1024):
        carried, _ = APPLY[name](x[i], mask[i], {"lost": lost[i]}, pad=PAD)
        want_x, want_mask = APPLY[name](x[i], mask[i], {"lost": lost[i]}, pad=PAD, iat="recompute")
        near = {"rtol": 1e-5, "atol": 1e-6 * (x[i, :, 2] * mask[i]).sum(), "err_msg": f"{x[i][mask[i]]} {lost[i]}"}
        np.testing.assert_array_equal(got_mask[i], want_mask, str(lost[i]))
        np.testing.assert_array_equal(got_x[i, :, :2], carried[:, :2], str(lost[i]))
        np.testing.assert_allclose(got_x[i, :, 2], want_x[:, 2], **near)
        recomputed += (got_x[i, :, 2] != carried[:, 2]).any()
    assert recomputed > 500


@pytest.mark.parametrize("name", LOSSES)
def test_recomputed_iats_by_hand(name):
    """Packets 1 and 2 are lost, 3 is delivered, then 5, the last one, is lost."""
    x = np.float32([[10, 1, 0.5], [11, 1, 1], [12, -1, 2], [13, 1, 4], [14, 1, 8], [15, -1, 16], [0, 0, 0], [0, 0, 0]])
    lost, mask = np.isin(np.arange(8), [1, 2, 5]), np.arange(8) < 6
    op = flows.operation(name, iat="recompute")
    out, new = flows.as_numpy(jax.jit(op.apply, compiler_options=flows.QUICKLY)(x, mask, {"lost": lost}))
    if name.startswith("dup"):  # the copies of 1 and 2 with 3; the array has no place for that of 5
        sizes, iats = [10, 11, 12, 13, 11, 12, 14, 15], [0.5, 1, 2, 4, 0, 0, 8, 16]
    else:
        sizes, iats = [10, 13, 11, 12, 14, 15], [0.5, 7, 0, 0, 8, 16]
    np.testing.assert_array_equal(out[new, 0], sizes)
    np.testing.assert_array_equal(out[new, 2], iats)


@pytest.mark.parametrize("name", LOSSES)
def test_recomputing_nothing_changes_no_bit(name):
    """At alpha = 0, with IATs of 1e-7 to 1e7 seconds side by side, also where sums would swallow the small ones."""
    x, mask = flows.raw_flows(seed=5)
    x[..., 2] *= np.float32(10) ** np.random.default_rng(5).integers(-6, 7, x.shape[:2]).astype(np.float32)
    program = flows.caller(flows.operation(name, iat="recompute", pad=PAD))
    want = np.where(mask[..., None], x, np.float32(PAD))
    got_x, got_mask = flows.as_numpy(
        program(flows.keys(), x, mask, np.zeros(flows.FLOWS, np.float32), flows.statistics())
    )
    np.testing.assert_array_equal(got_mask, mask)
    np.testing.assert_array_equal(got_x, want)
    some_x, some_mask = flows.as_numpy(
        program(flows.keys(), x, mask, np.ones(flows.FLOWS, np.float32), flows.statistics())
    )
    assert not np.array_equal(some_x, want) and np.isfinite(some_x).all() and (some_x[some_mask][:, 2] >= 0).all()


CUTMIX = [
    *((flows.FLOWS, flows.T, options) for options in ({}, {"literal": True}, {"within_class": True}, {"pad": PAD})),
    *((count, length, {}) for count, length in ((283, 1), (284, 32), (284, 70), (1, 20))),
]


@pytest.mark.parametrize(
    "count,length,options", CUTMIX, ids=lambda value: labelled(value) if value == {} else str(value)
)
def test_cutmix_equals_its_loop(count, length, options):
    x, mask = flows.normalised_flows(count=count, length=length, seed=6)
    label = jnp.asarray(np.random.default_rng(6).integers(0, 5, count), jnp.int32)
    op = flows.operation("cutmix", **options)

    @functools.partial(jax.jit, compiler_options=flows.QUICKLY if options else None)
    def run(key, x, mask):
        params = op.sample(key, mask, label=label)
        return params, op.apply(x, mask, params), op(key, x, mask, label=label)

    params, (got_x, got_mask), called = flows.as_numpy(run(jax.random.key(6), x, mask))
    want_x, want_mask = APPLY["cutmix"](x, mask, params, **options)
    np.testing.assert_array_equal(got_mask, want_mask)
    np.testing.assert_array_equal(got_x, want_x)
    np.testing.assert_array_equal(called[0], got_x)
    np.testing.assert_array_equal(called[1], got_mask)


@pytest.mark.parametrize("name", flows.PER_FLOW)
def test_one_program_serves_all_and_calling_is_sampling_then_applying(name):
    op = flows.operation(name)
    x, mask = flows.suitable_flows(name, seed=7)
    stats, program = flows.statistics(seed=7), flows.replayer(op)
    before = program._cache_size()
    for seed in (8, 9):
        inputs = (flows.keys(seed=seed), x, mask, flows.alphas(seed=seed), stats)
        _, *got = flows.as_numpy(program(*inputs))
    assert program._cache_size() - before <= 1
    some = jax.tree.map(lambda leaf: leaf[400 : 400 + flows.FEW], inputs)
    called = flows.caller(op)(*some)
    np.testing.assert_array_equal(called[1], got[1][400 : 400 + flows.FEW])
    np.testing.assert_allclose(called[0], got[0][400 : 400 + flows.FEW], rtol=1e-6, atol=1e-6)
    if name not in EAGER:
        return
    # Without jit, and from NumPy arrays, as at a prompt.
    key, *one, stats = jax.tree.map(lambda leaf: leaf[20 * 7 + 13], inputs)
    called = op(key, *one, stats=stats)
    np.testing.assert_array_equal(called[1], got[1][20 * 7 + 13])
    np.testing.assert_allclose(called[0], got[0][20 * 7 + 13], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", flows.PER_FLOW)
def test_eight_devices_give_the_same_bits_without_a_collective(name):
    assert len(jax.devices()) == 8
    op = flows.operation(name)
    x, mask = flows.suitable_flows(name, seed=7)
    inputs = (flows.keys(seed=8), x, mask, flows.alphas(seed=8), flows.statistics(seed=7))
    want = flows.replayer(op, quickly=True)(*inputs)
    mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
    placed = jax.device_put(inputs, NamedSharding(mesh, PartitionSpec("data")))
    program = flows.replayer(op, quickly=True).lower(*placed).compile()
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in program.as_text()
    got = program(*placed)
    assert len(got[1].sharding.device_set) == 8
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("name", ["translation", "gaussian_noise", "cutmix"])
def test_batched_takes_one_alpha_or_one_a_flow(name):
    x, mask = flows.normalised_flows(count=64, seed=1)
    needs = {"stats": flows.statistics(64)} if augment.AUGMENTATIONS[name].needs_stats else {}
    run = jax.jit(augment.batched(augment.AUGMENTATIONS[name].op), compiler_options=flows.QUICKLY)
    one = run(jax.random.key(0), x, mask, 0.5, **needs)
    each = run(jax.random.key(0), x, mask, np.full(64, 0.5, np.float32), **needs)
    np.testing.assert_array_equal(one[0], each[0])
    np.testing.assert_array_equal(one[1], each[1])
    assert not np.array_equal(one[0], run(jax.random.key(1), x, mask, 0.5, **needs)[0])
