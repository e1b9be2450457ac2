"""A campaign that is killed and resumed ends with the results of one that was left alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from jaxtraffic.classify import RunResult
from jaxtraffic.classify.ledger import Ledger, Standing
from jaxtraffic.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]
DESCRIBED = {"configs": ["a"], "folds": [0, 1], "length": 20}


class Slots(NamedTuple):
    """Stands for the slots of a program."""

    epoch: jax.Array
    params: dict[str, jax.Array]


def slots_of(value):
    return Slots(jax.numpy.full(2, value, jax.numpy.int32), {"kernel": jax.numpy.full((2, 3), value, np.float32)})


def result_of(fold):
    return RunResult("a", fold, 0, 3, 1, 0.5, 0.5, 0.5, 0.5, [1.0, float("nan")], [[1, 0], [0, 0]], 8, 1, 1, 0.1)


def folder_after(folder, finished):
    """A folder with a checkpoint after every one of so many finished runs, and one more run noted behind it."""
    ledger = Ledger(folder, DESCRIBED, resume=False)
    for fold in range(finished):
        ledger.add(result_of(fold))
        ledger.save(Standing("a", [(fold + 1, 0), None], fold + 1, [0.5, 0.0]), slots_of(fold))
    ledger.add(result_of(finished))
    ledger.close()
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return folder_after(tmp_path_factory.mktemp("ledger") / "run", 4)


def copy_of(written, tmp_path):
    return Path(shutil.copytree(written, tmp_path / "run"))


def reopened(folder, **changes):
    ledger = Ledger(folder, DESCRIBED | changes, resume=True)
    ledger.close()
    return ledger


def test_runs_count_only_once_a_checkpoint_holds_them(written, tmp_path):
    folder = copy_of(written, tmp_path)
    with (folder / "results.jsonl").open("a") as file:
        file.write('{"config": "a", "fo')
    assert len((folder / "results.jsonl").read_text().splitlines()) == 6
    ledger = Ledger(folder, DESCRIBED, resume=True)
    assert [one.fold for one in ledger.results] == [0, 1, 2, 3] and np.isnan(ledger.results[0].per_class_f1[1])
    assert ledger.standing == Standing("a", [(4, 0), None], 4, [0.5, 0.0])
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    slots = ledger.restore(jax.eval_shape(lambda: slots_of(0)), sharding)
    jax.tree.map(np.testing.assert_array_equal, slots, slots_of(3))
    lines = (folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["fold"] for line in lines] == [0, 1, 2, 3]
    ledger.add(result_of(9))
    ledger.save(Standing("a", [None, None], 5, [0.0, 0.0]), slots_of(9))
    ledger.close()
    assert [one.fold for one in reopened(folder).results] == [0, 1, 2, 3, 9]


def test_a_standing_ahead_of_its_checkpoint_does_not_count(written, tmp_path):
    """Killed between standing.json and the checkpoint: the one before holds, with its own standing."""
    folder = copy_of(written, tmp_path)
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    newest.rename(newest.with_name(newest.name + ".orbax-checkpoint-tmp"))
    ledger = reopened(folder)
    assert ledger.standing.results == 3 and [one.fold for one in ledger.results] == [0, 1, 2]


def test_no_checkpoint_means_a_fresh_start(tmp_path):
    folder = folder_after(tmp_path / "run", 0)
    assert reopened(folder).results == [] and not (folder / "results.jsonl").read_text()
    assert reopened(tmp_path / "new").standing is None


def test_other_campaigns_and_damage_are_refused(written, tmp_path):
    folder = copy_of(written, tmp_path)
    with pytest.raises(ConfigError, match="holds a campaign already"):
        Ledger(folder, DESCRIBED, resume=False)
    with pytest.raises(ConfigError, match="its folds differ"):
        reopened(folder, folds=[0, 2])
    text = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    (folder / "results.jsonl").write_text("".join(text[:2]))
    with pytest.raises(DataError, match="fewer than 4 finished runs"):
        reopened(folder)
    (folder / "standing.json").write_text("{}")
    with pytest.raises(DataError, match="does not fit the checkpoint"):
        reopened(folder)
    (folder / "campaign.json").write_text("{")
    with pytest.raises(ConfigError, match="not readable JSON"):
        reopened(folder)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(None, DESCRIBED, resume=False)
    ledger.add(result_of(0))
    ledger.save(Standing("a", [None], 1, [0.0]), slots_of(0))
    ledger.line(loss=1.0)
    ledger.close()
    assert len(ledger.results) == 1 and not list(tmp_path.iterdir())


# --- processes that are killed ---

SCRIPT = """
import sys
from jaxtraffic import augment, classify
from jaxtraffic.classify import campaigns
from jaxtraffic.errors import Interrupted
from tests.classify.test_folds import make_flows

