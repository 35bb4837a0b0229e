"""stdout and stderr that outlast their readers: how far the words get never decides the exit code by accident."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from repro_audit.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STANDARD = (0, 1, 2)


class Outlet(io.FileIO):
    """A standard stream whose reader may be gone: what nobody can read any more is let go of.

    Args:
        descriptor: of the stream.
        needed: any other failure to write (a full disk, say) is raised, once, rather than passed over.
    """

    def __init__(self, descriptor: int, *, needed: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._needed = needed
        self._lost = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write `data`, or let go of it."""
        if not self._lost:
            try:
                return super().write(data)
            except OSError as error:
                self._lost = True
                if self._needed and not isinstance(error, BrokenPipeError):
                    raise UsageError(
                        "the report can not be written", where="stdout", why=str(error)
                    ) from None
        return memoryview(data).nbytes


def secure() -> None:
    """Have this process's own stdout and stderr outlast their readers. To be called before anything is opened.

    A stream that is closed gets its number back, else a socket would have it, and what a library prints would land
    there. It can not be written to: nobody is told a report that way.
    """
    opened = os.open(os.devnull, os.O_RDONLY)
    while opened in STANDARD:  # the lowest number that is free
        opened = os.open(os.devnull, os.O_RDONLY)
    os.close(opened)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(sys.stdout, 1, needed=True)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(sys.stderr, 2, needed=False)


def _text(stream: TextIO | None, descriptor: int, *, needed: bool) -> TextIO:
    """A text stream on the outlet of a descriptor, with the encoding that Python chose for it."""
    if stream is not None:
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(Outlet(descriptor, needed=needed)),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors=getattr(stream, "errors", "backslashreplace"),
        line_buffering=stream is None or not needed or stream.isatty(),
        write_through=not needed,
    )
