"""report.html: one self-contained page from a run's config, judgements and figures."""

from __future__ import annotations

import base64
import dataclasses
import importlib.resources
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from jaxtraffic.report.answers import answers_of
from jaxtraffic.report.goals import Group
from jaxtraffic.report.judgements import (
    MISSING,
    THIS_RUN,
    Cell,
    Column,
    Row,
    columns_of,
    headline_rows,
    number_of,
    number_text,
    sections_of,
)
from jaxtraffic.report.metrics import GROUPS

_DATA_FACTS = (
    ("name", "Data set"),
    ("size_layer", "Packet sizes"),
    ("tier", "Tier"),
    ("n_flows", "Flows"),
    ("n_train", "Training flows"),
    ("n_validation", "Validation flows"),
    ("n_test", "Test flows"),
    ("fold", "Fold"),
    ("group", "No group on two sides of the split"),
)
_JUDGED_FACTS = (
    ("data.n_synthetic", "Generated flows"),
    ("data.n_held_out", "Held-out flows (fresh real)"),
    ("data.n_test_distinct", "Distinct test flows"),
    ("data.n_distinct", "Distinct generated sequences"),
    ("coverage.matched.n", "Flows a side, equal numbers"),
)
_JUDGE = "judge.xgboost."
_SIZE_LAYERS = {"ip": "IP total length, bytes", "payload": "transport payload, bytes"}
_TIMINGS = {
    "timing.train_flows_per_s": "Training, flows a second",
    "timing.sample_flows_per_s": "Sampling, flows a second",
    "timing.train_seconds": "Training, seconds",
    "timing.train_compile_seconds": "Compilation, seconds",
    "timing.sample_seconds": "Sampling, seconds",
    "timing.judge_seconds": "Judging, seconds",
}
_FEW_CLASSES = 12
_REVISION_DIGITS = 12


@dataclasses.dataclass(frozen=True)
class _Table:
    """What the template draws as one table: columns, and rows with a cell for each."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def render_page(
    config: Mapping[str, Any],
    judgements: Mapping[str, Any],
    figures: Sequence[Mapping[str, Any]],
    training_facts: Mapping[str, Any],
) -> str:
    """The whole page.

    Args:
        config: what config.json holds; whatever is missing is left out of the page, but for `data.source`.
        judgements: flat keys of the judges and timings.
        figures: for each its `png` (bytes), `name`, `title`, `caption`, `folded`, `narrow` and `section`: the key of a
            group of metrics, "training" or "series".
        training_facts: what training logged last, by title.
    """
    data, model = config["data"], config.get("model") or {}
    name = str(model.get("title") or model.get("name") or config.get("experiment") or "generated")
    columns = columns_of(judgements, name)
    judged = {section.group.key: section.rows for section in sections_of(judgements, columns)}
    shown = [dict(figure, data=base64.b64encode(figure["png"]).decode("ascii")) for figure in figures]
    by_section: dict[str, list[dict[str, Any]]] = {}
    for figure in shown:
        by_section.setdefault(figure["section"], []).append(figure)
    sections: list[tuple[Group, _Table | None, list[dict[str, Any]]]] = [
        (group, _table(columns, judged.get(group.key, ())), by_section.get(group.key, []))
        for group in GROUPS
        if group.key in judged or group.key in by_section
    ]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["fact"] = fact_text
    source = importlib.resources.files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        name=name,
        simulated=data["source"] == "simulated",
        data_name=str(data.get("name", "unnamed")),
        notice=data.get("notice"),
        answers=answers_of(judgements),
        headline=_table(columns, headline_rows(judgements, columns)),
        sections=sections,
        information=_information(judgements),
        data_facts=_data_facts(data, judgements),
        classes=_class_counts(data),
        few_classes=_FEW_CLASSES,
        dropped=data.get("dropped") or [],
        model_facts=_known(flatten(model)),
        training_facts=_timings(judgements) | dict(training_facts) | _known(flatten(config.get("training") or {})),
        training_figures=by_section.get("training", []),
        series_figures=by_section.get("series", []),
        command=command_text(config.get("command")),
        judge_facts={
            key.removeprefix(_JUDGE).replace("_", " "): value
            for key, value in judgements.items()
            if key.startswith(_JUDGE)
        },
        origin=_origin(config),
        config_text=json.dumps(config, indent=2, default=str, ensure_ascii=False),
    )


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def fact_text(value: Any) -> str:
    """A value as a reader wants it: thousands separated, four significant digits, lists in a line."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(fact_text, value)) or "none"
    return str(value)


