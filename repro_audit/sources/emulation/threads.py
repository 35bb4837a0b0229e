"""A program's threads in an order: what starts them, what they wait for, and what they take, all goes by a baton.

Locks, and all that Python makes of them (conditions, events, queues, futures), are stood in for by ones that let
another thread run rather than wait. Those that a library made before, and what waits in C code, are not: whoever waits
there keeps the baton.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import multiprocessing.dummy
import multiprocessing.pool
import os
import queue
import selectors
import sys
import threading
import time
import weakref
from _thread import allocate_lock
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from repro_audit.probe.files import is_users, place, relative
from repro_audit.replacements import Replacements
from repro_audit.sources.emulation.baton import Baton, Policy, Wait

if TYPE_CHECKING:
    Future = concurrent.futures.Future[Any]

_THEIR_OWN = {"torch", "multiprocessing", "repro_audit"}
"""Packages whose threads are their own affair."""
_CARRIERS = {"_handle_tasks", "_handle_results"}
_WAITS_OUTSIDE = "_handle_workers"
"""What threads of a `ThreadPool` do beside its workers; the last waits in the operating system."""
_MOST_FRAMES = 40

_active: Baton | None = None
"""Set by `scheduled`, read by what stands for locks; a forked process has none."""


def _forked() -> None:
    global _active  # noqa: PLW0603 - as said there
    if _active is not None:
        _of_all_pools()._at_fork_reinit()  # whoever held it has stayed behind
    _active = None


os.register_at_fork(after_in_child=_forked)


class Schedule:
    """Numbers what the program starts, and notes where.

    Args:
        policy: who goes on; None: the operating system decides, and threads are only noted.
        began: called when the program starts its first thread.
    """

    def __init__(self, policy: Policy | None, *, began: Callable[[], None] = lambda: None) -> None:
        self.policy = policy
        self.baton = Baton(policy) if policy is not None else None
        self._began = began
        self._numbers: weakref.WeakKeyDictionary[Future, int] = weakref.WeakKeyDictionary()
        self._count = itertools.count()
        self.places: list[str] = []
        """The lines of the program that start threads, or hand tasks to them."""
        self.taken: list[tuple[str, int]] = []
        """File and line of those that take results as they are finished."""

    def started(self, thread: threading.Thread, begin: Callable[[], None]) -> None:
        """Start a thread, in its turn if it is the program's."""
        task = getattr(getattr(thread, "_target", None), "__name__", "")
        where = None if task == _WAITS_OUTSIDE else self.users_place(sys._getframe(2))
        if where is None or self.baton is None or self.baton.free:
            begin()
        else:
            self.baton.start(thread, begin, where, carrier=task in _CARRIERS)

    def users_place(self, frame: Any) -> str | None:
        """The line of the program's code behind a call; None where a library does something for itself."""
        for _ in range(_MOST_FRAMES):
            if is_users(frame.f_code.co_filename):
                where = place(frame.f_code.co_filename, frame.f_lineno)
                self._note(where)
                return where
            if _is_librarys(frame) or frame.f_back is None:
                return None
            frame = frame.f_back
        return None

    def _note(self, where: str) -> None:
        if not self.places:
            self._began()
        if where not in self.places:
            self.places.append(where)

    def takes(self, frame: FrameType) -> None:
        """Note a line of the program's own that takes results as they are finished."""
        if is_users(frame.f_code.co_filename):
            line = relative(frame.f_code.co_filename), frame.f_lineno
            if line not in self.taken:
                self.taken.append(line)

    def submitted(self, future: Future) -> Future:
        """Number the future of a task."""
        self._numbers[future] = next(self._count)
        return future

    def as_completed(self, fs: Iterable[Future], timeout: float | None) -> Iterator[Future] | None:
        """Stands in for `as_completed`, which yields what is done already in the order of a set."""
        pending = list(dict.fromkeys(fs))
        if self.baton is None or not all(future in self._numbers for future in pending):
            return None
        pending.sort(key=lambda future: self._numbers[future], reverse=self.policy == "last")
        return _as_they_end(pending, timeout)


