"""Which line of the program's own code is running, as ids in a trace."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import CodeType, FrameType
from typing import TypeAlias

from repro_audit.probe.files import is_users
from repro_audit.storage.events import Site

Homes: TypeAlias = Mapping[str, str]


class Sites:
    """Interns lines: one dictionary look-up for a line that was met before.

    Args:
        intern: of the writer whose rows the ids are for.
        homes: by directory below which this trial finds the tree: where the tree is.
    """

    __slots__ = ("_homes", "_ids", "_intern", "_users", "nowhere")

    def __init__(self, intern: Callable[[str], int], homes: Homes | None = None) -> None:
        self._intern = intern
        self._homes = homes or {}
        # Not by code object: equal functions at the same place of two files are equal codes.
        self._ids: dict[tuple[str, int, str], int] = {}
        self._users: dict[str, bool] = {}
        self.nowhere = intern("")
        """The id that stands for no line of the program's own."""

    def is_users(self, code: CodeType) -> bool:
        """Whether code is the program's own: not the standard library's, an installed package's, or ours."""
        known = self._users.get(code.co_filename)
        if known is None:
            known = self._users[code.co_filename] = is_users(code.co_filename)
        return known

    def at(self, code: CodeType, line: int) -> int:
        """The id of a line."""
        key = (code.co_filename, line, code.co_name)
        known = self._ids.get(key)
        if known is None:
            known = self._ids[key] = self._intern(
                Site(self.home(code), line, code.co_name, first=code.co_firstlineno).text()
            )
        return known

    def home(self, code: CodeType) -> str:
        """The file that code is from, as it is called in the tree: in a copy of it, each trial has another path."""
        file = code.co_filename
        for place, home in self._homes.items():
            if file.startswith(place + os.sep):
                return home + file[len(place) :]
        return file

    def innermost(self, frame: FrameType | None) -> int:
        """The id of the line that runs in the innermost frame of the program's own; `nowhere` without one."""
        users = self._users
        while frame is not None:
            code = frame.f_code
            known = users.get(code.co_filename)
            if known is None:
                known = self.is_users(code)
            if known:
                return self.at(code, frame.f_lineno)
            frame = frame.f_back
        return self.nowhere
