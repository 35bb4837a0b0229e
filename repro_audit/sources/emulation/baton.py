"""One thread of the program at a time: who holds the baton runs, until it has to wait or hands the baton over.

Nothing is decided by the operating system. A thread that waits (for a lock, a queue, another thread, or to wake up)
says what for, and whoever gives the baton away asks that in the order of the level's policy. Time passes only where
nobody can go on, so a sleeper wakes after all that the others could do. Only what comes from outside (a thread that
the schedule does not know, a process, a socket) is waited for in earnest.

Nobody waits for ever: a thread that neither ends nor waits in a way that is seen here, while another one could go on,
has all threads let go, and the trial says so. How long that takes is counted in processor time, or in looks at a
thread that sleeps, so that a busy machine does not come into it.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from _thread import allocate_lock, get_ident
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from time import sleep as really_sleep
from types import FrameType
from typing import Any, Literal

from repro_audit.probe.files import place
from repro_audit.sources._program import behind

Policy = Literal["first", "last", "turns"]
"""Who goes on: the one that was started first; the one started last, and one that takes from a queue after all others;
whoever has waited longest, at every chance."""

SLICE = 2000
"""So often a thread may use locks and queues in a row while others could go on."""
STEP = 0.05
"""Seconds that pass with an optimizer's step, and with a slice: else who sleeps would wait for one that never does."""
_LOOK = 1.0
"""Seconds between two looks at the thread that has the baton."""
_ASLEEP, _COMPUTING = 15, 20.0
"""Looks in a row at which it slept, and seconds of processor time that it used, before all threads are let go."""
_FOREIGN = 3
"""Looks in a row at which a library's own thread slept, before it is left to itself."""
_IS_ALIVE = threading.Thread.is_alive
_SHORTEST, _LONGEST = 0.0002, 0.002
"""Seconds between two looks at what is to come from outside."""


@dataclass(slots=True, kw_only=True)
class Wait:
    """What a thread waits for."""

    take: Callable[[], bool]
    """Takes it, if it is there."""
    there: Callable[[], bool]
    """Whether it seems to be there; takes nothing."""
    until: float | None = None
    """When to wait no more."""


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """A thread that the schedule knows."""

    number: int
    """In the order of their starts; 0 is the main thread."""
    thread: threading.Thread
    where: str
    """The line that started it."""
    carrier: bool = False
    """It only carries things from queue to queue."""
    gate: Any = field(default_factory=allocate_lock)
    """Locked but for the moment in which it is given the baton."""
    wait: Wait | None = None
    """None where it could go on."""
    got: bool = True
    """Whether its last wait ended with what it waited for."""
    taken: int = 0
    """Of all that was taken from queues, which it took last; 0 where it has taken nothing."""
    ran: int = 0
    """When it was given the baton last, by the count of all handings over."""
    used: int = 0
    """How often it has used a lock or a queue since."""
    aside: int = 0
    """Above 0 while it is in the schedule's own code, or starts a thread."""


