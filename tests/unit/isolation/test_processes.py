"""No process of a trial outlives it, whatever it does to get away."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit.isolation import processes
from repro_audit.isolation.processes import (
    become_subreaper,
    descendants,
    die_with_parent,
    kill_descendants,
    kill_group,
    no_core_dumps,
)
from tests.trees import run

if TYPE_CHECKING:
    from collections.abc import Callable

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")

DEADLINE = 30


class Family:
    """A pipe that every process of a family holds open: it ends when the last of them has died.

    A process says its pid, as a JSON line, once it is what the test wants it to be.
    """

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def fork(self, action: Callable[[], Any]) -> int:
        """A child that does `action` and waits for its end."""
        child = os.fork()
        if child == 0:
            try:
                with suppress(OSError):  # a grandchild's parent closed it
                    os.close(self.reader)
                action()
                self.wait()
            finally:
                os._exit(1)
        return child

    def wait(self) -> None:
        """Say the pid, and wait for a signal."""
        os.write(self.writer, b"%d\n" % os.getpid())
        while True:
            signal.pause()

    def pids(self, number: int) -> list[int]:
        """What that many processes said."""
        said = b""
        while said.count(b"\n") < number:
            said += self._read()
        return [int(line) for line in said.split()]

    def ends(self) -> bool:
        """Whether all of them are dead, soon; this process must have started none by another way."""
        os.close(self.writer)
        while self._read():
            pass
        os.close(self.reader)
        return True

    def _read(self) -> bytes:
        signal.alarm(DEADLINE)  # whose default is to end this process
        said = os.read(self.reader, 4096)
        signal.alarm(0)
        return said


def ignore_everything() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


ESCAPES: dict[str, Callable[[], Any]] = {
    "stays": lambda: None,
    "ignores signals": ignore_everything,
    "new session": os.setsid,
    "new group": lambda: os.setpgid(0, 0),
}


@linux
@pytest.mark.parametrize("name", ESCAPES)
def test_a_child_is_killed(name: str) -> None:
    def act() -> Any:
        family = Family()
        child = family.fork(ESCAPES[name])
        assert family.pids(1) == [child]
        assert descendants(os.getpid()) == (child,)
        return [kill_descendants(), family.ends(), descendants(os.getpid())]

    assert run(act) == [[], True, []]


@linux
def test_a_stopped_child_is_killed() -> None:
    def act() -> Any:
        family = Family()
        child = family.fork(stop)
        os.waitid(os.P_PID, child, os.WSTOPPED | os.WNOWAIT)
        return [kill_descendants(), family.ends()]

    assert run(act) == [[], True]


def daemonize(family: Family) -> None:
    """Fork twice, with a session of its own between, and let the middle one die."""
    os.setsid()
    if family.fork(lambda: None):
        os._exit(0)


@linux
@pytest.mark.parametrize("reaps", [True, False])
def test_a_daemon_is_killed_by_a_subreaper(reaps: bool) -> None:
    """The twin: without becoming one, the daemon is out of sight."""

    def act() -> Any:
        if reaps:
            become_subreaper()
        family = Family()
        middle = family.fork(lambda: daemonize(family))
        (daemon,) = family.pids(1)
        os.waitpid(middle, 0)
        seen = daemon in descendants(os.getpid())
        survivors = kill_descendants()
        if not seen:
            os.kill(daemon, signal.SIGKILL)
        return [seen, list(survivors), family.ends()]

    assert run(act) == [reaps, [], True]


@linux
def test_a_tree_of_processes_is_killed() -> None:
    def grow(family: Family, depth: int) -> None:
        if depth:
            for _ in range(2):
                family.fork(lambda: grow(family, depth - 1))
        if depth % 2:
            os.setsid()

    def act() -> Any:
        become_subreaper()
        family = Family()
        family.fork(lambda: grow(family, 4))
        pids = family.pids(31)
        below = descendants(os.getpid())
        assert set(below) == set(pids)
        assert below[0] == min(pids)  # parents first
        return [kill_descendants(), family.ends()]

    assert run(act) == [[], True]


@linux
def test_a_process_that_forks_away_all_the_time_is_killed() -> None:
    def hop(family: Family) -> None:
        os.setsid()
        os.write(family.writer, b"0\n")
        while True:
            if os.fork():
                os._exit(0)

    def act() -> Any:
        become_subreaper()
        family = Family()
        family.fork(lambda: hop(family))
        family.pids(1)
        return [kill_descendants(), family.ends()]

    assert run(act) == [[], True]


@linux
def test_what_can_not_be_killed_is_named() -> None:
    """Bounded: a process that is stuck, here one whose killing is withheld, does not stop the audit."""

    def act() -> Any:
        family = Family()
        child = family.fork(lambda: None)
        family.pids(1)
        kill, processes._kill = processes._kill, lambda *_: None
        survivors = kill_descendants(seconds=0.01)
        processes._kill = kill
        return [list(survivors) == [child], kill_descendants(), family.ends()]

    assert run(act) == [True, [], True]


def test_nothing_is_killed_where_there_is_nothing() -> None:
    assert run(kill_descendants) == []


@linux
def test_others_are_left_alone() -> None:
    """Neither the group that this process is in, nor one that its child joined, loses anyone else."""

    def act() -> Any:
        family = Family()
        bystander = family.fork(lambda: None)
        family.pids(1)

        def victim() -> Any:
            inner = Family()
            inner.fork(lambda: os.setpgid(0, bystander))
            inner.pids(1)
            return [kill_descendants(), inner.ends()]

        os.setpgid(bystander, bystander)
        answer = run(victim)
        alive = descendants(os.getpid()) == (bystander,)
        kill_descendants()
        return [*answer, alive, family.ends()]

    assert run(act) == [[], True, True, True]


def test_zombies_are_not_living() -> None:
    def act() -> Any:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        return [descendants(os.getpid()), kill_descendants(), descendants(os.getpid())]

    assert run(act) == [[], [], []]


@linux
def test_odd_names_of_commands_do_not_confuse() -> None:
    program = (
        "import ctypes, sys\n"
        "ctypes.CDLL(None).prctl(15, b') Z 1 (x')\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.pid in descendants(os.getpid())


# Groups


def test_a_group_is_killed_with_all_its_members() -> None:
    def act() -> Any:
        family = Family()

        def lead() -> None:
            os.setsid()
            family.fork(ignore_everything)

        leader = family.fork(lead)
        family.pids(2)
        kill_group(leader)
        os.waitpid(leader, 0)
        kill_group(leader)  # gone already
        return family.ends()

    assert run(act) is True


def test_a_process_without_a_group_yet_is_killed() -> None:
    def act() -> Any:
        family = Family()
        child = family.fork(lambda: None)
        family.pids(1)
        kill_group(child)
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), family.ends()]

    assert run(act) == [-signal.SIGKILL, True]


def test_groups_that_hold_ourselves_are_refused() -> None:
    for pid in (0, 1, -1, os.getpid(), os.getpgrp()):
        with pytest.raises(ValueError, match="may be killed"):
            kill_group(pid)


# Bonds


@linux
@pytest.mark.parametrize("bond", ["unknown parent", "known parent", None])
def test_a_child_dies_with_its_parent(bond: str | None) -> None:
    """The twin, without a bond, lives on."""

    def act() -> Any:
        become_subreaper()
        family = Family()

        def parent() -> None:
            own = os.getpid()

            def child() -> None:
                if bond:
                    die_with_parent(own if bond == "known parent" else None)

            family.fork(child)

        middle = family.fork(parent)
        family.pids(2)
        os.kill(middle, signal.SIGKILL)
        os.waitpid(middle, 0)
        if bond:
            return family.ends()
        survived = len(descendants(os.getpid())) == 1
        kill_descendants()
        return survived and family.ends()

    assert run(act) is True


@linux
@pytest.mark.parametrize("known", [True, False])
def test_a_parent_that_is_dead_already_counts(known: bool) -> None:
    """The twin: whoever does not know its parent's pid can not tell."""

    def act() -> Any:
        become_subreaper()
        gate, opener = os.pipe()
        family = Family()

        def parent() -> None:
            own = os.getpid()

            def child() -> None:
                os.read(gate, 1)
                die_with_parent(own if known else None)

            family.fork(child)
            os._exit(0)

        os.waitpid(family.fork(parent), 0)
        os.write(opener, b"x")
        if known:
            return family.ends()
        (survivor,) = family.pids(1)
        os.kill(survivor, signal.SIGKILL)
        return family.ends()

    assert run(act) is True


@linux
def test_a_crash_dumps_no_core() -> None:
    def act() -> Any:
        no_core_dumps()
        no_core_dumps()
        soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGQUIT)
            signal.pause()
        _, status = os.waitpid(child, 0)
        return [soft <= 1, hard <= 1, os.WTERMSIG(status), os.WCOREDUMP(status)]

    assert run(act) == [True, True, signal.SIGQUIT, False]


def test_elsewhere_than_on_linux_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    die_with_parent(parent=-1)
    become_subreaper()
    assert descendants(1) == ()

    def act() -> Any:
        child = os.fork()
        if child == 0:
            signal.pause()
        began = time.monotonic()
        survivors = kill_descendants()
        quick = time.monotonic() - began < DEADLINE
        os.kill(child, signal.SIGKILL)
        return [survivors, quick]

    assert run(act) == [[], True]