campaigns.CHECKPOINT_SECONDS = 0.0
shared = dict(model="mlp", batch_size=16, max_epochs=30, patience=4, learning_rate=1e-2)
configs = [
    classify.ClassifierConfig("baseline", **shared),
    classify.ClassifierConfig("loss", augmentation=augment.packet_loss, policy="replace", amount=0.7, **shared),
]
try:
    classify.campaign(
        make_flows(), configs, (0, 1, 5), (0, 1), n_folds=4, length=6, slots=2, chunk_epochs=1, folder=sys.argv[1],
        resume=True, keep_models=["loss"], report=lambda done, **figures: print(done, figures["epoch"], flush=True),
    )
except Interrupted as error:
    sys.exit(str(error))
"""


class Process:
    """The campaign in a process of its own."""

    def __init__(self, folder, cache):
        flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
        flags |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder)], cwd=ROOT, env=os.environ | flags, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def until(self, condition):
        """Waits for a state of the folder."""
        end = time.monotonic() + 240
        while not condition(self.folder):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.002)
        return self

    def end(self, number=None):
        """Return code, lines of output and errors, after a signal where one is given."""
        if number is not None:
            self.process.send_signal(number)
        out, errors = self.process.communicate(timeout=240)
        return self.process.returncode, out.splitlines(), errors


def finished(folder):
    try:
        return len((folder / "results.jsonl").read_text().splitlines())
    except OSError:
        return 0


def chunks(folder):
    return len((folder / "metrics.jsonl").read_text().splitlines())


def steps(folder):
    return [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()]


def results(folder):
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return sorted(json.dumps(line) for line in lines)


@pytest.mark.slow
def test_a_killed_campaign_ends_with_the_same_results(tmp_path):
    cache = tmp_path / "cache"
    code, whole, errors = Process(tmp_path / "whole", cache).end()
    assert code == 0, errors
    folder = tmp_path / "killed"
    moments = [
        lambda folder: len(steps(folder)) > 0,
        lambda folder: finished(folder) >= 2,
        lambda folder: finished(folder) >= 3 and list((folder / "checkpoints").glob("*tmp*")),
        lambda folder: finished(folder) >= 7 and (folder / "standing.tmp").exists(),
    ]
    for moment in moments:
        assert Process(folder, cache).until(moment).end(signal.SIGKILL)[0] == -signal.SIGKILL
    before, told = finished(folder), chunks(folder)
    # A killed process may leave more results than its checkpoint holds: the next one must have begun before it is told.
    begun = Process(folder, cache).until(lambda folder: chunks(folder) > told and finished(folder) >= 8)
    code, lines, errors = begun.end(signal.SIGTERM)
    assert code == 1 and "finished runs; --resume goes on" in errors and before >= 6
    assert int(lines[0].split()[0]) >= 6, "runs that a checkpoint holds are not trained again"
    code, lines, errors = Process(folder, cache).end()
    assert code == 0, errors
    assert len(lines) < len(whole) / 2
    assert len(results(folder)) == 12 and results(folder) == results(tmp_path / "whole")
    names = sorted(path.name for path in (folder / "models").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "whole" / "models").iterdir()) and len(names) == 6
    for name in names:
        with np.load(folder / "models" / name) as one, np.load(tmp_path / "whole" / "models" / name) as other:
            for key in one.files:
                np.testing.assert_array_equal(one[key], other[key])
    code, lines, errors = Process(folder, cache).end()
    assert (code, lines) == (0, []), errors
