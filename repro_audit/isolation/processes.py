"""The lives of a trial's processes: none outlives the audit, whatever it does to get away.

Everything here asks the Linux kernel; elsewhere only process groups and core dump limits act.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""From `linux/prctl.h`."""

POLL_SECONDS = 0.001

STACKS_SIGNAL = signal.SIGRTMAX - 3 if sys.platform == "linux" else signal.SIGUSR2
"""Asks a trial where it is. Programs use SIGUSR1 and SIGUSR2, hardly ever one of these."""


def leave(status: int) -> NoReturn:
    """End this process at once, whatever the program would catch; what it has printed is printed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status)


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent dies; a parent that is dead already counts.

    The kernel means the parent's *thread* that started this process: start processes from a thread that stays.
    Children of this process are not covered, each asks for itself; so ask again after `os.fork`.

    Args:
        parent: the pid that the parent is known to have; what `os.getppid()` says now if it is not known.
    """
    if sys.platform != "linux":
        return
    expected = os.getppid() if parent is None else parent
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != expected:
        os.kill(os.getpid(), signal.SIGKILL)


def tied_to_this() -> Callable[[], None]:
    """For a child of this process to call between fork and exec: `die_with_parent`, from its first instruction on.

    All that the child needs is at hand before the fork, since it must not import.
    """
    parent = os.getpid()
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl
    arguments = (ctypes.c_int(PR_SET_PDEATHSIG), *map(ctypes.c_ulong, (signal.SIGKILL, 0, 0, 0)))

    def tie() -> None:
        prctl(*arguments)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return tie


def become_subreaper() -> None:
    """Have orphans among the descendants of this process become its children, instead of init's."""
    if sys.platform == "linux":
        _prctl(PR_SET_CHILD_SUBREAPER, 1)


def no_core_dumps() -> None:
    """Keep crashes of this process and its descendants from writing gigabytes of core dump.

    A limit of 0 does not stop a dump into a pipe (systemd-coredump, apport); 1 does: the kernel takes it for a
    handler that crashed itself, and to a file it is less than any dump needs. See core(5) and fs/coredump.c.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 0 if hard == 0 or sys.platform != "linux" else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def kill_group(pid: int) -> None:
    """Kill the process group that `pid` leads, and `pid` itself should it not have made its group yet.

    Raises:
        ValueError: for the group of this process, or a number that stands for more than one group.
    """
    if pid <= 1 or pid in (os.getpid(), os.getpgrp()):
        raise ValueError(f"{pid} is not a process group that may be killed")
    with suppress(PermissionError):  # macOS says so of a zombie
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def kill_tree(pid: int) -> None:
    """Kill the process group that `pid` leads, and first of all what is below it in other groups."""
    for below in descendants(pid):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(below, signal.SIGKILL)
    kill_group(pid)


def descendants(pid: int) -> tuple[int, ...]:
    """Every living process below `pid`, parents before their children; zombies are not living."""
    return tuple(process.pid for process in _below(pid, _processes()) if process.state not in "ZX")


def cpu_seconds(pid: int) -> float:
    """The CPU time that `pid` and its living descendants have used; 0 where it can not be told."""
    table = _processes()
    own = [process for process in table if process.pid == pid]
    return sum(process.ticks for process in (*own, *_below(pid, table))) / os.sysconf("SC_CLK_TCK")


def kill_descendants(seconds: float = 5.0) -> tuple[int, ...]:
    """Kill and reap everything below this process, whatever group, session or signal mask it has.

    A process that was orphaned is below this one only if `become_subreaper` was called before. Exit statuses are
    taken from whoever else in this process would wait for them.

    Args:
        seconds: when to give up.

    Returns:
        The processes that live on: empty but for those of another user, or stuck in the kernel.
    """
    deadline = time.monotonic() + seconds
    while _reap():
        processes = _processes()
        below = _below(os.getpid(), processes)
        if not processes or time.monotonic() > deadline:
            return tuple(process.pid for process in below)
        _kill(below, processes)
        time.sleep(POLL_SECONDS)
    return ()


@dataclass(frozen=True, slots=True)
class _Process:
    """One line of the process table."""

    pid: int
    parent: int
    group: int
    state: str
    ticks: int
    """CPU time."""


def _processes() -> list[_Process]:
    """The process table; empty where there is no /proc."""
    if sys.platform != "linux":
        return []
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with suppress(OSError):
                # The name of the command stands in parentheses, and may hold spaces and parentheses itself.
                fields = (path / "stat").read_bytes().rpartition(b")")[2].split()
                state, parent, group = fields[:3]
                ticks = int(fields[11]) + int(fields[12])
                found.append(
                    _Process(int(path.name), int(parent), int(group), state.decode(), ticks)
                )
    return found


def _below(pid: int, processes: list[_Process]) -> list[_Process]:
    """The descendants of `pid` in `processes`, parents first."""
    children: dict[int, list[_Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found = list(children.get(pid, ()))
    for process in found:  # grows while it is walked
        found += children.get(process.pid, ())
    return found


def _kill(below: list[_Process], processes: list[_Process]) -> None:
    """Kill `below`, and the groups that hold nothing else.

    A process that forks and exits all the time is never met under the pid that was read, but its group stays the
    same, and killing a group is atomic against fork.
    """
    pids = {process.pid for process in below}
    foreign = {process.group for process in processes if process.pid not in pids}
    for group in {process.group for process in below} - foreign - {0, 1}:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _reap() -> bool:
    """Collect the children that ended; whether there are any left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def _prctl(option: int, value: int) -> None:
    """`prctl(2)` with an integer, which fails only where the kernel is older than the option."""
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"prctl {option}")
