"""Numbers that stand in for those of processes and threads, and the way back where the system is asked about them."""

from __future__ import annotations

import builtins
import itertools
import multiprocessing.process
import os
import re
import signal
import sys
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.context.numbering import Numbering
from repro_audit.replacements import Replacements
from repro_audit.sources._program import Lines, behind, direct_caller
from repro_audit.sources.emulation.callers import asks, may_ask
from repro_audit.sources.emulation.opening import replace_open

# Looked up when a module is imported: `threading` itself goes by them.
_REAL_PID, _REAL_PPID = os.getpid, os.getppid
_REAL_IDENT = threading.get_ident

_WITH_PID_FIRST = (
    *("kill", "killpg", "waitpid", "wait4", "getpgid", "getsid", "pidfd_open", "setpgid"),
    *("sched_getaffinity", "sched_setaffinity", "sched_getscheduler", "sched_getparam"),
    *("sched_setscheduler", "sched_setparam"),
)
_WITH_PID_SECOND = ("getpriority", "setpriority")
_OF_PROCESS = re.compile(r"/proc/(\d+)(?=/|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What a level's numbers begin with. Real ones of processes end below 2**22."""

    process: int
    thread: int
    native: int


class Processes:
    """A number for each process of a run, the same in each run of it."""

    def __init__(self, first: int, numbering: Numbering) -> None:
        self._first = first
        self._numbering = numbering
        self._real: dict[int, int] = {}
        """The processes whose number was handed out, by that."""
        self._path: tuple[int, ...] = ()
        """Of a process that was forked by `os.fork` itself: of which process it is which fork, counted from one."""
        self._parent: tuple[int, ...] = ()
        """What `multiprocessing` called the process that forked this one."""
        self._forks = itertools.count(1)
        self._at_fork: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    def before_fork(self) -> None:
        """This process forks."""
        self._at_fork = (self._numbering.own(), (*self._path, next(self._forks)))

    def in_child(self) -> None:
        """This is the child."""
        self._parent, self._path = self._at_fork
        self._forks = itertools.count(1)

    def place(self) -> int:
        """This process's place among those of the run."""
        own = self._numbering.own()
        by_hand = own == self._parent and self._path  # else `multiprocessing` has named it
        return _folded(own) + (100 * _folded(self._path) if by_hand else 0)

    def own(self) -> int:
        """This process's number."""
        number = self._first + self.place()
        self._real[number] = _REAL_PID()
        return number

    def parent(self) -> int:
        """The number of the process that started this one."""
        own = self._numbering.own()
        number = self._numbered(own[:-1]) if own else self._first - 1
        self._real[number] = _REAL_PPID()
        return number

    def child(self, process: Any) -> int:
        """The number of a process that this one has started."""
        identity = process._identity
        number = self._numbered((identity[0] - self._numbering.before, *identity[1:]))
        self._real[number] = process._popen.pid
        return number

    def _numbered(self, own: tuple[int, ...]) -> int:
        return self._first + _folded(own)

    def real(self, number: Any) -> Any:
        """What the operating system calls a process; what no process is called stays as it is."""
        return self._real.get(number, number) if type(number) is int else number


def _folded(numbers: tuple[int, ...]) -> int:
    """One number for several: those of the first processes are small."""
    return sum(number * 10_007**place for place, number in enumerate(numbers))


class Threads:
    """A number for each thread, by its name; the next threads of that name have others."""

    def __init__(self, first: int, native: int, processes: Processes) -> None:
        self._first = first
        self._native = native
        self._processes = processes
        self._places: weakref.WeakKeyDictionary[threading.Thread, int] = weakref.WeakKeyDictionary()
        self._namesakes: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)
        self._numbers = {"MainThread": 0}
        self._real: dict[int, int] = {}

    def place(self, thread: threading.Thread) -> int:
        """A thread's place among those of the process."""
        place = self._places.get(thread)
        if place is None:
            name = thread.name
            number = self._numbers.setdefault(name, len(self._numbers))
            place = self._places[thread] = number + 1009 * next(self._namesakes[name])
        return place

    def ident(self, thread: threading.Thread, real: int) -> int:
        """What `threading.get_ident` says: a multiple of 64, as it is an address."""
        number = self._first + 64 * 131 * self.place(thread)
        self._real[number] = real
        return number

    def native(self, thread: threading.Thread) -> int:
        """What `threading.get_native_id` says."""
        return self._native + self._processes.place() + self.place(thread)

    def real(self, number: Any) -> Any:
        """What the interpreter calls a thread."""
        return self._real.get(number, number)

    def renamed(self, frames: dict[int, Any]) -> dict[int, Any]:
        """Frames by what the program calls their threads, as far as it has asked."""
        names = {real: number for number, real in self._real.items()}
        return {names.get(real, real): frame for real, frame in frames.items()}


_followed: list[Processes] = []
_hooked = False


def _follow_forks(processes: Processes) -> None:
    """Tell of each fork; Python lets nobody take such a hook away, so there is one for all."""
    global _hooked  # noqa: PLW0603 - as it says
    if not _hooked:
        os.register_at_fork(before=_before_fork, after_in_child=_in_child)
        _hooked = True
    _followed.append(processes)


def _before_fork() -> None:
    for each in _followed:
        each.before_fork()


def _in_child() -> None:
    for each in _followed:
        each.in_child()


