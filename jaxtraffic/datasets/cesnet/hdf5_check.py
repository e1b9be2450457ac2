"""Opens HDF5 files in a process of its own first: the C library crashes on some damaged files, and takes Python along.

One such process serves all files of a reading process. It ends with it, when its standard input closes.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

TIMEOUT_S = 120.0
"""Seconds after which opening a file counts as never ending."""

_CHILD = """
import json, sys
import tables, tables.attributeset
tables.silence_hdf5_messages(True)
tables.attributeset.pickle = None
print("ready", flush=True)
for line in sys.stdin:
    try:
        with tables.open_file(json.loads(line), mode="r") as file:
            for node in file.iter_nodes("/flows"):
                node.read(0, 1), node.read(node.nrows - 1, node.nrows)
    except Exception:
        pass
    print("done", flush=True)
"""
_lock = threading.Lock()


def survives(path: Path) -> bool:
    """Whether opening the file, and reading the first and the last row of each table of `/flows`, ends without a crash.

    Also True where it ends with an error, which the reader will meet and name, and where no process can be started.
    """
    with _lock:
        child = _child(os.getpid())
        if child is None:
            return True
        timer = threading.Timer(TIMEOUT_S, child.kill)
        timer.daemon = True
        timer.start()
        try:
            child.stdin.write(json.dumps(str(path)) + "\n")
            child.stdin.flush()
            if child.stdout.readline() == "done\n":
                return True
        except OSError:
            # the pipe is broken: the process died
            pass
        finally:
            timer.cancel()
        _child.cache_clear()
        _end(child)
        return False


@functools.lru_cache(maxsize=1)
def _child(_: int) -> subprocess.Popen[str] | None:
    """The process, one for each process id of ours; None where it cannot be started."""
    try:
        # -P: no module of the current folder
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except OSError:
        return None
    if child.stdout.readline() != "ready\n":
        _end(child)
        return None
    atexit.register(_end, child)
    return child


def _end(child: subprocess.Popen[str]) -> None:
    atexit.unregister(_end)
    for stream in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):
            stream.close()
    if child.poll() is None:
        child.kill()
    child.wait()
