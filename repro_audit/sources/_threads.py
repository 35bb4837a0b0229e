"""The order in which a program's threads, and the tasks of its thread pools, get to run: forced, not waited for.

Each task waits at its beginning until it is its turn, so tasks of a pool run one after the other. Nobody waits for
ever: threads that wait for each other are let go.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import sys
import threading
import weakref
from contextlib import ExitStack, contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from repro_audit.probe.files import is_users, place
from repro_audit.sources._patching import replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Future = concurrent.futures.Future[Any]

_POLL = 0.002
"""Seconds between two looks."""
_QUIET = 0.1
"""Seconds after which no further task is expected to be submitted."""
_IDLE, _BUSY = 1.0, 20.0
"""Seconds to wait while no task of the pool runs, and while one does."""
_THREAD = 2.0
"""Seconds to wait for another thread, which may be there for good."""
_BLOCKED_LOOKS = 5
"""So often in a row a thread is seen to wait before it counts as blocked."""
_WAITING = {"wait", "wait_for", "join", "_wait_for_tstate_lock"}
"""Functions of `threading` that wait for another thread."""
_MOST_FRAMES = 12


class Schedule:
    """Numbers threads and tasks as the program starts them, and says whose turn it is.

    Args:
        last_first: the later one of those that could run side by side goes first; else the earlier one.
        began: called when the program starts its first thread.
    """

    def __init__(self, *, last_first: bool, began: Callable[[], None]) -> None:
        self._last_first = last_first
        self._began = began
        self._pools: weakref.WeakKeyDictionary[Any, Pool] = weakref.WeakKeyDictionary()
        self._numbers: weakref.WeakKeyDictionary[Future, int] = weakref.WeakKeyDictionary()
        self._count = itertools.count()
        self._threads: list[weakref.ref[threading.Thread]] = []
        self.places: list[str] = []
        """The lines of the program that start threads, or hand tasks to them."""

    def start(self, original: Callable[[Any], None], thread: threading.Thread) -> None:
        """Stands in for `Thread.start`."""
        if self._is_users(sys._getframe(2)):
            number = len(self._threads)
            self._threads.append(weakref.ref(thread))
            run = thread.run

            def in_turn() -> None:
                del thread.run  # back to the class's own
                self._wait_for_thread(number)
                run()

            thread.run = in_turn  # type: ignore[method-assign]  # what the new thread calls
        original(thread)

    def _wait_for_thread(self, number: int) -> None:
        """Let the thread started before run first, or, last first, the one started after."""
        since, looks = monotonic(), 0
        neighbour = number + 1 if self._last_first else number - 1
        patience = _THREAD if neighbour >= 0 else 0.0
        while monotonic() - since < patience:
            if neighbour >= len(self._threads):  # none was started after, so far
                if monotonic() - since > _QUIET:
                    return
            else:
                thread = self._threads[neighbour]()
                if thread is None or (thread.ident is not None and not thread.is_alive()):
                    return
                looks = looks + 1 if _waits(thread) else 0
                if looks >= _BLOCKED_LOOKS:
                    return
            sleep(_POLL)

    def submit(
        self, original: Callable[..., Future], pool: Any, task: Any, /, *args: Any, **keywords: Any
    ) -> Future:
        """Stands in for `ThreadPoolExecutor.submit`."""
        if not self._is_users(sys._getframe(2)):
            return original(pool, task, *args, **keywords)
        turns = self._pools.get(pool)
        if turns is None:
            turns = self._pools[pool] = Pool(pool._max_workers if self._last_first else 1)
        future = original(pool, turns.wrapped(task), *args, **keywords)
        self._numbers[future] = next(self._count)
        return future

    def as_completed(
        self, original: Callable[..., Iterator[Future]], fs: Iterable[Future], timeout: float | None
    ) -> Iterator[Future]:
        """Stands in for `as_completed`, which yields what is done already in the order of a set."""
        pending = list(dict.fromkeys(fs))
        if not all(future in self._numbers for future in pending):
            yield from original(pending, timeout)
            return
        pending.sort(key=lambda future: self._numbers[future], reverse=self._last_first)
        end = None if timeout is None else monotonic() + timeout
        patience = _THREAD if self._last_first else _BUSY
        while pending:
            left = patience if end is None else min(patience, max(0.0, end - monotonic()))
            concurrent.futures.wait(pending[:1], left)
            if not pending[0].done():
                yield from original(pending, None if end is None else max(0.0, end - monotonic()))
                return
            yield pending.pop(0)

    def _is_users(self, frame: Any) -> bool:
        """Whether the program's own code is at it, rather than a library for itself."""
        for _ in range(_MOST_FRAMES):
            module = frame.f_globals.get("__name__") or ""
            if module.partition(".")[0] in {"torch", "multiprocessing", "repro_audit"}:
                return False
            if is_users(frame.f_code.co_filename):
                self._note(place(frame.f_code.co_filename, frame.f_lineno))
                return True
            frame = frame.f_back
            if frame is None:
                return False
        return False

    def _note(self, where: str) -> None:
        if not self.places:
            self._began()
        if where not in self.places:
            self.places.append(where)


