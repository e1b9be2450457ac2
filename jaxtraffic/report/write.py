"""Writing a report into a run folder: figures, report.html and, last of all, report.json."""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtraffic.errors import ConfigError, DataError
from jaxtraffic.report import figures
from jaxtraffic.report.figures import Drawing
from jaxtraffic.report.judgements import per_class_f1
from jaxtraffic.report.loss_log import last_value, read_metrics
from jaxtraffic.report.page import render_page
from jaxtraffic.report.series_pages import series_pages

_LOGGED = {
    "step": "Last step",
    "epoch": "Last epoch",
    "loss": "Last logged loss",
    "seconds": "Seconds until the last log",
}


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
) -> Path:
    """Draws figures/*.png, writes report.html, and last report.json, whose presence says that the run is complete.

    Every file appears whole or not at all; a report.json of an earlier attempt is removed first. The loss curve is read
    from metrics.jsonl in the folder, and left out where there is none.

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

    Returns:
        The path of report.html.

    Raises:
        ConfigError: arrays that do not fit each other or the class names, no `data.source`, judgements that are not
            flat.
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
    (run_dir / "report.json").unlink(missing_ok=True)
    drawings = [
        *figures.loss_curve(lines),
        *series_pages(real, real_label, synthetic, synthetic_label, tuple(class_names)),
        *figures.sizes_by_position(real, synthetic),
        *figures.position_images(real, synthetic),
        *figures.lengths_and_directions(real, synthetic),
        *figures.per_class_f1_bars(per_class_f1(judgements)),
    ]
    shown = [_write_figure(run_dir / "figures", drawing) for drawing in drawings]
    logged = {title: last_value(lines, key) for key, title in _LOGGED.items()}
    training_facts = {title: value for title, value in logged.items() if value is not None}
    page = render_page(config, judgements, shown, training_facts)
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


def _write_figure(folder: Path, drawing: Drawing) -> dict[str, Any]:
    buffer = io.BytesIO()
    drawing.figure.canvas.print_png(buffer)
    write_atomically(folder / f"{drawing.name}.png", buffer.getvalue())
    return {
        "name": drawing.name,
        "title": drawing.name.replace("_", " ").capitalize(),
        "caption": drawing.caption,
        "folded": drawing.folded,
        "png": buffer.getvalue(),
    }
