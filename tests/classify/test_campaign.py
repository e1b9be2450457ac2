"""Campaigns against an independent loop in NumPy: its own network, gradient, AdamW, schedule and early stopping."""

import dataclasses
import functools
import itertools
import logging
import re

import jax
import numpy as np
import pytest

from jaxtraffic import augment, classify, parallel, prng
from jaxtraffic.augment.policies import Batch
from jaxtraffic.classify import campaigns, models
from jaxtraffic.classify.folds import make_folds
from jaxtraffic.errors import ConfigError
from jaxtraffic.nn.classifiers import make_classifier
from tests.classify.test_folds import make_flows

MLP = classify.ClassifierConfig(
    name="baseline", model="mlp", batch_size=16, max_epochs=9, patience=3, learning_rate=1e-2, weight_decay=1e-2
)
TRANSLATED = {"augmentation": augment.translation, "policy": "replace", "amount": 0.5}
"""The module, which the function of the same name hides."""
FOLDS, SEEDS, WHERE = (0, 5), (0, 3), {"n_folds": 4, "length": 6}


def named(name, **changes):
    return dataclasses.replace(MLP, name=name, **changes)


def alike(result):
    """What must be equal however a run was trained."""
    one = dataclasses.asdict(result)
    return {key: value for key, value in one.items() if key != "seconds"} | {
        "per_class_f1": np.nan_to_num(one["per_class_f1"], nan=-1).tolist()
    }


# --- the reference ---


def forward(params, x):
    first = np.maximum(x.reshape(len(x), -1) @ params["hidden1"]["kernel"] + params["hidden1"]["bias"], 0)
    second = np.maximum(first @ params["hidden2"]["kernel"] + params["hidden2"]["bias"], 0)
    return first, second, second @ params["head"]["kernel"] + params["head"]["bias"]


def gradient(params, x, label):
    first, second, logits = forward(params, x)
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    back = (share / share.sum(axis=1, keepdims=True) - np.eye(logits.shape[1])[label]) / len(label)
    out = {}
    for name, above, below in (("head", second, second), ("hidden2", first, first), ("hidden1", None, None)):
        above = x.reshape(len(x), -1) if above is None else above
        out[name] = {"kernel": above.T @ back, "bias": back.sum(axis=0)}
        if below is not None:
            back = (back @ params[name]["kernel"].T) * (below > 0)
    return out


def adamw(rate, decay, count, param, mean, square):
    step = (mean / (1 - 0.9**count)) / (np.sqrt(square / (1 - 0.999**count)) + 1e-8)
    return param * (1 - rate * decay) - rate * step


@functools.cache
def policy_of(config):
    make = augment.replace if config.policy == "replace" else augment.inject
    amount = config.amount if config.policy == "replace" else int(config.amount)
    return jax.jit(lambda key, batch: make(config.augmentation, amount)(key, batch, alpha=config.alpha))


