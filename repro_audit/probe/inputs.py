"""The files outside of the user's tree that a trial depends on: what it has loaded, mapped, open, or has opened.

What is below the tree is known without the trial. C++ code that has read a file and closed it goes unseen.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

LOG = "inputs.txt"
"""In a trial's directory, and in that of each process of its command: a path a line."""
_OF_THE_SYSTEM = ("/proc/", "/sys/", "/dev/", "/memfd:", "/SYSV")
_MAPPED = 5
"""Fields of a line of `/proc/self/maps` before its path."""


def note(directory: Path) -> None:
    """Write down what this process has loaded, mapped and open, at the end of its training."""
    found = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    with suppress(OSError), Path("/proc/self/maps").open(encoding="utf-8") as maps:
        found.update(line.split(maxsplit=_MAPPED)[-1].rstrip("\n") for line in maps)
    with suppress(OSError), os.scandir("/proc/self/fd") as descriptors:
        for each in descriptors:
            with suppress(OSError):
                found.add(os.readlink(each.path))  # noqa: PTH115 - as the others: strings
    add(directory, *(path for path in found if isinstance(path, str)))


def add(directory: str | Path, *paths: str) -> None:
    """Add to what a process has written down, whole lines only."""
    lines = [
        f"{path}\n"
        for path in paths
        if path.startswith("/") and not path.startswith(_OF_THE_SYSTEM)
    ]
    with suppress(OSError):
        file = os.open(
            os.path.join(directory, LOG),  # noqa: PTH118 - at each opening of a file
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC,
            0o600,
        )
        try:
            os.write(file, "".join(lines).encode("utf-8", "surrogateescape"))
        finally:
            os.close(file)


def read(directory: Path) -> set[Path]:
    """What the processes of a trial have written down."""
    logs = directory.rglob(LOG)
    return {
        Path(os.fsdecode(line)) for log in logs for line in log.read_bytes().split(b"\n") if line
    }
