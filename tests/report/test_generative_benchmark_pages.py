"""The tables of the benchmark of generators: means, the best, published rows and averages, what the page holds."""

import json

import numpy as np
import pytest

from jaxtraffic.errors import ConfigError
from jaxtraffic.report import generative_benchmark_glance as glance
from jaxtraffic.report import generative_benchmark_pages as pages
from jaxtraffic.report.generative_benchmark_tables import LAYOUTS, build
from jaxtraffic.report.published_generators import DATASETS, MODELS, TABLES, published_row

SETS = ("ddpm_s4", "flow_s4", "marginals", "bootstrap", "translation", "wrap", "gaussian_noise", "fresh_real")
KEYS = [half.key for layout in LAYOUTS for half in layout.halves]
CONFIG = {
    "command": "python experiments/generative_benchmark.py",
    "data": {
        "source": "real",
        "name": "toy",
        "sets": {
            "toy": {
                "dataset": "parquet",
                "name": "toy",
                "tier": "all",
                "source": "real",
                "n_flows": 100,
                "class_names": ["a", "b"],
                "size_layer": "ip",
                "group": None,
            }
        },
    },
    "generators": {"ddpm_s4": {"diffusion": {"steps": 100}}},
    "device": {"count": 1, "kind": "cpu"},
    "versions": {"jax": "1"},
    "seed": 0,
}


def results(words=("toy",), folds=2, seeds=2, draws=1, sets=SETS, **given):
    """Lines of results.jsonl with random figures; `given` maps a set to the figures that matter, by fold and seed.

    The second draw of a set with figures given has them 0.01 higher; real flows are drawn once.
    """
    rng = np.random.default_rng(0)
    lines = []
    for word in words:
        for fold in range(folds):
            for seed in range(seeds):
                for name in sets:
                    for draw in range(1 if name in ("fresh_real", "random_half") else draws):
                        figures = {key: float(rng.random()) for key in KEYS}
                        figures |= {"utility.weighted_f1_real": 0.9 - 0.1 * seed, "utility.macro_f1_real": 0.8}
                        figures |= {"data.n_synthetic": 80}
                        figures |= {key: value[fold][seed] + 0.01 * draw for key, value in given.get(name, {}).items()}
                        cost = {"train_seconds": 8.0, "sample_seconds": 4.0 / (1 + draw)} if name == "ddpm_s4" else {}
                        line = {"dataset": word, "fold": fold, "seed": seed, "set": name, "draw": draw, "cost": cost}
                        lines.append(line | {"data": {"data.n_train": 80, "data.n_test": 10}, "figures": figures})
    return lines


def part_of(tables, key):
    return next(part for table in tables for part in table.parts if part.metric.key == key)


def cell_of(part, row, name):
    return row.cells[[column.name for column in part.columns].index(name)]


@pytest.mark.parametrize("key", TABLES)
def test_published_rows_add_up_to_their_averages(key):
    table = TABLES[key]
    rows = list(table.rows.values())
    if table.averaged == "largest tiers":
        rows = list({name: row for (name, _), row in table.rows.items()}.values())
        assert len(rows) == len(DATASETS)
    for name, average in table.average.items():
        values, sds = ([getattr(row[name], field) for row in rows] for field in ("value", "sd"))
        assert np.mean(values) == pytest.approx(average.value, abs=0.0101), name
        if average.sd is None:
            assert sds == [None] * len(sds) and (key, name) == ("utility.weighted_f1_gap", "imagentime")
            continue
        # a mean of deviations, or the deviation of all runs: within rows and between them
        expected = np.hypot(np.std(values), np.sqrt(np.mean(np.square(sds))))
        expected = np.mean(sds) if table.averaged == "largest tiers" else expected
        misread = key == "density.ks_complement" and name in ("ddpm_s4", "wrap")
        assert (abs(expected - average.sd) > 2) if misread else expected == pytest.approx(average.sd, abs=0.2), name


def test_published_figures_by_hand():
    assert published_row("discriminative.score", "cesnet_quic", "all")["ddpm_s4"] == (12.95, 0.17)
    assert published_row("utility.macro_f1_gap", "enterprise", "all")["imagentime"] == (-27.53, 0.17)
    assert published_row("coverage.beta_recall", "mirage22", "all")["real"] == (54.10, 2.30)
    assert published_row("augmentation.macro_f1_gain", "enterprise", "300")["wrap"] == (-0.55, 0.07)
    assert published_row("density.ks_complement", "enterprise", "50")["ddpm_s4"] == (98.81, 0.01)
    assert published_row("augmentation.macro_f1_gain", "enterprise", "all") == {}
    assert published_row("coverage.coverage", "enterprise", "all") == {}
    assert {len(table.rows) for table in TABLES.values()} == {11, 12}
    assert all(set(table.average) <= {"real", *MODELS} for table in TABLES.values())


