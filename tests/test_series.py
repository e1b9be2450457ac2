"""PacketSeries: contract, views, indexing, pytree."""

import jax
import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries, concatenate, from_signed_size


@pytest.fixture
def flows():
    return PacketSeries(
        size=np.array([[60, 0, 1500, 0], [40, 0, 0, 0], [7, 8, 9, 10]], np.int16),
        direction=np.array([[1, -1, -1, 0], [1, 0, 0, 0], [1, 1, -1, -1]], np.int8),
        iat=np.array([[0, 0.5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1e-3]], np.float32),
        label=np.array([1, 0, 1], np.int32),
        group=np.array([5, 5, 6], np.int32),
        class_names=("a", "b"),
        name="tiny",
    ).check()


def test_views(flows):
    assert len(flows) == 3 and flows.length == 4
    np.testing.assert_array_equal(flows.signed_size, [[60, 0, -1500, 0], [40, 0, 0, 0], [7, 8, -9, -10]])
    assert flows.signed_size.dtype == np.int16
    np.testing.assert_array_equal(flows.n_packets, [3, 1, 4])
    np.testing.assert_array_equal(flows.counts(), [1, 2])
    x, mask = flows.arrays()
    assert x.shape == (3, 4, 3) and x.dtype == np.float32 and mask.dtype == bool
    np.testing.assert_allclose(x[0, 1], [0, -1, 0.5])
    assert mask[0].tolist() == [True, True, True, False], "a packet of size 0 is a packet"


def test_indexing_keeps_metadata(flows):
    for index, labels in [(slice(1, None), [0, 1]), ([2, 0], [1, 1]), (flows.label == 0, [0]), (-1, [1]), (1, [0])]:
        part = flows[index]
        np.testing.assert_array_equal(part.label, labels)
        assert part.class_names == ("a", "b") and part.name == "tiny" and len(part.group) == len(labels)


def test_is_a_frozen_pytree(flows):
    with pytest.raises(AttributeError):
        flows.name = "other"
    moved = jax.jit(lambda f: f)(flows)
    assert isinstance(moved, PacketSeries) and moved.class_names == flows.class_names
    np.testing.assert_array_equal(moved.signed_size, flows.signed_size)


def test_signed_sizes_come_back(flows):
    signed = np.array([[5, 0, -7, 0], [0, 0, 0, 0], [0, -1, 0, 32767]], np.int16)
    made = from_signed_size(signed, np.array([0, 1, 0]), class_names=("a", "b"))
    np.testing.assert_array_equal(made.signed_size, signed)
    np.testing.assert_array_equal(made.n_packets, [3, 0, 4])


def test_concatenate(flows):
    both = concatenate([flows, flows[:1]])
    assert len(both) == 4 and both.group is None
    with pytest.raises(ConfigError, match="class names"):
        concatenate([flows, flows.replace(class_names=("a", "c"))])
    with pytest.raises(ConfigError, match="at least one"):
        concatenate([])


@pytest.mark.parametrize(
    "field, value",
    [
        ("size", np.array([[60, -1, 1500, 0]] * 3, np.int16)),
        ("size", np.ones((3, 4), np.int16)),
        ("size", np.ones((3, 4), np.int32)),
        ("direction", np.array([[1, 0, 1, 0]] * 3, np.int8)),
        ("direction", np.full((3, 4), 2, np.int8)),
        ("iat", np.full((3, 4), np.nan, np.float32)),
        ("iat", np.full((3, 4), -1, np.float32)),
        ("label", np.array([0, 1, 2], np.int32)),
        ("label", np.array([0, 1], np.int32)),
        ("group", np.array([0], np.int32)),
        ("size_layer", "frame"),
        ("source", "fake"),
    ],
)
def test_broken_contracts_are_named(flows, field, value):
    with pytest.raises(ConfigError, match=f"PacketSeries.{field}"):
        flows.replace(**{field: value}).check()
