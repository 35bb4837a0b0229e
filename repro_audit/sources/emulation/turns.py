"""The order in which a loader's workers do their tasks: forced, not waited for.

Main process and workers share a small mapped file, found by the worker's process id, so it serves whichever way workers
start. A worker that has taken a task waits for its turn. Nobody waits for ever: a program whose workers wait for each
other has its tasks let go.
"""

from __future__ import annotations

import functools
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from repro_audit.replacements import Replacements
from repro_audit.torch_internals import bind
from repro_audit.torch_internals import loaders as internals

IN_TURN, FIRST_LATE, FIRST_EARLY = "in turn", "first worker late", "first worker early"

_POLL = 0.0005
"""Seconds between two looks."""
_UNTAKEN, _TAKEN = 1.0, 20.0
"""Seconds to wait for a task that no worker has taken yet, and for one that a worker is at."""
_WORD, _EPOCH = 8, 32
"""Bytes of a number in the file; bits of a task's number below its epoch's."""
_ITERATOR_MARK = "_repro_audit_board"
INTERNALS = (
    internals.WORKERS_RESET,
    internals.SEND_TASK,
    internals.END_WORKERS,
    internals.WORKER_LOOP,
    internals.BATCHES_IN_ORDER,
    internals.NEXT_TASK,
    internals.TASKS,
    internals.WORKERS_ENDED,
    internals.WORKERS,
)
"""What of PyTorch's it takes."""


class Board:
    """The shared file: the next task, whether all is over, and where each worker is.

    Of a worker it has what it was sent, has done, and is at, and whether it has begun at all.
    No locks: each number has one writer at a time, and one that holds a lock may be killed.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
        self.workers = (len(self._words) - 2) // 4

    @classmethod
    def make(cls, path: Path, workers: int) -> Board:
        """A new one, with nothing done."""
        path.write_bytes(bytes(_WORD * (2 + 4 * workers)))
        return cls(path)

    @property
    def turn(self) -> int:
        """The task whose turn it is, by epoch and number."""
        return self._words[0]

    @property
    def closed(self) -> bool:
        """Whether the main process is about to end the workers."""
        return bool(self._words[1])

    def close(self) -> None:
        """Let nobody wait any more."""
        self._words[1] = 1

    def advance(self, turn: int) -> None:
        """Let the turn be this one's, if it was an earlier one's. Only who has the turn, or resets, comes here."""
        self._words[0] = max(self._words[0], turn)

    def send(self, worker: int) -> None:
        """Count a task that the main process hands to a worker."""
        self._words[2 + 4 * worker] += 1

    def begin(self, worker: int) -> None:
        """The worker is there, and will take tasks."""
        self._words[5 + 4 * worker] = 1

    def take(self, worker: int) -> None:
        """The worker begins a task."""
        self._words[4 + 4 * worker] = 1

    def finish(self, worker: int) -> None:
        """The worker has ended its task."""
        self._words[3 + 4 * worker] += 1
        self._words[4 + 4 * worker] = 0

    def idle(self, workers: range) -> bool:
        """Whether these workers have done all that they were sent."""
        return all(self._words[3 + 4 * each] >= self._words[2 + 4 * each] for each in workers)

    def busy(self) -> bool:
        """Whether any worker is at a task, or on its way to its first one."""
        return any(
            self._words[4 + 4 * each]
            or (self._words[2 + 4 * each] and not self._words[5 + 4 * each])
            for each in range(self.workers)
        )


class Turns:
    """Stands in for a worker's queue of tasks, and hands each out in its turn."""

    def __init__(self, queue: Any, worker: int, board: Board, order: str) -> None:
        self._queue, self._worker = queue, worker
        self._board, self._order = board, order
        self._epoch = 0
        self._task: int | None = None
        self._let_go = False
        board.begin(worker)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def get(self, *args: Any, **keywords: Any) -> Any:
        """The next task; asking for it ends the one before."""
        if self._task is not None:
            self._board.finish(self._worker)
            self._board.advance(self._task + 1)
            self._task = None
        message = self._queue.get(*args, **keywords)
        if isinstance(message, tuple):
            task = (self._epoch << _EPOCH) + message[0]
            self._wait_for(task)
            self._board.take(self._worker)
            self._task = task
        elif message is not None:  # another epoch of workers that persist
            self._epoch += 1
        return message

    def _wait_for(self, task: int) -> None:
        since = monotonic()
        while not (self._let_go or self._is_turn(task) or self._board.closed):
            sleep(_POLL)
            self._let_go = monotonic() - since > (_TAKEN if self._board.busy() else _UNTAKEN)

    def _is_turn(self, task: int) -> bool:
        if self._order == IN_TURN:
            return self._board.turn >= task
        begun = self._board.turn >= (self._epoch << _EPOCH) + 1
        first = self._worker == 0
        if first is (self._order == FIRST_EARLY):
            return begun
        others = range(1, self._board.workers) if first else range(1)
        return begun and self._board.idle(others)


