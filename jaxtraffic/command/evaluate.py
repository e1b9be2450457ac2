"""`python -m jaxtraffic evaluate`: the whole judgement of generated flows, of anybody's generator."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from rich.console import Console

from jaxtraffic.command.screen import show
from jaxtraffic.datasets.curation import curate
from jaxtraffic.datasets.interchange import KEY, parquet_errors, parquet_metadata, read_labelled
from jaxtraffic.datasets.labelled import LabelledFlows, grouped_by_capture
from jaxtraffic.datasets.splits.folds import split
from jaxtraffic.errors import ConfigError
from jaxtraffic.series import PacketSeries, concatenate

_BY_CLASS = ("utility", "augmentation", "downstream", "scaling", "latent")
"""Groups of figures that mean nothing without classes."""

_SEEN = (
    "No --holdout: the real flows were split, and the generator may have seen the flows it is tested on. Utility is "
    "flattered by that, and privacy is not judged; give flows that the generator never saw as --holdout."
)
_MOST_NAMED = 5


class Sets(NamedTuple):
    """What is judged, in one order of classes and of one length.

    Attributes:
        train: real flows that the generator learnt from.
        held_out: real flows to test on.
        synthetic: generated flows.
        unseen: whether the generator has not seen `held_out`.
        notices: what a reader must know of how they were made.
    """

    train: PacketSeries
    held_out: PacketSeries
    synthetic: PacketSeries
    unseen: bool
    notices: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Judges the flows of any generator against real ones: utility, fidelity, coverage, privacy, with references.

    Files are parquet with the columns size, direction, label (and class_name, iat, group), as samples.parquet of a run
    folder, or pkts_size, pkts_dir, app. Classes are matched by name. Flows without classes get one label for all:
    figures by class are left out then. Prints the table and writes a run folder with report.html.
    """

    real: Path
    """Real flows that the generator was trained on."""
    synthetic: Path
    """Generated flows."""
    holdout: Path | None = None
    """Real flows that the generator has not seen; default: --real is split, by capture where captures are known."""
    group: str | None = None
    """Column of --real whose values stay on one side of that split; default: group or capture, where there is one."""
    min_packets: int = 1
    """Leave out real flows with fewer packets; take what the generator's training set had."""
    min_flows: int = 1
    """Leave out classes with fewer flows in --real."""
    name: str | None = None
    """What to call the generator; default: the name that --synthetic states, or that of the file."""
    trees: int | None = None
    """Trees of XGBoost; default: 100. Fewer save time with many classes."""
    seed: int = 0
    """Seed of the split and of the judges."""
    out: Path | None = None
    """Run folder; default: runs/evaluate-<name>-<time>."""
    json: bool = False
    """Print the figures as JSON, with the keys of report.json."""

    def run(self) -> int:
        """Reads, judges, prints and writes the run folder."""
        # here and not above: these load flax, xgboost and matplotlib, which other commands need not wait for
        from jaxtraffic import evaluate, generate, report
        from jaxtraffic.command.run_folder import environment, make_folder, write_config

        for option in ("min_packets", "min_flows", "trees"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise ConfigError(f"--{option.replace('_', '-')} must be at least 1, got {value}")
        sets = self.sets()
        title = self.name or sets.synthetic.name
        place = re.sub(r"[^A-Za-z0-9_.-]+", "-", title)
        folder = self.out or Path("runs") / f"evaluate-{place}-{datetime.now():%Y%m%d-%H%M%S}"
        make_folder(folder)
        config = {
            "experiment": "evaluate",
            "seed": self.seed,
            "model": {"title": title, "flows": len(sets.synthetic)},
            "data": self._described(sets),
            "trees": self.trees,
        } | environment()
        train, held_out, synthetic = sets.train, sets.held_out, sets.synthetic
        screen = Console(stderr=True)
        for notice in sets.notices:
            screen.print(notice, style="yellow", highlight=False, markup=False, soft_wrap=True)
        screen.print(
            f"judging {len(synthetic):,} generated flows: {len(train):,} real ones to train on, {len(held_out):,} to "
            f"test on, {len(train.class_names)} classes",
            highlight=False,
            soft_wrap=True,
        )
        labels = np.asarray(synthetic.label)
        references = {
            "bootstrap": evaluate.bootstrap(train, labels, seed=self.seed),
            "marginals": generate.marginals(train, labels, seed=self.seed),
        }
        judged = evaluate.judge_sets(
            train,
            held_out,
            held_out,
            {"generated": synthetic} | references,
            seed=self.seed,
            params=None if self.trees is None else {"n_estimators": self.trees},
            unseen=sets.unseen,
        )
        figures = judged.figures
        if len(train.class_names) < 2:
            figures = {key: value for key, value in figures.items() if not _by_class(key)}
        figures |= {"data.unseen": sets.unseen, "data.notice": " ".join(sets.notices)}
        # only now: a folder that is still empty can be named again after a refusal or Ctrl-C
        write_config(folder, config)
        path = report.write_report(
            folder,
            real_signed=np.asarray(train.signed_size),
            real_label=np.asarray(train.label),
            synthetic_signed=np.asarray(synthetic.signed_size),
            synthetic_label=labels,
            class_names=train.class_names,
            judgements=figures,
            curves=judged.curves,
            config=config | {"device": f"{config['device']['count']} x {config['device']['kind']}"},
        )
        written = json.loads((folder / "report.json").read_text())
        show(written, [report.judgement_table(figures, name=title), f"report: {path}"], as_json=self.json)
        return 0

    def sets(self) -> Sets:
        """Reads the files and brings them into one order of classes and one length."""
        real = _read(self.real, self.group)
        table, dropped = curate(real, min_packets=self.min_packets, min_flows=self.min_flows)
        left_out = set(real.flows.class_names) - set(table.flows.class_names)
        notices = [f"{self.real.name}: {one.flows:,} {one.detail} left out." for one in dropped if one.flows]
        flows = {"synthetic": _read(self.synthetic).flows}
        if self.holdout is not None:
            kept = curate(_read(self.holdout), min_packets=self.min_packets, min_flows=1)[0].flows
            flows["holdout"] = kept
        real = table.flows
        for option, path in (("synthetic", self.synthetic), ("holdout", self.holdout)):
            if path is None:
                continue
            flows[option], lines = _aligned(flows[option], path, real, self.real, left_out)
            notices += lines
            if flows[option].size_layer != real.size_layer:
                if _is_ours(path) and _is_ours(self.real):
                    raise ConfigError(
                        f"{path} has sizes of the layer {flows[option].size_layer}, {self.real} of {real.size_layer}; "
                        "judge flows whose sizes mean the same"
                    )
                notices.append(
                    f"{path.name}: sizes are taken to be of the layer {real.size_layer}, as in {self.real.name}."
                )
                flows[option] = flows[option].replace(size_layer=real.size_layer)
        lengths = {name: one.length for name, one in ({"real": real} | flows).items()}
        shortest = min(lengths.values())
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"--{name} {length}" for name, length in lengths.items())
            notices.append(f"Packets of a flow differ ({found}): all are cut to {shortest}.")
        flows = {name: _cut(one, shortest) for name, one in ({"real": real} | flows).items()}
        unseen = "holdout" in flows
        if unseen:
            train, held_out = flows["real"], flows["holdout"]
        else:
            train, held_out = _split(flows["real"], self.seed, notices)
            notices.append(_SEEN)
        if len(train.class_names) < 2:
            notices.append("One class only: figures by class (utility, augmentation and the like) are left out.")
        return Sets(train, held_out, flows["synthetic"], unseen, tuple(notices))

    def _described(self, sets: Sets) -> dict[str, Any]:
        """What config.json says of the data; files by name only, since folders are nobody else's business."""
        train, held_out = sets.train, sets.held_out
        return {
            "name": train.name,
            "source": train.source,
            "size_layer": train.size_layer,
            "n_flows": len(train) + len(held_out),
            "n_train": len(train),
            "n_test": len(held_out),
            "files": {
                option: path.name
                for option, path in (("real", self.real), ("synthetic", self.synthetic), ("holdout", self.holdout))
                if path is not None
            },
            "group": self.group or ("capture" if train.group is not None else None),
            "class_names": list(train.class_names),
            "class_counts": [int(count) for count in train.counts() + held_out.counts()],
            "unseen": sets.unseen,
            "notice": " ".join(sets.notices),
        }


