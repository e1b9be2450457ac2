import numpy as np
import pytest

from jaxtraffic import evaluate
from jaxtraffic.errors import ConfigError
from jaxtraffic.evaluate.scaling_curves import scaling
from jaxtraffic.series import from_signed_size

FAST = {"n_estimators": 6}


def make(n, seed=0, overlap=250, length=6):
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 3
    signed = rng.integers(40, 160 + overlap, (n, length)) + 60 * label[:, None]
    return from_signed_size(signed, label, class_names=["a", "b", "c"])


def test_each_multiple_is_the_utility_and_the_augmentation_with_so_many_blocks():
    train, generated, test = make(30), make(135, seed=1, overlap=300), make(90, seed=2)
    figures, curves = scaling(train, generated, test, multiples=(4, 1, 8), seed=3, params=FAST)
    assert curves["multiples"] == [1, 4], "8 x 30 flows are not there, and the order is that of the numbers"
    assert len(figures) == 2 * 4 and len(curves) == 5
    for place, k in enumerate((1, 4)):
        block = generated[: 30 * k]
        utility = evaluate.utility(train, block, test, seed=3, params=FAST)
        augmentation = evaluate.augmentation(train, block, test, seed=3, params=FAST)
        for name in ("weighted_f1", "macro_f1"):
            assert figures[f"utility.x{k}.{name}_gap"] == pytest.approx(utility[f"{name}_gap"], abs=1e-12)
            assert figures[f"augmentation.x{k}.{name}_gain"] == pytest.approx(augmentation[f"{name}_gain"], abs=1e-12)
            assert curves[f"utility.{name}_gap"][place] == figures[f"utility.x{k}.{name}_gap"]
            assert curves[f"augmentation.{name}_gain"][place] == figures[f"augmentation.x{k}.{name}_gain"]
    assert len(set(figures.values())) > 4


def test_more_flows_of_a_perfect_generator_help():
    figures, curves = scaling(make(15), make(240, seed=1), make(300, seed=2), params=FAST)
    assert curves["multiples"] == [1, 2, 4, 8, 16]
    assert figures["utility.x16.macro_f1_gap"] > figures["utility.x1.macro_f1_gap"] + 0.03
    assert figures["augmentation.x16.macro_f1_gain"] > 0.03


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scaling(make(30), make(29), make(9), params=FAST), "1 x 30 generated flows are needed"),
        (lambda: scaling(make(9), make(9), make(9), multiples=(0, 1)), "whole numbers from 1"),
        (lambda: scaling(make(9), make(9), make(9), multiples=(1, 1)), "each once"),
        (lambda: scaling(make(9), make(9), make(9), multiples=(1.5,)), "whole numbers"),
        (lambda: scaling(make(9), make(9), make(9), multiples=()), "whole numbers"),
        (lambda: scaling(make(9), make(9, length=5), make(9)), "packet positions"),
        (lambda: scaling(make(9), make(9), make(9)[:0]), "holds no flows"),
        (lambda: scaling(make(9), make(9), make(9), params={"trees": 3}), "trees"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