def command_text(command: Any) -> str | None:
    """The command line as one would type it; lists of words are quoted where needed."""
    if command is None or isinstance(command, str):
        return command
    return shlex.join(map(str, command))


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> _Table | None:
    """The rows with those columns only that hold a value in any of them; nothing where there are no rows."""
    if not rows:
        return None
    used = [
        index
        for index in range(len(columns))
        if index == 0 or any(row.cells and row.cells[index].text != MISSING for row in rows)
    ]
    kept = tuple(
        dataclasses.replace(row, cells=tuple(row.cells[index] for index in used)) if row.cells else row for row in rows
    )
    table = _Table(tuple(columns[index] for index in used), kept)
    return _lying(table) if len(used) == 1 and any(not row.cells for row in rows) else table


def _lying(table: _Table) -> _Table:
    """A table of one set whose rows are variants, such as multiples, with the variants as its columns."""
    names = list(dict.fromkeys(row.metric.short for row in table.rows if row.below))
    rows: list[Row] = []
    for row in table.rows:
        if row.below:
            place = names.index(row.metric.short)
            cells = rows[-1].cells
            merged = (*cells[:place], *row.cells, *cells[place + 1 :])
            rows[-1] = dataclasses.replace(rows[-1], cells=merged, n=row.n)
        else:
            rows.append(dataclasses.replace(row, cells=tuple(Cell(MISSING, "", False) for _ in names)))
    return _Table(tuple(Column(THIS_RUN, name, False) for name in names), tuple(rows))


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {title.replace("_", " "): value for title, value in facts.items() if value is not None}


def _origin(config: Mapping[str, Any]) -> dict[str, Any]:
    facts = {
        title: config[key]
        for key, title in (
            ("device", "Device"),
            ("git_revision", "Git revision"),
            ("seed", "Seed"),
            ("started", "Started"),
        )
        if config.get(key) is not None
    }
    if "Git revision" in facts:
        facts["Git revision"] = str(facts["Git revision"])[:_REVISION_DIGITS]
    if "Started" in facts:
        facts["Started"] = str(facts["Started"]).replace("T", " ").replace("+00:00", " UTC")
    return facts | flatten(config.get("versions") or {})


def _data_facts(data: Mapping[str, Any], judgements: Mapping[str, Any]) -> dict[str, Any]:
    facts = {title: data[key] for key, title in _DATA_FACTS if data.get(key) is not None}
    judged = ((title, number_of(judgements, key)) for key, title in _JUDGED_FACTS)
    facts |= {title: int(value) for title, value in judged if value is not None}
    if "Packet sizes" in facts:
        facts["Packet sizes"] = _SIZE_LAYERS.get(str(facts["Packet sizes"]), facts["Packet sizes"])
    if data.get("class_names"):
        facts["Classes"] = len(data["class_names"])
        counts = [count for _, count in _class_counts(data) if count]
        if counts:
            facts["Largest over smallest class"] = f"{max(counts) / min(counts):.1f}"
    return facts


def _class_counts(data: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(class, flows), most frequent first; counts may be a list in the order of the names, or a dict by name."""
    names, counts = list(data.get("class_names") or []), data.get("class_counts")
    if isinstance(counts, Mapping):
        pairs = [(name, counts.get(name)) for name in names or counts]
    else:
        counts = list(counts or [])
        pairs = [(name, counts[index] if index < len(counts) else None) for index, name in enumerate(names)]
    return sorted(pairs, key=lambda pair: -(pair[1] or 0))


def _information(judgements: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `--information` measured while sampling, as texts; classes by what they tell, most first."""
    mean, error, ceiling = (number_of(judgements, f"information.{name}") for name in ("mean", "stderr", "ceiling"))
    if mean is None:
        return None
    start = "information.class."
    classes = [
        (key.removeprefix(start), value)
        for key in judgements
        if key.startswith(start) and (value := number_of(judgements, key)) is not None
    ]
    return {
        "mean": number_text(mean, 2),
        "stderr": None if error is None else number_text(error, 2),
        "ceiling": None if ceiling is None else number_text(ceiling, 2),
        "above": ceiling is not None and mean > ceiling,
        "classes": [(name, number_text(value, 2)) for name, value in sorted(classes, key=lambda pair: -pair[1])],
    }


def _timings(judgements: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in judgements.items() if key.startswith("timing.") and value is not None}
    return {_TIMINGS.get(key, key.removeprefix("timing.").replace("_", " ")): value for key, value in found.items()}