def _as_they_end(pending: list[Future], timeout: float | None) -> Iterator[Future]:
    end = None if timeout is None else time.monotonic() + timeout
    total = len(pending)
    while pending:
        done = [future for future in pending if future.done()]
        pending = [future for future in pending if future not in done]
        yield from done
        if pending and not done:
            left = None if end is None else max(0.0, end - time.monotonic())
            concurrent.futures.wait(pending, left, concurrent.futures.FIRST_COMPLETED)
            if left == 0.0 and not any(future.done() for future in pending):
                raise concurrent.futures.TimeoutError(
                    f"{len(pending)} (of {total}) futures unfinished"
                )


def _is_librarys(frame: Any) -> bool:
    """Whether a library is at work for itself: pools of threads work for whoever made them."""
    name = frame.f_globals.get("__name__") or ""
    if name == __name__:
        return False
    if name == "multiprocessing.pool":
        pool = frame.f_locals.get("self")
        return pool is not None and not isinstance(pool, multiprocessing.pool.ThreadPool)
    if name.startswith("multiprocessing.dummy"):
        return False
    return name == "concurrent.futures.process" or name.partition(".")[0] in _THEIR_OWN


class Lock:
    """Stands in for `threading.Lock`: whoever waits lets others run."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = allocate_lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002 - as it is there
        """As that of a lock."""
        lock = self._lock
        if not blocking and timeout != -1:
            return lock.acquire(blocking, timeout)  # which says what is wrong
        if lock.acquire(blocking=False):
            return True
        baton = _active
        member = baton.member() if baton is not None else None
        if baton is None or member is None or (timeout < 0 and timeout != -1):
            return lock.acquire(blocking, timeout)
        if not blocking or timeout == 0:
            baton.point()  # it may be asked again and again
            return lock.acquire(blocking=False)
        wanted = Wait(
            take=functools.partial(lock.acquire, blocking=False), there=lambda: not lock.locked()
        )
        return baton.wait(member, wanted, None if timeout == -1 else timeout)

    __enter__ = acquire

    def release(self) -> None:
        """As that of a lock."""
        self._lock.release()
        if _active is not None:
            _active.point()

    def __exit__(self, *_: object) -> None:
        self.release()

    def locked(self) -> bool:
        """As that of a lock."""
        return self._lock.locked()

    def _is_owned(self) -> bool:  # what a condition asks
        return self._lock.locked()

    def _at_fork_reinit(self) -> None:
        self._lock._at_fork_reinit()  # type: ignore[attr-defined]

    def __reduce__(self) -> str:
        raise TypeError("cannot pickle '_thread.lock' object")


class SimpleQueue:
    """Stands in for `queue.SimpleQueue`."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = _SimpleQueue()
        self.empty, self.qsize = self._queue.empty, self._queue.qsize

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002
        """As that of a queue."""
        self._queue.put(item)
        if _active is not None:
            _active.point()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002
        """As that of a queue."""
        baton = _active
        member = baton.member() if baton is not None else None
        if baton is None or member is None or not block or (timeout is not None and timeout < 0):
            item = self._queue.get(block, timeout)
        else:
            item = self._wait(baton, member, timeout)
        if baton is not None:
            baton.took()
            baton.point()
        return item

    def _wait(self, baton: Baton, member: Any, timeout: float | None) -> Any:
        found: list[Any] = []

        def take() -> bool:
            try:
                found.append(self._queue.get_nowait())
            except queue.Empty:
                return False
            return True

        wanted = Wait(take=take, there=lambda: not self._queue.empty())
        if not (take() or baton.wait(member, wanted, timeout)):
            raise queue.Empty
        return found.pop()

    def put_nowait(self, item: Any) -> None:
        """As that of a queue."""
        self.put(item)

    def get_nowait(self) -> Any:
        """As that of a queue."""
        return self.get(block=False)

    def __class_getitem__(cls, item: Any) -> type:
        return cls


_SimpleQueue = queue.SimpleQueue


@contextmanager
def scheduled(schedule: Schedule) -> Iterator[None]:
    """Put the schedule in force."""
    global _active  # noqa: PLW0603 - as said there
    with Replacements() as replacements:
        for owner, name, value in (*_noting(schedule), *_giving_way(schedule.baton)):
            replacements.attribute(owner, name, value)
        _active = schedule.baton
        try:
            yield
        finally:
            _active = None
            if schedule.baton is not None:
                schedule.baton.close()


