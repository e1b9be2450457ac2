"""The compiled program of a campaign: epochs of many runs of one shape at once.

A slot holds one run. All slots of a program train the same configuration on their own fold with their own seed, under
one `jax.vmap`; the configuration is chosen by a traced number through `lax.switch`, outside of the vmap, so that one
compilation serves all augmentations and one branch of the switch runs. Slots whose run is over keep their state.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxtraffic import prng, scaling
from jaxtraffic.augment import policies
from jaxtraffic.augment.compose import Composition
from jaxtraffic.augment.policies import Batch
from jaxtraffic.augment.timing import Timing
from jaxtraffic.classify.config import ClassifierConfig
from jaxtraffic.classify.folds import Folds, Side
from jaxtraffic.nn.classifiers import Classifier, make_classifier

TILE = 1024
"""Flows that a network judges at a time."""


class Slot(NamedTuple):
    """A run while it trains; stacked over slots.

    Attributes:
        seed: [] int32.
        fold: [] int32, number of the fold in the data set's splits, from which keys are made.
        part: [] int32, where the fold lies in `Folds`.
        source: [] int32, where its training flows lie: `part`, or with pre_augment the run's own set.
        epoch: [] int32, epochs trained.
        done: [] bool.
        wait: [] int32, epochs since the last improvement.
        reference: [] float32, validation accuracy of the last improvement.
        best: [] float32, best validation accuracy.
        best_epoch: [] int32, when that was.
        loss: [] float32, mean training loss of the last epoch.
        params: parameters of the network.
        state: its BatchNorm statistics.
        optimizer: state of AdamW.
        kept: parameters and statistics of the best epoch.
    """

    seed: jax.Array
    fold: jax.Array
    part: jax.Array
    source: jax.Array
    epoch: jax.Array
    done: jax.Array
    wait: jax.Array
    reference: jax.Array
    best: jax.Array
    best_epoch: jax.Array
    loss: jax.Array
    params: Any
    state: Any
    optimizer: Any
    kept: Any


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the runs of one program have in common: the configuration without what `lax.switch` chooses."""

    model: str
    copies: int
    batch_size: int
    max_epochs: int
    patience: int
    threshold: float
    learning_rate: float
    weight_decay: float
    schedule: str
    period: int
    class_weighted: bool
    made_before: int

    @classmethod
    def of(cls, config: ClassifierConfig) -> Shape:
        """The shape of a configuration."""
        return cls(**{field.name: getattr(config, field.name) for field in dataclasses.fields(cls)})

    @property
    def fresh(self) -> int:
        """Flows drawn for a step."""
        return self.batch_size // (self.copies + 1)


class Programs(NamedTuple):
    """The programs of one shape; each compiled once for every number of slots.

    Attributes:
        start: (seed [W], fold [W], part [W], source [W]) -> slots.
        train: (slots, which [], train side, folds) -> slots after a chunk of epochs.
        judge: (slots, folds) -> confusion [W, class, class] int32 of the test flows by the kept parameters.
        classifier: the network.
    """

    start: Callable[..., Slot]
    train: Callable[..., Slot]
    judge: Callable[..., jax.Array]
    classifier: Classifier


def run_key(seed: jax.Array, fold: jax.Array) -> jax.Array:
    """Key of a run: the same for all configurations, so that differences between them are paired."""
    return prng.at_step(prng.stream(jax.random.key(seed), "fold"), fold)


