"""Files below the user's tree that the program opens, and embeddings that come out of a pickle.

Python tells an audit hook of every `open`, and of much else, so the hook looks at the event's name first. What C++ code
opens goes unseen: `torch.save` to a path, for one.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from repro_audit import notebook
from repro_audit.probe import inputs
from repro_audit.storage.border import append, entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EMBEDDING = ("torch.nn.modules.sparse", "Embedding")
HOOK = "repro-audit-hook"
"""The directory of the module by which a trial reaches interpreters that the program starts."""
_WRITING = os.O_WRONLY | os.O_RDWR
_MOST_LINES = 20_000
"""A process that opens more files than this at distinct places has its later ones left out."""
_MOST_HERE = 1_000
"""Of the files that one line opens, those after so many are left out: they cost more than they tell."""
_CODE = (".py", ".pyc", ".so")
_LISTING = ("os.listdir", "os.scandir")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A file that the program opened, or that a pickled embedding came from."""

    event: str
    """`open`, or `embedding`."""
    path: str
    """The file's path: relative to the tree below it, else absolute."""
    mode: str
    """`r`, `w` or `rw`."""
    file: str | None
    """The user's source file, and its line; None where no code of theirs is on the stack."""
    line: int | None


def read_openings(path: Path) -> list[Opening]:
    """What the processes of a trial wrote; a line that was torn by a killed process is left out."""
    return list(entries(path, Opening))


def place(file: str | None, line: int | None) -> str:
    """A line of the user's code, its file relative to the working directory where it lies below."""
    if file is None:
        return "a place outside the program's own files"
    return notebook.place(relative(file), line or 0)


def relative(file: str) -> str:
    """A file as it is called from the working directory, where it lies below."""
    with suppress(ValueError):
        return str(Path(file).relative_to(Path.cwd()))
    return file


# In the trial


def install(root: Path, log: Path, *, outside: bool = True) -> None:
    """Log what is opened below `root`, in this process and those forked from it; called again, to another log.

    Of what is read `outside` of it, `inputs` has the paths beside the log.
    """
    global _watch, _hooked  # noqa: PLW0603 - an audit hook can't be removed, so it finds here what to do
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    _watch = _Watch(root, log, outside=outside)


def uninstall() -> None:
    """Log nothing more."""
    global _watch  # noqa: PLW0603 - as in `install`
    _watch = None


def detail(opened: Callable[[str, str, str], None] | None) -> None:
    """Tell of every single opening, with the file's path, that path as `Opening` has it, and the mode; None to stop."""
    global _detail  # noqa: PLW0603 - as in `install`
    _detail = opened


def installed() -> tuple[str, str] | None:
    """What `install` was given, for a process that begins as a new interpreter."""
    return (_watch.root, _watch.log) if _watch is not None else None


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        if _watch is not None:
            _watch.opened(*args)
    elif event in _LISTING:
        if _watch is not None:
            _watch.listed(args[0])
    elif event == "pickle.find_class" and _watch is not None and args == EMBEDDING:
        _watch.unpickled()