def train_plainly(flows, made, folds, config, fold, seed):
    """epochs, best_epoch, validation accuracy and confusion of one run; `made` are the folds on the host."""
    part = folds.index(fold)
    sides = {
        name: [leaf[part, : side.count[part]] for leaf in side[:3]]
        for name, side in made._asdict().items()
        if name in ("train", "validation", "test")
    }
    x, mask, label = sides["train"]
    key = jax.random.fold_in(prng.stream(jax.random.key(seed), "fold"), fold)
    classes = len(flows.class_names)
    params = make_classifier("mlp", classes, x.shape[1]).init(prng.stream(key, "init"))[0]
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    moments = [jax.tree.map(np.zeros_like, params) for _ in range(2)]
    fresh = config.batch_size // (config.amount + 1 if config.policy == "inject" else 1)
    steps = max(1, round(len(flows) * (WHERE["n_folds"] - 2) / WHERE["n_folds"] / fresh))
    reference, best, wait, count = -1.0, -1.0, 0, 0
    for epoch in range(config.max_epochs):
        own = jax.random.fold_in(key, epoch)
        order = np.argsort(np.asarray(jax.random.uniform(prng.stream(own, "order"), (len(label),))), kind="stable")
        for step in range(steps):
            chosen = [order[(step * fresh + i) % len(order)] for i in range(fresh)]
            batch = Batch(x[chosen], mask[chosen], label[chosen])
            if config.policy != "none":
                key_of_step = jax.random.fold_in(prng.stream(own, "step"), step)
                batch = policy_of(config)(prng.stream(key_of_step, "augment"), batch)
            slope = gradient(params, np.asarray(batch.x, np.float64), np.asarray(batch.label))
            rate = config.learning_rate * 0.5 * (1 + np.cos(np.pi * count / (config.max_epochs * steps)))
            count += 1
            moments[0] = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], slope)
            moments[1] = jax.tree.map(lambda m, g: 0.999 * m + 0.001 * g**2, moments[1], slope)
            params = jax.tree.map(functools.partial(adamw, rate, config.weight_decay, count), params, *moments)
        there, _, wanted = sides["validation"]
        accuracy = (forward(params, there)[2].argmax(axis=1) == wanted).mean()
        if accuracy > best:
            best, best_epoch, kept = accuracy, epoch, params
        unit = 0.01 if config.improvement_unit == "points" else 1
        reference, wait = (
            (accuracy, 0) if accuracy > reference + unit * config.min_improvement else (reference, wait + 1)
        )
        if wait >= config.patience:
            break
    there, _, wanted = sides["test"]
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (wanted, forward(kept, there)[2].argmax(axis=1)), 1)
    return {"epochs": epoch + 1, "best_epoch": best_epoch, "validation_accuracy": pytest.approx(best, abs=1e-6),
            "confusion": confusion.tolist()}  # fmt: skip


def assert_agree(results, expected):
    """Equal to the reference, but for the odd run.

    AdamW divides by |gradient| + 1e-8: a weight whose gradient is that small moves by another amount in float32 than in
    float64, and after some epochs a flow near the border between two classes may fall on its other side.
    """
    assert len(results) == len(expected)
    same = [all(getattr(one, name) == value for name, value in run.items()) for one, run in zip(results, expected)]
    assert np.mean(same) >= 0.75, [
        {name: (getattr(one, name), value) for name, value in run.items()} for one, run in zip(results, expected)
    ]


# --- one campaign of two configurations, more runs than slots ---


@pytest.fixture(scope="module")
def flows():
    return make_flows()


@pytest.fixture(scope="module")
def made(flows):
    return jax.tree.map(np.asarray, make_folds(flows, FOLDS, **WHERE))


@pytest.fixture(scope="module")
def compiled():
    """Names of the programs that were compiled, from jax's own log."""
    names = []

    class Listener(logging.Handler):
        def emit(self, record):
            found = re.match(r"Finished XLA compilation of (\S+)", record.getMessage())
            if found:
                names.append(found[1])

    logger, listener = logging.getLogger("jax._src.dispatch"), Listener()
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield names
    logger.propagate = True
    logger.removeHandler(listener)
    logger.setLevel(level)


@pytest.fixture(scope="module")
def small(flows, compiled, tmp_path_factory):
    """Arguments, results, compiled programs and calls of report."""
    folder = tmp_path_factory.mktemp("campaign") / "run"
    arguments = {**WHERE, "slots": 3, "folder": folder, "chunk_epochs": 2, "keep_models": ["replaced"]}
    arguments["mesh"] = parallel.make_mesh(devices=1)
    configs, reports, before = [MLP, named("replaced", **TRANSLATED)], [], len(compiled)
    results = classify.campaign(
        flows, configs, FOLDS, SEEDS, **arguments, report=lambda done, **figures: reports.append((done, figures))
    )
    return configs, arguments, results, compiled[before:], reports


