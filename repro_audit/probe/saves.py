"""When the program writes what may be its checkpoint: by `torch.save`, or into a file that it opens itself.

Of a path that `torch.save` is given, C++ opens the file, and Python tells no audit hook; so the function is wrapped.
"""

from __future__ import annotations

import functools
import linecache
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from repro_audit.context.checkpoint import Likeness, Write
from repro_audit.probe.files import users_place
from repro_audit.replacements import Replacements

_ANEW = os.O_TRUNC | os.O_EXCL
"""How a file is opened whose contents begin anew; a log is opened to be added to."""


class Saves:
    """Tells of each write of this process that may be a checkpoint.

    Args:
        root: the user's tree, as this process sees it; the working directory is below it.
        arguments: those that the program is resumed with.
        wrote: told of each write, once `torch.save` has returned or before a file is opened.
    """

    def __init__(
        self,
        root: Path,
        arguments: Sequence[str],
        wrote: Callable[[Write], None],
    ) -> None:
        self._below = _inside(str(root))
        words = [part for word in arguments for part in {word, word.rpartition("=")[2]} if part]
        self._named = frozenset(_absolute(word) for word in words)
        self._in_named = tuple(map(_inside, self._named))
        self._wrote = wrote
        self._process = os.getpid()
        self._replacements = Replacements()

    def install(self) -> None:
        """Listen; `wrap` is to follow once PyTorch is there."""
        global _listening, _hooked  # noqa: PLW0603 - an audit hook can't be removed, so it finds here what to do
        if not _hooked:
            sys.addaudithook(_hook)
            _hooked = True
        _listening = self

    def wrap(self) -> None:
        """Hear of `torch.save` too."""
        torch = sys.modules["torch"]
        original = torch.save

        @functools.wraps(original)
        def save(obj: object, f: Any, *args: Any, **kwargs: Any) -> None:
            original(obj, f, *args, **kwargs)
            self._tell(
                f if isinstance(f, (str, os.PathLike)) else getattr(f, "name", ""), saved=True
            )

        self._replacements.attribute(torch, "save", save)

    def uninstall(self) -> None:
        """Listen no more."""
        global _listening  # noqa: PLW0603 - as in `install`
        _listening = None
        self._replacements.close()

    def opened(self, path: Any) -> None:
        """A file is about to be opened that begins anew, or another one takes this name."""
        if not isinstance(path, int):
            self._tell(path, saved=False)

    def _tell(self, path: Any, *, saved: bool) -> None:
        if os.getpid() != self._process:
            return  # a worker's
        try:
            name = _absolute(os.fsdecode(path))
        except (TypeError, ValueError):
            name = ""
        likeness = self._likeness(name, saved=saved)
        if likeness is not None:
            file, line = users_place()
            self._wrote(
                Write(
                    likeness=likeness,
                    file=self._relative(file or ""),
                    line=line or 0,
                    code=linecache.getline(file, line or 0).strip() if file else "",
                )
            )

    def _likeness(self, name: str, *, saved: bool) -> Likeness | None:
        """What a write looks like; None where it is nothing that a program would resume from."""
        if name in self._named:
            return Likeness.NAMED
        if name.startswith(self._in_named):
            return Likeness.NAMED if saved else Likeness.BELOW
        if saved:
            return Likeness.SAVED
        is_below = name.startswith(self._below)
        return Likeness.OPENED if is_below and "__pycache__" not in name else None

    def _relative(self, file: str) -> str:
        return file.removeprefix(self._below)


def _inside(directory: str) -> str:
    """How the paths of files in a directory begin."""
    return directory.rstrip(os.sep) + os.sep


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - strings, for speed


_listening: Saves | None = None
_hooked = False


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _listening is None:
        return
    if event == "open":
        path, _, flags = args
        if flags & _ANEW:
            _listening.opened(path)
    elif event == "os.rename":
        _listening.opened(args[1])