def _by_class(key: str) -> bool:
    parts = key.split(".")
    return (parts[2] if parts[0] == "reference" else parts[0]) in _BY_CLASS


def _read(path: Path, group: str | None = None) -> LabelledFlows:
    """Flows of a file, grouped by capture where it says which is of which; as long as its longest, or as it states."""
    if _is_ours(path):
        table = read_labelled(path, group=group)
        return table if table.flows.group is not None else grouped_by_capture(table)
    if group is None:
        with parquet_errors(path):
            group = "capture" if "capture" in pl.read_parquet_schema(path) else None
    table = read_labelled(path, group=group)
    flows = _cut(table.flows, int(max(table.flows.n_packets.max(), 1)))
    # a capture for each flow, or one for all, keeps nothing together
    if flows.group is not None and np.unique(flows.group).size in (1, len(flows)):
        flows = flows.replace(group=None)
    return dataclasses.replace(table, flows=flows)


def _is_ours(path: Path) -> bool:
    """Whether a file carries our metadata; of others neither the layer of the sizes nor the length is known."""
    return KEY in parquet_metadata(path)


def _aligned(
    flows: PacketSeries, path: Path, real: PacketSeries, real_path: Path, left_out: set[str]
) -> tuple[PacketSeries, list[str]]:
    """The flows with the labels of the real ones, matched by name, and what was left out for that.

    Raises:
        ConfigError: flows of a class that the real ones have not, or none left.
    """
    notices = []
    used = [name for name, count in zip(flows.class_names, flows.counts()) if count]
    unknown = [name for name in used if name not in real.class_names and name not in left_out]
    if unknown:
        more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
        raise ConfigError(
            f"{path} has flows of classes that {real_path} has not: {', '.join(unknown[:_MOST_NAMED])}{more}; "
            f"its classes are {', '.join(real.class_names[:_MOST_NAMED])}"
            f"{', ...' if len(real.class_names) > _MOST_NAMED else ''}: name classes alike in both files, or leave "
            "those flows out"
        )
    gone = np.isin(np.asarray(flows.label), [i for i, name in enumerate(flows.class_names) if name in left_out])
    if gone.any():
        notices.append(f"{path.name}: {int(gone.sum()):,} flows of classes left out of {real_path.name} are left out.")
        flows = flows[np.flatnonzero(~gone)]
    if not len(flows):
        raise ConfigError(f"{path} has no flow of a class that {real_path} has")
    number = {name: index for index, name in enumerate(real.class_names)}
    labels = np.array([number.get(name, -1) for name in flows.class_names], np.int32)[np.asarray(flows.label)]
    return flows.replace(label=labels, class_names=real.class_names), notices


def _cut(flows: PacketSeries, length: int) -> PacketSeries:
    return flows.replace(
        **{name: np.ascontiguousarray(getattr(flows, name)[:, :length]) for name in ("size", "direction", "iat")}
    )


def _split(flows: PacketSeries, seed: int, notices: list[str]) -> tuple[PacketSeries, PacketSeries]:
    """Four fifths to train on and a fifth to test on, by capture where known; larger shares where captures are few."""
    tried = [(flows, n_folds) for n_folds in (10, 6, 4)]
    if flows.group is not None:
        tried.append((flows.replace(group=None), 10))
    for candidate, n_folds in tried:
        try:
            parts = split(candidate, seed=seed, n_folds=n_folds)
        except ConfigError as error:
            problem = error
            continue
        if flows.group is not None and candidate.group is None:
            notices.append("Too few captures to keep them apart: flows of one capture fall on both sides.")
        return parts.train, concatenate([parts.validation, parts.test])
    raise ConfigError(f"--real cannot be split ({problem}); give --holdout, real flows to test on")
