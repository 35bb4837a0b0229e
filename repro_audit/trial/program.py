"""What every trial of a program hangs on beside its setting: files of the program, tool, machine and environment.

`storage.fingerprint` says in words what two runs do not share. This says, before anything has run, whether two runs may
be told apart at all, and would rather say so once too often.
"""

from __future__ import annotations

import math
import os
import platform
import stat
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import xxhash

from repro_audit import __version__
from repro_audit.isolation.copying import walk

Identity: TypeAlias = "tuple[int, ...]"
"""Of a file: another one whenever its content was written anew, though it be with the same."""

MOST_FILES = 200_000
"""A tree of more takes too long to look at."""
_BYTES_READ = 1 << 20
"""A file of the tree up to here is known by its content."""
PACKAGE = Path(__file__).resolve().parents[1]
_OF_A_SESSION = frozenset(
    (
        *("_", "SHLVL", "OLDPWD", "COLUMNS", "LINES", "TERM", "COLORTERM", "WINDOWID", "DISPLAY"),
        *("TMUX", "TMUX_PANE", "STY", "TERM_PROGRAM", "TERM_SESSION_ID", "PYTEST_CURRENT_TEST"),
        *("XDG_SESSION_ID", "DBUS_SESSION_BUS_ADDRESS"),
    )
)
"""Variables that are others in another terminal, from which an audit may go on."""
_OF_A_CONNECTION = ("SSH_", "VSCODE_")
"""How others of them begin."""
_OF_THE_MACHINE = ("/etc/localtime", "/sys/fs/cgroup/cpu.max", "/proc/driver/nvidia/version")
_OF_GIT = ("HEAD", "packed-refs", "refs")
"""What a program may ask of its repository; the rest of `.git` changes when somebody only looks."""


def fingerprint(
    root: Path, words: Sequence[str], outputs: Collection[Path], since: float = math.inf
) -> dict[str, str] | None:
    """By the name of each thing, a digest that is another one where the thing is.

    Args:
        root: the user's tree.
        words: the program's arguments: the files and directories that they name are looked at too.
        outputs: files in it that the audit itself writes.
        since: a moment, in seconds since 1970, after which nothing of all this may have changed.

    Returns:
        None where something has, or the tree is too large.
    """
    files = {}
    for number, (path, status) in enumerate(_found(root, words)):
        if path in outputs:
            continue
        if number >= MOST_FILES or status.st_ctime > since:
            return None
        if not stat.S_ISDIR(status.st_mode):
            small = status.st_size <= _BYTES_READ and "site-packages" not in path.parts
            content = _digest(path, identity(status)) if small else ""
            name = path.relative_to(root) if path.is_relative_to(root) else path
            files[str(name)] = content or repr(identity(status))
    tool = [_digest(path, identity(path.stat())) for path in sorted(PACKAGE.rglob("*.py"))]
    others = {
        **{f"${name}": value for name, value in os.environ.items() if _counts(name)},
        "repro-audit": [__version__, *tool],
        "Python": [sys.version, sys.executable, *_importable()],
        "the machine": [*_machine()],
        "the working directory": Path.cwd(),
    }
    # Variables may hold what is nobody's business.
    return files | {
        name: xxhash.xxh3_128_hexdigest(repr(value).encode("utf-8", "surrogateescape"))
        for name, value in others.items()
    }


def identity(status: os.stat_result) -> Identity:
    """What no writer of a file can keep as it is: the time of its last change is the file system's own."""
    return (
        *(status.st_dev, status.st_ino, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )


def _counts(name: str) -> bool:
    return name not in _OF_A_SESSION and not name.startswith(_OF_A_CONNECTION)


def _importable() -> Iterator[object]:
    """The names of what could be imported: of packages, their versions with them."""
    for place in dict.fromkeys(path for path in sys.path if Path(path).absolute() != Path.cwd()):
        with suppress(OSError):
            yield place, sorted(filter(_is_module, os.listdir(place)))  # noqa: PTH208


def _is_module(name: str) -> bool:
    """Whether something in a directory of modules may be one, or tells of one."""
    return not name.startswith((".", "__pycache__")) and (
        "." not in name or name.endswith((".py", ".so", ".pth", "-info", ".zip", ".egg-link"))
    )


def _found(root: Path, words: Sequence[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """What a program may find in its tree, through links out of it, and where its arguments lead."""
    named = [Path(word.rpartition("=")[2]) for word in words if word.rpartition("=")[2]]
    places, seen = [root, *named], set[Path]()
    for place in places:
        real = Path(os.path.realpath(place))
        if seen.isdisjoint((real, *real.parents)) and real.exists():
            seen.add(real)
            yield real, real.stat()
            for path, status in _below(real):
                yield path, status
                if stat.S_ISLNK(status.st_mode):
                    places.append(path)


def _below(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """What counts of a directory."""
    for path, status in walk(root):
        place = path.relative_to(root).parts
        git = place.index(".git") if ".git" in place[:-1] else None
        of_git = git is None or place[git + 1] in _OF_GIT
        if of_git and "__pycache__" not in place:
            yield path, status


def _digest(path: Path, known: Identity) -> str:
    """Of a file's content, or of where a link leads; empty where it can not be read."""
    with suppress(OSError):
        if path.is_symlink():
            leads = path.stat()
            # What is in a directory is looked at by itself.
            return f"{path.readlink()} {'' if stat.S_ISDIR(leads.st_mode) else identity(leads)}"
        return _of_content(path, known)
    return ""


@lru_cache(maxsize=MOST_FILES)
def _of_content(path: Path, _known: Identity) -> str:
    """A file that has not changed is not read again."""
    if not path.is_file():  # a pipe, a socket
        return ""
    return xxhash.xxh3_128_hexdigest(path.read_bytes())


def _machine() -> Iterator[object]:
    """What a program may ask of the machine, as far as it stays the same while nobody changes it."""
    yield platform.uname()
    yield from (os.sched_getaffinity(0), os.cpu_count(), time.tzname, os.getuid())
    yield os.sysconf("SC_PHYS_PAGES")
    places = [*map(Path, _OF_THE_MACHINE), *Path("/proc/driver/nvidia/gpus").glob("*/information")]
    for place in sorted(places):
        with suppress(OSError):
            yield place.read_bytes()
    with suppress(OSError):
        # The first CPU, without what changes from one moment to the next.
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
        yield [line for line in first.splitlines() if "MHz" not in line]