def test_means_deviations_and_the_best():
    score = "discriminative.score"
    lines = results(
        ddpm_s4={score: [[0.10, 0.12], [0.08, 0.10]]},
        flow_s4={score: [[-0.05, -0.05], [-0.05, -0.05]]},
        marginals={score: [[0.3] * 2] * 2},
        bootstrap={score: [[0.0] * 2] * 2},
        translation={score: [[0.2] * 2] * 2},
        wrap={score: [[0.5] * 2] * 2},
        gaussian_noise={score: [[0.4] * 2] * 2},
        fresh_real={score: [[0.01] * 2] * 2},
    )
    part = part_of(build(lines, CONFIG["data"]["sets"]), score)
    ours, average = part.rows
    assert cell_of(part, ours, "ddpm_s4")[:2] == pytest.approx((10, 100 * np.std([0.1, 0.12, 0.08, 0.1], ddof=1)))
    assert cell_of(part, ours, "flow_s4").text == "\N{MINUS SIGN}5.00 \N{PLUS-MINUS SIGN} 0.00"
    # nearest to 0 among generated sets; a copy of real flows is out of the race
    assert [column.name for column, cell in zip(part.columns, ours.cells) if cell.best] == ["flow_s4"]
    assert average.published and cell_of(part, average, "tabddpm").text == "24.27 \N{PLUS-MINUS SIGN} 4.90"
    assert not np.isfinite(cell_of(part, ours, "tabddpm").mean)
    assert pages.answer(lines, CONFIG).startswith(
        "Hardest to tell from real flows: rectified flow, discriminative score \N{MINUS SIGN}5.00"
    )


def test_beta_recall_is_best_nearest_to_the_random_half_not_where_it_is_highest():
    key = "coverage.beta_recall"
    lines = results(
        sets=("ddpm_s4", "gaussian_noise", "fresh_real", "random_half"),
        ddpm_s4={key: [[0.5] * 2] * 2},
        gaussian_noise={key: [[0.7] * 2] * 2},
        fresh_real={key: [[0.75] * 2] * 2},  # other captures
        random_half={key: [[0.52] * 2] * 2},
    )
    part = part_of(build(lines, CONFIG["data"]["sets"]), key)
    assert [column.name for column, cell in zip(part.columns, part.rows[0].cells) if cell.best] == ["ddpm_s4"]


def test_rows_of_the_thesis_stand_beside_its_data_sets_only_and_several_sets_are_averaged():
    one = CONFIG["data"]["sets"]["toy"]
    sets = {
        "mirage22": one | {"dataset": "mirage22", "name": "mirage22"},
        "cesnet_quic:50": one | {"dataset": "cesnet_quic", "tier": "50", "source": "simulated"},
    }
    key = "utility.weighted_f1_gap"
    lines = results(words=tuple(sets), folds=1, seeds=1, ddpm_s4={key: [[-0.02]]})
    part = part_of(build(lines, sets), key)
    titles = ["Mirage22, all classes", "thesis", "CESNET-QUIC22, 50 classes", "average", "thesis, average"]
    assert [row.title for row in part.rows] == titles
    assert cell_of(part, part.rows[1], "ddpm_s4")[:2] == (-1.77, 0.38)
    assert cell_of(part, part.rows[0], "real_f1").text == "90.00" == cell_of(part, part.rows[3], "real_f1").text[:5]
    assert cell_of(part, part.rows[3], "ddpm_s4")[:2] == pytest.approx((-2, 0))
    assert len(part.thesis) == 12


def test_the_page_the_tables_and_the_report(tmp_path):
    lines = results()
    path = pages.write_generative_benchmark(tmp_path, results=lines, config=CONFIG)
    page, report = path.read_text(), json.loads((tmp_path / "report.json").read_text())
    assert page.index("Real data: toy") < page.index("Generators compared")
    for number in ("8.10", "8.11", "8.12", "8.13", "8.14"):
        assert f"Table {number}" in page
    assert page.count("<img") == 5 == len(list((tmp_path / "figures").glob("*.png"))) and "Blind spot" in page
    assert "python experiments/generative_benchmark.py" in page and "http" not in page
    values = [run["figures"]["correlation.similarity"] for run in lines if run["set"] == "wrap"]
    assert report["toy.ddpm_s4.cost.train_seconds"] == 8 and "At a glance" in page and report["draws"] == 1
    base = "toy.wrap.correlation.similarity"
    found = (report[base], report[f"{base}.sd"], report[f"{base}.n"])
    assert found == pytest.approx((np.mean(values), np.std(values, ddof=1), 4))
    assert report["published.average.ddpm_s4.discriminative.score"] == 0.1082 and report["data.source"] == "real"
    text = (tmp_path / "tables.md").read_text()
    assert text.startswith("Mean and standard deviation over 2 folds and 2 seeds.")
    assert "| *thesis, average* |" in text and "*10.82 \N{PLUS-MINUS SIGN} 2.43*" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows if "DDPMS4" in row and "fresh real" in row}) <= 3
    assert len(pages.benchmark_tables(lines, CONFIG)) == 1 + 11


