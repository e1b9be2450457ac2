"""The conventions that everything in the registry keeps, bad input, and what an import costs."""

import dataclasses
import inspect
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic import augment
from jaxtraffic.errors import ConfigError
from tests.augment import flows
from tests.reference.augmentations import APPLY, SAMPLE

EVERY = list(augment.AUGMENTATIONS)
PAPER = {
    *("gaussian_noise", "spike_noise", "gaussian_wrapup", "sine_wrapup", "constant_wrapup", "bernoulli_mask"),
    *("window_mask", "horizontal_flip", "interpolation", "cutmix", "packet_loss", "translation", "wrap"),
    *("permutation", "dup_rto", "dup_fast_retransmit", "perm_rto", "perm_fast_retransmit"),
}
BEYOND = {"mss_variation", "iat_scale", "time_shift", "tail_occlusion", "shuffle"}
NEEDS_STATS = {"gaussian_noise", "spike_noise", "gaussian_wrapup", "sine_wrapup", "constant_wrapup"}
BY_FEATURE = ("gaussian_noise", "spike_noise", "gaussian_wrapup", "sine_wrapup")
NEEDS_SECONDS = {"packet_loss", "mss_variation", "iat_scale", "time_shift"}
NO_MAGNITUDE = {"horizontal_flip", "interpolation", "cutmix", "shuffle"}
REMEDY = re.compile(r"\b(use|give|make|choose|convert|needs?|expected|it has|lies in|index|must|last|keep|stay)\b")
KEY = jax.random.key(0)
X, MASK = jnp.zeros((flows.T, 3)), jnp.arange(flows.T) < 12
STATS = augment.FlowStatistics(jnp.ones((flows.T, 3)), jnp.ones(3))


def needed(name):
    return {"stats": STATS} if name in NEEDS_STATS else {}


def test_the_registry_is_complete():
    assert set(EVERY) == PAPER | BEYOND == set(APPLY) == set(SAMPLE)
    for trait, names in (("needs_stats", NEEDS_STATS), ("needs_seconds", NEEDS_SECONDS), ("batch", {"cutmix"})):
        assert {name for name, entry in augment.AUGMENTATIONS.items() if getattr(entry, trait)} == names
    assert {name for name, entry in augment.AUGMENTATIONS.items() if not entry.has_magnitude} == NO_MAGNITUDE


@pytest.mark.parametrize("name", EVERY)
def test_registry_entry(name):
    entry = augment.AUGMENTATIONS[name]
    assert entry.op is getattr(augment, name) and entry.op.name == name and name in augment.__all__
    assert entry.family in ("amplitude", "masking", "sequence", "batch")
    assert (entry.family == "batch") == entry.batch
    for trait in ("needs_stats", "needs_seconds", "has_magnitude", "identity_at_zero", "batch"):
        assert isinstance(getattr(entry, trait), bool)
    assert re.search(r"\b20\d\d\b|'\d\d\b", entry.source), "the source is a paper with its year"


@pytest.mark.parametrize("name", EVERY)
def test_signature(name):
    parameters = list(inspect.signature(augment.AUGMENTATIONS[name].op).parameters.values())
    assert [parameter.name for parameter in parameters[:4]] == ["key", "x", "mask", "alpha"]
    assert all(parameter.default is parameter.empty for parameter in parameters[:3])
    assert parameters[3].default == 1.0
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters[4:])
    options = {parameter.name: parameter for parameter in parameters[4:]}
    assert ("stats" in options) == (name in NEEDS_STATS) and "pad" in options and "rng" not in options
    assert all(p.default is not p.empty for option, p in options.items() if option != "stats")


@pytest.mark.parametrize("name", EVERY)
def test_docstring_has_shapes_units_and_source(name):
    op = augment.AUGMENTATIONS[name].op
    text = inspect.getdoc(op)
    assert text.splitlines()[0].endswith(".")
    assert re.search(r"^Shapes:.*\[(B, )?T, 3\]", text, re.M | re.S)
    assert re.search(r"^Units?:", text, re.M)
    source = re.search(r"^Source:(.*)", text, re.M | re.S)
    assert source and re.search(r"PAM'24|thesis|Rosetta|Horowicz|TMA'23|tcbench|ours|Wang", source[1])
    # Operations that only multiply or add write no padding.
    silent = ("stats", "label", *(["pad"] if augment.AUGMENTATIONS[name].family == "amplitude" else []))
    for parameter in inspect.signature(op).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in silent:
            assert re.search(rf"\b{parameter.name}\b", text), f"option {parameter.name} is not explained"


