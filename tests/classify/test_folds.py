import jax
import numpy as np
import pytest

from jaxtraffic.classify.folds import check_flows, has_iat, make_folds, split_of
from jaxtraffic.classify.program import _shuffled
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries

FIELDS = ("size", "direction", "iat")


def make_flows(n=101, classes=4, length=8, seed=0, step=300, source_name="synthetic"):
    """Flows of classes that differ in size and time, of 3 to `length` packets; some sizes exceed 1460 bytes."""
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % classes).astype(np.int32)
    mask = np.arange(length) < rng.integers(3, length + 1, n)[:, None]
    size = rng.integers(40, 600, (n, length)) + step * label[:, None]
    direction = np.where(rng.random((n, length)) < 0.5, 1, -1)
    iat = np.exp(rng.normal(-5, 3, (n, length))) * 3.0 ** label[:, None]
    iat[:, 0] = 0
    return PacketSeries(
        size=np.where(mask, size, 0).astype(np.int16),
        direction=np.where(mask, direction, 0).astype(np.int8),
        iat=np.where(mask, iat, 0).astype(np.float32),
        label=label,
        class_names=tuple(f"class {i}" for i in range(classes)),
        name=source_name,
        source="simulated",
    ).check()


@pytest.fixture(scope="module")
def flows():
    return make_flows()


@pytest.fixture(scope="module")
def made(flows):
    return on_host(flows, [0, 1, 6])


def on_host(flows, folds):
    return jax.tree.map(np.asarray, make_folds(flows, folds, n_folds=4, length=6))


def reference(flows, fold, n_folds, length):
    """Features of the three sides and the statistics of one fold, by plain NumPy in float64."""
    parts = split_of(flows, fold, n_folds)
    raw = {}
    for name in ("train", "validation", "test"):
        part = getattr(parts, name)
        columns = [np.asarray(getattr(part, field), np.float64)[:, :length] for field in FIELDS]
        raw[name] = (*columns, np.asarray(part.direction)[:, :length] != 0, np.asarray(part.label))
    seen = np.concatenate([raw[name][2][raw[name][3]] for name in ("train", "validation")])
    top = np.sort(seen)
    place = 0.99 * (top.size - 1)
    low_index = int(place)
    quantile = top[low_index] + (place - low_index) * (top[low_index + 1] - top[low_index])
    sides = {}
    for name, (size, direction, iat, mask, label) in raw.items():
        time = (np.log10(np.clip(iat, 1e-7, quantile)) + 7) / (np.log10(quantile) + 7)
        x = np.stack([np.clip(size, 0, 1460) / 1460, direction, time], axis=-1)
        sides[name] = np.where(mask[..., None], x, 0), mask, label
    return sides, np.log10(quantile)


def rows(side, part):
    count = int(side.count[part])
    return tuple(leaf[part, :count] for leaf in side[:3])


def test_features_and_statistics_equal_a_plain_reference(flows, made):
    for part, fold in enumerate([0, 1, 6]):
        sides, high = reference(flows, fold, 4, 6)
        assert float(made.scale_high[part]) == pytest.approx(high, abs=1e-6)
        for name, wanted in sides.items():
            got = rows(getattr(made, name), part)
            np.testing.assert_allclose(got[0], wanted[0], atol=2e-6)
            np.testing.assert_array_equal(got[1], wanted[1])
            np.testing.assert_array_equal(got[2], wanted[2])
        x, mask, label = (np.concatenate(pair) for pair in zip(sides["train"], sides["validation"]))
        for number in range(4):
            own, valid = x[label == number], mask[label == number]
            assert int(made.statistics.flows[part, number]) == len(own)
            np.testing.assert_allclose(made.statistics.flat_std[part, number], own[valid].std(axis=0), atol=1e-5)
            by_place = [own[valid[:, t], t].std(axis=0) for t in range(6)]
            np.testing.assert_allclose(made.statistics.std[part, number], by_place, atol=1e-5)


def test_some_values_are_clipped(flows, made):
    assert (flows.size > 1460).any()
    x, mask, _ = rows(made.train, 0)
    assert x[..., 0].max() == 1.0 and x[..., 2][mask].max() == 1.0 and x[..., 2][mask].min() == 0.0