def test_a_campaign_equals_a_plain_loop_run_by_run(flows, made, small):
    configs, _, results, _, reports = small
    wanted = list(itertools.product(configs, FOLDS, SEEDS))
    assert [(one.config, one.fold, one.seed) for one in results] == [(c.name, f, s) for c, f, s in wanted]
    assert_agree(results, [train_plainly(flows, made, FOLDS, *run) for run in wanted])
    epochs = {one.epochs for one in results}
    assert len(epochs) > 1 and min(epochs) < MLP.max_epochs, "early stopping at different epochs must be exercised"
    assert any(one.best_epoch < one.epochs - 1 for one in results)
    assert any(np.trace(one.confusion) > 0.5 * one.n_test for one in results)
    assert reports[-1][0] == len(results) and set(reports[0][1]) == {"epoch", "loss", "validation"}


def test_sizes_and_scores_of_the_results(flows, small):
    for one in small[2]:
        assert one.n_train + one.n_validation + one.n_test == len(flows)
        counts = np.array(one.confusion)
        assert counts.sum() == one.n_test and one.accuracy == pytest.approx(np.trace(counts) / one.n_test)
        assert one.seconds > 0


def test_configurations_of_a_shape_share_one_program_compiled_once(small):
    for name in ("start", "train_chunk", "judge"):
        assert small[3].count(f"jit({name})") == 1


def test_resuming_a_finished_campaign_trains_nothing(flows, small):
    configs, arguments, results, _, _ = small
    called = []
    again = classify.campaign(
        flows, configs, FOLDS, SEEDS, **arguments, resume=True, report=lambda *_, **__: called.append(1)
    )
    assert not called and list(map(alike, again)) == list(map(alike, results))


def test_a_folder_of_another_campaign_is_refused(flows, small):
    configs, arguments, _, _, _ = small
    with pytest.raises(ConfigError, match="holds a campaign already"):
        classify.campaign(flows, configs, FOLDS, SEEDS, **arguments)
    group = np.arange(len(flows), dtype=np.int32) // 2
    for other, what in (
        ((flows, configs, FOLDS, (0, 4)), "its seeds differ"),
        ((flows, [MLP, named("replaced", **TRANSLATED, alpha=0.5)], FOLDS, SEEDS), "its configs differ"),
        ((make_flows(seed=1), configs, FOLDS, SEEDS), "its flows differ"),
        ((flows.replace(group=group), configs, FOLDS, SEEDS), "its flows differ"),
    ):
        with pytest.raises(ConfigError, match=what):
            classify.campaign(*other, **arguments, resume=True)


