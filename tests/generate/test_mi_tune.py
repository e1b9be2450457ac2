"""MI-TUNE at a tiny size: what is drawn, kept, trained and stored."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxtraffic import generate, parallel, scaling
from jaxtraffic.errors import ConfigError, TrainingError
from jaxtraffic.generate import mi_tune
from jaxtraffic.generate.mi_tune import TuneConfig, tune_with_information
from jaxtraffic.nn.adapters import AdapterConfig, dense_kernels
from jaxtraffic.series import from_signed_size
from jaxtraffic.train import TrainConfig

TINY = generate.preset("tiny")
DENOISER = dataclasses.replace(TINY.denoiser, width=12, blocks=1, embedding=8, state=4, space="diag-lin")
FLOW = dataclasses.replace(
    TINY,
    denoiser=DENOISER,
    diffusion=generate.DiffusionConfig(process="flow", solver="euler", sampling_steps=5),
    train=dataclasses.replace(TINY.train, steps=6, class_dropout=0.2),
)
CONFIG = TuneConfig(
    candidates=6,
    keep=2,
    rounds=2,
    adapters=AdapterConfig("dora", rank=4),
    train=TrainConfig(steps=8, batch_size=16, learning_rate=1e-2),
)
MESH = parallel.make_mesh(devices=1)


def toy(n=90):
    rng = np.random.default_rng(0)
    label = np.arange(n) % 3 // 2
    signed = np.where(rng.random((n, 6)) < 0.5, 52 + 100 * label[:, None], -1500).astype(np.int16)
    return from_signed_size(signed, label, class_names=("a", "b"), name="toy", source="real")


def make(config, params=None):
    flows = toy()
    return generate.Generator(config, generate.DataCard.of(flows), scaling.fit("quantile", flows.signed_size), params)


@pytest.fixture(scope="module")
def generator():
    """Untrained, but off its zero initialisation, so that its label and every kernel matter."""
    made, rng = make(FLOW), np.random.default_rng(1)
    params = jax.jit(made.init)(jax.random.key(0))
    made.params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape).astype(np.float32), params)
    return made


@pytest.fixture(scope="module")
def tuned(generator):
    return tune_with_information(generator, jax.random.key(3), CONFIG, mesh=MESH)


def leaves(params):
    named = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in named}


@pytest.mark.slow
def test_the_loop_keeps_the_best_of_each_class_and_changes_linear_kernels_only(generator, tuned):
    before = leaves(generator.params)
    made, history = tuned
    assert len(history) == 2 and all(one.losses.size and np.isfinite(one.losses).all() for one in history)
    for one in history:
        label = np.asarray(one.candidates.flows.label)
        np.testing.assert_array_equal(label, np.repeat([0, 1], 6))
        for value in (0, 1):
            scores, kept = one.score[label == value], one.kept[label == value]
            assert kept.sum() == 2 and scores[kept].min() >= scores[~kept].max()
        np.testing.assert_array_equal(one.score, one.candidates.mi["squared"])
    after = leaves(made.params)
    for name, leaf in before.items():
        assert (after[name] != leaf).any() == dense_kernels(name, leaf), name
    # The second round draws from the tuned network, not from the first one.
    assert (history[0].candidates.mi["squared"] != history[1].candidates.mi["squared"]).all()
    same = leaves(generator.params)
    assert all((same[name] == leaf).all() for name, leaf in before.items())


@pytest.mark.slow
def test_the_second_round_draws_from_what_the_first_one_made(generator, tuned):
    one_round, _ = tune_with_information(generator, jax.random.key(3), dataclasses.replace(CONFIG, rounds=1), mesh=MESH)
    drawn = mi_tune.draw_candidates(one_round, mi_tune.candidates_key(jax.random.key(3), 1), CONFIG, mesh=MESH)
    np.testing.assert_allclose(drawn.mi["squared"], tuned[1][1].candidates.mi["squared"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_control_draws_the_same_candidates_and_keeps_others(generator, tuned):
    config = dataclasses.replace(CONFIG, rank="random", rounds=1)
    _, (one,) = tune_with_information(generator, jax.random.key(3), config, mesh=MESH)
    first = tuned[1][0]
    np.testing.assert_array_equal(one.candidates.flows.signed_size, first.candidates.flows.signed_size)
    assert (one.kept != first.kept).any() and one.kept.sum() == first.kept.sum()
    _, (other,) = tune_with_information(generator, jax.random.key(4), config, mesh=MESH)
    assert (one.kept != other.kept).any()


@pytest.mark.slow
def test_ascending_keeps_the_other_end_and_path_wise_its_own_order(generator, tuned):
    first = tuned[1][0].candidates
    label = np.asarray(first.flows.label)
    config = dataclasses.replace(CONFIG, rank="squared_ascending")
    score = mi_tune._score(first, config.rank, jax.random.key(0))
    np.testing.assert_array_equal(
        mi_tune.best_of_each(score, label, 2), mi_tune.best_of_each(-first.mi["squared"], label, 2)
    )
    config = dataclasses.replace(CONFIG, rank="path_wise")
    drawn = mi_tune.draw_candidates(generator, mi_tune.candidates_key(jax.random.key(3), 0), config, mesh=MESH)
    np.testing.assert_array_equal(drawn.flows.signed_size, first.flows.signed_size)
    np.testing.assert_allclose(drawn.mi["squared"], first.mi["squared"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mi_tune._score(drawn, "path_wise", jax.random.key(0)), drawn.mi["path_wise"])
    assert np.abs(drawn.mi["path_wise"] - drawn.mi["squared"]).max() > 1e-3


@pytest.mark.parametrize("seed", range(5))
def test_best_of_each_equals_a_loop(seed):
    rng = np.random.default_rng(seed)
    label, score = rng.integers(0, 4, 60), np.round(rng.random(60), 1)
    wanted = np.zeros(60, bool)
    for value in range(4):
        own = [i for i in range(60) if label[i] == value]
        for i in sorted(own, key=lambda i: -score[i])[:5]:
            wanted[i] = True
    np.testing.assert_array_equal(mi_tune.best_of_each(score, label, 5), wanted)


def test_the_fine_tuning_set_keeps_class_shares_and_every_flow():
    signed = np.arange(1, 41, dtype=np.int16).reshape(20, 2)
    flows = from_signed_size(signed, np.repeat([0, 2], 10), class_names=("a", "b", "c"))
    made = mi_tune.fine_tuning_set(flows, (900, 0, 100))
    assert len(made["label"]) == 160 and (made["label"] == 0).mean() == 0.9
    assert len(np.unique(made["signed_size"], axis=0)) == 20
    assert all(made["label"][i] == (0 if row[0] <= 20 else 2) for i, row in enumerate(made["signed_size"]))
    rare = mi_tune.fine_tuning_set(flows, (9999, 0, 1))
    assert (rare["label"] == 2).sum() == 10 and len(np.unique(rare["signed_size"], axis=0)) == 20


@pytest.mark.slow
def test_a_stored_generator_is_a_run_folder_like_any_other(generator, tuned, tmp_path):
    made, _ = tuned
    mi_tune.save_tuned(tmp_path, made)
    described = {"generator": dataclasses.asdict(made.config), "card": dataclasses.asdict(made.card)}
    (tmp_path / "config.json").write_text(json.dumps(described))
    loaded = generate.load_run(tmp_path)
    assert loaded.config == made.config and loaded.card == made.card
    assert all((leaves(made.params)[name] == leaf).all() for name, leaf in leaves(loaded.params).items())
    np.testing.assert_array_equal(*(one.scale.apply(jax.random.key(0), toy().signed_size) for one in (made, loaded)))


def test_holding_gives_the_parameters_back_also_after_an_error(generator):
    before = generator.params
    with pytest.raises(RuntimeError), mi_tune.holding(generator, None) as held:
        assert held is generator and generator.params is None
        raise RuntimeError
    assert generator.params is before


@pytest.mark.slow
def test_scores_that_are_not_finite_stop_the_run(tuned):
    drawn = tuned[1][0].candidates
    broken = drawn._replace(mi={"squared": np.where(np.arange(12) == 3, np.nan, 1.0)})
    with pytest.raises(TrainingError, match="1 of 12"):
        mi_tune._score(broken, "squared", jax.random.key(0))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"rank": "best"}, "squared_ascending"),
        ({"keep": 7}, "keep 7 of 6"),
        ({"keep": 0}, "keep 0"),
        ({"rounds": 0}, "0 rounds"),
        ({"train": TrainConfig()}, "steps"),
        ({"adapters": AdapterConfig("full")}, "lora, dora"),
        ({"adapters": AdapterConfig("lora", rank=13)}, "above 12"),
    ],
    ids=["rank", "keep-too-many", "keep-none", "no-round", "no-steps", "adapters", "adapter-rank"],
)
def test_settings_that_cannot_work_are_refused(generator, changes, words):
    with pytest.raises(ConfigError, match=words):
        tune_with_information(generator, jax.random.key(0), dataclasses.replace(CONFIG, **changes), mesh=MESH)


def test_ranks_and_models_that_do_not_fit_are_refused(generator):
    ddpm = make(dataclasses.replace(FLOW, diffusion=generate.DiffusionConfig(steps=4)), generator.params)
    with pytest.raises(ConfigError, match="flow"):
        tune_with_information(ddpm, jax.random.key(0), dataclasses.replace(CONFIG, rank="path_wise"), mesh=MESH)
    plain = dataclasses.replace(FLOW, train=dataclasses.replace(FLOW.train, class_dropout=0.0))
    plain = make(plain, generator.params)
    with pytest.raises(ConfigError, match="class-dropout"):
        tune_with_information(plain, jax.random.key(0), CONFIG, mesh=MESH)
