"""One network trained on given flows for a fixed budget: no folds, no early stopping, no folder.

Where a campaign asks which training is better, judges of generated flows ask which flows train better, so everything
else is held still. The networks see what XGBoost sees there, signed sizes of the first packets, and no inter-arrival
times, which generated flows do not have.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxtraffic import prng, scaling
from jaxtraffic.errors import ConfigError, TrainingError
from jaxtraffic.nn.classifiers import make_classifier
from jaxtraffic.series import PacketSeries, concatenate, from_signed_size

EPOCHS = 20
"""Passes over the training flows."""
LEAST_STEPS, MOST_STEPS = 400, 10_000
"""Steps that small sets get at least and large ones at most, unless steps are given."""
BATCH_SIZE = 64
LEARNING_RATE = 3e-3
"""Rate of AdamW at the start; a cosine to 0 follows."""
WEIGHT_DECAY = 1e-4
"""Of AdamW, as PAM'24."""
N_PACKETS = 30

_CHUNK = 50
_CHECKS = 10
_TILE = 1024
# Inter-arrival times are all 0 and stay 0, whatever the largest of the scale.
_SCALE = scaling.FeatureScaling(scaling.FEATURE_LOW, 0.0)


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network.

    Attributes:
        model: one of nn.CLASSIFIERS.
        params: nested dict of arrays.
        state: BatchNorm statistics.
        classes: [class] labels that training saw, sorted; no other is ever predicted.
        class_names: names of all outputs.
        length: packets that it sees.
        width: as `make_classifier` takes it.
    """

    model: str
    params: Any
    state: Any
    classes: np.ndarray
    class_names: tuple[str, ...]
    length: int
    width: int | None

    def predict(self, flows: PacketSeries) -> np.ndarray:
        """Labels [flow] int32."""
        return _answers(self._outputs(flows)[0], self.classes)

    def latent(self, flows: PacketSeries) -> np.ndarray:
        """[flow, feature] float32: what the last layer sees."""
        return self._outputs(flows)[1]

    def _outputs(self, flows: PacketSeries) -> tuple[np.ndarray, np.ndarray]:
        if flows.length < self.length or flows.class_names != self.class_names:
            raise ConfigError(
                f"the network was trained on {self.length} packets of {len(self.class_names)} classes; {flows.name} "
                f"has {flows.length} packets and {len(flows.class_names)} classes, give flows of the same set"
            )
        program = _program(self.model, len(self.class_names), self.length, self.width)
        return _outputs(program, self.params, self.state, *_seen(flows, self.length))


def fit_network(
    train: PacketSeries | Sequence[PacketSeries],
    *,
    model: str = "resnet",
    seed: int = 0,
    validation: PacketSeries | None = None,
    epochs: int = EPOCHS,
    steps: int | None = None,
    batch_size: int = BATCH_SIZE,
    learning_rate: float = LEARNING_RATE,
    width: int | None = None,
) -> Network:
    """Trains a network on sizes and directions of the first 30 packets.

    AdamW with a cosine to 0, on one device, for a number of steps that nothing in the data but its size decides:
    20 epochs in batches of 64, though at least 400 and at most 10,000 steps, rounded up to a multiple of 50. The last
    parameters are taken. Smaller batches and a higher rate than PAM'24's learn more in as many epochs. One compilation
    serves training sets of every size.

    Sizes are divided by 1460 bytes and larger ones count as 1460 (`FeatureScaling`). All flows pass through their
    signed size: a packet of size 0 counts as sent by the client inside a flow and as padding at its end, as in flows
    that were generated as signed sizes, so that a network cannot tell real flows by what the others cannot hold.

    Args:
        train: one set or several of the same classes and length.
        model: one of nn.CLASSIFIERS.
        seed: of the parameters and the order of the flows.
        validation: flows whose accuracy, taken ten times, chooses the parameters in place of the last ones (the later
            of equally good ones).
        epochs: passes over the training flows.
        steps: overrides the epochs.
        batch_size: flows of a step; smaller sets are gone through several times a step.
        learning_rate: at the start.
        width: as `make_classifier` takes it.

    Raises:
        ConfigError: no flows, sets that do not belong together, an unknown model, a budget below 1.
        TrainingError: the loss became infinite or NaN.
    """
    flows = concatenate([train] if isinstance(train, PacketSeries) else list(train))
    if not len(flows) or (validation is not None and not len(validation)):
        raise ConfigError("a network needs at least one flow to train on, and one to validate on where it validates")
    if validation is not None and (validation.class_names, validation.length) != (flows.class_names, flows.length):
        raise ConfigError("the training and the validation flows must have the same class names and the same length")
    for option, value in {"epochs": epochs, "steps": steps, "batch_size": batch_size}.items():
        if value is not None and value < 1:
            raise ConfigError(f"{option} must be at least 1, got {value}")
    length = min(N_PACKETS, flows.length)
    program = _program(model, len(flows.class_names), length, width)
    x, mask = _seen(flows, length)
    label = np.asarray(flows.label, np.int32)
    classes = np.unique(label)
    checked = None if validation is None else (*_seen(validation, length), np.asarray(validation.label))
    chunks = -(-(steps or n_steps(len(flows), epochs, batch_size)) // _CHUNK)
    rate = learning_rate * 0.5 * (1 + np.cos(np.pi * np.arange(chunks * _CHUNK) / (chunks * _CHUNK)))
    order = _order(len(flows), chunks * _CHUNK * batch_size, seed).reshape(chunks, _CHUNK, batch_size)
    training = program.start(jax.random.key(seed))
    best, kept = -1.0, None
    for chunk in range(chunks):
        rows = order[chunk]
        rates = rate[chunk * _CHUNK : (chunk + 1) * _CHUNK].astype(np.float32)
        training, losses = program.train(training, x[rows], mask[rows], label[rows], rates)
        if not np.isfinite(losses).all():
            raise TrainingError(f"{model}: the loss is not finite; try a smaller learning rate than {learning_rate}")
        if checked is None:
            kept = training
        elif (chunk + 1) % -(-chunks // _CHECKS) == 0 or chunk + 1 == chunks:
            accuracy = _accuracy(program, training, checked, classes)
            if accuracy >= best:
                best, kept = accuracy, training
    params, state = jax.tree.map(np.asarray, (kept.params, kept.state))
    return Network(model, params, state, classes, flows.class_names, length, width)


def n_steps(n_flows: int, epochs: int = EPOCHS, batch_size: int = BATCH_SIZE) -> int:
    """Steps of so many epochs, within `LEAST_STEPS` and `MOST_STEPS`."""
    return int(np.clip(-(-epochs * n_flows // batch_size), LEAST_STEPS, MOST_STEPS))


class _Training(NamedTuple):
    params: Any
    state: Any
    optimizer: Any


class _Program(NamedTuple):
    """Compiled functions.

    Attributes:
        start: key -> training.
        train: (training, batches [step, flow, ...], rates [step]) -> (training, losses [step]).
        outputs: (params, state, x, mask) -> (logits, features).
    """

    start: Any
    train: Any
    outputs: Any


@functools.lru_cache(maxsize=8)
def _program(model: str, n_classes: int, length: int, width: int | None) -> _Program:
    """Compiled programs, kept: a judge trains several networks of one shape."""
    net = make_classifier(model, n_classes, length, width=width)
    # A rate of 1 here and the true one as a factor of the updates, which is the same and lets it be traced.
    transform = optax.adamw(1.0, weight_decay=WEIGHT_DECAY)

    def start(key: jax.Array) -> _Training:
        params, state = net.init(prng.stream(key, "init"))
        return _Training(params, state, transform.init(params))

    def loss(params: Any, state: Any, x: jax.Array, mask: jax.Array, label: jax.Array) -> tuple[jax.Array, Any]:
        logits, _, state = net.apply(params, state, _SCALE.apply(x, mask), mask, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), state

    def step(training: _Training, batch: tuple[jax.Array, ...]) -> tuple[_Training, jax.Array]:
        *flows, rate = batch
        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(training.params, training.state, *flows)
        with jax.numpy_dtype_promotion("standard"):
            updates, optimizer = transform.update(gradient, training.optimizer, training.params)
        params = jax.tree.map(lambda p, u: p + rate * u, training.params, updates)
        return _Training(params, state, optimizer), value

    def train(training: _Training, *batches: jax.Array) -> tuple[_Training, jax.Array]:
        return jax.lax.scan(step, training, batches)

    def outputs(params: Any, state: Any, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        return net.apply(params, state, _SCALE.apply(x, mask), mask, train=False)[:2]

    return _Program(jax.jit(start), jax.jit(train), jax.jit(outputs))


def _seen(flows: PacketSeries, length: int) -> tuple[np.ndarray, np.ndarray]:
    """x [flow, packet, 3] (bytes, direction, 0) and mask [flow, packet] of the first packets."""
    signed = np.asarray(flows.signed_size)[:, :length]
    return from_signed_size(signed, flows.label, class_names=flows.class_names).arrays()


def _order(n_flows: int, n_draws: int, seed: int) -> np.ndarray:
    """Indices of flows: one random order of all of them after another."""
    generator = np.random.default_rng(seed)
    return np.concatenate([generator.permutation(n_flows) for _ in range(-(-n_draws // n_flows))])[:n_draws]


def _accuracy(program: _Program, training: _Training, flows: tuple[np.ndarray, ...], classes: np.ndarray) -> float:
    x, mask, label = flows
    logits, _ = _outputs(program, training.params, training.state, x, mask)
    return float(np.mean(_answers(logits, classes) == label))


def _outputs(
    program: _Program, params: Any, state: Any, x: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and features of all flows, by tiles of one size, so that one compilation serves every number of flows."""
    parts = []
    for start in range(0, len(x), _TILE):
        tile = [array[start : start + _TILE] for array in (x, mask)]
        filled = [np.pad(part, [(0, _TILE - len(part))] + [(0, 0)] * (part.ndim - 1)) for part in tile]
        parts.append([np.asarray(out)[: len(tile[0])] for out in program.outputs(params, state, *filled)])
    return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))


def _answers(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return classes[logits[:, classes].argmax(axis=1)]