class _Watch:
    """What to log, and what was logged."""

    def __init__(self, root: Path, log: Path, *, outside: bool) -> None:
        self.root = os.path.realpath(root)
        self.log = os.path.abspath(log)  # noqa: PTH100 - strings, for speed
        self._prefixes = tuple({self.root + os.sep, os.path.abspath(root) + os.sep})  # noqa: PTH100
        self._logged: set[tuple[str, str, str, str | None, int | None]] = set()
        self._here: Counter[tuple[str | None, int | None, str]] = Counter()
        self._busy = False
        self._last_read = ""
        self._outside: set[str] | None = set() if outside else None
        """What was looked at by `_read_outside`; None where that is not wanted."""

    def opened(self, path: Any, mode: str | None, flags: int) -> None:
        """A file is about to be opened."""
        if self._busy or isinstance(path, int):
            return
        self._busy = True
        try:
            name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
            access = _access(mode, flags)
            self._note(name, access)
            if _detail is not None:
                # What it opens itself goes by, since this is busy.
                _detail(name, self._relative(name), access)
        except (TypeError, ValueError, OSError):  # the program's own open will say it
            pass
        finally:
            self._busy = False

    def listed(self, path: Any) -> None:
        """A directory is about to be listed."""
        if self._busy or self._outside is None or isinstance(path, int):
            return
        self._busy = True
        try:
            self._read_outside(os.path.abspath(os.fsdecode(path or ".")))  # noqa: PTH100
        except (TypeError, ValueError, OSError):  # as in `opened`
            pass
        finally:
            self._busy = False

    def _read_outside(self, name: str) -> None:
        """Note, once, what was read that is not below the tree, or there by a link only."""
        if self._outside is None or name in self._outside:
            return
        self._outside.add(name)
        real = os.path.realpath(name)
        if not f"{real}{os.sep}".startswith(self._prefixes):
            inputs.add(os.path.dirname(self.log), real)  # noqa: PTH120

    def _note(self, name: str, access: str) -> None:
        if access == "r" and not name.endswith(_CODE):
            self._last_read = name
        if name.startswith(self._prefixes) and "__pycache__" not in name and is_users(name):
            self._add("open", name, access)
        if access == "r" and not name.endswith(_CODE):
            self._read_outside(name)

    def unpickled(self) -> None:
        """A pickle, most likely the file that was opened last, holds an embedding."""
        if not self._busy:
            self._busy = True
            try:
                self._add("embedding", self._last_read, "r")
            finally:
                self._busy = False

    def _add(self, event: str, name: str, access: str) -> None:
        file, line = users_place()
        key = (event, name, access, file, line)
        if key in self._logged or len(self._logged) >= _MOST_LINES:
            return
        here = (file, line, access)
        if self._here[here] >= _MOST_HERE:
            return
        self._here[here] += 1
        self._logged.add(key)
        opening = Opening(event=event, path=self._relative(name), mode=access, file=file, line=line)
        with suppress(OSError):
            append(self.log, opening)

    def _relative(self, name: str) -> str:
        for prefix in self._prefixes:
            if name.startswith(prefix):
                return name[len(prefix) :]
        return name


_watch: _Watch | None = None
_detail: Callable[[str, str, str], None] | None = None
_hooked = False


def _access(mode: str | None, flags: int) -> str:
    """What an `open` event is for; `os.open` gives flags only."""
    if mode is None:
        return {0: "r", os.O_WRONLY: "w"}.get(flags & _WRITING, "rw")
    if "+" in mode:
        return "rw"
    return "w" if any(letter in mode for letter in "wax") else "r"


# Whose code


def users_place() -> tuple[str | None, int | None]:
    """File and line of the innermost frame of the user's code."""
    frame = sys._getframe(1)
    while not is_users(frame.f_code.co_filename):
        if frame.f_back is None:
            return None, None
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _libraries() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    places = {sysconfig.get_path(name) for name in names} | {str(Path(__file__).parents[1])}
    return tuple(place + os.sep for place in places | set(map(os.path.realpath, places)))


_LIBRARIES = _libraries()


@lru_cache(maxsize=4096)
def is_users(filename: str) -> bool:
    """Whether a file is the program's own: not the standard library, an installed package, this one, or compiled."""
    # What `torch.compile` writes is Python code too.
    compiled = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if compiled and filename.startswith(compiled.rstrip(os.sep) + os.sep):
        return False
    ours = f"{os.sep}{HOOK}{os.sep}" in filename
    return not (ours or filename.startswith(("<", *_LIBRARIES)) or "site-packages" in filename)


_looked_at: tuple[str, tuple[str, ...]] = ("", ("__main__",))
"""The last of the modules that need no second look, and those of them that do."""


def know_libraries() -> None:
    """Pass over the libraries that are loaded by now: a look at each would cost a forked process a copy of its page."""
    global _looked_at  # noqa: PLW0603 - forked processes find it
    own = (name for name, _, _ in program_modules())
    _looked_at = next(reversed(sys.modules)), ("__main__", *own)


def program_modules() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The program's own modules that are loaded: the name, the file, and what is at the top level."""
    last, own = _looked_at
    later = [*takewhile(lambda name: name != last, reversed(sys.modules))]
    for name in dict.fromkeys((*own, *reversed(later))):
        module: Any = sys.modules.get(name)
        if isinstance(module, ModuleType):
            # Past a lazy module's own way of getting attributes, which would import it.
            contents = object.__getattribute__(module, "__dict__")
            file = contents.get("__file__")
            if isinstance(file, str) and is_users(file):
                yield name, file, contents