@pytest.mark.parametrize("name", EVERY)
def test_operations_are_values(name):
    op = augment.AUGMENTATIONS[name].op
    other = op.with_options(pad=0.5)
    assert other != op and other == op.with_options(pad=0.5) and hash(other) == hash(op.with_options(pad=0.5))
    assert op.with_options() == op and other.name == name
    for pad in (0.5, -1.0, 0.0):
        assert op.with_options(pad=pad) == op.with_options(pad=(pad,) * 3) != op.with_options(pad=(pad, 2.0, pad))
    assert op.with_options(pad=(0.0, 0.0, 0.0)) == op and hash(op.with_options(pad=(0.0, 0.0, 0.0))) == hash(op)
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        op.pad = 1.0
    x, mask = (X[None], MASK[None]) if op.batch else (X, MASK)
    static = jax.jit(lambda op, key: op(key, x, mask, **needed(name)), static_argnums=0)
    assert [out.shape for out in static.eval_shape(other, KEY)] == [x.shape, mask.shape]


def refused(function, *arguments, match=None):
    """ConfigError at trace time, with a remedy."""
    with pytest.raises(ConfigError, match=match) as caught:
        jax.jit(function)(*arguments)
    assert REMEDY.search(str(caught.value)), f"no remedy in {caught.value}"
    return str(caught.value)


@pytest.mark.parametrize("name", flows.PER_FLOW)
def test_wrong_shapes_are_refused_at_trace_time(name):
    op, stats = augment.AUGMENTATIONS[name].op, needed(name)
    batch, masks = jnp.zeros((4, flows.T, 3)), jnp.ones((4, flows.T), bool)
    for call in (
        lambda x, mask: op(KEY, x, mask, **stats),
        lambda x, mask: op.apply(x, mask, jax.eval_shape(lambda: op.sample(KEY, MASK, **stats))),
    ):
        assert name in refused(call, batch, masks, match="batched|vmap")
        refused(call, batch, MASK)
        refused(call, X, masks)
        refused(call, X[:, :2], MASK)
        refused(call, X[:-1], MASK)
        refused(call, X, MASK[:-1])
        refused(call, X, MASK.astype(jnp.float32), match="bool")
        refused(call, X, MASK.astype(jnp.int32), match="bool")
        refused(call, X.astype(jnp.int32), MASK)
        refused(call, X[:0], MASK[:0], match="no packets")
    refused(lambda mask: op.sample(KEY, mask, **stats), MASK[:0], match="no packets")
    refused(lambda mask: op.sample(KEY, mask, **stats), masks)
    refused(lambda mask: op.sample(KEY, mask, **stats), MASK.astype(jnp.int32))


def test_wrong_batches_are_refused_at_trace_time():
    op, batch, masks = augment.cutmix, jnp.zeros((4, flows.T, 3)), jnp.ones((4, flows.T), bool)
    refused(lambda x, mask: op(KEY, x, mask), X, MASK, match="flow")
    for x, mask in (
        (batch, MASK),
        (batch[:3], masks),
        (batch[:, :-1], masks),
        (batch[..., :2], masks),
        (batch, masks.astype(jnp.float32)),
        (batch[:, :0], masks[:, :0]),
    ):
        refused(lambda x, mask: op(KEY, x, mask), x, mask)
    refused(lambda x, mask: op(KEY, x, mask, within_class=True), batch, masks, match="label")
    refused(lambda x, mask: op(KEY, x, mask, within_class=True, label=jnp.zeros(3, jnp.int32)), batch, masks)
    refused(lambda x, mask: augment.batched(augment.translation)(KEY, x, mask), X, MASK)
    refused(lambda x, mask: augment.batched(augment.translation)(KEY, x, mask), batch[:, :0], masks[:, :0])


@pytest.mark.parametrize("name", EVERY)
def test_params_of_another_operation_are_refused(name):
    op = augment.AUGMENTATIONS[name].op
    x, mask = (X[None], MASK[None]) if op.batch else (X, MASK)
    if not jax.eval_shape(lambda: op.sample(KEY, mask, **needed(name))):
        assert name == "horizontal_flip"
    else:
        assert name in refused(lambda x, mask: op.apply(x, mask, {}), x, mask, match="sample")


