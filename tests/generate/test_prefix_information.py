"""What the first packets tell about the class: closed forms, a plain loop, devices, one compilation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtraffic import generate, parallel, prng, scaling
from jaxtraffic.errors import ConfigError
from jaxtraffic.generate import prefix_information as rooms
from jaxtraffic.generate import prefixes
from jaxtraffic.generate.edm import EDM, precondition
from jaxtraffic.generate.flow import Flow
from jaxtraffic.generate.schedules import make_schedule
from jaxtraffic.generate.vp import VP
from jaxtraffic.series import from_signed_size

SPREAD, SHARE = 0.6, np.array([0.6, 0.3, 0.1])
MEAN = np.array([[0.0, -1.0, 0.0, 0.5], [0.0, 1.0, 0.5, 0.0], [0.0, 0.0, 2.0, 0.0]])


def log_ratio(x, label, r):
    """ln p(x_1..r | y) / p(x_1..r) of a mixture of spherical Gaussians; [n]."""
    log = -0.5 * ((x[:, None, :r] - MEAN[None, :, :r]) ** 2).sum(-1) / SPREAD**2
    joint = log + np.log(SHARE)
    top = joint.max(axis=1, keepdims=True)
    return log[np.arange(len(x)), label] - (top[:, 0] + np.log(np.exp(joint - top).sum(axis=1)))


def posterior_mean(noisy, a, b, label, mask):
    """E[x | a x + b eps, class or none] of the mixture on the masked positions; all [n, T]."""
    variance = (a * SPREAD) ** 2 + b**2
    each = jnp.asarray(MEAN, jnp.float32)
    off = jnp.where(mask[:, None], noisy[:, None] - a[:, :, None] * each, 0.0)
    mean = each + (a * SPREAD**2 / variance)[:, :, None] * off
    if label is None:
        log = -0.5 * (off**2).sum(-1) / variance + jnp.log(jnp.asarray(SHARE, jnp.float32))
        weight = jax.nn.softmax(log, axis=1)
    else:
        weight = jax.nn.one_hot(label, 3)
    return (weight[..., None] * mean).sum(axis=1)


def oracle(kind, packets):
    """The perfect network of a process (for the mixture), with the label or without."""

    def network(x, told, label):
        mask = prefixes.inside_prefix(jnp.broadcast_to(packets, (len(x),)), 4)
        told = told[:, None]
        if isinstance(kind, Flow):
            t = told / 100
            mean = posterior_mean(x, t, 1 - t, label, mask)
            return (mean - x) / (1 - t)
        if isinstance(kind, EDM):
            sigma = jnp.exp(told / 10)
            skip, out, scale = precondition(sigma, kind.sigma_data)
            noisy = x / scale
            return (posterior_mean(noisy, jnp.ones_like(sigma), sigma, label, mask) - skip * noisy) / out
        if isinstance(kind, VP):
            a, b = kind.mix(told / 100)
        else:
            a, b = (kind[name][told[:, 0].astype(jnp.int32)][:, None] for name in ("signal", "noise"))
        mean = posterior_mean(x, a, b, label, mask)
        eps = (x - a * mean) / b
        return eps if kind_prediction(kind) == "epsilon" else a * eps - b * mean

    return network


def kind_prediction(kind):
    return kind["prediction"] if isinstance(kind, dict) else kind.prediction


def levels(kind, proposal="mixture"):
    if isinstance(kind, dict):
        return rooms.ddpm_levels(np.asarray(kind["alpha_bar"], np.float64), kind["prediction"])
    generator = type("Stub", (), {"process": kind})
    return rooms.levels_of(generator, proposal)


def ddpm(prediction):
    made = make_schedule("cosine", 300)
    return {"signal": made.signal, "noise": made.noise, "alpha_bar": made.alpha_bar, "prediction": prediction}


def sample(n, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.choice(3, n, p=SHARE).astype(np.int32)
    return (MEAN[label] + SPREAD * rng.normal(size=(n, 4))).astype(np.float32), label


def information(kind, x, label, r, *, form="gap", draws=8, proposal="mixture"):
    return np.asarray(program(next(n for n in KINDS if KINDS[n] is kind), form, draws, proposal)(x, label, np.int32(r)))


@functools.cache
def program(name, form, draws, proposal):
    def evaluate(x, label, r):
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(5), i))(jnp.arange(len(x)))
        return rooms.pointwise_information(
            oracle(KINDS[name], r),
            levels(KINDS[name], proposal),
            lambda keys: x,
            keys,
            label,
            r,
            form=form,
            draws=draws,
        )

    return jax.jit(evaluate)


KINDS = {
    "flow": Flow(),
    "edm": EDM(),
    "vp-epsilon": VP(),
    "vp-v": VP(prediction="v"),
    "ddpm-epsilon": ddpm("epsilon"),
    "ddpm-v": ddpm("v"),
}


@pytest.mark.parametrize(
    "name",
    [name if name in ("flow", "edm", "ddpm-v") else pytest.param(name, marks=pytest.mark.slow) for name in KINDS],
)
def test_gap_form_of_a_perfect_denoiser_is_the_log_ratio_of_every_prefix(name):
    x, label = sample(2000)
    for r in (2, 4):
        truth = log_ratio(x.astype(np.float64), label, r)
        found = information(KINDS[name], x, label, r)
        # Mean of the difference, flow by flow: what the truth varies by itself does not enter.
        error = (found - truth).std() / len(x) ** 0.5
        assert error < 0.02
        assert abs((found - truth).mean()) < 4 * error + 0.01, (r, (found - truth).mean(), error)
        for y in range(3):
            rows = label == y
            error = (found - truth)[rows].std() / rows.sum() ** 0.5
            assert abs((found - truth)[rows].mean()) < 4 * error + 0.02


def test_a_flow_draws_close_to_its_own_log_ratio():
    x, label = sample(64)
    truth = log_ratio(x.astype(np.float64), label, 3)
    found = information(KINDS["flow"], x, label, 3, draws=4096)
    np.testing.assert_allclose(found, truth, atol=0.25)
    assert np.abs(found - truth).mean() < 0.06 and np.corrcoef(found, truth)[0, 1] > 0.99


@pytest.mark.parametrize("name", ["flow", pytest.param("ddpm-v", marks=pytest.mark.slow)])
def test_squared_form_is_the_kl_of_each_class(name):
    x, label = sample(2000, seed=1)
    truth, found = log_ratio(x.astype(np.float64), label, 3), information(KINDS[name], x, label, 3, form="squared")
    for y in range(3):
        rows = label == y
        error = np.hypot(found[rows].std(), truth[rows].std()) / rows.sum() ** 0.5
        assert abs(found[rows].mean() - truth[rows].mean()) < 4 * error + 0.02
    assert (found >= 0).all()


@pytest.mark.parametrize(
    "proposal", ["uniform", *(pytest.param(name, marks=pytest.mark.slow) for name in ("inverse", "lambert"))]
)
def test_every_proposal_gives_the_same_mean(proposal):
    x, label = sample(2000, seed=2)
    found = information(KINDS["flow"], x, label, 4, proposal=proposal)
    other = information(KINDS["flow"], x, label, 4)
    assert abs(found.mean() - other.mean()) < 4 * np.hypot(found.std(), other.std()) / len(x) ** 0.5


def test_the_first_packet_tells_nothing_where_the_classes_agree():
    x, label = sample(2000)
    np.testing.assert_allclose(information(KINDS["flow"], x, label, 1), 0, atol=1e-3)


def test_what_lies_beyond_the_prefix_changes_nothing():
    x, label = sample(50)
    other = x.copy()
    other[:, 2:] = 1e3

    def network(inputs, told, known):
        # Looks at all positions, and answers with garbage beyond the prefix, which has to be left out.
        answer = jnp.tanh(inputs + inputs.sum(axis=1, keepdims=True)) * (1.0 if known is None else 0.5)
        return jnp.where(jnp.arange(4) < 2, answer, 7.0 if known is None else 3.0)

    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(5), i))(jnp.arange(50))
    values = [
        rooms.pointwise_information(
            network, levels(Flow()), lambda keys, x=x: jnp.asarray(x), keys, jnp.asarray(label), jnp.int32(2), draws=2
        )
        for x in (x, other)
    ]
    np.testing.assert_array_equal(*values)
    assert (np.abs(values[0]) > 1e-3).all()


TINY = generate.preset("tiny")


def config(**diffusion):
    return dataclasses.replace(
        TINY,
        denoiser=dataclasses.replace(TINY.denoiser, width=8, blocks=1, embedding=8, state=4),
        diffusion=dataclasses.replace(TINY.diffusion, **diffusion),
        train=dataclasses.replace(TINY.train, steps=6, batch_size=32, log_steps=3, class_dropout=0.2),
    )


def flows(n=75):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, n)
    signed = np.where(rng.random((n, 6)) < 0.5, 52 + 10 * label[:, None], -1500).astype(np.int16)
    signed[np.arange(6) >= rng.integers(3, 7, n)[:, None]] = 0
    return from_signed_size(signed, label, class_names=("a", "b", "c"), name="toy", source="real")


@pytest.fixture(scope="module")
def generator():
    """An untrained network, moved off its zero initialisation so that every part matters."""
    train = flows()
    made = generate.Generator(
        config(process="flow"), generate.DataCard.of(train), scaling.fit("quantile", train.signed_size)
    )
    leaves, tree = jax.tree.flatten(made.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + 0.1 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    made.params = jax.tree.unflatten(tree, moved)
    return made


def loop(generator, key, data, r, draws):
    """The same estimate, flow by flow and draw by draw, in NumPy but for the network, the scale and the draws."""
    signed, label, values = data.signed_size, np.asarray(data.label), []
    operators = generator.apply(generator.params, 6, method="operators")

    @jax.jit
    def network(noisy, told, known):
        condition = generator.apply(generator.params, told[None], method="embed_time")
        condition = condition + generator.apply(generator.params, known[None], method="embed_class")
        return generator.apply(generator.params, noisy[None], condition, operators)[0]

    def velocity(noisy, t, known):
        return np.asarray(network(noisy.astype(np.float32), np.float32(100 * t), np.int32(known)))

    for i in range(len(signed)):
        of_flow, total = prng.at_step(prng.stream(key, "sample"), i), 0.0
        for d in range(draws):
            own = prng.at_step(of_flow, d)
            x = np.asarray(generator.scale.apply(prng.stream(own, "scale"), jnp.asarray(signed[i])))
            u = (d + float(jax.random.uniform(prng.stream(own, "time")))) / draws
            t = 2 * u * 0.999 if u < 0.5 else 1 - 1e-3 ** (2 * u - 1)
            density = 0.5 * (1 / 0.999 + 1 / ((1 - t) * np.log(1e3)))
            for sign in (1, -1):
                eps = sign * np.asarray(jax.random.normal(prng.stream(own, "noise"), (6,)))
                noisy = np.where(np.arange(6) < r, t * x + (1 - t) * eps, 0)
                a, b = velocity(noisy, t, label[i]), velocity(noisy, t, 3)
                v = (x - eps)[:r]
                gap = ((v - b[:r]) ** 2).sum() - ((v - a[:r]) ** 2).sum()
                total += t / (1 - t) / density * gap / (2 * draws)
        values.append(total)
    return np.array(values)


@pytest.mark.slow
def test_equals_a_plain_loop(generator):
    data = flows()[:5]
    found = rooms.generator_information(
        generator, jax.random.key(2), data, packets=[2, 6], draws=3, block=4, mesh=parallel.make_mesh(devices=1)
    )
    for row, r in enumerate((2, 6)):
        np.testing.assert_allclose(found[row], loop(generator, jax.random.key(2), data, r, 3), rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_eight_devices_give_the_values_of_one_in_one_compilation(generator):
    found = [
        rooms.generator_information(
            generator,
            jax.random.key(2),
            flows(),
            packets=[1, 3, 6],
            draws=2,
            block=8,
            mesh=parallel.make_mesh(devices=n),
        )
        for n in (1, 8)
    ]
    np.testing.assert_array_equal(*found)
    for n in (1, 8):
        program = rooms._program(generator, parallel.make_mesh(devices=n), "gap", 2, "mixture")
        assert program._cache_size() == 1


@pytest.mark.slow
def test_the_program_has_no_collective(generator):
    mesh = parallel.make_mesh(devices=8)
    with jax.set_mesh(mesh):
        params, scale = parallel.put_replicated((generator.params, generator.scale), mesh)
        operators = parallel.put_replicated(generator.apply(generator.params, 6, method="operators"), mesh)
        rows = np.arange(64) % 75
        arguments = parallel.put_over_data(
            (np.arange(64, dtype=np.int32), flows().signed_size[rows], np.asarray(flows().label)[rows]), mesh
        )
        program = rooms._program(generator, mesh, "gap", 2, "mixture")
        text = program.lower(params, scale, operators, jax.random.key(0), *arguments, np.int32(3)).compile().as_text()
    assert "all-reduce" not in text and "all-gather" not in text and "all-to-all" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"packets": [0]}, "from 1 to 6"),
        ({"packets": [7]}, "from 1 to 6"),
        ({"packets": []}, "from 1 to 6"),
        ({"form": "product"}, "product"),
        ({"draws": 0}, "draws"),
        ({"proposal": "beta"}, "beta"),
    ],
)
def test_what_cannot_work_is_refused(generator, change, words):
    with pytest.raises(ConfigError, match=words):
        rooms.generator_information(generator, jax.random.key(0), flows(), **({"packets": [1]} | change))


def test_flows_of_another_length_and_generators_without_dropout_are_refused(generator):
    short = from_signed_size(flows().signed_size[:, :4], flows().label, class_names=("a", "b", "c"))
    with pytest.raises(ConfigError, match="6 packet positions"):
        rooms.generator_information(generator, jax.random.key(0), short, packets=[1])
    plain = dataclasses.replace(generator.config, train=dataclasses.replace(generator.config.train, class_dropout=0.0))
    other = generate.Generator(plain, generator.card, generator.scale, generator.params)
    with pytest.raises(ConfigError, match="class dropout"):
        rooms.generator_information(other, jax.random.key(0), flows(), packets=[1])


def test_prefixes_are_log_uniform_and_of_the_given_share():
    drawn = np.asarray(prefixes.draw_prefixes(jax.random.key(0), 0.5, 40000, 8))
    assert drawn.min() == 1 and drawn.max() == 8
    share = np.bincount(drawn, minlength=9) / len(drawn)
    for r in range(1, 8):
        assert share[r] == pytest.approx(0.5 * np.log((r + 1) / r) / np.log(8), abs=0.01)
    assert (np.asarray(prefixes.draw_prefixes(jax.random.key(0), 0.0, 100, 8)) == 8).all()


@pytest.mark.slow
@pytest.mark.parametrize("process", ["ddpm", "flow"])
def test_the_loss_of_a_prefix_sees_and_trains_the_prefix_alone(process):
    train = flows()
    scale, card = scaling.fit("quantile", train.signed_size), generate.DataCard.of(train)
    batch = {"signed_size": jnp.asarray(train.signed_size[:32]), "label": jnp.asarray(np.asarray(train.label)[:32])}
    with_prefixes = generate.Generator(config(process=process, prefixes=1.0), card, scale)
    whole = generate.Generator(config(process=process), card, scale)
    params = jax.tree.map(lambda leaf: leaf + 0.05, with_prefixes.init(jax.random.key(0)))
    key = jax.random.key(3)
    kept = np.asarray(prefixes.draw_prefixes(key, 1.0, 32, 6))
    assert (kept < 6).any()
    other = np.array(batch["signed_size"])
    # Another value beyond the prefix of each flow; sizes of the set, so that the scale knows them.
    other[np.arange(6) >= kept[:, None]] = -1500

    def slopes(generator):
        cost = jax.jit(jax.grad(lambda p, signed: generator.loss(p, batch | {"signed_size": signed}, key).mean()))
        return [cost(params, jnp.asarray(signed)) for signed in (batch["signed_size"], other)]

    one, two = slopes(with_prefixes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, two)
    changed = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), *slopes(whole))
    assert max(jax.tree.leaves(changed)) > 1e-4