def make_programs(
    shape: Shape,
    configs: list[ClassifierConfig],
    *,
    classes: int,
    length: int,
    epoch_steps: int,
    chunk_epochs: int,
    mesh: Mesh,
) -> Programs:
    """Builds the programs that train the configurations, all of one shape; `which` is an index into them.

    Args:
        shape: of all configurations.
        configs: at least one.
        classes: number of classes.
        length: packets of a flow.
        epoch_steps: steps of an epoch, the same in every fold.
        chunk_epochs: epochs of one call of `train`.
        mesh: devices; slots are split over "data", and nothing is exchanged between them.
    """
    net = make_classifier(shape.model, classes, length)
    transform = _optimizer(shape, epoch_steps)
    branches = [_branch(config) for config in configs]

    def start(seed: jax.Array, fold: jax.Array, part: jax.Array, source: jax.Array) -> Slot:
        params, state = net.init(prng.stream(run_key(seed, fold), "init"))
        zero, low = jnp.int32(0), jnp.float32(-1)
        figures = (zero, jnp.bool_(False), zero, low, low, zero, jnp.float32(0))
        return Slot(seed, fold, part, source, *figures, params, state, transform.init(params), (params, state))

    def loss_of(params: Any, state: Any, batch: Batch) -> tuple[jax.Array, Any]:
        logits, _, state = net.apply(params, state, batch.x, batch.mask, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.label).mean(), state

    def epoch(slot: Slot, which: jax.Array, train: Side, folds: Folds) -> Slot:
        key = prng.at_step(run_key(slot.seed, slot.fold), slot.epoch)
        count, rows = train.count[slot.source], train.label.shape[1]
        order = _shuffled(prng.stream(key, "order"), count, rows)
        sampler, statistics = (
            jax.tree.map(lambda leaf: leaf[slot.part], tree) for tree in (folds.sampler, folds.statistics)
        )
        high = folds.scale_high[slot.part]

        def step(carry: tuple[Any, ...], index: jax.Array) -> tuple[tuple[Any, ...], jax.Array]:
            params, state, optimizer = carry
            own = prng.at_step(prng.stream(key, "step"), index)
            if shape.class_weighted:
                chosen = sampler(prng.stream(own, "sample"), shape.fresh)
            else:
                chosen = order[(index * shape.fresh + jnp.arange(shape.fresh, dtype=jnp.int32)) % count]
            batch = Batch(*(side[slot.source, chosen] for side in train[:3]))
            batch = jax.lax.switch(which, branches, prng.stream(own, "augment"), batch, statistics, high)
            (value, state), gradient = jax.value_and_grad(loss_of, has_aux=True)(params, state, batch)
            with jax.numpy_dtype_promotion("standard"):
                updates, optimizer = transform.update(gradient, optimizer, params)
            return (optax.apply_updates(params, updates), state, optimizer), value

        carry = (slot.params, slot.state, slot.optimizer)
        (params, state, optimizer), losses = jax.lax.scan(step, carry, jnp.arange(epoch_steps, dtype=jnp.int32))
        right = _predict(net, params, state, folds.validation, slot.part) == folds.validation.label[slot.part]
        there = jnp.arange(right.shape[0]) < folds.validation.count[slot.part]
        accuracy = (right & there).sum().astype(jnp.float32) / folds.validation.count[slot.part].astype(jnp.float32)
        better, improves = accuracy > slot.best, accuracy > slot.reference + shape.threshold
        wait = jnp.where(improves, 0, slot.wait + 1)
        new = slot._replace(
            epoch=slot.epoch + 1,
            done=(wait >= shape.patience) | (slot.epoch + 1 >= shape.max_epochs),
            wait=wait,
            reference=jnp.where(improves, accuracy, slot.reference),
            best=jnp.maximum(accuracy, slot.best),
            best_epoch=jnp.where(better, slot.epoch, slot.best_epoch),
            loss=losses.mean(),
            params=params,
            state=state,
            optimizer=optimizer,
            kept=jax.tree.map(lambda now, then: jnp.where(better, now, then), (params, state), slot.kept),
        )
        return jax.tree.map(lambda now, then: jnp.where(slot.done, then, now), new, slot)

    def train_chunk(slots: Slot, which: jax.Array, train: Side, folds: Folds) -> Slot:
        def body(slots: Slot, _: None) -> tuple[Slot, None]:
            run = jax.vmap(epoch, in_axes=(0, None, None, None))
            return jax.lax.cond(
                slots.done.all(), lambda slots: slots, lambda slots: run(slots, which, train, folds), slots
            ), None

        return jax.lax.scan(body, slots, None, length=chunk_epochs)[0]

    def judge(slots: Slot, folds: Folds) -> jax.Array:
        def confusion(slot: Slot) -> jax.Array:
            answer = _predict(net, *slot.kept, folds.test, slot.part)
            there = jnp.arange(answer.shape[0]) < folds.test.count[slot.part]
            pairs = (folds.test.label[slot.part], answer)
            return jnp.zeros((classes, classes), jnp.int32).at[pairs].add(there.astype(jnp.int32))

        return jax.vmap(confusion)(slots)

    def over_slots(function: Callable[..., Any], specs: tuple[Any, ...], donate: tuple[int, ...] = ()) -> Any:
        mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P("data"), check_vma=False)
        return jax.jit(mapped, donate_argnums=donate)

    split, whole = P("data"), P()
    return Programs(
        over_slots(jax.vmap(start), (split,) * 4),
        over_slots(train_chunk, (split, whole, whole, whole), (0,)),
        over_slots(judge, (split, whole)),
        net,
    )