class Identities:
    """Shows a level's numbers of processes and threads to the program, and the real ones to all else."""

    def __init__(
        self, numbers: Numbers, trial: TrialContext, lines: tuple[Lines, Lines], to: Replacements
    ) -> None:
        self._processes = Processes(numbers.process, trial.processes)
        self._threads = Threads(numbers.thread, numbers.native, self._processes)
        self._of_process, self._of_thread = lines
        self._replacements = to
        self._opening = False
        self._when_imported = trial.when_imported

    def install(self) -> None:
        """Put all functions in place."""
        _follow_forks(self._processes)
        self._replacements.callback(_followed.remove, self._processes)
        self._show_processes()
        self._show_threads()
        self._translate()

    def _for_process(self, frame: FrameType | None) -> bool:
        """Whether a caller is told the program's number.

        A library that is told it once is told it always: many compare it with the one that they remember.
        """
        frame = asks(frame)
        own = direct_caller(frame)
        if own is None and (frame is None or not may_ask(frame.f_code.co_filename)):
            return False
        users, importing = behind(frame)
        if users is not None and not importing:
            self._of_process.note(users)
        if not self._opening:
            self._opening = True
            self._translate_paths()
        return True

    def _for_thread(self, frame: FrameType | None) -> bool:
        """Only the program's own code: a library's thread has no line of the program's to go by."""
        own = direct_caller(frame)
        if own is not None:
            self._of_thread.note(own)
        return own is not None

    def _show_processes(self) -> None:
        processes = self._processes

        def getpid() -> int:
            return processes.own() if self._for_process(sys._getframe(1)) else _REAL_PID()

        def getppid() -> int:
            return processes.parent() if self._for_process(sys._getframe(1)) else _REAL_PPID()

        self._replacements.attribute(os, "getpid", getpid)
        self._replacements.attribute(os, "getppid", getppid)
        base = multiprocessing.process.BaseProcess
        ident: Callable[[Any], int | None] = base.ident.fget  # type: ignore[attr-defined]

        def shown(process: Any) -> int | None:
            real = ident(process)
            if real is None or direct_caller(sys._getframe(1)) is None:
                return real
            is_own = process is multiprocessing.process.current_process()
            if not is_own and (process._popen is None or not process._identity):
                return real  # of a process of another kind, or the parent's
            self._for_process(sys._getframe(1))
            return processes.own() if is_own else processes.child(process)

        for name in ("ident", "pid"):
            self._replacements.attribute(base, name, property(shown))

    def _show_threads(self) -> None:
        threads = self._threads

        def get_ident() -> int:
            real = _REAL_IDENT()
            if not self._for_thread(sys._getframe(1)):
                return real
            return threads.ident(threading.current_thread(), real)

        native = threading.get_native_id

        def get_native_id() -> int:
            if not self._for_thread(sys._getframe(1)):
                return native()
            return threads.native(threading.current_thread())

        def ident(thread: threading.Thread) -> int | None:
            real: int | None = of_ident(thread)
            if real is None or not self._for_thread(sys._getframe(1)):
                return real
            return threads.ident(thread, real)

        def native_id(thread: threading.Thread) -> int | None:
            real: int | None = of_native(thread)
            if real is None or not self._for_thread(sys._getframe(1)):
                return real
            return threads.native(thread)

        of_ident = threading.Thread.ident.fget  # type: ignore[attr-defined]
        of_native = threading.Thread.native_id.fget  # type: ignore[attr-defined]
        start = threading.Thread.start

        def numbered_start(thread: threading.Thread) -> None:
            threads.place(thread)  # in the order in which they start, not that in which they ask
            start(thread)

        self._replacements.attribute(threading.Thread, "start", numbered_start)
        self._replacements.attribute(threading, "get_ident", get_ident)
        self._replacements.attribute(threading, "get_native_id", get_native_id)
        self._replacements.attribute(threading.Thread, "ident", property(ident))
        self._replacements.attribute(threading.Thread, "native_id", property(native_id))

    def _translate(self) -> None:
        """Have functions of the operating system understand the program's numbers."""
        for names, place in ((_WITH_PID_FIRST, 0), (_WITH_PID_SECOND, 1)):
            for name in names:
                self._translating(os, name, place, self._processes.real)
        self._translating(signal, "pthread_kill", 0, self._threads.real)
        frames = sys._current_frames

        def current_frames() -> dict[int, Any]:
            found = frames()
            is_program = direct_caller(sys._getframe(1)) is not None
            return self._threads.renamed(found) if is_program else found

        self._replacements.attribute(sys, "_current_frames", current_frames)
        self._when_imported("psutil", self._translate_psutil)

    def _translate_psutil(self) -> None:
        psutil = sys.modules["psutil"]
        self._translating(psutil.Process, "__init__", 1, self._processes.real)
        self._translating(psutil, "pid_exists", 0, self._processes.real)

    def _translate_paths(self) -> None:
        """Have `/proc/PID/...` open. From now on only: until a number is told, nobody can have made such a path."""
        opened = builtins.open

        def open_(file: Any, *args: Any, **kwargs: Any) -> Any:
            return opened(self.path(file), *args, **kwargs)

        replace_open(open_, self._replacements)

    def path(self, path: Any) -> Any:
        """A path with what the operating system calls the process in it."""
        text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        if not isinstance(text, str) or not text.startswith("/proc/"):
            return path
        return _OF_PROCESS.sub(
            lambda found: f"/proc/{self._processes.real(int(found[1]))}", text, count=1
        )

    def _translating(self, owner: Any, name: str, place: int, real: Callable[[Any], Any]) -> None:
        original = vars(owner).get(name)
        if original is None:  # not on this system
            return

        def function(*args: Any, **kwargs: Any) -> Any:
            given = list(args)
            if len(given) > place:
                given[place] = real(given[place])
            if "pid" in kwargs:
                kwargs["pid"] = real(kwargs["pid"])
            return original(*given, **kwargs)

        self._replacements.function(owner, name, function)
