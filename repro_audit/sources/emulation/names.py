"""What a program is told of the host and the user that it runs as, and what another machine would tell: two levels.

Nothing else changes: what the names lead to is there by the other ones too.
"""

from __future__ import annotations

import os
import platform
import pwd
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.replacements import Replacements, environment
from repro_audit.sources.emulation.callers import asker

HOST, USER = "host", "user"

NOWHERE = ("localhost", "another-host")
"""What another host is called: by a name that leads to this one, unless it is called that itself."""
NODE = 0x0242_C0FF_EE00
"""A hardware address that is given out locally."""

NOBODY = "somebody-else"
NAMES_OF_USER = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""Where `getpass.getuser` looks, in its order."""
REAL_UID = os.getuid()
_THROUGH = ("posixpath", "pathlib", "getpass")


@contextmanager
def another_host(trial: TrialContext) -> Iterator[None]:
    """Another name and number for `socket.gethostname`, `platform.node`, `os.uname`, `HOSTNAME` and `uuid.getnode`."""
    uname = os.uname()
    name = next(name for name in NOWHERE if name != uname.nodename)
    other = os.uname_result((uname.sysname, name, uname.release, uname.version, uname.machine))
    with Replacements() as replacements:
        replacements.attribute(os, "uname", lambda: other)
        replacements.attribute(socket, "gethostname", lambda: name)
        replacements.attribute(platform, "_uname_cache", None)  # it is filled from `os.uname`
        trial.when_imported(
            "uuid",
            lambda: replacements.attribute(sys.modules["uuid"], "getnode", lambda: NODE),
        )
        with environment({"HOSTNAME": name} if "HOSTNAME" in os.environ else {}):
            yield


@contextmanager
def another_user(trial: TrialContext) -> Iterator[None]:
    """Another name for `getpass.getuser`, `os.getlogin` and the environment, another number, another path of home."""
    home = _home(trial)
    values = dict.fromkeys(NAMES_OF_USER, NOBODY) | ({"HOME": home} if home else {})
    with Replacements() as replacements, environment(values):
        replacements.attribute(os, "getlogin", lambda: NOBODY)
        for name in ("getuid", "geteuid"):
            _show_number(name, replacements)
        _show_account(home, replacements)
        yield


def other_uid() -> int:
    """The number of a user who is neither this one nor the machine's administrator."""
    return 5001 if REAL_UID != 5001 else 5002  # noqa: PLR2004 - of two


def _show_number(name: str, replacements: Replacements) -> None:
    original = getattr(os, name)

    def function() -> int:
        number: int = original()
        is_asked = number == REAL_UID and asker(sys._getframe(1), _THROUGH) is not None
        return other_uid() if is_asked else number

    replacements.attribute(os, name, function)


def _show_account(home: str, replacements: Replacements) -> None:
    """The user's entry among all users', by either number and by the other name."""
    of_number, of_name = pwd.getpwuid, pwd.getpwnam

    def other(entry: Any) -> Any:
        changed = (NOBODY, entry.pw_passwd, other_uid(), entry.pw_gid, entry.pw_gecos)
        return pwd.struct_passwd((*changed, home or entry.pw_dir, entry.pw_shell))

    def getpwuid(uid: Any, /) -> Any:
        return other(of_number(REAL_UID)) if uid in (REAL_UID, other_uid()) else of_number(uid)

    def getpwnam(name: Any, /) -> Any:
        return other(of_number(REAL_UID)) if name == NOBODY else of_name(name)

    replacements.attribute(pwd, "getpwuid", getpwuid)
    replacements.attribute(pwd, "getpwnam", getpwnam)


def _home(trial: TrialContext) -> str:
    """The same home directory by a path that is the same in all trials; empty where there is none such."""
    real = os.path.expanduser("~")  # noqa: PTH111 - as `Path.home`, which raises
    if len(trial.temporary) < 2 or not Path(real).is_dir():  # noqa: PLR2004 - else it is the trial's own
        return ""
    other = trial.temporary[0] / f"home-of-{NOBODY}"
    with suppress(FileExistsError):
        other.symlink_to(real, target_is_directory=True)
    return str(other)