@pytest.mark.parametrize("name", sorted(NEEDS_STATS))
def test_missing_statistics_are_refused(name):
    op = augment.AUGMENTATIONS[name].op
    refused(lambda x, mask: op(KEY, x, mask), X, MASK, match="stats")
    refused(lambda mask: op.sample(KEY, mask), MASK, match="stats")
    every_class = augment.FlowStatistics(jnp.ones((5, flows.T, 3)), jnp.ones((5, 3)))
    refused(lambda x, mask: op(KEY, x, mask, stats=every_class), X, MASK, match="label")
    shorter = augment.FlowStatistics(jnp.ones((flows.T - 1, 3)), jnp.ones(3))
    refused(lambda x, mask: op(KEY, x, mask, stats=shorter), X, MASK)
    refused(lambda x, mask: op(KEY, x, mask, stats=jnp.ones((flows.T, 3))), X, MASK)
    batch, masks = jnp.zeros((4, flows.T, 3)), jnp.ones((4, flows.T), bool)
    call = augment.batched(op)
    refused(lambda x, mask: call(KEY, x, mask), batch, masks, match="stats")
    for count, length in ((5, flows.T), (4, flows.T - 1), (1, flows.T)):
        wrong = augment.FlowStatistics(jnp.ones((count, length, 3)), jnp.ones((count, 3)))
        refused(lambda x, mask, stats: call(KEY, x, mask, stats=stats), batch, masks, wrong, match="stats")
    refused(lambda x, mask: call(KEY, x, mask, stats=STATS), batch, masks, match="stats")
    refused(lambda x, mask: call(KEY, x, mask, stats=jnp.ones((4, flows.T, 3))), batch, masks, match="stats")


@pytest.mark.parametrize("name", EVERY)
def test_alpha_outside_the_unit_interval_is_refused(name):
    op = augment.AUGMENTATIONS[name].op
    x, mask = (X[None], MASK[None]) if op.batch else (X, MASK)
    refused(lambda x, mask: op(KEY, x, mask, 1.5, **needed(name)), x, mask, match="alpha")


@pytest.mark.parametrize(
    "alpha", [-0.1, float("nan"), "high", np.float32(1.5), np.array(1.5), jnp.float32(1.5)], ids=repr
)
def test_whatever_is_known_of_alpha_is_checked(alpha):
    refused(lambda x, mask: augment.translation(KEY, x, mask, alpha), X, MASK, match="alpha")


def test_alpha_of_a_batch_is_refused_for_one_flow():
    refused(lambda alpha: augment.translation(KEY, X, MASK, alpha), jnp.ones(4), match="alpha")
    masks = jnp.ones((4, flows.T), bool)
    call = augment.batched(augment.translation)
    refused(lambda alpha: call(KEY, jnp.zeros((4, flows.T, 3)), masks, alpha), jnp.ones(3))
    refused(lambda x: call(KEY, x, masks, 1.5), jnp.zeros((4, flows.T, 3)), match="alpha")


BAD_OPTIONS = [
    ("gaussian_noise", {"clip": (1.0, 0.0)}),
    ("gaussian_noise", {"clip": 1.0}),
    *((name, {"features": "direction"}) for name in BY_FEATURE),
    ("gaussian_noise", {"features": ("size", "iat")}),
    ("spike_noise", {"max_spikes": 0}),
    ("spike_noise", {"max_spikes": 1.5}),
    ("window_mask", {"rounding": "up"}),
    ("bernoulli_mask", {"per_packet": "yes"}),
    ("horizontal_flip", {"padding_first": 2}),
    ("interpolation", {"direction": "left"}),
    ("packet_loss", {"mode": "milliseconds"}),
    ("packet_loss", {"keep_min": -1}),
    ("packet_loss", {"to_seconds": jnp.exp}),
    ("packet_loss", {"from_seconds": jnp.log}),
    ("packet_loss", {"to_seconds": 10.0, "from_seconds": 0.1}),
    ("wrap", {"direction": "zero"}),
    ("dup_rto", {"lmin": 0}),
    ("dup_rto", {"lmin": 5, "lmax": 4}),
    ("dup_rto", {"lmax": 40_000}),
    ("perm_rto", {"lmax": 2 + 2**15}),
    ("dup_rto", {"iat": "guess"}),
    ("perm_rto", {"first": -1}),
    ("dup_fast_retransmit", {"lmin": 2}),
    ("perm_fast_retransmit", {"first": 0.5}),
    ("mss_variation", {"mss": (1460, 500)}),
    ("mss_variation", {"mss": (0, 1460)}),
    ("mss_variation", {"mss": 1460}),
    ("mss_variation", {"mss": (1, 40_000)}),
    ("mss_variation", {"rtt_max": -1.0}),
    ("mss_variation", {"header": -1}),
    ("iat_scale", {"width": 1.5}),
    ("iat_scale", {"width": -0.5}),
    ("time_shift", {"max_shift": -1.0}),
    ("tail_occlusion", {"fraction": 1.5}),
    ("shuffle", {"pad": (0.0, 1.0)}),
    ("shuffle", {"pad": "zero"}),
    ("translation", {"alphas": 1}),
    ("cutmix", {"literally": True}),
]