class Pool:
    """The turns of one pool's tasks: in groups of those that could run side by side, backwards within a group."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._changed = threading.Condition()
        self._submitted = 0
        self._latest = 0.0
        self._done: set[int] = set()
        self._running = 0
        self._let_go = False

    def wrapped(self, task: Callable[..., Any]) -> Callable[..., Any]:
        """The task, in its turn."""
        with self._changed:
            number = self._submitted
            self._submitted += 1
            self._latest = monotonic()

        def in_turn(*args: Any, **keywords: Any) -> Any:
            self._enter(number)
            try:
                return task(*args, **keywords)
            finally:
                self._leave(number)

        return in_turn

    def _enter(self, number: int) -> None:
        since = monotonic()
        with self._changed:
            while not (self._let_go or self._is_turn(number)):
                self._changed.wait(_QUIET / 4)
                waited = monotonic() - since
                self._let_go = waited > (_BUSY if self._running else _IDLE + _QUIET)
            self._running += 1

    def _leave(self, number: int) -> None:
        with self._changed:
            self._running -= 1
            self._done.add(number)
            self._changed.notify_all()

    def _is_turn(self, number: int) -> bool:
        first = number - number % self._size
        last = first + self._size
        if not all(each in self._done for each in range(first)):
            return False
        full = self._submitted >= last or monotonic() - self._latest > _QUIET
        return full and all(
            each in self._done for each in range(number + 1, min(last, self._submitted))
        )


def _waits(thread: threading.Thread) -> bool:
    """Whether a thread waits in a lock, a queue or an event."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None or frame.f_globals.get("__name__") != "threading":
        return False
    return frame.f_code.co_name in _WAITING  # rather than beginning or ending


@contextmanager
def scheduled(schedule: Schedule, *, gated: bool) -> Iterator[None]:
    """Put the schedule in force; without gates it only notes what the program starts."""
    thread, pool = threading.Thread, concurrent.futures.ThreadPoolExecutor
    start, submit, completed = thread.start, pool.submit, concurrent.futures.as_completed

    @functools.wraps(start)
    def started(self: Any) -> None:
        if gated:
            schedule.start(start, self)
        else:
            schedule._is_users(sys._getframe(1))
            start(self)

    def submitted(self: Any, fn: Any, /, *args: Any, **keywords: Any) -> Future:
        if gated:
            return schedule.submit(submit, self, fn, *args, **keywords)
        schedule._is_users(sys._getframe(1))
        return submit(self, fn, *args, **keywords)

    @functools.wraps(completed)
    def as_completed(fs: Iterable[Future], timeout: float | None = None) -> Iterator[Future]:
        return schedule.as_completed(completed, fs, timeout) if gated else completed(fs, timeout)

    with ExitStack() as stack:
        stack.enter_context(replaced(thread, "start", started))
        stack.enter_context(replaced(pool, "submit", submitted))
        for module in (concurrent.futures, concurrent.futures._base):
            stack.enter_context(replaced(module, "as_completed", as_completed))
        yield