@contextmanager
def in_order(order: str, directory: Path) -> Iterator[None]:
    """Give every DataLoader's workers their turns in this order; torch is imported."""
    directory.mkdir(exist_ok=True)
    hooks = _Hooks(order, directory)
    with Replacements() as replacements:
        for internal, make in (
            (internals.WORKERS_RESET, hooks.reset),
            (internals.SEND_TASK, hooks.try_put_index),
            (internals.END_WORKERS, hooks.shutdown_workers),
            (internals.WORKER_LOOP, hooks.worker_loop),
        ):
            replacements.attribute(*internal.spot(), make(internal.get()))
        yield


class _Hooks:
    """What stands for the parts of torch's loader that hand out tasks and take them; each is made from the original."""

    def __init__(self, order: str, directory: Path) -> None:
        self._order, self._directory = order, directory

    def reset(self, original: Any) -> Any:
        def _reset(iterator: Any, loader: Any, first_iter: bool = False) -> None:  # noqa: FBT001, FBT002 - torch's
            board = _board_of(iterator, self._directory)
            in_turn = self._order == IN_TURN
            if in_turn:
                setattr(iterator, internals.BATCHES_IN_ORDER.name, True)
            epoch = 0 if first_iter else (board.turn >> _EPOCH) + 1
            original(iterator, loader=loader, first_iter=first_iter)
            # All first tasks are sent by now. Where turns go by the tasks' numbers, the first one may have begun.
            board.advance((epoch << _EPOCH) + (not in_turn))

        return _reset

    def try_put_index(self, original: Any) -> Any:
        def _try_put_index(iterator: Any) -> None:
            task = internals.NEXT_TASK.of(iterator)
            original(iterator)
            if internals.NEXT_TASK.of(iterator) != task:
                worker = internals.TASKS.of(iterator)[task][0]
                _board_of(iterator, self._directory).send(worker)

        return _try_put_index

    def shutdown_workers(self, original: Any) -> Any:
        """An epoch that is broken off leaves tasks behind. Whether they are done is a race, decided here."""

        def _shutdown_workers(iterator: Any) -> None:
            board: Board | None = getattr(iterator, _ITERATOR_MARK, None)
            if board is not None and not internals.WORKERS_ENDED.of(iterator):
                since = monotonic()
                while not board.idle(range(board.workers)) and _all_alive(iterator):
                    if monotonic() - since > _TAKEN:
                        break
                    sleep(_POLL)
                board.close()
            original(iterator)

        return _shutdown_workers

    def worker_loop(self, original: Any) -> Any:
        @functools.wraps(original)  # whoever stands in for it next asks for its signature
        def _worker_loop(*args: Any) -> None:
            board = _board_here(self._directory)
            if board is not None:
                bound = bind(original, *args)
                queue, worker = (bound.arguments[name] for name in ("index_queue", "worker_id"))
                bound.arguments["index_queue"] = Turns(queue, worker, board, self._order)
                args = bound.args
            original(*args)

        return _worker_loop


def _board_of(iterator: Any, directory: Path) -> Board:
    """The board of an iterator's workers, which run by now; made when it is first asked for."""
    board: Board | None = getattr(iterator, _ITERATOR_MARK, None)
    if board is None:
        pids = [worker.pid for worker in internals.WORKERS.of(iterator)]
        path = directory / f"board-{os.getpid()}-{pids[0]}"
        board = Board.make(path, len(pids))
        setattr(iterator, _ITERATOR_MARK, board)
        for pid in pids:
            link = directory / str(pid)
            link.unlink(missing_ok=True)  # of a worker that is gone, whose number came round again
            link.symlink_to(path)
    return board


def _all_alive(iterator: Any) -> bool:
    try:
        return all(worker.is_alive() for worker in internals.WORKERS.of(iterator))
    except AssertionError:  # of another process than the one that started them
        return False


def _board_here(directory: Path) -> Board | None:
    """The board of this worker, once the main process has made it."""
    # A thread that stands for a process has a number of its own to show, which is not this process's.
    number = getattr(threading.current_thread(), "pid", os.getpid())
    path, since = directory / str(number), monotonic()
    while monotonic() - since < _TAKEN:
        with suppress(FileNotFoundError):
            return Board(path)
        sleep(_POLL)
    return None
