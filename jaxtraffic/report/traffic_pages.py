"""One page on how many packets are enough: what the first packets of a flow tell about its application."""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from rich.table import Table
from rich.text import Text

from jaxtraffic.errors import ConfigError
from jaxtraffic.report.page import command_text, fact_text, flatten
from jaxtraffic.report.traffic_figures import Curve, Enough, draw_classes, draw_curves, draw_increments
from jaxtraffic.report.write import write_atomically, write_picture

__all__ = [
    "METHODS",
    "Curve",
    "Enough",
    "Labels",
    "above_text",
    "answer",
    "fall_text",
    "traffic_table",
    "write_traffic",
]

_FEATURES = {
    "signed_sizes": "packet sizes with their directions",
    "sizes": "packet sizes without directions",
    "directions": "packet directions alone",
    "iats": "inter-arrival times alone",
}


class Words(NamedTuple):
    """What a page says of a method: heading, how it works, where it is blind."""

    title: str
    works: str
    blind: str


METHODS = {
    "doe": Words(
        "classifier (difference of entropies)",
        "A classifier for each number of packets; what its probabilities save over the class shares.",
        "Low where the classifier is too weak, or sure of what holds in its own captures only; it cannot rise above "
        "what it can decode.",
    ),
    "rf": Words(
        "rectified flow on data",
        "Velocity networks with and without the label for each number of packets; the gap of their errors.",
        "No bound: the errors of its two networks need not cancel. Sizes are made continuous by a random quantile "
        "transform, which keeps the information.",
    ),
    "generator": Words(
        "generator (S4 denoiser)",
        "One generator trained on prefixes of any length; the gap of its errors without and with the label.",
        "No bound; one network serves all lengths, and after short training its values are off both ways, low for few "
        "packets.",
    ),
    "tokens": Words(
        "token generator (exact likelihood)",
        "One generator of tokens; its probabilities of each packet, under the label and under the mixture of all.",
        "Low where the generator has learnt the classes badly: it is a lower bound in expectation, as a classifier's.",
    ),
    "ksg": Words(
        "nearest neighbours (Ross)",
        "Distances to the nearest flows of the same class against distances to all flows.",
        "Far too low in many dimensions and for rare classes; its points are no means over flows, so it takes no part "
        "in intervals.",
    ),
    "mine": Words("MINE", "A critic, Donsker and Varadhan's bound.", "High variance; biased in small batches."),
    "infonce": Words("InfoNCE", "A critic against other flows' labels.", "Never above the logarithm of the batch."),
    "nwj": Words("NWJ", "A critic, the f-divergence bound.", "Variance grows exponentially with the information."),
    "smile": Words("SMILE", "A critic with clipped ratios.", "Biased by its clipping; no bound."),
    "ddpm": Words(
        "diffusion on data", "Noise networks with and without the label; the gap of their errors.", "No bound."
    ),
}


class Labels(NamedTuple):
    """The held-out labels.

    Attributes:
        class_names: names of the classes.
        counts: [class] held-out flows.
        captures: [class] held-out captures, or None without groups.
        entropy: plug-in entropy in nats.
        corrected: the same with Miller and Madow's correction.
    """

    class_names: tuple[str, ...]
    counts: np.ndarray
    captures: np.ndarray | None
    entropy: float
    corrected: float


def title_of(name: str) -> str:
    """Heading of a method."""
    return METHODS[name].title if name in METHODS else name


def answer(curve: Curve) -> str:
    """How many packets are enough, as a sentence."""
    held = ", ".join(
        f"{found.packets} packet{'s' * (found.packets != 1)} hold{'s' * (found.packets == 1)} {share} %"
        for share, found in curve.enough.items()
    )
    value, length = float(curve.value[curve.peak]), curve.packets[-1]
    if value <= 0:
        return f"No number of packets up to {length} tells anything of the application that could be measured here."
    if curve.falls:
        return (
            f"{held} of the most that was found about the application in up to {length} packets ({value:.2f} nats, "
            f"with {curve.packets[curve.peak]})."
        )
    return f"{held} of what {length} packets hold about the application ({curve.value[-1]:.2f} nats)."


def fall_text(curve: Curve) -> str | None:
    """What to say where a curve ends below its peak, which true information cannot do; None where it does not."""
    value, low, high = curve.fall
    if not curve.falls:
        return None
    return (
        f"The curve of the {title_of(curve.name)} peaks at {curve.packets[curve.peak]} packets and ends "
        f"{-value:.3f} nats lower (95 %: {_signed(-high)} to {_signed(-low)}). True information never falls with more "
        "packets: the model makes less of more input, by overfitting the captures it was trained on or by training too "
        "short."
    )