def _optimizer(shape: Shape, epoch_steps: int) -> optax.GradientTransformation:
    rate = shape.learning_rate
    if shape.schedule == "cosine":
        rate = optax.cosine_decay_schedule(rate, shape.max_epochs * epoch_steps)
    elif shape.schedule == "infinite_cosine":
        steps = shape.period * epoch_steps
        rate = lambda count: 0.5 * shape.learning_rate * (1 + jnp.cos(jnp.pi * (count % steps) / steps))  # noqa: E731
    return optax.adamw(rate, weight_decay=shape.weight_decay)


def _shuffled(key: jax.Array, count: jax.Array, rows: int) -> jax.Array:
    """The first `count` (traced) of `rows` indices in random order; the others behind them."""
    draw = jax.random.uniform(key, (rows,))
    return jnp.argsort(jnp.where(jnp.arange(rows) < count, draw, 2.0)).astype(jnp.int32)


def _predict(net: Classifier, params: Any, state: Any, side: Side, part: jax.Array) -> jax.Array:
    """Labels [flow] of all rows of a side, by tiles."""
    rows = side.label.shape[1]
    tile = min(TILE, rows)
    starts = jnp.minimum(jnp.arange(0, rows, tile, dtype=jnp.int32), rows - tile)

    def judge(_: None, start: jax.Array) -> tuple[None, jax.Array]:
        x, mask = (
            jax.lax.dynamic_slice_in_dim(jax.lax.dynamic_index_in_dim(leaf, part, keepdims=False), start, tile)
            for leaf in (side.x, side.mask)
        )
        return None, net.apply(params, state, x, mask, train=False)[0].argmax(axis=-1).astype(jnp.int32)

    answers = jax.lax.scan(judge, None, starts)[1]
    return jnp.zeros(rows, jnp.int32).at[(starts[:, None] + jnp.arange(tile)).ravel()].set(answers.ravel())


def _branch(config: ClassifierConfig) -> Callable[..., Batch]:
    """How a configuration makes the flows of a step from those drawn."""
    if config.policy in ("none", "pre_augment"):
        return lambda key, batch, statistics, high: batch

    def augmented(key: jax.Array, batch: Batch, statistics: Any, high: jax.Array) -> Batch:
        op = with_scale(config.augmentation, high)
        if config.policy == "replace":
            policy = policies.replace(op, config.amount)
        else:
            policy = policies.inject(op, config.copies)
        return policy(key, batch, alpha=config.alpha, stats=statistics)

    return augmented


def with_scale(op: Any, high: jax.Array) -> Any:
    """The operation or composition with the way from normalised inter-arrival times to seconds, which may be traced."""
    if isinstance(op, Composition):
        return dataclasses.replace(op, ops=tuple(with_scale(part, high) for part in op.ops))
    if not isinstance(op, Timing):
        return op
    scale = scaling.FeatureScaling(scaling.FEATURE_LOW, high)
    return op.with_options(to_seconds=scale.to_seconds, from_seconds=scale.from_seconds)


def pre_augmented(
    config: ClassifierConfig, train: Side, folds: Folds, *, part: int, fold: int, seed: int
) -> tuple[jax.Array, ...]:
    """x, mask and label of one run's training flows with their copies, made once: [flow * (amount + 1), ...]."""
    count = int(train.count[part])
    batch = Batch(*(leaf[part, :count] for leaf in train[:3]))
    statistics = jax.tree.map(lambda leaf: leaf[part], folds.statistics)
    key = prng.stream(run_key(seed, fold), "pre_augment")
    return tuple(_copied(config, key, batch, statistics, folds.scale_high[part]))


@functools.partial(jax.jit, static_argnums=0)
def _copied(config: ClassifierConfig, key: jax.Array, batch: Batch, statistics: Any, high: jax.Array) -> Batch:
    policy = policies.pre_augment(with_scale(config.augmentation, high), config.made_before)
    return policy(key, batch, alpha=config.alpha, stats=statistics)
