"""A run folder while it is being made: who may write into it, and what config.json says of the machine."""

from __future__ import annotations

import dataclasses
import json
import platform
import shlex
import subprocess
import sys
import tempfile
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from jaxtraffic.errors import ConfigError
from jaxtraffic.generate.config import from_dict
from jaxtraffic.report.write import write_atomically


def open_folder(folder: Path, described: dict[str, Any], *, resume: bool) -> bool:
    """Creates the run folder with config.json, or checks that it belongs to this run; False where it is complete."""
    path = folder / "config.json"
    described = json.loads(json.dumps(described))
    if path.exists():
        if not resume:
            raise ConfigError(f"{folder} holds a run already; add --resume to go on with it, or choose another --out")
        try:
            stored = json.loads(path.read_text())
        except ValueError as error:
            raise ConfigError(f"{path} is not readable JSON ({error}); choose another --out") from error
        stored = _with_defaults(stored)
        for name, value in described.items():
            if stored.get(name) != value:
                raise ConfigError(
                    f"--resume: {path} was written with other options ({_difference(name, stored.get(name), value)})"
                )
        return not (folder / "report.json").exists()
    make_folder(folder, empty=not resume)
    write_config(folder, described | environment())
    return True


def make_folder(folder: Path, *, empty: bool = True) -> None:
    """Makes the run folder; refuses one that cannot be written, and with `empty` one that holds something."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if empty and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty; choose another --out")
        # A folder that exists may still be read-only.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written: {error.strerror or error}; choose another") from error


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Writes config.json, whole or not at all."""
    write_atomically(folder / "config.json", json.dumps(config, indent=2).encode())


def _with_defaults(stored: dict[str, Any]) -> dict[str, Any]:
    """config.json of a run that began before some options existed, with the defaults of those."""
    if "generator" in stored:
        complete = json.loads(json.dumps(dataclasses.asdict(from_dict(stored["generator"]))))
        stored = stored | {"generator": complete}
    return {"reflow": 0, "information": False, "downstream": [], "multiple": 1} | stored


def _difference(name: str, stored: Any, wanted: Any) -> str:
    """The first place where two nested values differ, as a phrase."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for key in wanted:
            if stored.get(key) != wanted[key]:
                return _difference(f"{name}.{key}", stored.get(key), wanted[key])
    return f"{name}: {str(stored)[:60]} there, {str(wanted)[:60]} now"


def environment() -> dict[str, Any]:
    """Command line, time, versions, device and git revision, for config.json."""
    packages = ("jaxtraffic", "jax", "flax", "optax", "orbax-checkpoint", "numpy", "polars", "xgboost")
    device = jax.devices()[0]
    return {
        "command": shlex.join(["python", *sys.argv]),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    """Revision of the repository that holds this package; None where it is installed, in whatever repository."""
    place = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=place, check=True).stdout.strip()

    try:
        return git("ls-files", "--error-unmatch", "__init__.py") and git("rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return None
