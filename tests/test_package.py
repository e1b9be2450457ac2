"""The package as a whole: lazy import, direction of imports, file sizes, names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxtraffic

ROOT = Path(jaxtraffic.__file__).parent
# From the top of the house to its foundation (DESIGN.md); a file may import from its own room and from later ones.
ROOMS = [
    *(
        "__main__",
        "command",
        "experiments",
        "report",
        "evaluate",
        "classify",
        "generate",
        "information",
        "train",
        "nn",
        "represent",
    ),
    *("augment", "datasets", "scaling", "quantile_scaling", "parallel", "prng", "series", "errors"),
]
NUMPY_ONLY = {"report": {"jax", "flax", "optax", "orbax"}}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module == "jaxtraffic":
                yield from (f"jaxtraffic.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py" or path.parent != ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path):
    room = room_of(path)
    assert room in ROOMS, f"{room} is not a room of DESIGN.md"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "jaxtraffic" and len(parts) > 1 and parts[1] in ROOMS:
            assert ROOMS.index(parts[1]) >= ROOMS.index(room), f"{path} imports {name}, which lies above it"
        if parts[0] == "flax":
            assert room == "nn", f"{path}: only nn imports flax"
        assert parts[0] not in NUMPY_ONLY.get(room, ()), f"{path}: {room} does not import {name}"
        assert parts[0] != "pickle", f"{path}: never pickle"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_one_room_each(path):
    assert len(path.read_text().splitlines()) <= 400
    assert path.stem not in ("utils", "helpers", "common", "misc")


def in_new_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_import_is_quick_and_silent():
    code = "import time; t = time.perf_counter(); import jaxtraffic; s = time.perf_counter() - t\n"
    code += "import sys; assert 'jax' not in sys.modules and 'polars' not in sys.modules; assert s < 2, s"
    done = in_new_process(code)
    assert not done.stdout and not done.stderr


def test_rooms_write_no_jax_configuration():
    code = "import jax; before = dict(jax.config.values)\n"
    code += "import jaxtraffic as jt\nfor room in jt.__all__: getattr(jt, room)\n"
    code += "changed = {k for k in before if before[k] != jax.config.values[k]}; assert not changed, changed"
    done = in_new_process(code)
    assert not done.stdout and not done.stderr


def test_public_names_exist_and_unknown_ones_do_not():
    for name in jaxtraffic.__all__:
        assert getattr(jaxtraffic, name) is not None
    assert set(jaxtraffic.__all__) <= set(dir(jaxtraffic))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = jaxtraffic.nothing
