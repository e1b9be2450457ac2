"""Writing a report into a run folder: figures, report.html and, last of all, report.json."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.report import coverage_figures, figures, judgement_figures
from jaxtraffic.report.figures import Drawing
from jaxtraffic.report.judgements import GENERATED, TITLES, columns_of, per_class_f1
from jaxtraffic.report.loss_log import last_value, read_metrics
from jaxtraffic.report.page import render_page
from jaxtraffic.report.series_pages import series_pages

_LOGGED = {
    "step": "Last step",
    "epoch": "Last epoch",
    "loss": "Last logged loss",
    "seconds": "Seconds until the last log",
}

_NARROW_INCHES = 5


def write_report(
    run_dir: str | Path,
    *,
    real_signed: np.ndarray,
    real_label: np.ndarray,
    synthetic_signed: np.ndarray,
    synthetic_label: np.ndarray,
    class_names: Sequence[str],
    judgements: Mapping[str, Any],
    config: Mapping[str, Any],
    curves: Mapping[str, Any] | None = None,
) -> Path:
    """Draws figures/*.png, writes curves.json, report.html, and last report.json, which says that the run is complete.

    Every file appears whole or not at all; curves.json and report.json of an earlier attempt are removed first. The
    loss curve is read from metrics.jsonl in the folder, and left out where there is none. So is every section of the
    page whose figures were not judged.

    Args:
        run_dir: the run folder.
        real_signed: [flow, packet] int16 signed sizes of real flows, in bytes; usually the training set.
        real_label: [flow] integers, index into `class_names`.
        synthetic_signed: [flow, packet] int16 of the generated flows.
        synthetic_label: [flow] integers.
        class_names: names of the classes.
        judgements: flat keys "group.metric" with numbers, as `evaluate.judge` gives them, and `timing.*`; values that
            are not finite become null.
        config: what config.json holds; `data.source` must be "real" or "simulated". report.json repeats it, with
            `data.name`, `n` (generated flows) and `seed`.
        curves: set name ("generated", "fresh_real" and so on) -> group -> curve -> numbers, in lists or lists of lists,
            as `evaluate.judge` gives them; numbers that are not finite become null. None writes no curves.json.

    Returns:
        The path of report.html.

    Raises:
        ConfigError: arrays that do not fit each other or the class names, no `data.source`, judgements that are not
            flat, curves that are not numbers.
        DataError: a folder that does not exist, or a broken metrics.jsonl.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise DataError(run_dir, "no such folder", expected="the folder of a run")
    real, real_label = _checked("real", real_signed, real_label, len(class_names))
    synthetic, synthetic_label = _checked("synthetic", synthetic_signed, synthetic_label, len(class_names))
    if real.shape[1] != synthetic.shape[1]:
        raise ConfigError(f"real_signed has {real.shape[1]} packet positions, synthetic_signed {synthetic.shape[1]}")
    judgements = {key: _plain(key, value) for key, value in judgements.items()}
    curves = None if curves is None else _plain_curves(curves)
    data = config.get("data") or {}
    if data.get("source") not in ("real", "simulated"):
        raise ConfigError(f'config data.source must be "real" or "simulated", got {data.get("source")!r}')
    head = {
        "data.source": data["source"],
        "data.name": data.get("name"),
        "n": len(synthetic),
        "seed": config.get("seed"),
    }

    lines = read_metrics(run_dir / "metrics.jsonl")
    for name in ("report.json", "curves.json"):
        (run_dir / name).unlink(missing_ok=True)
    drawings = [
        *figures.loss_curve(lines),
        *series_pages(real, real_label, synthetic, synthetic_label, tuple(class_names)),
        *figures.sizes_by_position(real, synthetic),
        *figures.position_images(real, synthetic),
        *figures.per_class_f1_bars(per_class_f1(judgements)),
        *_judgement_drawings(judgements, curves or {}, class_names),
        *figures.lengths_and_directions(real, synthetic),
    ]
    shown = [_write_figure(run_dir / "figures", drawing) for drawing in drawings]
    logged = {title: last_value(lines, key) for key, title in _LOGGED.items()}
    training_facts = {title: value for title, value in logged.items() if value is not None}
    page = render_page(config, judgements, shown, training_facts)
    if curves is not None:
        text = json.dumps(curves, allow_nan=False) + "\n"
        write_atomically(run_dir / "curves.json", text.encode("ascii"))
    path = run_dir / "report.html"
    write_atomically(path, page.encode("utf-8", errors="backslashreplace"))
    text = json.dumps(head | judgements | head, indent=2, allow_nan=False) + "\n"
    write_atomically(run_dir / "report.json", text.encode("ascii"))
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one, whole; makes the folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_picture(folder: Path, drawing: Drawing) -> dict[str, Any]:
    """Writes NAME.png into the folder; what a page shows of it: name, caption, folded, and `data` in base 64."""
    buffer = io.BytesIO()
    drawing.figure.canvas.print_png(buffer)
    write_atomically(folder / f"{drawing.name}.png", buffer.getvalue())
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"data": data, "caption": drawing.caption, "folded": drawing.folded, "name": drawing.name}


def _judgement_drawings(
    judgements: Mapping[str, Any], curves: Mapping[str, Any], class_names: Sequence[str]
) -> list[Drawing]:
    # One order wherever sets stand beside each other, whatever order they were judged in: this run first.
    order = [GENERATED, *TITLES]
    known = [name for name in order if name in curves]
    curves = {name: curves[name] for name in [*known, *(name for name in curves if name not in order)]}
    return [
        *judgement_figures.confusion_matrices(curves, class_names),
        *judgement_figures.scaling_curves(judgements, [column.key for column in columns_of(judgements, GENERATED)]),
        *judgement_figures.by_position(curves),
        *coverage_figures.alpha_beta_curves(curves),
        *coverage_figures.nearest_records(curves),
        *coverage_figures.privacy_distances(curves),
        *judgement_figures.frequent_sizes(curves),
        *judgement_figures.run_lengths(curves),
    ]


def _checked(side: str, signed: np.ndarray, label: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    signed, label = np.asarray(signed), np.asarray(label)
    if signed.ndim != 2 or 0 in signed.shape or not np.issubdtype(signed.dtype, np.integer):
        raise ConfigError(f"{side}_signed must be integers [flow, packet] with at least one, got {signed.shape}")
    if label.shape != signed.shape[:1] or not np.issubdtype(label.dtype, np.integer):
        raise ConfigError(f"{side}_label must be {len(signed)} integers, one a flow, got {label.dtype} {label.shape}")
    if label.min() < 0 or label.max() >= n_classes:
        raise ConfigError(f"{side}_label must be an index into the {n_classes} class names")
    return signed, label


def _plain(key: str, value: Any) -> Any:
    """A JSON scalar: NumPy numbers as Python ones, and null for what is not finite."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"judgement {key} must be a number or a text, got {type(value).__name__}")


def _plain_curves(curves: Mapping[str, Any]) -> dict[str, Any]:
    """The same three levels of names with lists of JSON numbers, null for what is not finite."""
    plain: dict[str, Any] = {}
    for name, groups in _items("curves", curves):
        plain[name] = {}
        for group, found in _items(f"curves {name}", groups):
            plain[name][group] = {
                curve: _plain_numbers(f"{name}.{group}.{curve}", values)
                for curve, values in _items(f"curves {name}.{group}", found)
            }
    return plain


def _items(what: str, nested: Any) -> Any:
    if not isinstance(nested, Mapping):
        raise ConfigError(f"{what} must be a dict by name, got {type(nested).__name__}")
    return nested.items()


def _plain_numbers(what: str, values: Any) -> Any:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"curve {what} must be a list of numbers, or of lists of one length") from error
    if np.asarray(values).dtype.kind in "iu":
        return np.asarray(values).tolist()
    return np.where(np.isfinite(array), array.astype(object), None).tolist()


def _write_figure(folder: Path, drawing: Drawing) -> dict[str, Any]:
    buffer = io.BytesIO()
    drawing.figure.canvas.print_png(buffer)
    write_atomically(folder / f"{drawing.name}.png", buffer.getvalue())
    return {
        "name": drawing.name,
        "title": re.sub(r" 0*(\d+)$", r", page \1", drawing.name.replace("_", " ").capitalize()).replace("f1", "F1"),
        "caption": drawing.caption,
        "folded": drawing.folded,
        "section": drawing.section,
        "narrow": drawing.figure.get_figwidth() < _NARROW_INCHES,
        "png": buffer.getvalue(),
    }