def above_text(curve: Curve, labels: Labels) -> str | None:
    """What to say where a curve rises above the entropy of the label, which no information can do."""
    largest = float(curve.value[curve.peak])
    if largest <= labels.entropy:
        return None
    return (
        f"The {title_of(curve.name)} claims up to {largest:.2f} nats, more than the {labels.entropy:.2f} nats that "
        "there are to know: part of its error without the label is the network's own, and counts as information. Do "
        "not use its values there; train it longer."
    )


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def traffic_table(curves: Sequence[Curve], labels: Labels) -> Table:
    """A rich table of the curves: a row a number of packets, a column a method."""
    table = Table(
        title=Text("I(first r packets; application), nats"),
        title_justify="left",
        caption=Text(f"H(label) = {labels.entropy:.3f}"),
        caption_justify="left",
    )
    table.add_column("r", justify="right")
    for curve in curves:
        table.add_column(Text(curve.name), justify="right")
        table.add_column(Text("95 %"), justify="right", style="dim")
    for r in sorted({r for curve in curves for r in curve.packets}):
        cells: list[str] = []
        for curve in curves:
            if r in curve.packets:
                k = curve.packets.index(r)
                cells += [f"{curve.value[k]:.3f}", f"{curve.low[k]:.3f} .. {curve.high[k]:.3f}"]
            else:
                cells += ["", ""]
        table.add_row(str(r), *cells)
    return table


def write_traffic(
    folder: str | Path, *, curves: Sequence[Curve], labels: Labels, config: Mapping[str, Any], features: str
) -> Path:
    """Writes figures/*.png, curve.json, report.html and, last of all, report.json.

    Args:
        folder: the run folder, which exists.
        curves: of the methods, the main one first; the answer is its.
        labels: of the held-out flows.
        config: what config.json holds; `data.source` must be "real" or "simulated".
        features: what of the packets was looked at, for the page.

    Returns:
        The path of report.html.

    Raises:
        ConfigError: no curves, or no `data.source`.
    """
    folder, data = Path(folder), config.get("data") or {}
    if data.get("source") not in ("real", "simulated"):
        raise ConfigError(f'config data.source must be "real" or "simulated", got {data.get("source")!r}')
    if not curves:
        raise ConfigError("a page of curves needs at least one of them")
    (folder / "report.json").unlink(missing_ok=True)
    titles = {curve.name: title_of(curve.name) for curve in curves}
    rows = _class_rows(labels)
    drawings = [
        draw_curves(curves, labels.entropy, titles),
        draw_increments(curves, titles),
        *draw_classes(curves[0], rows, titles[curves[0].name]),
    ]
    pictures = {drawing.name: write_picture(folder / "figures", drawing) for drawing in drawings}
    page = _render(curves, labels, rows, config, features, pictures)
    write_atomically(folder / "curve.json", _json(_curve_content(curves, labels)))
    path = folder / "report.html"
    write_atomically(path, page.encode("utf-8", errors="backslashreplace"))
    write_atomically(folder / "report.json", _json(_flat(curves, labels, config)))
    return path


def _class_rows(labels: Labels) -> list[tuple[int, str, int, float]]:
    """(class, name, held-out flows, ceiling) of the classes that have some, most frequent first."""
    order = [index for index in np.argsort(-labels.counts, kind="stable") if labels.counts[index]]
    total = labels.counts.sum()
    return [
        (int(index), labels.class_names[index], int(labels.counts[index]), math.log(total / labels.counts[index]))
        for index in order
    ]


def _render(
    curves: Sequence[Curve],
    labels: Labels,
    rows: Sequence[tuple[int, str, int, float]],
    config: Mapping[str, Any],
    features: str,
    pictures: Mapping[str, Any],
) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["fact"] = fact_text
    environment.filters["nats"] = _nats
    template = importlib.resources.files(__package__).joinpath("traffic.html.j2").read_text(encoding="utf-8")
    main, data = curves[0], config["data"]
    shown = _few_points(main)
    return environment.from_string(template).render(
        simulated=data["source"] == "simulated",
        data_name=str(data.get("name", "unnamed")),
        notice=data.get("notice"),
        features=_FEATURES.get(features, features),
        grouped=labels.captures is not None,
        captures=data.get("n_test_groups"),
        n_test=int(labels.counts.sum()),
        curves=curves,
        main=main,
        words={curve.name: METHODS.get(curve.name, Words(curve.name, "", "")) for curve in curves},
        answer=answer(main),
        remarks=[
            text for curve in curves for text in (above_text(curve, labels), fall_text(curve)) if text is not None
        ],
        labels=labels,
        shown=shown,
        packets=[main.packets[k] for k in shown],
        rows=[
            {
                "name": name,
                "flows": flows,
                "captures": None if labels.captures is None else int(labels.captures[index]),
                "ceiling": limit,
                "values": [float(main.per_class[index, k]) for k in shown],
            }
            for index, name, flows, limit in rows
        ],
        missing=[name for name, count in zip(labels.class_names, labels.counts) if not count],
        pictures=pictures,
        data_facts=_data_facts(data),
        run_facts=_run_facts(config),
        command=command_text(config.get("command")),
        config_text=json.dumps(config, indent=2, default=str, ensure_ascii=False),
    )