def _noting(schedule: Schedule) -> Iterator[tuple[Any, str, Any]]:
    """What stands for the functions that start threads and hand them tasks."""
    thread, pool = threading.Thread, concurrent.futures.ThreadPoolExecutor
    start, submit, completed = thread.start, pool.submit, concurrent.futures.as_completed

    @functools.wraps(start)
    def started(self: Any) -> None:
        schedule.started(self, functools.partial(start, self))

    def submitted(self: Any, fn: Any, /, *args: Any, **keywords: Any) -> Future:
        schedule.users_place(sys._getframe(1))
        return schedule.submitted(submit(self, fn, *args, **keywords))

    @functools.wraps(completed)
    def as_completed(fs: Iterable[Future], timeout: float | None = None) -> Iterator[Future]:
        fs = list(fs)
        schedule.takes(sys._getframe(1))
        return schedule.as_completed(fs, timeout) or completed(fs, timeout)

    yield thread, "start", started
    yield pool, "submit", submitted
    for module in (concurrent.futures, concurrent.futures._base):
        yield module, "as_completed", as_completed


def _of_all_pools() -> Any:
    """The lock that every thread pool takes while it is handed a task: in there it may well have to wait."""
    return concurrent.futures.thread._global_shutdown_lock


def _giving_way(baton: Baton | None) -> Iterator[tuple[Any, str, Any]]:
    """What stands for all that a thread waits in."""
    if baton is None:
        return
    yield threading, "Lock", Lock
    yield threading, "_allocate_lock", Lock
    yield concurrent.futures.thread, "_global_shutdown_lock", Lock()
    if hasattr(threading, "_CRLock"):
        yield threading, "_CRLock", None  # then Python's own, made of locks
    yield queue, "SimpleQueue", SimpleQueue
    yield threading.Thread, "join", _join(baton, threading.Thread.join)
    yield (
        threading.Thread,
        "is_alive",
        _polled(baton, lambda thread: not baton.is_over(thread), while_=True),
    )
    yield threading.Event, "is_set", _polled(baton, threading.Event.is_set, while_=False)
    yield queue.Queue, "get", _taking(baton, queue.Queue.get)
    selector: Any = selectors.DefaultSelector
    yield selector, "select", _select(baton, selector.select)


def _join(baton: Baton, original: Any) -> Any:
    @functools.wraps(original)
    def join(self: threading.Thread, timeout: float | None = None) -> None:
        member = baton.member()
        if member is not None and member.thread is not self and self.ident is not None:
            over = functools.partial(baton.is_over, self)
            seconds = None if timeout is None else max(timeout, 0.0)
            if not (over() or baton.wait(member, Wait(take=over, there=over), seconds)):
                return
            timeout = None  # it is about to end
        original(self, timeout)

    return join


def _polled(baton: Baton, original: Any, *, while_: bool) -> Any:
    """A question that may be asked again and again until the answer is another one."""

    @functools.wraps(original)
    def asked(self: Any) -> bool:
        answer: bool = original(self)
        if answer is while_ and baton.member() is not None:
            baton.point()
            answer = original(self)
        return answer

    return asked


def _taking(baton: Baton, original: Any) -> Any:
    @functools.wraps(original)
    def get(self: Any, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - as it is there
        item = original(self, block, timeout)
        baton.took()
        return item

    return get


def _select(baton: Baton, original: Any) -> Any:
    @functools.wraps(original)
    def select(self: Any, timeout: float | None = None) -> Any:
        member = baton.member()
        if member is None or (timeout is not None and timeout <= 0):
            return original(self, timeout)

        def ready() -> bool:
            return bool(original(self, 0))

        if ready() or baton.wait(member, Wait(take=ready, there=ready), timeout):
            return original(self, 0)
        return []

    return select


def sleep(seconds: float) -> None:
    """Stands in for `time.sleep`, as this module found it."""
    baton = _active
    member = baton.member() if baton is not None else None
    if baton is None or member is None or not seconds > 0:
        _sleep(seconds)
        if baton is not None:
            baton.point()
    else:
        baton.wait(member, Wait(take=_never, there=_never), seconds)


_sleep = time.sleep


def _never() -> bool:
    return False
