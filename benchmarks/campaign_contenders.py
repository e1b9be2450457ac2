"""What `campaign.py` measures: training steps of many seeds grouped in several ways, their products alone, and runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import measure
import numpy as np
import optax

from jaxtraffic import augment, parallel
from jaxtraffic.augment.policies import Batch, inject
from jaxtraffic.classify import campaigns
from jaxtraffic.classify.campaigns import campaign, epoch_steps
from jaxtraffic.classify.config import ClassifierConfig
from jaxtraffic.classify.folds import Side, make_folds
from jaxtraffic.nn import classifiers
from jaxtraffic.nn.classifiers import Classifier, make_classifier
from jaxtraffic.nn.dense_convolution import out_length
from jaxtraffic.series import PacketSeries

LENGTH, CLASSES, FOLDS = 20, 20, 10
IN_TURNS, VMAPPED, MAPPED = "in turns", "vmapped", "mapped"
PRODUCTS, BATCHED_PRODUCTS = "products alone, in turns", "products alone, batched"
BLAS = "products alone, NumPy"
MATMULS, LAX = "matmuls", "lax.conv"
Call = Callable[[], Any]


class Layer(NamedTuple):
    """A convolution of the network: kernel [taps, inputs, outputs] and the positions it leaves of a flow."""

    name: str
    taps: int
    inputs: int
    outputs: int
    positions: int


def layers(length: int = LENGTH, width: int = 64) -> list[Layer]:
    """The convolutions of the ResNet on flows of `length` packets."""
    half, quarter = (out_length(out_length(length, 2), stride) for stride in (1, 2))
    made = [Layer("stem", 3, 3, width, length)]
    for stage, inputs, outputs, positions in ((1, width, width, half), (2, width, 2 * width, quarter)):
        made += [
            Layer(f"stage{stage}_block1_first", 3, inputs, outputs, positions),
            Layer(f"stage{stage}_block1_second", 3, outputs, outputs, positions),
            Layer(f"stage{stage}_block1_shortcut", 1, inputs, outputs, positions),
        ]
    return made


def step_flops(length: int = LENGTH, classes: int = CLASSES, width: int = 64) -> int:
    """FLOPs of the products of one training step, a flow: forward, and twice that backward, but for the input's own."""
    convolutions = [2 * one.taps * one.inputs * one.outputs * one.positions for one in layers(length, width)]
    return 3 * (sum(convolutions) + 2 * 2 * width * classes) - convolutions[0]


# Training steps of many seeds.