def test_all_at_a_glance_over_folds_seeds_and_draws():
    apart, recall, copies = "discriminative.score", "coverage.beta_recall", "fidelity.copy_rate"
    lines = results(
        draws=2,
        sets=("token_s4", "ddpm_s4", "bootstrap", "fresh_real", "random_half", "own"),
        token_s4={apart: [[0.02, 0.04], [0.02, 0.04]], recall: [[0.5] * 2] * 2, copies: [[0.7] * 2] * 2},
        ddpm_s4={apart: [[0.3] * 2] * 2, recall: [[0.8] * 2] * 2, copies: [[0.1] * 2] * 2},
        own={apart: [[0.4] * 2] * 2, recall: [[0.9] * 2] * 2},
        random_half={recall: [[0.52] * 2] * 2, copies: [[0.6] * 2] * 2},
    )
    (made,) = glance.build_glances(lines, CONFIG | {"train_seconds": {"toy": 150.0}})
    assert "Equal training time: 150 s" in made.note and made.name == "toy"
    rows = {line.title: dict(zip([title for title, _ in made.heads], line.cells, strict=True)) for line in made.lines}
    assert list(rows) == ["fresh real", "random half", "bootstrap copy", "token S4", "DDPMS4", "own"]
    values = [100 * value for value in [0.02, 0.04, 0.03, 0.05] * 2]
    expected = f"{np.mean(values):.2f} \N{PLUS-MINUS SIGN} {np.std(values, ddof=1):.2f}"
    # nearest to 0, and nearest to the random half: never a copy of real flows
    assert rows["token S4"]["discriminative, train"] == (expected, True)
    assert [name for name, cells in rows.items() if cells["beta-recall"][1]] == ["token S4"]
    assert [name for name, cells in rows.items() if cells["copies of training"][1]] == ["token S4"]
    assert rows["own"]["copies of training"][0] == "\N{EN DASH}" and rows["token S4"]["training, s"][0] == ""
    # 80 flows in 4 s and in 2 s
    assert rows["DDPMS4"]["training, s"][0] == "8.0 \N{PLUS-MINUS SIGN} 0.0"
    assert rows["DDPMS4"]["flows/s"][0] == f"30.0 \N{PLUS-MINUS SIGN} {np.std([20, 40] * 4, ddof=1):.1f}"
    # no row for a set that was not judged, no column of a figure that nothing has
    assert "discriminative, held-out" not in rows["own"] and "distinct" not in rows["own"]
    text = pages.markdown(build(lines, CONFIG["data"]["sets"]), lines, [made])
    assert text.startswith("Mean and standard deviation over 2 folds, 2 seeds and 2 draws.")
    assert f"| **{expected}** |" in text
    assert "not for equal times" in glance.build_glances(lines, CONFIG)[0].note


def test_draws_do_not_count_the_f1_on_real_flows_twice():
    lines = results(draws=3, seeds=2, folds=1, ddpm_s4={"utility.weighted_f1_gap": [[-0.02, -0.02]]})
    part = part_of(build(lines, CONFIG["data"]["sets"]), "utility.weighted_f1_gap")
    ours = part.rows[0]
    assert cell_of(part, ours, "real_f1")[:2] == pytest.approx((85, 100 * np.std([0.9, 0.8], ddof=1)))
    assert cell_of(part, ours, "ddpm_s4")[:2] == pytest.approx((-1, np.std([-2, -1, 0] * 2, ddof=1)))


def test_a_stand_in_says_so_and_few_figures_are_enough(tmp_path):
    sets = {"toy": CONFIG["data"]["sets"]["toy"] | {"source": "simulated", "notice": "made up"}}
    config = CONFIG | {"data": {"source": "simulated", "name": "toy", "sets": sets}}
    lines = results(folds=1, seeds=1, sets=("translation",))
    for line in lines:
        line["figures"] = {"discriminative.score": 0.4}
    page = pages.write_generative_benchmark(tmp_path, results=lines, config=config).read_text()
    assert "Simulated data" in page and "made up" in page and "One run: one fold and one seed." in page
    assert "No generator was judged" in page and page.count("<img") == 1


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least one result"):
        pages.write_generative_benchmark(tmp_path, results=[], config=CONFIG)
    with pytest.raises(ConfigError, match=r"data\.source"):
        pages.write_generative_benchmark(tmp_path, results=results(), config={"data": {}})


def test_plain_json():
    given = {"a": np.float32(0.5), "b": [np.int64(2), np.nan], "c": np.array([1.0, np.inf])}
    assert json.dumps(pages.plain(given), allow_nan=False) == '{"a": 0.5, "b": [2, null], "c": [1.0, null]}'
