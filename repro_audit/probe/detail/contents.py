"""A row for every file that the program opens, with the digest of what was in it at that moment.

Python's audit hook tells of it, so what C++ code opens goes unseen (`torch.save` to a path, `torchvision.io`), and so
does what other threads than the training's open.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import threading
from pathlib import Path
from typing import final

import xxhash

from repro_audit.probe.clock import Clock
from repro_audit.probe.detail.sites import Sites
from repro_audit.probe.files import is_users
from repro_audit.storage.events import NOTHING, DetailWriter, Kind

WHOLE_BYTES = 1 << 26
"""Of a larger file, the beginning, the end and the size count."""
_MOST_BYTES = 1 << 30
"""Once so much was read, every further file counts by its ends."""
_END_BYTES = 1 << 20
_CODE = (".py", ".pyc", ".so")
_NO_DATA = ("/proc/", "/dev/", "/sys/")
_RANDOM_NAME = re.compile(r"/tmp[a-z0-9_]{8}(?=[/.]|$)")  # noqa: S108 - a pattern
"""Of `tempfile`: no two runs share it."""
_FILE = int(Kind.FILE)


@final
class Contents:
    """Writes the rows of files.

    Args:
        writer: of the rows.
        sites: of the same writer.
        clock: the step and the phase under way.
        ours: a directory of the audit's own, of which nothing is told unless it is part of the tree.
    """

    __slots__ = ("_clock", "_left", "_ours", "_owner", "_sites", "_writer")

    def __init__(self, *, writer: DetailWriter, sites: Sites, clock: Clock, ours: Path) -> None:
        self._writer = writer
        self._sites = sites
        self._clock = clock
        self._ours = os.path.realpath(ours) + os.sep
        self._left = _MOST_BYTES
        self._owner = (os.getpid(), threading.get_ident())

    def opened(self, name: str, shown: str, access: str) -> None:
        """A file is about to be opened; `shown` is its path as reports write it, relative below the tree."""
        if (os.getpid(), threading.get_ident()) != self._owner or not self._is_data(name, shown):
            return
        site = self._sites.innermost(sys._getframe(1))
        if site == self._sites.nowhere:
            return
        writer, clock = self._writer, self._clock
        ids = (writer.intern(shown), site, self._sites.nowhere, writer.intern(access))
        writer.add(_FILE, clock.step, clock.phase, *ids, NOTHING, self._digest(name))

    def _is_data(self, name: str, shown: str) -> bool:
        if name.endswith(_CODE) or not is_users(name) or _RANDOM_NAME.search(name):
            return False
        if os.path.isdir(name):  # noqa: PTH112 - strings, for speed
            return False  # a nameless temporary file in it
        is_below_tree = shown != name
        return is_below_tree or not name.startswith((*_NO_DATA, self._ours))

    def _digest(self, name: str) -> bytes:
        """The digest of a file; of what is none, or can't be read, that of nothing."""
        try:
            info = os.stat(name)  # noqa: PTH116 - strings, for speed
            if not stat.S_ISREG(info.st_mode):
                return NOTHING
            file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return NOTHING
        try:
            return self._digest_open(file, info.st_size)
        except OSError:
            return NOTHING
        finally:
            os.close(file)

    def _digest_open(self, file: int, size: int) -> bytes:
        state = xxhash.xxh3_128()
        if size > min(WHOLE_BYTES, self._left):
            state.update(b"%d:" % size)
            state.update(os.pread(file, _END_BYTES, 0))
            state.update(os.pread(file, _END_BYTES, max(0, size - _END_BYTES)))
            return state.digest()
        self._left -= size
        while block := os.read(file, _END_BYTES):
            state.update(block)
        return state.digest()
