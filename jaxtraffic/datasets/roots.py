"""Where data live on this machine, and replacing a file in one step."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

ENVIRONMENT = "JAXTRAFFIC_DATA"
"""Environment variable that names the data root."""


def data_root(argument: str | Path | None = None) -> Path:
    """The folder that holds data sets: the argument, else $JAXTRAFFIC_DATA, else the user's cache folder.

    The folder need not exist.
    """
    chosen = argument or os.environ.get(ENVIRONMENT)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("jaxtraffic"))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes its place when the block ends well and is removed when not.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        # mkstemp makes files that only their owner can read; a data file gets the permissions of any new file
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