class Baton:
    """Hands the baton from thread to thread.

    Args:
        policy: who goes on.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.let_go: list[str] = []
        """The lines at which threads were that could not be kept in order."""
        self.free = False
        """All threads run as they like."""
        self._guard = allocate_lock()
        self._members: dict[int, Member] = {}
        self._ended: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._threads: list[Member] = []
        self._holder: Member | None = None
        self._now = 0.0
        self._given = 0
        self._uses = 0
        self._taken = 0
        self._started = 0
        self._looks: list[tuple[Any, ...]] = []
        """What was seen of a holder that others wait for, since it last did anything here."""
        self._looked = 0.0
        self._trace: Any = None
        """What traced the thread that gave the baton away: the probe of lines goes along with it."""
        self._holder = self._main = self._joined(threading.current_thread(), where="")
        self._members[get_ident()] = self._main

    def _joined(self, thread: threading.Thread, where: str) -> Member:
        member = Member(number=self._started, thread=thread, where=where)
        member.gate.acquire()
        self._started += 1
        self._threads.append(member)
        return member

    def member(self) -> Member | None:
        """This thread, where it is kept in order now."""
        if self.free or self._threads[-1] is self._main:  # alone
            return None
        member = self._members.get(get_ident())
        return None if member is None or member.aside else member

    # A thread's life

    def start(
        self, thread: threading.Thread, begin: Callable[[], None], where: str, *, carrier: bool
    ) -> None:
        """Start a thread, which waits for its turn; `begin` is what really starts it."""
        run = thread.run
        starter = self._members.get(get_ident())
        with self._guard:
            member = self._joined(thread, where)
            member.carrier = carrier

        def in_turn() -> None:
            del thread.run  # back to the class's own
            self._begin(member)
            try:
                run()
            finally:
                self._end(member)

        thread.run = in_turn  # type: ignore[method-assign]  # what the new thread calls
        if starter is not None:
            starter.aside += 1
        try:
            begin()
        except BaseException:
            del thread.run
            with self._guard:
                self._threads.remove(member)
            raise
        finally:
            if starter is not None:
                starter.aside -= 1
        self.point()

    def _begin(self, member: Member) -> None:
        member.aside += 1
        self._members[get_ident()] = member
        self._await(member)
        member.aside -= 1

    def _end(self, member: Member) -> None:
        member.aside += 1
        with self._guard:
            self._ended.add(member.thread)
            self._members.pop(get_ident(), None)
            if member in self._threads:
                self._threads.remove(member)
            if self._holder is member and not self.free:
                self._give(self._pick() or self._duty())

    def _duty(self) -> Member:
        """Whoever looks out for what comes from outside, where nobody can go on."""
        return min(self._threads, key=lambda member: member.number)

    def is_over(self, thread: threading.Thread) -> bool:
        """Whether a thread has ended, or is about to and runs no more of the program's code."""
        return thread in self._ended or not _IS_ALIVE(thread)

    # Chances to hand over

    def point(self) -> None:
        """This thread has used a lock or a queue, in a way that may let another one go on."""
        member = self.member()
        if member is None:
            return
        member.used += 1
        self._uses += 1
        if self._uses % SLICE == 0:
            self._now += STEP
        if self.policy == "turns" or member.used >= SLICE:
            self._offer(member, in_turn=True)

    def took(self) -> None:
        """This thread has taken something from a queue, and begins to work on it."""
        member = self.member()
        if member is not None and not member.carrier:
            self._taken += 1
            member.taken = self._taken
            if self.policy == "last":
                self._offer(member, in_turn=False)

    def step(self) -> None:
        """The training has made a step: others get their chance, those that only sleep too."""
        member = self.member()
        if member is not None:
            self._now += STEP
            self._offer(member, in_turn=True)

    def _offer(self, member: Member, *, in_turn: bool) -> None:
        """Give the baton to another one that can go on, if the policy says so."""
        member.aside += 1
        other = None
        with self._guard:
            if self._holder is member:  # rather than let go, or left to itself, meanwhile
                member.used %= SLICE
                other = self._pick(in_turn=in_turn)
                if other not in (None, member):
                    self._give(other)
        if other not in (None, member):
            self._await(member)
        member.aside -= 1

    def wait(self, member: Member, wanted: Wait, seconds: float | None) -> bool:
        """Wait until something can be taken, while others run; false where the time was up before."""
        wanted.until = None if seconds is None else self._now + seconds
        began = monotonic()
        member.aside += 1
        try:
            if self._wait_in_turn(member, wanted):
                return member.got
        finally:
            member.wait = None
            member.aside -= 1
        return self._wait_freely(wanted, seconds, began)

    def _wait_in_turn(self, member: Member, wanted: Wait) -> bool:
        """Let others run until the wait is over; false where nobody is kept in order any more."""
        with self._guard:
            if self._holder is not member:
                return False
            member.wait = wanted
        pause = _SHORTEST
        while not self.free:
            with self._guard:
                chosen = self._pick()
                if chosen not in (None, member):
                    self._give(chosen)
            if chosen is None:
                pause = self._idle(pause)
            elif chosen is not member:
                self._await(member)
                pause = _SHORTEST
            if self._is_free_to_go(member):
                return True
        return False

    @staticmethod
    def _is_free_to_go(member: Member) -> bool:
        return member.wait is None

    def _idle(self, pause: float) -> float:
        """Nobody can go on: let time pass, or something come from outside; how long to pause next."""
        untils = [
            each.wait.until for each in self._threads if each.wait and each.wait.until is not None
        ]
        left = min(untils) - self._now if untils else pause
        before = monotonic()
        really_sleep(max(0.0, min(pause, left)))
        passed = monotonic() - before
        self._now = min(untils) if untils and passed >= left else self._now + passed
        return min(2 * pause, _LONGEST)

    def _wait_freely(self, wanted: Wait, seconds: float | None, began: float) -> bool:
        """Wait as a thread that nobody keeps in order."""
        while not wanted.take():
            if seconds is not None and monotonic() - began >= seconds:
                return False
            really_sleep(_LONGEST)
        return True

    # Who goes on; with the guard held

    def _pick(self, *, in_turn: bool = False) -> Member | None:
        """The first one that can go on; None where nobody can."""
        for each in sorted(self._threads, key=self._by_turns if in_turn else self._by_policy):
            if self._can_go_on(each):
                return each
        return None

    def _can_go_on(self, member: Member) -> bool:
        wait = member.wait
        if wait is None:
            return True
        member.got = wait.take()
        if member.got or (wait.until is not None and wait.until <= self._now):
            member.wait = None
            return True
        return False

    def _by_turns(self, member: Member) -> tuple[int, int]:
        return (member.ran, member.number)

    def _by_policy(self, member: Member) -> tuple[int, ...]:
        if self.policy == "first":
            return (member.number,)
        if self.policy == "turns":
            return self._by_turns(member)
        return (0, -member.number) if not member.taken else (1, -member.taken)

    def _give(self, member: Member) -> None:
        self._given += 1
        self._holder = member
        self._trace = sys.gettrace()
        member.ran = self._given
        member.used = 0
        self._looks.clear()
        if member.gate.locked():
            member.gate.release()

    # Nobody waits for ever

    def _await(self, member: Member) -> None:
        """Wait for the baton; look now and then at the one that has it."""
        while not (self.free or member.gate.acquire(timeout=_LOOK)):
            with self._guard:
                if self._holder not in (None, member):
                    self._look()
        if _is_probe(self._trace) and sys.gettrace() is None:
            sys.settrace(self._trace)

    def _look(self) -> None:
        """See whether the holder does anything, while another one could go on."""
        holder, now = self._holder, monotonic()
        if holder is None or now - self._looked < _LOOK / 2:
            return
        self._looked = now
        if not any(each is not holder and _could_go_on(each) for each in self._threads):
            self._looks.clear()
            return
        asleep, used = _state(holder.thread)
        mark = (self._given, self._uses, self._now)
        if self._looks and self._looks[-1][0] != mark:
            self._looks.clear()
        self._looks.append((mark, asleep, used))
        slept = [looked[2] for looked in self._looks[-_ASLEEP:] if looked[1]]
        recent = self._looks[-_FOREIGN:]
        frame = sys._current_frames().get(holder.thread.ident or 0)
        if (
            holder is not self._main
            and len(recent) == _FOREIGN
            and all(looked[1] and looked[2] == used for looked in recent)
            and behind(frame)[0] is None
        ):
            self._leave_alone(holder)
        elif (len(slept) == _ASLEEP and slept[0] == used) or used - self._looks[0][2] > _COMPUTING:
            self._release_all(frame)

    def _leave_alone(self, holder: Member) -> None:
        """A library's thread, none of whose code is the program's, waits for something of its own."""
        self._threads.remove(holder)
        self._members.pop(holder.thread.ident or 0, None)
        self._give(self._pick() or self._duty())

    def _release_all(self, frame: FrameType | None) -> None:
        users, _ = behind(frame)
        holder = self._holder
        where = place(users.f_code.co_filename, users.f_lineno) if users else ""
        self.let_go.append(where or (holder.where if holder else ""))
        self.close()

    def close(self) -> None:
        """Let every thread go its own way from now on."""
        self.free = True
        self._holder = None
        for member in list(self._threads):
            if member.gate.locked():
                member.gate.release()


def _could_go_on(member: Member) -> bool:
    """Whether a thread waits for nothing but the baton, or for its time to come."""
    wait = member.wait
    return wait is None or wait.until is not None or wait.there()


def _is_probe(trace: Any) -> bool:
    """Whether it is the probe of lines: one that sees them all where one thread runs at a time."""
    return getattr(trace, "__module__", "") == "repro_audit.probe.detail.lines"


_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def _state(thread: threading.Thread) -> tuple[bool, float]:
    """Whether a thread sleeps in the operating system, and the seconds of processor time that it has used."""
    try:
        with open(f"/proc/self/task/{thread.native_id}/stat", encoding="ascii") as file:  # noqa: PTH123
            fields = file.read().rpartition(")")[2].split()
    except (OSError, ValueError):
        return True, 0.0  # where there is no such file, its time passes unseen
    return fields[0] in "SD", (int(fields[11]) + int(fields[12])) / _TICKS