def test_kept_models_are_those_that_were_judged(flows, made, small):
    _, arguments, results, _, _ = small
    files = sorted(path.name for path in (arguments["folder"] / "models").iterdir())
    assert files == sorted(models.file_name("replaced", fold, seed) for fold in FOLDS for seed in SEEDS)
    for result in results[len(results) // 2 :]:
        fitted = classify.load_model(
            arguments["folder"] / "models" / models.file_name("replaced", result.fold, result.seed)
        )
        part, count = FOLDS.index(result.fold), result.n_test
        x, label = made.test.x[part, :count], made.test.label[part, :count]
        confusion = np.zeros_like(result.confusion)
        np.add.at(confusion, (label, forward(fitted.params, x)[2].argmax(axis=1)), 1)
        assert confusion.tolist() == result.confusion
        assert fitted.scale_high == float(made.scale_high[part]) and fitted.class_names == flows.class_names


# --- bad input ---


def refused(flows, configs, match, folds=FOLDS, seeds=SEEDS, **changes):
    with pytest.raises(ConfigError, match=match):
        classify.campaign(flows, configs, folds, seeds, **WHERE | changes)


def test_campaigns_that_do_not_fit_are_refused_before_anything_is_trained(flows, tmp_path, monkeypatch):
    monkeypatch.setattr(campaigns, "make_programs", lambda *_, **__: pytest.fail("programs were built"))
    refused(flows, [], "needs configurations, each once")
    refused(flows, [MLP, MLP], "needs configurations, each once")
    refused(flows, [MLP], "needs folds, each once", folds=[])
    refused(flows, [MLP], "needs folds, each once", folds=[1, 1])
    refused(flows, [MLP], "needs seeds, each once", seeds=())
    refused(flows, [MLP], "numbers from 0", folds=[-1])
    refused(flows, [MLP], "length must be from 1 to 8", length=9)
    refused(flows, [MLP], "fewer than the 30 folds", n_folds=30)
    refused(flows, [MLP], "keep_models: no configuration 'other'", keep_models=["other"], folder=tmp_path)
    refused(flows, [MLP], "needs a folder", keep_models=["baseline"])
    refused(flows, [MLP], "slots must be at least 1", slots=0)
    refused(flows, [MLP], "chunk_epochs must be at least 1", chunk_epochs=0)
    untimed = flows.replace(iat=np.zeros_like(flows.iat))
    parts = (augment.wrap, augment.ensemble(augment.packet_loss, augment.translation))
    for op in (augment.packet_loss, augment.get("constant_wrapup"), augment.masked_stack(*parts)):
        config = named("timed", augmentation=op, policy="inject")
        refused(untimed, [MLP, config], "needs inter-arrival times and synthetic has none")
    assert not list(tmp_path.iterdir())


def test_configurations_that_do_not_fit_are_refused(flows):
    wrapped = {"augmentation": augment.wrap, "policy": "inject"}
    with pytest.raises(ConfigError, match="unknown augmentation 'wrp'"):
        augment.get("wrp")
    for changes, match in (
        ({"model": "resnet3"}, "unknown model 'resnet3'"),
        ({"policy": "both"}, "unknown policy"),
        ({"schedule": "linear"}, "unknown schedule"),
        ({"improvement_unit": "percent"}, "unknown improvement_unit"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"augmentation": augment.wrap}, "give both"),
        ({"policy": "inject"}, "give both"),
        ({"augmentation": "wrap", "policy": "inject"}, "is no operation"),
        (wrapped | {"alpha": 1.5}, "magnitude lies in"),
        (wrapped | {"amount": 0}, "number of copies"),
        (wrapped | {"amount": 1.5}, "number of copies"),
        (wrapped | {"amount": 16}, "no room for 16 copies"),
        (wrapped | {"policy": "replace", "amount": 1.1}, "probability"),
        (wrapped | {"policy": "pre_augment", "class_weighted": True}, "do not go together"),
        (wrapped | {"augmentation": augment.get("mss_variation")}, "sizes in bytes"),
        (wrapped | {"augmentation": augment.dup_rto.with_options(iat="recompute")}, "needs seconds"),
    ):
        refused(flows, [MLP, named("other", **changes)], match)


# --- heavier ---


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["points", "fraction"])
def test_slots_refill_compaction_and_devices_change_nothing(flows, compiled, unit):
    """Four slots on one device, one on each of eight devices, and every run alone, with other padding."""
    shared = {"improvement_unit": unit, "min_improvement": 0.05}
    configs = [named("plain", **shared), named("injected", augmentation=augment.translation, policy="inject", **shared)]
    folds, seeds = (0, 1, 6), (0, 2)
    one = parallel.make_mesh(devices=1)
    before = len(compiled)
    few = classify.campaign(flows, configs, folds, seeds, **WHERE, slots=4, chunk_epochs=2, mesh=one)
    assert compiled[before:].count("jit(train_chunk)") <= 6, "widths 4, 2 and 1 of two shapes"
    many = classify.campaign(flows, configs, folds, seeds, **WHERE, chunk_epochs=3)
    assert list(map(alike, few)) == list(map(alike, many))
    assert len({result.epochs for result in few}) > 1
    made = jax.tree.map(np.asarray, make_folds(flows, folds, **WHERE))
    runs = itertools.product(configs, folds, seeds)
    assert_agree(few, [train_plainly(flows, made, folds, *run) for run in runs])
    for config, fold, seed in ((configs[0], 1, 2), (configs[1], 6, 0)):
        alone = classify.campaign(flows, [config], [fold], [seed], **WHERE, slots=1, mesh=one)[0]
        together = next(r for r in few if (r.config, r.fold, r.seed) == (config.name, fold, seed))
        assert alike(alone) == alike(together)


