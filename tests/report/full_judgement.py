"""A judgement with every group and curve of the contract, made up but of the right shapes and sizes."""

import numpy as np

SETS = ("generated", "fresh_real", "bootstrap", "marginals", "random_half", "capture_half")
MODELS = ("random_forest", "naive_bayes", "mlp", "resnet")
MULTIPLES = (1, 2, 4, 8, 16)
COVERAGE = (
    "alpha_precision",
    "beta_recall",
    "alpha_precision_minmax",
    "beta_recall_minmax",
    "authenticity",
    "precision",
    "recall",
    "density",
    "coverage",
    "used_share",
)
FIGURES = {
    "utility": (
        *("weighted_f1_real", "weighted_f1_synthetic", "weighted_f1_gap", "macro_f1_gap"),
        "capture_accuracy_gap",
    ),
    "utility.distinct": ("weighted_f1_gap", "macro_f1_gap"),
    "augmentation": ("weighted_f1_gain", "macro_f1_gain"),
    "discriminative": ("score", "held_out_score", "distinct_score", "logistic_score"),
    "fidelity": ("copy_rate", "distinct_share", "zero_share", "mean_packets"),
    "density": ("ks_complement", "wasserstein", "js_direction", "js_length"),
    "density.distinct": ("ks_complement", "wasserstein", "js_direction", "js_length"),
    "correlation": ("similarity", "n_pairs", "n_constant_columns"),
    "correlation.distinct": ("similarity",),
    "coverage": (*COVERAGE, "mean_nearest", "mean_nearest_real"),
    "coverage.distinct": (*COVERAGE, "mean_nearest", "mean_nearest_real"),
    "coverage.matched": (*COVERAGE, "mean_nearest", "mean_nearest_real"),
    "kernel": ("mmd", "mmd_squared"),
    "kernel.distinct": ("mmd", "mmd_squared"),
    "latent": ("frechet",),
    "privacy": (
        "closer_to_train",
        "closer_to_train_strict",
        "tie_share",
        "copy_rate",
        "holdout_copy_rate",
        "membership_auc",
    ),
    "support": ("new_bigram_share", "new_value_share"),
    "semantics": (
        "impossible_share",
        "zero_inside_share",
        "over_mtu_share",
        "handshake_violation_share",
        "atom_distance",
        "run_length_wasserstein",
        "length_wasserstein",
    ),
    "times": (
        "iat_ks_complement",
        "class_iat_ks_complement",
        "duration_ks_complement",
        "class_duration_ks_complement",
    ),
}
_SCALE = {"wasserstein": 60.0, "mean_nearest": 90.0, "mean_nearest_real": 90.0, "mean_packets": 20.0, "frechet": 3.0}


