"""Where a rendered report goes: a file that is whole or not there, or stdout."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from pathlib import Path

STDOUT = "-"


def write(content: str, destination: str) -> None:
    """Write text to a file, whole or not at all, or to stdout (`-`)."""
    if destination == STDOUT:
        encoding = sys.stdout.encoding
        sys.stdout.write(content.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    else:
        write_whole(Path(destination), content)


def write_whole(path: Path, content: str) -> None:
    """Write a text file so that a reader, or a crash, never sees half of it.

    A link is followed, an existing file keeps its permissions, and what is no regular file (a
    pipe, `/dev/stdout`) is written to as it is.
    """
    mode = path.stat().st_mode if path.exists() else None
    if mode is not None and not stat.S_ISREG(mode):
        path.write_text(content, encoding="utf-8")
        return
    final = Path(os.path.realpath(path))
    temporary = final.with_name(f".{final.name[:100]}.{secrets.token_hex(4)}.part")
    with temporary.open("x", encoding="utf-8", newline="\n") as file:
        try:
            if mode is not None:
                temporary.chmod(stat.S_IMODE(mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
