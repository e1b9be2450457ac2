"""report.html: one self-contained page from a run's config, judgements and figures."""

from __future__ import annotations

import base64
import importlib.resources
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from jaxtraffic.report.judgements import columns_of, rows_of

_DATA_FACTS = (
    ("name", "Data set"),
    ("size_layer", "Packet sizes"),
    ("n_flows", "Flows"),
    ("n_train", "Training flows"),
    ("n_validation", "Validation flows"),
    ("n_test", "Test flows"),
)
_SIZE_LAYERS = {"ip": "IP total length, bytes", "payload": "transport payload, bytes"}
_TIMINGS = {
    "timing.train_flows_per_s": "Training, flows a second",
    "timing.sample_flows_per_s": "Sampling, flows a second",
    "timing.train_seconds": "Training, seconds",
    "timing.sample_seconds": "Sampling, seconds",
    "timing.judge_seconds": "Judging, seconds",
}
_FEW_CLASSES = 12


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
        figures: for each its `png` (bytes), `name`, `caption` and `folded`.
        training_facts: what training logged last, by title.
    """
    data, model = config["data"], config.get("model") or {}
    name = str(model.get("title") or model.get("name") or config.get("experiment") or "generated")
    columns = columns_of(judgements, name)
    rows = rows_of(judgements, columns)
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
        data_facts=_data_facts(data),
        classes=_class_counts(data),
        few_classes=_FEW_CLASSES,
        dropped=data.get("dropped") or [],
        model_facts=flatten(model),
        training_facts=_timings(judgements) | dict(training_facts) | flatten(config.get("training") or {}),
        columns=columns,
        rows=rows,
        figures=[dict(figure, data=base64.b64encode(figure["png"]).decode("ascii")) for figure in figures],
        command=command_text(config.get("command")),
        origin={
            title: config[key]
            for key, title in (("device", "Device"), ("git_revision", "Git revision"), ("seed", "Seed"))
            if config.get(key) is not None
        }
        | flatten(config.get("versions") or {}),
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


def _data_facts(data: Mapping[str, Any]) -> dict[str, Any]:
    facts = {title: data[key] for key, title in _DATA_FACTS if data.get(key) is not None}
    if "Packet sizes" in facts:
        facts["Packet sizes"] = _SIZE_LAYERS.get(str(facts["Packet sizes"]), facts["Packet sizes"])
    if data.get("class_names"):
        facts["Classes"] = len(data["class_names"])
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


def _timings(judgements: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in judgements.items() if key.startswith("timing.") and value is not None}
    return {_TIMINGS.get(key, key.removeprefix("timing.").replace("_", " ")): value for key, value in found.items()}
