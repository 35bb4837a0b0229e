"""Which line of the program's own code is running, as ids in a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro_audit.detail import Site
from repro_audit.probe.files import is_users

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType


class Sites:
    """Interns lines: one dictionary look-up for a line that was met before.

    Args:
        intern: of the writer whose rows the ids are for.
    """

    __slots__ = ("_ids", "_intern", "_users", "nowhere")

    def __init__(self, intern: Callable[[str], int]) -> None:
        self._intern = intern
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
            known = self._ids[key] = self._intern(Site(*key, first=code.co_firstlineno).text())
        return known

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
