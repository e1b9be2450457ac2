"""The page on how many packets are enough: what it says, files, refusals."""

import base64
import json
import re

import numpy as np
import pytest
from rich.console import Console

from jaxtraffic.errors import ConfigError
from jaxtraffic.report import traffic_pages as pages
from jaxtraffic.report.traffic_pages import Curve, Enough, Labels

NAMES = ("cam <1>", "plug & play", "hub", "silent")


def curve(name="doe", packets=(1, 2, 3, 5), value=(0.2, 0.5, 0.7, 0.8), **changes):
    value = np.array(value)
    step = np.diff(value, prepend=0.0)
    per_class = np.stack([value, value / 2, -value, np.full(len(value), np.nan)])
    fields = {
        "name": name,
        "packets": packets,
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "increment": step,
        "increment_low": step - 0.05,
        "increment_high": step + 0.05,
        "enough": {90: Enough(3, 2, 5), 95: Enough(5, 3, 5), 99: Enough(5, 5, 5)},
        "per_class": per_class,
        "fall": (float(value[-1] - value.max()), -0.1, 0.0),
        "seconds": 12.0,
    }
    return Curve(**(fields | changes))


LABELS = Labels(NAMES, np.array([50, 30, 20, 0]), np.array([5, 3, 1, 0]), 1.03, 1.04)


def config(source="real"):
    return {
        "data": {
            "source": source,
            "name": "toy",
            "notice": "a stand-in of cams",
            "n_flows": 1000,
            "n_train": 900,
            "n_test_groups": 9,
            "class_names": list(NAMES),
        },
        "seed": 3,
        "command": ["python", "traffic_information.py", "--out", "a b"],
        "device": "1 x cpu",
    }


def write(folder, curves=None, source="real"):
    if curves is None:
        curves = [curve(), curve("rf", (1, 5), (0.1, 0.6), control=-0.03, warnings=("short",))]
    return pages.write_traffic(folder, curves=curves, labels=LABELS, config=config(source), features="sizes")


def test_page_is_whole_and_begins_with_the_source_the_curve_and_the_answer(tmp_path):
    text = write(tmp_path).read_text()
    assert not re.search(r'(src|href)="(?!data:)', text) and "<script" not in text
    order = [
        "Real data: toy",
        "How many packets are enough?",
        "<figure>",
        "3 packets hold 90 %, 5 packets hold 95 %, 5 packets hold 99 % of what 5 packets hold about the application "
        "(0.80 nats).",
        "How to read it",
        "Which packets carry it",
        "Applications",
        "python traffic_information.py --out &#39;a b&#39;",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "cam &lt;1&gt;" in text and "cam <1>" not in text and "plug &amp; play" in text
    assert "Without held-out flows: silent." in text
    # The two methods with their control, and the ceiling of the application with half of the flows, ln 2.
    assert "rectified flow on data" in text and "\N{MINUS SIGN}0.03" in text and "0.69" in text
    for picture in re.findall(r"data:image/png;base64,([^\"]+)", text):
        assert base64.b64decode(picture)[:4] == b"\x89PNG"
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {"information.png", "increments.png", "classes_1.png"}


def test_simulated_data_are_said_first(tmp_path):
    text = write(tmp_path, source="simulated").read_text()
    assert text.index("Simulated data: every figure below") < text.index("How many packets")
    assert "a stand-in of cams" in text and "<title>Simulated data" in text


def test_report_json_has_flat_keys_and_curve_json_the_arrays(tmp_path):
    write(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["data.source"] == "real" and report["information.ceiling"] == 1.03
    assert report["information.doe.r3.value"] == pytest.approx(0.7)
    assert report["information.doe.r3.ci_low"] == pytest.approx(0.6)
    assert report["information.doe.r3.increment_ci_high"] == pytest.approx(0.25)
    assert report["enough.doe.95"] == 5 and report["enough.doe.95.ci_low"] == 3
    assert report["information.rf.shuffled"] == -0.03 and "information.doe.shuffled" not in report
    assert all(not isinstance(value, dict | list) for value in report.values())
    arrays = json.loads((tmp_path / "curve.json").read_text())["curves"]
    assert arrays["rf"]["packets"] == [1, 5] and arrays["doe"]["per_class"][3] == [None] * 4
    assert arrays["doe"]["per_class"][1] == pytest.approx([0.1, 0.25, 0.35, 0.4])


def test_a_curve_that_falls_is_said_to_fall_and_the_shares_are_of_the_peak(tmp_path):
    falling = curve(value=(0.2, 0.8, 0.7, 0.6), fall=(-0.2, -0.3, -0.1))
    said = pages.answer(falling)
    assert "the most that was found" in said and "0.80 nats, with 2" in said and "what 5 packets hold" not in said
    assert "peaks at 2 packets and ends 0.200 nats lower (95 %: 0.100 to 0.300)" in pages.fall_text(falling)
    assert "overfitting" in write(tmp_path, [falling]).read_text()
    # A fall of less than 1 % is noise.
    flat = curve(value=(0.2, 0.5, 0.7001, 0.7), fall=(-0.0001, -0.1, 0.1))
    assert pages.fall_text(flat) is None and "what 5 packets hold" in pages.answer(flat)


def test_a_curve_above_the_ceiling_is_not_to_be_used(tmp_path):
    high = curve("generator", value=(0.2, 0.5, 0.9, 1.9))
    assert "claims up to 1.90 nats, more than the 1.03 nats" in write(tmp_path, [curve(), high]).read_text()
    assert pages.above_text(curve(), LABELS) is None


def test_one_packet_holds_and_two_hold():
    said = pages.answer(curve(enough={90: Enough(1, 1, 1), 95: Enough(2, 1, 2)}))
    assert said.startswith("1 packet holds 90 %, 2 packets hold 95 % of")


def test_the_screen_table_has_a_row_for_each_number_of_packets():
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(pages.traffic_table([curve(), curve("rf", (1, 5), (0.1, 0.6))], LABELS))
    text = console.export_text()
    assert "H(label) = 1.030" in text and "0.600 .. 0.800" in text
    assert len(re.findall(r"^. +[1235] +.", text, re.M)) == 4


def test_curves_below_zero_and_many_classes_can_be_drawn(tmp_path):
    names = tuple(f"application {i}" for i in range(95))
    low = curve(value=(-0.4, -0.2, -0.6, -0.5), per_class=np.zeros((95, 4)))
    labels = Labels(names, np.full(95, 3), None, np.log(95), np.log(95))
    pages.write_traffic(tmp_path, curves=[low], labels=labels, config=config(), features="iats")
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["classes_1.png", "classes_2.png", "classes_3.png", "increments.png", "information.png"]
    text = (tmp_path / "report.html").read_text()
    assert "inter-arrival times alone" in text and "No number of packets up to 5 tells anything" in text


def test_a_page_without_curves_or_source_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least one"):
        write(tmp_path, [])
    with pytest.raises(ConfigError, match="real"):
        write(tmp_path, source="unknown")
    assert not list(tmp_path.iterdir())