def make_series(n, seed, n_classes=4, length=12):
    """Signed sizes that repeat somewhat, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    habits = np.random.default_rng(0).choice([-1448, -52, 52, 60, 571, 1460, -310, 200], (n_classes, length))
    signed = np.where(rng.random((n, length)) < 0.75, habits[labels], rng.integers(-1460, 1461, (n, length)))
    signed[np.arange(length) >= rng.integers(2, length + 1, n)[:, None]] = 0
    return signed.astype(np.int16), labels


def make_judgement(names, *, seed=0, length=30):
    """(flat keys, curves) of a run that is worse than fresh real flows and better than marginals."""
    rng = np.random.default_rng(seed)
    figures = {f"data.n_{name}": 1000 for name in ("train", "held_out", "test", "test_distinct", "synthetic")}
    figures |= {"coverage.matched.n": 400, "privacy.n": 400, "fidelity.n_distinct": 400, "utility.n_captures": 40}
    curves = {}
    for place, name in enumerate(SETS):
        prefix = "" if name == "generated" else f"reference.{name}."
        badness = {"generated": 0.25, "fresh_real": 0.03, "bootstrap": 0.0, "marginals": 0.5}.get(name, 0.05)
        for group, found in FIGURES.items():
            for figure in found:
                figures[f"{prefix}{group}.{figure}"] = _value(figure, badness, rng)
        figures |= {f"{prefix}{key}": 0.013 for key in ("utility.weighted_f1_gap_stderr", "discriminative.stderr")}
        figures[f"{prefix}privacy.closer_to_train_stderr"] = 0.011
        if name in ("generated", "bootstrap", "marginals"):
            for model in MODELS:
                for figure in ("utility.weighted_f1_gap", "utility.macro_f1_gap", "augmentation.weighted_f1_gain"):
                    figures[f"{prefix}downstream.{model}.{figure}"] = _value(figure, badness, rng)
                figures[f"{prefix}downstream.{model}.weighted_f1_real"] = 0.8 + 0.1 * rng.random()
        curves[name] = _curves(badness, length, rng, place)
    for times in MULTIPLES:
        for test, what in (("utility", "gap"), ("augmentation", "gain")):
            for mean, start in (("weighted", -0.1), ("macro", -0.16)):
                figures[f"scaling.{test}.x{times}.{mean}_f1_{what}"] = start / times**0.5 + 0.005 * rng.normal()
    tested = np.maximum(1, 400 // (np.arange(len(names)) + 1))
    for index, name in enumerate(names):
        real = 0.6 + 0.4 * rng.random()
        figures |= {
            f"utility.per_class.{name}.f1_real": real,
            f"utility.per_class.{name}.f1_synthetic": max(0.0, real - 0.3 * rng.random() ** 2),
            f"utility.per_class.{name}.n_test": int(tested[index]),
        }
    curves["generated"]["confusion"] = {
        side: _confusion(tested, sharpness, rng) for side, sharpness in (("real", 8.0), ("synthetic", 2.0))
    }
    curves["generated"]["scaling"] = {"multiples": list(MULTIPLES)}
    return figures, curves


def _value(figure, badness, rng):
    noise = 0.01 * rng.normal()
    if "gap" in figure or "gain" in figure:
        return -badness / 2 + noise
    if figure in ("similarity", "ks_complement", "weighted_f1_real"):
        return 1 - badness / 4 + noise
    if figure in COVERAGE:
        return 0.9 - badness + noise
    if figure.startswith("n_"):
        return 435
    if figure in ("closer_to_train", "membership_auc"):
        return 0.5 + badness / 4 + noise
    return _SCALE.get(figure, 1.0) * (badness + abs(noise))


def _curves(badness, length, rng, place):
    alpha, percent = np.linspace(0, 1, 30), np.linspace(0, 1, 101)
    distances = 2000 * (badness + 0.05) * np.maximum(0, percent - 0.3 + 0.3 * badness) ** 2
    atoms = np.sort(rng.dirichlet(np.ones(20)))[::-1] * 0.8
    runs = 0.5 ** np.arange(1, length + 1)
    return {
        "coverage": {
            "alpha": alpha.tolist(),
            "alpha_curve": (alpha ** (1 + badness)).tolist(),
            "beta_curve": (alpha * (0.6 - badness)).tolist(),
            "nearest_quantiles": distances.tolist(),
            "nearest_real_quantiles": (1.5 * distances).tolist(),
            "index_share": (percent ** (0.1 + 0.05 * place)).tolist(),
        },
        "density": {
            "ks_complement": (1 - badness * rng.random(length) / 2).tolist(),
            "wasserstein": (100 * badness * rng.random(length)).tolist(),
            "js_direction": (0.1 * badness * rng.random(length)).tolist(),
            "columns": list(range(length)),
        },
        "privacy": {
            "distance_to_train_quantiles": (0.9 * distances).tolist(),
            "distance_to_holdout_quantiles": distances.tolist(),
        },
        "semantics": {
            "atom_sizes": np.sort(rng.choice(np.arange(-1460, 1460), 20, replace=False)).tolist(),
            "atom_real": atoms.tolist(),
            "atom_synthetic": (atoms * (1 - badness)).tolist(),
            "run_lengths_real": runs.tolist(),
            "run_lengths_synthetic": (runs[::-1] * badness + runs * (1 - badness)).tolist(),
            "lengths_real": np.full(length + 1, 1 / (length + 1)).tolist(),
            "lengths_synthetic": np.full(length + 1, 1 / (length + 1)).tolist(),
        },
        "kernel": {"bandwidths": [1.0, 2.0], "squared": [0.1, float("nan")]},
    }


def _confusion(tested, sharpness, rng):
    n = len(tested)
    share = rng.random((n, n)) ** 6 + sharpness * np.eye(n)
    return np.rint(tested[:, None] * share / share.sum(1, keepdims=True)).astype(int).tolist()
