"""`python -m jaxtraffic data ...` from simulation to export, as a user types it."""

import json
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

import jaxtraffic
from jaxtraffic.command.main import main
from jaxtraffic.datasets import DATASETS, load, load_labelled, read_parquet, simulate
from jaxtraffic.errors import ConfigError


def run(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    out = capsys.readouterr()
    return stopped.value.code, out.out, out.err


def run_json(capsys, *arguments):
    code, out, _ = run(capsys, *arguments, "--json")
    return code, json.loads(out)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def test_the_way_of_a_set_from_simulation_to_export(capsys, root, tmp_path):
    code, made = run_json(capsys, "data", "simulate", "ucdavis19", "--data-root", root, "--flows", "90")
    place = root / "simulated" / "ucdavis19"
    assert (code, made["out"]) == (0, str(place))
    code, info = run_json(capsys, "data", "info", "ucdavis19", "--path", place)
    assert (code, info["sources found"], info["published flows"]) == (0, len(made["sources"]), 6672)
    code, verdict = run_json(capsys, "data", "verify", "ucdavis19", "--path", place)
    checks = {check["what"]: check for check in verdict["checks"]}
    assert code == 1, "90 simulated flows are not 6,672"
    assert verdict["simulated"]
    assert checks["flows"]["verdict"] == "differs"
    assert checks["classes"]["verdict"] == "match"
    code, done = run_json(capsys, "data", "convert", "ucdavis19", "--path", place, "--out", tmp_path / "out")
    assert (code, done["flows"], done["fresh"]) == (0, checks["flows"]["found"], done["sources"])
    code, again = run_json(capsys, "data", "convert", "ucdavis19", "--path", place, "--out", tmp_path / "out")
    assert again["fresh"] == 0
    raw, converted = (load_labelled("ucdavis19", path=path)[0] for path in (place, tmp_path / "out"))
    for name in ("size", "direction", "iat", "label"):
        np.testing.assert_array_equal(getattr(raw.flows, name), getattr(converted.flows, name))
    assert raw.flows.source == converted.flows.source == "simulated"
    assert raw.facts.select(sorted(raw.facts.columns)).equals(converted.facts.select(sorted(raw.facts.columns)))
    code, head = run_json(capsys, "data", "head", "ucdavis19", "--path", tmp_path / "out", "--n", "3")
    assert (len(head["head"]), head["flows"]) == (3, len(raw))
    assert head["head"][0]["signed_size"] == raw.flows.signed_size[0, : raw.flows.n_packets[0]].tolist()
    for form in ("parquet", "tcbench", "npz", "pcap"):
        file = tmp_path / f"flows.{form}"
        code, wrote = run_json(
            capsys, "data", "export", "ucdavis19", "--path", place, "--out", file, "--format", form, "--max-flows", "40"
        )
        assert (code, wrote["flows"], file.is_file()) == (0, 40, True)
    assert len(read_parquet(tmp_path / "flows.parquet")) == 40


def test_screens_for_people(capsys, root):
    run(capsys, "data", "simulate", "ucdavis19", "--data-root", root, "--flows", "30")
    place = root / "simulated" / "ucdavis19"
    for command in ("info", "verify", "head"):
        code, out, _ = run(capsys, "data", command, "ucdavis19", "--path", place)
        assert "ucdavis19" in out or "UCDAVIS19" in out
        assert "Traceback" not in out
    code, out, _ = run(capsys, "data", "list", "--data-root", root)
    assert code == 0
    assert all(name in out for name in DATASETS)
    code, listed = run_json(capsys, "data", "list", "--data-root", root)
    assert {row["name"] for row in listed["datasets"]} == set(DATASETS)
    assert all(row["sizes"] for row in listed["datasets"]), "every reader states its layers"
    code, version = run_json(capsys, "version")
    assert version["jaxtraffic"] == jaxtraffic.__version__
    assert len(version["devices"]) == 8


def test_errors_are_one_line_and_exit_code_2(capsys, root, tmp_path):
    for arguments, message in (
        (["data", "verify", "nothing"], "unknown dataset 'nothing'"),
        (["data", "verify", "mirage19", "--data-root", root], "no files of MIRAGE-2019"),
        (["data", "head", "parquet"], "needs"),
        (["data", "head", "mirage19", "--path", tmp_path / "none"], "no such file"),
        (["data", "simulate", "parquet", "--out", tmp_path / "p"], "never simulated"),
    ):
        code, out, err = run(capsys, *arguments)
        assert code == 2
        assert message in err.replace("\n", " ")
        assert not out
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("x")
    with pytest.raises(ConfigError, match="holds something else, or half a simulation"):
        simulate("ucdavis19", tmp_path / "mine")


@pytest.mark.parametrize("name", [name for name, dataset in DATASETS.items() if dataset.simulate is not None])
def test_every_simulated_set_is_found_read_and_says_simulated(name, tmp_path):
    sources = simulate(name, tmp_path / name, n_flows=60, seed=1)
    assert sources
    assert simulate(name, tmp_path / name, n_flows=60, seed=1) == sources
    layer = "ip" if name == "nfstream" else None
    flows = load(name, path=tmp_path / name, curated=False, size_layer=layer)
    assert flows.source == "simulated"
    assert flows.size_layer in DATASETS[name].size_layers
    assert len(flows) >= 30
    assert flows.length == DATASETS[name].length
    assert (flows.iat > 0).any() == DATASETS[name].has_times


@pytest.mark.parametrize("layout", ["netshare", "ugr16", "cidds"])
def test_flow_records_are_simulated_and_shown(capsys, tmp_path, layout):
    code, made = run_json(capsys, "data", "simulate", layout, "--out", tmp_path / layout, "--flows", "50")
    assert code == 0
    code, shown = run_json(capsys, "data", "records", made["sources"][0], "--n", "4")
    assert (code, shown["source"], len(shown["head"])) == (0, "simulated", 4)
    assert sum(shown["classes"].values()) == shown["records"] >= 20
    code, out, _ = run(capsys, "data", "records", made["sources"][0])
    assert (code, "destination" in out) == (0, True)


def test_the_module_runs():
    done = subprocess.run([sys.executable, "-m", "jaxtraffic", "data", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("list", "verify", "convert", "export", "simulate", "head"))


def test_what_the_commands_say_to_do_next_works(capsys, tmp_path):
    for name in ("mirage19", "nfstream", "ucdavis19"):
        code, out, _ = run(capsys, "data", "simulate", name, "--out", tmp_path / name, "--flows", 40)
        hint = next(line for line in out.splitlines() if line.startswith("read it: "))
        code, out, _ = run(capsys, *shlex.split(hint.partition("jaxtraffic ")[2]))
        assert code == 0
        assert "simulated" in out
    out = tmp_path / "out"
    for options in (["--length", "20"], ["--no-curation"]):
        shutil.rmtree(out, ignore_errors=True)
        _, said, _ = run(capsys, "data", "convert", "mirage19", "--path", tmp_path / "mirage19", "--out", out, *options)
        call = next(line for line in said.splitlines() if line.startswith("load it: ")).removeprefix("load it: ")
        # a small set has no class that curation would keep
        extra = ")" if "curated" in call else ", min_flows=1)"
        assert len(eval(call[:-1] + extra, {"jaxtraffic": jaxtraffic})) > 0
    code, verdict = run_json(
        capsys, "data", "verify", "nfstream", "--path", tmp_path / "nfstream", "--size-layer", "payload"
    )
    assert (code, verdict["size_layers"]) == (0, ["payload"])


def test_output_that_goes_to_a_file_holds_no_bar_and_names_in_one_piece(capsys, tmp_path, monkeypatch):
    run(capsys, "data", "simulate", "ucdavis19", "--out", tmp_path / "raw", "--flows", 30)
    code, out, err = run(capsys, "data", "convert", "ucdavis19", "--path", tmp_path / "raw", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, "data", "list", "--data-root", tmp_path)
    assert all(f" {name} " in out for name in DATASETS)


def test_more_refusals(capsys, tmp_path):
    (tmp_path / "CESNET-TLS22.zip").touch()
    code, listed = run_json(capsys, "data", "list", "--data-root", tmp_path)
    assert code == 0
    assert "CESNET-TLS22.zip" in listed["problems"][0]
    run(capsys, "data", "simulate", "ucdavis19", "--out", tmp_path / "raw", "--flows", 30)
    run(capsys, "data", "convert", "ucdavis19", "--path", tmp_path / "raw", "--out", tmp_path / "out")
    for arguments, message in (
        (["info", "ucdavis19", "--path", tmp_path / "none"], "no such file or folder"),
        (["verify", "ucdavis19", "--path", tmp_path / "out"], "out: a converted folder; expected raw files"),
        (["head", "ucdavis19", "--path", tmp_path / "raw", "--n", "0"], "--n must be at least 1"),
        (["convert", "ucdavis19", "--path", tmp_path / "raw", "--length", "0"], "--length must be at least 1"),
        (
            ["simulate", "ucdavis19", "--out", tmp_path / "raw", "--flows", "31"],
            "another simulation (dataset ucdavis19",
        ),
    ):
        code, out, err = run(capsys, "data", *arguments)
        assert code == 2
        assert message in err.replace("\n", " ")
        assert not out