@pytest.mark.slow
def test_all_augmentations_of_the_paper_train_in_two_compilations(flows, compiled):
    shared = {"max_epochs": 1, "policy": "inject", "batch_size": 32}
    ops = [entry.op for entry in augment.AUGMENTATIONS.values() if entry.in_paper]
    configs = [named("baseline", max_epochs=1, batch_size=32)]
    configs += [named(op.name, augmentation=op, **shared) for op in ops]
    before, losses = len(compiled), []
    results = classify.campaign(
        flows, configs, [0], [0], **WHERE, slots=1, mesh=parallel.make_mesh(devices=1), chunk_epochs=1,
        report=lambda done, **figures: losses.append(figures["loss"]),
    )  # fmt: skip
    assert [r.config for r in results] == [c.name for c in configs] and len(configs) == 19
    assert compiled[before:].count("jit(train_chunk)") == 2
    assert np.isfinite(losses).all() and len(set(losses)) == 19, "every operation must do something of its own"
    alone = []
    classify.campaign(
        flows, [configs[-3]], [0], [0], **WHERE, slots=1, mesh=parallel.make_mesh(devices=1), chunk_epochs=1,
        report=lambda done, **figures: alone.append(figures["loss"]),
    )  # fmt: skip
    assert alone[0] == pytest.approx(losses[-3], abs=1e-6)


@pytest.mark.slow
def test_policies_and_compositions_train(flows, compiled):
    loss, wrap, move = augment.packet_loss, augment.wrap, augment.translation
    noise = augment.gaussian_noise
    replaced = {"policy": "replace", "amount": 1.0, "max_epochs": 2}
    configs = [
        named("stack", augmentation=augment.masked_stack(loss, noise, move, p_apply=0.7), **replaced),
        named("one of", augmentation=augment.ensemble(loss, augment.cutmix), **replaced, alpha=0.5),
        named("orders", augmentation=augment.random_stack(wrap, loss, noise), **replaced),
        named("nested", augmentation=augment.sequential(augment.maybe(loss, 0.5, blocks=0), wrap), **replaced),
        named("half", augmentation=augment.gaussian_wrapup, policy="replace", amount=0.3, max_epochs=2, alpha=0.5),
        named("two", augmentation=loss, policy="inject", amount=2, max_epochs=2),
        named("before", augmentation=loss, policy="pre_augment", amount=2, max_epochs=2),
        named("before 1", augmentation=loss, policy="pre_augment", amount=1, max_epochs=2),
        named("weighted", class_weighted=True, max_epochs=2, schedule="infinite_cosine", period=1),
    ]
    losses = {}
    results = classify.campaign(
        flows, configs, (0, 5), [0], **WHERE, slots=2, mesh=parallel.make_mesh(devices=1), chunk_epochs=2,
        report=lambda done, **figures: losses.setdefault(done, figures["loss"]),
    )  # fmt: skip
    assert len(results) == 18 and np.isfinite(list(losses.values())).all()
    assert len(set(losses.values())) == len(configs)
    alone = classify.campaign(
        flows, [configs[7]], [5], [0], **WHERE, slots=1, mesh=parallel.make_mesh(devices=1), chunk_epochs=1
    )
    assert alike(alone[0]) == alike(next(r for r in results if (r.config, r.fold) == ("before 1", 5)))