@pytest.mark.parametrize(
    "name,options", BAD_OPTIONS, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
def test_bad_options_are_refused(name, options):
    op = augment.AUGMENTATIONS[name].op
    with pytest.raises(ConfigError) as caught:
        op.with_options(**options)
    assert name in str(caught.value) and next(iter(options)) in str(caught.value)
    x, mask = (X[None], MASK[None]) if op.batch else (X, MASK)
    refused(lambda x, mask: op(KEY, x, mask, **needed(name), **options), x, mask)


def test_bad_keys_are_refused():
    refused(lambda key: augment.translation(key, X, MASK), jax.random.PRNGKey(0), match="jax.random.key")
    refused(lambda key: augment.translation(key, X, MASK), jax.random.split(KEY, 3))
    with pytest.raises(ConfigError, match="key"):
        augment.translation(0, X, MASK)
    batch, masks = jnp.zeros((4, flows.T, 3)), jnp.ones((4, flows.T), bool)
    many = jax.random.split(KEY, 4)
    parts = (augment.translation, augment.wrap)
    made = [augment.sequential, augment.ensemble, augment.random_stack, augment.masked_stack]
    for op in (augment.translation, augment.cutmix, *(build(*parts) for build in made), augment.maybe(parts[0], 0.5)):
        for keys in (many, jax.random.PRNGKey(0)):
            refused(lambda key, op=op: augment.batched(op)(key, batch, masks), keys, match="key")
            if not op.batch:
                refused(lambda key, op=op: op(key, X, MASK), keys, match="key")


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="choose from .*translation"):
        augment.get("translate")
    assert augment.get("translation") is augment.translation


def test_labels_may_be_numpy():
    x, mask = flows.normalised_flows(count=8, padding=0)
    label = np.arange(8, dtype=np.int32) // 3
    call = jax.jit(
        lambda key: augment.cutmix(key, x, mask, label=label, within_class=True), compiler_options=flows.QUICKLY
    )
    assert call(KEY)[0].shape == jax.eval_shape(augment.cutmix, KEY, x, mask, label=label)[0].shape == x.shape


def test_cutmix_of_no_flow_is_no_flow():
    out, new = augment.cutmix(KEY, jnp.zeros((0, flows.T, 3)), jnp.zeros((0, flows.T), bool))
    assert out.shape == (0, flows.T, 3) and new.shape == (0, flows.T)


def test_import_needs_jax_and_numpy_only():
    code = """
import sys
import jax, jax.numpy, numpy
import jax.random
before = set(sys.modules)
heavy = {"flax", "optax", "orbax", "grain", "sklearn", "xgboost", "polars", "pandas", "torch", "matplotlib"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in heavy:
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Refuse())
from jaxtraffic import augment
new = {name.split(".")[0] for name in set(sys.modules) - before}
assert not new & (heavy | {"scipy"}), new
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("jaxtraffic.")}
assert rooms <= {"augment", "errors", "prng", "series"}, rooms
x, mask = jax.numpy.ones((20, 3)), jax.numpy.ones(20, bool)
out, new = jax.jit(augment.translation)(jax.random.key(0), x, mask, 0.5)
assert out.shape == (20, 3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stdout