def lax_convolution(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """`nn.dense_convolution` as XLA's own convolution."""
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(x, kernel, (stride,), [(pad, pad)], dimension_numbers=("NWC", "WIO", "NWC"))


@contextlib.contextmanager
def convolutions(form: str) -> Iterator[None]:
    """The library's ResNet is traced with this form of convolution inside the block."""
    ours = classifiers.dense_convolution
    classifiers.dense_convolution = lax_convolution if form == LAX else ours
    try:
        yield
    finally:
        classifiers.dense_convolution = ours


class Steps:
    """A training step (loss, gradient, AdamW, running statistics) of `seeds` ResNets, each on its own batch."""

    def __init__(self, seeds: int, batch: int, *, form: str = MATMULS, length: int = LENGTH, width: int | None = None):
        self.seeds, self.form = seeds, form
        self.net = make_classifier("resnet", CLASSES, length, width=width)
        self.transform = optax.adamw(1e-3, weight_decay=1e-4)
        self.carry = jax.jit(jax.vmap(self._init))(jax.random.split(jax.random.key(0), seeds))
        rng = np.random.default_rng(0)
        x = rng.random((seeds, batch, length, 3), np.float32)
        label = rng.integers(0, CLASSES, (seeds, batch)).astype(np.int32)
        self.batch = jax.device_put((x, np.ones(x.shape[:3], bool), label))

    def _init(self, key: jax.Array) -> tuple[Any, ...]:
        params, state = self.net.init(key)
        return params, state, self.transform.init(params)

    def take(self, carry: Any, batch: Any) -> Any:
        """One step of one seed."""
        return take_step(self.net, self.transform, carry, *batch)

    def calls(self, programs: dict[str, measure.Program], *, ways: tuple[str, ...], steps: int) -> dict[str, Call]:
        """Compiles these ways of taking so many steps of every seed, as a loop inside the program; fills `programs`."""

        def chunk(carry: Any, batch: Any) -> Any:
            # The body of a loop is compiled otherwise than the same step outside: on a CPU that decides.
            return jax.lax.fori_loop(0, steps, lambda _, carry: self.take(carry, batch), carry)

        one = self.take if steps == 1 else chunk
        stacked = {
            VMAPPED: jax.vmap(one),
            MAPPED: lambda carry, batch: jax.lax.map(lambda own: one(*own), (carry, batch)),
        }
        made: dict[str, Call] = {}
        with convolutions(self.form):
            for way in ways:
                name = title(self.form, way, steps)
                arguments = (
                    [(self.carry, self.batch)] if way in stacked else unstacked((self.carry, self.batch), self.seeds)
                )
                programs[name] = measure.compile_program(jax.jit(stacked.get(way, one)), *arguments[0])
                made[name] = in_turns(programs[name], arguments)
        return made


def title(form: str, way: str, steps: int) -> str:
    """Name of a contender."""
    return ", ".join([*([LAX] if form == LAX else []), way, *(["a call a step"] if steps == 1 else [])])


def unstacked(tree: Any, count: int) -> list[Any]:
    """The first `count` entries along the leading axis of all leaves."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]


def in_turns(program: measure.Program, arguments: list[tuple[Any, ...]]) -> Call:
    """A call that runs the program on one tuple of arguments after the other, without waiting in between."""
    return lambda: [program.call(*own) for own in arguments]


def take_step(
    net: Classifier, transform: Any, carry: Any, x: jax.Array, mask: jax.Array, label: jax.Array
) -> tuple[Any, ...]:
    """(params, state, optimizer) after one step on a batch."""
    params, state, optimizer = carry

    def loss(params: Any) -> tuple[jax.Array, Any]:
        logits, _, new = net.apply(params, state, x, mask, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), new

    gradient, state = jax.grad(loss, has_aux=True)(params)
    with jax.numpy_dtype_promotion("standard"):
        updates, optimizer = transform.update(gradient, optimizer, params)
    return optax.apply_updates(params, updates), state, optimizer


def product_calls(
    seeds: int, batch: int, programs: dict[str, measure.Program], *, length: int = LENGTH, width: int = 64
) -> dict[str, Call]:
    """The matrix products of a training step and nothing else: what it takes if all between them were free.

    By XLA, in turns and batched over seeds, and by NumPy (its BLAS), which says what the machine gives on these shapes.
    A convolution has three: columns x kernel, their transposes x the gradient of the output, and that gradient x the
    kernel's transpose (not for the stem, whose input needs no gradient). The small product of the head is left out.
    """
    rng = np.random.default_rng(0)
    operands = []
    for one in layers(length, width):
        rows, inner = batch * one.positions, one.taps * one.inputs
        shapes = ((rows, inner), (inner, one.outputs), (rows, one.outputs))
        operands.append(tuple(jax.device_put(rng.random((seeds, *shape), np.float32)) for shape in shapes))

    def multiply(operands: list[tuple[jax.Array, ...]]) -> list[jax.Array]:
        made = []
        for place, (columns, kernel, gradient) in enumerate(operands):
            made += [columns @ kernel, columns.T @ gradient] + ([gradient @ kernel.T] if place else [])
        return made

    singles = unstacked(operands, seeds)
    programs[PRODUCTS] = measure.compile_program(jax.jit(multiply), singles[0])
    programs[BATCHED_PRODUCTS] = measure.compile_program(jax.jit(jax.vmap(multiply)), operands)
    on_host = [jax.tree.map(np.asarray, own) for own in singles]
    room = [np.empty(one.shape, one.dtype) for one in jax.eval_shape(multiply, singles[0])]

    def by_blas(operands: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
        # Into the same memory every time: new arrays would cost more in page faults than the products do.
        out = iter(room)
        for place, (columns, kernel, gradient) in enumerate(operands):
            np.matmul(columns, kernel, out=next(out))
            np.matmul(columns.T, gradient, out=next(out))
            if place:
                np.matmul(gradient, kernel.T, out=next(out))
        return room

    def by_xla() -> list[jax.Array]:
        for own in singles:
            # Results of one seed are dropped before the next, as a step drops its temporaries.
            made = jax.block_until_ready(programs[PRODUCTS].call(own))
        return made

    return {
        PRODUCTS: by_xla,
        BATCHED_PRODUCTS: lambda: programs[BATCHED_PRODUCTS].call(operands),
        BLAS: lambda: [by_blas(own) for own in on_host][-1],
    }


# Whole runs.


def random_series(flows: int, *, classes: int = CLASSES, length: int = LENGTH, seed: int = 0) -> PacketSeries:
    """Flows of random classes and lengths whose sizes, directions and gaps scatter around those of their class."""
    rng = np.random.default_rng(seed)
    # Every class has as many flows, up to one: no class may be smaller than the number of folds.
    label = rng.permutation(np.arange(flows) % classes)
    mask = np.arange(length) < rng.integers(length // 2, length + 1, (flows, 1))
    size = rng.uniform(40, 1460, (classes, length))[label] + rng.normal(0, 400, (flows, length))
    upwards = rng.random((flows, length)) < rng.uniform(0.2, 0.8, (classes, length))[label]
    iat = np.exp(rng.normal(-5, 1, (classes, length))[label] + rng.normal(0, 1, (flows, length)))
    iat[:, 0] = 0
    return PacketSeries(
        np.where(mask, size.clip(0, 1460), 0).astype(np.int16),
        np.where(mask, np.where(upwards, 1, -1), 0).astype(np.int8),
        np.where(mask, iat, 0).astype(np.float32),
        label.astype(np.int32),
        class_names=tuple(f"class {i}" for i in range(classes)),
        name="random",
        source="simulated",
    ).check()


def configuration(name: str, *, batch: int, epochs: int, patience: int | None = None) -> ClassifierConfig:
    """Baseline, or one copy injected beside each flow, alpha ~ U[0, 1]; early stopping only with a patience."""
    op = None if name == "baseline" else augment.AUGMENTATIONS[name].op
    return ClassifierConfig(
        name=name,
        augmentation=op,
        policy="none" if op is None else "inject",
        amount=1,
        batch_size=batch,
        max_epochs=epochs,
        patience=patience or epochs,
    ).check()


def campaign_call(
    flows: PacketSeries, configs: list[ClassifierConfig], seeds: int, slots: int, mesh: jax.sharding.Mesh | None = None
) -> Call:
    """A campaign of these configurations x seeds on fold 0 of 10, so many runs in one program."""
    mesh = mesh or parallel.make_mesh(devices=1)

    def call() -> list[Any]:
        return campaign(flows, configs, [0], list(range(seeds)), n_folds=FOLDS, length=LENGTH, slots=slots, mesh=mesh)

    return call


@contextlib.contextmanager
def kept_programs() -> Iterator[None]:
    """Campaigns inside the block share their jitted programs, so that a second call neither traces nor compiles."""
    made, kept = campaigns.make_programs, {}

    def make(*args: Any, **more: Any) -> Any:
        key = repr((args, sorted(more.items())))
        if key not in kept:
            kept[key] = made(*args, **more)
        return kept[key]

    campaigns.make_programs = make
    try:
        yield
    finally:
        campaigns.make_programs = made


def fold_arrays(flows: PacketSeries) -> dict[str, tuple[np.ndarray, ...]]:
    """Fold 0 as the campaign sees it, on the host: x, mask, label of train, validation and test."""
    folds = make_folds(flows, [0], n_folds=FOLDS, length=LENGTH)

    def rows(side: Side) -> tuple[np.ndarray, ...]:
        count = int(side.count[0])
        return tuple(np.asarray(leaf[0, :count]) for leaf in side[:3])

    return {name: rows(getattr(folds, name)) for name in ("train", "validation", "test")}


class PlainLoop:
    """One run as a loop in Python over jitted steps: JAX one by one, as it is written without this library.

    The flows lie on the device, the step is compiled once for a configuration and serves all of its seeds.
    """

    def __init__(self, config: ClassifierConfig, sides: dict[str, tuple[np.ndarray, ...]], steps: int):
        self.config, self.epoch_steps = config, steps
        self.sides = {name: jax.device_put(arrays) for name, arrays in sides.items()}
        self.count = len(sides["train"][2])
        rate = optax.cosine_decay_schedule(config.learning_rate, config.max_epochs * self.epoch_steps)
        self.net = make_classifier(config.model, CLASSES, LENGTH)
        self.transform = optax.adamw(rate, weight_decay=config.weight_decay)
        self.init = jax.jit(self._init)
        self.order = jax.jit(lambda key: jax.random.permutation(key, self.count))
        self.step = jax.jit(self._step, donate_argnums=0)
        self.judge = jax.jit(self._judge)

    def _init(self, key: jax.Array) -> tuple[Any, ...]:
        params, state = self.net.init(key)
        return params, state, self.transform.init(params)

    def _step(self, carry: Any, key: jax.Array, train: Any, order: jax.Array, index: jax.Array) -> Any:
        fresh = self.config.fresh
        rows = order[(index * fresh + jnp.arange(fresh, dtype=jnp.int32)) % self.count]
        batch = Batch(*(leaf[rows] for leaf in train))
        if self.config.augmentation is not None:
            batch = inject(self.config.augmentation, self.config.copies)(key, batch)
        return take_step(self.net, self.transform, carry, *batch)

    def _judge(self, params: Any, state: Any, x: jax.Array, mask: jax.Array, label: jax.Array) -> jax.Array:
        return (self.net.apply(params, state, x, mask, train=False)[0].argmax(-1) == label).mean()

    def run(self, seed: int) -> dict[str, float]:
        """One run: epochs with validation and early stopping, then the accuracy on test."""
        config, key = self.config, jax.random.key(seed)
        carry = self.init(key)
        best, kept, reference, waited = -1.0, None, -1.0, 0
        for epoch in range(config.max_epochs):
            own = jax.random.fold_in(key, epoch)
            order = self.order(own)
            for index in range(self.epoch_steps):
                carry = self.step(carry, jax.random.fold_in(own, index), self.sides["train"], order, np.int32(index))
            accuracy = float(self.judge(*carry[:2], *self.sides["validation"]))
            if accuracy > best:
                # The step gives its arguments away, so the best parameters are copied.
                best, kept = accuracy, jax.tree.map(jnp.copy, carry[:2])
            improves = accuracy > reference + config.threshold
            reference, waited = (accuracy, 0) if improves else (reference, waited + 1)
            if waited >= config.patience:
                break
        accuracy = float(self.judge(*kept, *self.sides["test"]))
        return {"epochs": epoch + 1, "validation_accuracy": best, "accuracy": accuracy}


def steps_of(config: ClassifierConfig, flows: PacketSeries) -> int:
    """Steps of an epoch, as the campaign counts them."""
    return epoch_steps(len(flows), FOLDS, config.fresh)


def torch_call(
    config: ClassifierConfig, sides: dict[str, tuple[np.ndarray, ...]], steps: int, runs: int
) -> Callable[[], list[dict[str, float]]]:
    """So many PyTorch runs of a configuration, one after the other."""
    import torch_classifier

    put = torch_classifier.put(sides)
    return lambda: [torch_classifier.train(config, put, CLASSES, steps, seed) for seed in range(runs)]
