"""Reads damaged copies in a process of its own, which may die, hang or want to do what no reader may do.

    python -m tests.datasets.every_format_worker FOLDER COPIES SEED FORMAT ...

prints a line of JSON for each format. The folder is the only place where files may be written.
"""

import faulthandler
import json
import logging
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

LIMIT_S = 10.0
"""Seconds that reading a copy may take."""

LIMIT_BYTES = 1 << 30
"""Resident bytes at most."""

_FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
    *("os.symlink", "os.link", "pickle.find_class", "webbrowser.open", "ctypes.dlopen"),
)
_FORBIDDEN_OF = ("socket.", "urllib.", "ftplib.", "http.", "smtplib.", "telnetlib.", "sqlite3.")
_ON_PATHS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.chown", "os.utime")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class TooLongError(BaseException):
    """A copy took longer than it may; no `except Exception` swallows it."""


class ForbiddenError(BaseException):
    """A reader did what none may do."""


class Guard:
    """An audit hook that allows a folder to be written to, and data to be read from it alone."""

    def __init__(self, folder: Path):
        self.folder = os.path.realpath(folder) + os.sep
        self.armed = False
        self.seen: list[str] = []
        self.readable = (
            *(self.folder, sys.prefix, sys.base_prefix, os.getcwd(), "/proc/", "/sys/", "/dev/null"),
            *("/usr/share/zoneinfo", "/etc/localtime"),
        )
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple) -> None:
        """Raises ForbiddenError where it is armed."""
        if self.armed and self._forbidden(event, args):
            self.seen.append(f"{event} {str(args)[:200]}")
            raise ForbiddenError(self.seen[-1])

    def _forbidden(self, event: str, args: tuple) -> bool:
        if event == "subprocess.Popen":
            # the reader of HDF5 opens files in a process of its own first: the same program, and nothing of the file
            from jaxtraffic.datasets.cesnet import hdf5_check

            return list(args[1]) != [sys.executable, "-P", "-c", hdf5_check._CHILD]
        if event == "exec":
            # code out of a text; modules have files
            return not os.path.isabs(args[0].co_filename) and not args[0].co_filename.startswith("<frozen")
        if event == "open" and isinstance(args[0], str | bytes):
            # a temporary file without a name is opened as its folder
            place = os.path.realpath(os.fsdecode(args[0])) + os.sep
            if args[2] & _WRITES:
                return place != os.devnull + os.sep and not place.startswith(self.folder)
            return not place.startswith(self.readable)
        if event == "os.kill":
            # a process of our own that hangs or has crashed
            return Path(f"/proc/{args[0]}/stat").read_text().rpartition(")")[2].split()[1] != str(os.getpid())
        if event in _ON_PATHS:
            return not os.path.realpath(os.fsdecode(args[0])).startswith(self.folder)
        return event in _FORBIDDEN or event.startswith(_FORBIDDEN_OF)


def main(folder: Path, n: int, seed: int, names: list[str]) -> None:
    """Reads n damaged copies of each format and prints what came of them."""
    # whatever is unpacked in passing lands where it is seen
    os.environ["TMPDIR"] = str(folder / "tmp")
    (folder / "tmp").mkdir()
    from tests.datasets.every_format import EXPANDING, FORMATS

    def too_long(*_):
        raise TooLongError

    logging.disable()
    signal.signal(signal.SIGALRM, too_long)
    # far above what is allowed, so that what takes too much is seen and not refused, but below what the machine has
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + (6 << 30),) * 2)
    guard = Guard(folder)
    for name in names:
        print(json.dumps(read_copies(name, (FORMATS | EXPANDING)[name], folder, n, seed, guard)), flush=True)


def read_copies(name, fmt, folder, n, seed, guard):
    """Result of one format: numbers, and what went wrong (empty where all is well)."""
    from jaxtraffic.errors import ConfigError, JaxTrafficError

    place = folder / "sets" / "".join(letter if letter.isalnum() else "_" for letter in name)
    place.mkdir(parents=True)
    file, source = fmt.make(place)
    data = file.read_bytes()
    ways = []
    for options in fmt.options() if fmt.read is None else [None]:
        try:
            flows = fmt.flows(source, options)
        except ConfigError:
            continue
        if flows:
            ways.append(options)
    assert ways, "nothing reads the valid file"
    before = _tree(folder)
    # the mark of the highest memory starts again
    Path("/proc/self/clear_refs").write_text("5")
    result = {
        "format": name,
        "copies": 0,
        "refused": 0,
        "read": 0,
        "longest_s": 0.0,
        "longest_message": 0,
        "failures": [],
    }
    # code that never comes back to Python hears no alarm
    faulthandler.dump_traceback_later(600 + LIMIT_S, exit=True)
    for index, copy in enumerate(fmt.copies(data, n, seed)):
        file.write_bytes(copy)
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
        guard.armed, start, problem = True, time.perf_counter(), None
        try:
            fmt.flows(source, ways[index % len(ways)])
            result["read"] += 1
        except JaxTrafficError as error:
            result["refused"] += 1
            result["longest_message"] = max(result["longest_message"], len(str(error)))
        except BaseException:
            problem = traceback.format_exc()[-1500:]
        finally:
            guard.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        result["longest_s"] = max(result["longest_s"], round(time.perf_counter() - start, 3))
        result["copies"] += 1
        if guard.seen:
            problem, guard.seen = f"{problem} {guard.seen}", []
        if _status("VmHWM") > LIMIT_BYTES:
            problem = f"{problem} resident memory {_status('VmHWM') >> 20} MiB"
            Path("/proc/self/clear_refs").write_text("5")
        if problem:
            kept = folder / f"failure-{len(result['failures'])}-{place.name}"
            kept.write_bytes(copy)
            before.add(kept)
            result["failures"].append(f"copy {index} ({ways[index % len(ways)]}): {problem}")
            if len(result["failures"]) > 4:
                break
    faulthandler.cancel_dump_traceback_later()
    result["memory_mib"] = _status("VmHWM") >> 20
    if _tree(folder) != before:
        result["failures"].append(f"files that were not there: {sorted(map(str, _tree(folder) ^ before))[:5]}")
    return result


def _status(field: str) -> int:
    """Bytes of a field of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise KeyError(field)


def _tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