def test_the_test_flows_have_no_part_in_the_scale(flows, made):
    number = np.arange(len(flows), dtype=np.int32)
    tested = split_of(flows.replace(group=number), 0, 4).test.group
    there = np.isin(number, tested)[:, None] & flows.mask
    other = flows.replace(
        iat=np.where(there, 500.0, flows.iat).astype(np.float32),
        size=np.where(there, 1500, flows.size).astype(np.int16),
    )
    plain, changed = (on_host(one.replace(group=number), [0]) for one in (flows, other))
    for name in ("train", "validation"):
        for old, new in zip(getattr(plain, name), getattr(changed, name)):
            np.testing.assert_array_equal(old, new)
    for old, new in zip(jax.tree.leaves(plain.statistics), jax.tree.leaves(changed.statistics)):
        np.testing.assert_array_equal(old, new)
    assert float(plain.scale_high[0]) == float(changed.scale_high[0])
    assert not np.array_equal(plain.test.x, changed.test.x)
    assert (changed.test.x[changed.test.mask][:, 2] == 1).all()


def test_a_fold_does_not_depend_on_the_folds_beside_it(flows, made):
    counts = made.train.count
    assert len(set(counts.tolist())) > 1, "the test needs folds of different sizes"
    for part, fold in enumerate([0, 1, 6]):
        alone = on_host(flows, [fold])
        for name in ("train", "validation", "test"):
            for here, there in zip(rows(getattr(made, name), part), rows(getattr(alone, name), 0)):
                np.testing.assert_array_equal(here, there)
        for here, there in zip(jax.tree.leaves(made.statistics), jax.tree.leaves(alone.statistics)):
            np.testing.assert_array_equal(here[part], there[0])
        for field in ("start", "size", "cumulative"):
            np.testing.assert_array_equal(getattr(made.sampler, field)[part], getattr(alone.sampler, field)[0])
        count = int(made.train.count[part])
        np.testing.assert_array_equal(made.sampler.order[part, :count], alone.sampler.order[0, :count])
        assert sorted(made.sampler.order[part, :count].tolist()) == list(range(count))


def test_padding_is_zero_and_masked(made):
    part = int(np.argmin(made.train.count))
    count, total = int(made.train.count[part]), made.train.x.shape[1]
    assert count < total
    assert not made.train.mask[part, count:].any() and not made.train.x[part, count:].any()


def test_folds_beyond_the_first_deal_anew(flows, made):
    first, again = rows(made.test, 1)[0], rows(made.test, 2)[0]
    assert first.shape != again.shape or not np.array_equal(first, again)
    number = np.arange(len(flows), dtype=np.int32)
    tests = [split_of(flows.replace(group=number), fold, 4).test.group for fold in range(4, 8)]
    assert sorted(np.concatenate(tests).tolist()) == number.tolist()


def test_the_order_of_flows_does_not_depend_on_padding():
    """The draw of row i must be the same for every padded size: that of a run alone and that in a campaign."""
    for seed in range(2):
        key = jax.random.key(seed)
        orders = [np.asarray(_shuffled(key, np.int32(23), size)) for size in (23, 31)]
        np.testing.assert_array_equal(orders[0], orders[1][:23])
        assert sorted(orders[0].tolist()) == list(range(23)) and orders[0].tolist() != list(range(23))


def test_flows_that_do_not_suffice_are_refused(flows):
    few = flows[np.r_[np.flatnonzero(flows.label != 2), np.flatnonzero(flows.label == 2)[:3]]]
    with pytest.raises(ConfigError, match="class 2 of synthetic has 3 flows, fewer than the 4 folds"):
        check_flows(few, 4, 8)
    check_flows(few, 3, 8)
    with pytest.raises(ConfigError, match="at least 2"):
        check_flows(flows.replace(label=flows.label * 0, class_names=("one",)), 4, 8)
    for length in (0, 9):
        with pytest.raises(ConfigError, match="length must be from 1 to 8"):
            check_flows(flows, 4, length)
    for n_folds in (0, 2):
        with pytest.raises(ConfigError, match="n_folds must be at least 3"):
            check_flows(flows, n_folds, 8)
    assert has_iat(flows) and not has_iat(flows.replace(iat=flows.iat * 0))