def _few_points(curve: Curve) -> list[int]:
    """At most nine points of a curve for a table, closer together at the beginning."""
    count = len(curve.packets)
    if count <= 9:
        return list(range(count))
    wanted = np.geomspace(1, curve.packets[-1], 9)
    found = {int(np.abs(np.array(curve.packets) - r).argmin()) for r in wanted}
    return sorted(found)


def _data_facts(data: Mapping[str, Any]) -> dict[str, Any]:
    titles = {
        "name": "Data set",
        "n_flows": "Flows",
        "n_train": "Training flows",
        "n_train_groups": "Training captures",
        "n_test": "Held-out flows",
        "n_test_groups": "Held-out captures",
        "group": "Kept together by",
        "fold": "Fold",
    }
    facts = {title: data[key] for key, title in titles.items() if data.get(key) is not None}
    return facts | ({"Classes": len(data["class_names"])} if data.get("class_names") else {})


def _run_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    facts = {
        title: config[key]
        for key, title in (("device", "Device"), ("git_revision", "Git revision"), ("seed", "Seed"))
        if config.get(key) is not None
    }
    return facts | flatten(config.get("versions") or {})


def _nats(value: float) -> str:
    if not math.isfinite(value):
        return "\N{EN DASH}"
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _curve_content(curves: Sequence[Curve], labels: Labels) -> dict[str, Any]:
    return {
        "unit": "nats",
        "ceiling": labels.entropy,
        "ceiling_corrected": labels.corrected,
        "class_names": list(labels.class_names),
        "held_out_flows": [int(count) for count in labels.counts],
        "curves": {
            curve.name: {
                "packets": list(curve.packets),
                **{
                    name: [float(v) for v in getattr(curve, name)]
                    for name in ("value", "low", "high", "increment", "increment_low", "increment_high")
                },
                "per_class": [[float(v) if math.isfinite(v) else None for v in row] for row in curve.per_class],
                "enough": {str(share): [found.packets, found.low, found.high] for share, found in curve.enough.items()},
                "control": curve.control,
                "warnings": list(curve.warnings),
                "seconds": curve.seconds,
            }
            for curve in curves
        },
    }


def _flat(curves: Sequence[Curve], labels: Labels, config: Mapping[str, Any]) -> dict[str, Any]:
    """Flat keys for report.json."""
    data = config["data"]
    flat: dict[str, Any] = {
        "data.source": data["source"],
        "data.name": data.get("name"),
        "data.n_train": data.get("n_train"),
        "data.n_test": int(labels.counts.sum()),
        "data.n_test_groups": data.get("n_test_groups"),
        "seed": config.get("seed"),
        "information.ceiling": labels.entropy,
        "information.ceiling_corrected": labels.corrected,
    }
    for curve in curves:
        for k, r in enumerate(curve.packets):
            base = f"information.{curve.name}.r{r}"
            flat |= {
                f"{base}.value": float(curve.value[k]),
                f"{base}.ci_low": float(curve.low[k]),
                f"{base}.ci_high": float(curve.high[k]),
                f"{base}.increment": float(curve.increment[k]),
                f"{base}.increment_ci_low": float(curve.increment_low[k]),
                f"{base}.increment_ci_high": float(curve.increment_high[k]),
            }
        for share, found in curve.enough.items():
            flat[f"enough.{curve.name}.{share}"] = found.packets
            flat[f"enough.{curve.name}.{share}.ci_low"] = found.low
            flat[f"enough.{curve.name}.{share}.ci_high"] = found.high
        flat[f"information.{curve.name}.peak_packets"] = curve.packets[curve.peak]
        flat[f"information.{curve.name}.fall"] = curve.fall[0]
        if curve.control is not None:
            flat[f"information.{curve.name}.shuffled"] = curve.control
        flat[f"timing.{curve.name}_seconds"] = curve.seconds
    return flat


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode("ascii")
