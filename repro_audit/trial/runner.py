"""The parent's side of trials: interpreters, a queue, time limits, and bounded output."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_audit.errors import InternalError
from repro_audit.isolation import room
from repro_audit.isolation.processes import (
    STACKS_SIGNAL,
    become_subreaper,
    cpu_seconds,
    kill_descendants,
    kill_group,
    kill_tree,
    tied_to_this,
)
from repro_audit.storage.facts import Facts
from repro_audit.trial.interpreter import PRELOADED
from repro_audit.trial.request import BEGUN, DEFECT, FACTS, STACKS, TERMINATE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from repro_audit.experiment import RunStatus
    from repro_audit.trial.request import TrialRequest

OUTPUT_LIMIT = 64 * 1024
"""Bytes kept of each end of what a trial prints."""

Python = tuple[str, str]
"""An interpreter, and the directory in which it finds this package."""
Environment = tuple[tuple[str, str], ...]
"""What distinguishes one interpreter's environment from another's, sorted."""

WATCHED_SECONDS = 5.0
"""How long before its limit a trial is watched for being idle."""
IDLE_SHARE = 0.02
"""Of one core: a trial that computes gets more, on however busy a machine."""
STACKS_SECONDS = 0.3
"""How long a trial has to write its stacks."""
LINGER_SECONDS = 5.0
"""How long a program may take to end once its trial is over: it may catch what should end it, and go on."""

PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
"""OpenMP's threads spin while they wait for each other, which costs trials that share cores most of their time. Bits do
not depend on it; that they spin a little lets races show. What the user has set stays."""

BOOT = """
import sys
sys.path = [entry for entry in sys.path if entry]
if {parent!r} not in sys.path:
    sys.path.append({parent!r})
from repro_audit.trial.interpreter import main
main({descriptor})
"""
"""An empty entry stands for the working directory, whose files must not shadow what torch imports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A trial to run, and the interpreter that it needs."""

    request: TrialRequest
    environment: Environment = ()
    fresh: bool = False
    """In an interpreter of its own that has imported nothing, instead of a fork."""
    before_kernels: bool = False
    """Its setting must be in force before any kernel has run: forked only where no import has run one."""
    hangs_on_load: bool = False
    """What else its machine does may decide what comes out: of several machines, such trials share one."""
    machine: str = ""
    """The kind of machine that it is to run on; empty for the first trial's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a trial ended."""

    status: RunStatus
    """`ok`, `crashed`, `timeout` or `no-steps`."""
    seconds: float
    output: str
    """The beginning and the end of what it printed."""
    facts: Facts | None
    exit: str
    """How the process ended, in words."""
    stacks: str = ""
    """Of a trial that ran out of time: where each of its threads was."""
    idle: bool = False
    """A trial that ran out of time had used next to no CPU time for a while."""


UNTESTED = Ended(status="untested", seconds=0.0, output="", facts=None, exit="was not started")
"""What there was no time for."""


@dataclass(slots=True)
class Output:
    """A bounded record of a stream: its beginning and its end."""

    head: bytearray = field(default_factory=bytearray)
    tail: deque[bytes] = field(default_factory=deque)
    kept: int = 0
    dropped: int = 0

    def add(self, data: bytes) -> None:
        """Keep what fits at the beginning, and the latest."""
        room = OUTPUT_LIMIT - len(self.head)
        self.head += data[:room]
        data = data[room:]
        if not data:
            return
        self.tail.append(data)
        self.kept += len(data)
        while self.kept - len(self.tail[0]) >= OUTPUT_LIMIT:
            self.kept -= len(self.tail[0])
            self.dropped += len(self.tail.popleft())

    def text(self) -> str:
        """Both ends as text, with a line between them where something was dropped."""
        gap = f"\n... {self.dropped} bytes left out ...\n".encode() if self.dropped else b""
        return (bytes(self.head) + gap + b"".join(self.tail)).decode("utf-8", "replace")


@dataclass(slots=True, eq=False)
class Running:
    """A trial under way."""

    job: Job
    index: int
    started: float
    pipe: int
    """Read end of what the trial prints."""
    output: Output = field(default_factory=Output)
    pid: int = 0
    watched: tuple[float, float] | None = None
    """A moment before the limit, and the CPU time that the trial had used by then."""
    idle: bool = False
    began: float | None = None
    """When it had made a step; None while it has not. It is given its time anew then."""
    over: float | None = None
    """When its facts were there; None while they are not."""
    timed_out: bool = False
    finished: bool = False


class Interpreter:
    """One Python process that waits for commands: a zygote, or the seat of one fresh trial."""

    def __init__(
        self,
        environment: Environment,
        *,
        preload: Sequence[str],
        temporary: Path,
        python: Python | None = None,
    ) -> None:
        self.environment = environment
        ours, theirs = socket.socketpair()
        executable, parent = python or (sys.executable, PACKAGE_PARENT)
        boot = BOOT.format(parent=parent, descriptor=theirs.fileno())
        waiting = {} if WAITING.keys() & os.environ.keys() else WAITING
        self.process = subprocess.Popen(
            [executable, "-c", boot],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**waiting, **os.environ, **dict(environment), "TMPDIR": str(temporary)},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            preexec_fn=tied_to_this(),  # noqa: PLW1509 - calls C only, and imports nothing
        )
        theirs.close()
        self.control = ours
        self.pending = b""
        self.ready = False
        self.ran_kernels = False
        """Of a zygote that is ready: see `interpreter.has_run_kernels`."""
        if preload:
            self.send({"do": "preload", "modules": list(preload)})

    def send(self, command: Mapping[str, object], descriptors: Sequence[int] = ()) -> None:
        """Send a command line, with file descriptors attached to it."""
        line = json.dumps(command).encode() + b"\n"
        with suppress(BrokenPipeError, ConnectionResetError):
            sent = socket.send_fds(self.control, [line], list(descriptors)) if descriptors else 0
            self.control.sendall(line[sent:])

    def receive(self) -> list[dict[str, Any]] | None:
        """The answers that have come; None once the process has hung up."""
        try:
            data = self.control.recv(65536)
        except ConnectionResetError:
            return None
        *lines, self.pending = (self.pending + data).split(b"\n")
        return [json.loads(line) for line in lines] if data else None

    def close(self) -> None:
        """End the process and its group."""
        self.control.close()
        kill_group(self.process.pid)
        self.process.wait()


class Runner:
    """Runs jobs, up to `side_by_side` at once, in interpreters that it starts where they are needed.

    Args:
        side_by_side: trials, and starting interpreters, at the same time.
        timeout: seconds that a trial may take.
        temporary: where interpreters put temporary files (importing `torch._dynamo` makes a directory).
        progress: told `(directory name, setting or None at its end)` of each trial.
        planned: told how many more trials are to run.
        python: which interpreters run trials; this one where none is given.
    """

    def __init__(
        self,
        *,
        side_by_side: int,
        timeout: float,
        temporary: Path,
        progress: Callable[[str, dict[str, str] | None], None] = lambda *_: None,
        planned: Callable[[int], None] = lambda _: None,
        python: Python | None = None,
    ) -> None:
        self.python = python
        self.side_by_side = side_by_side
        self.timeout = timeout
        self.temporary = temporary
        self.progress = progress
        self.planned = planned
        self.modules: tuple[str, ...] = ()
        self._zygotes: dict[Environment, Interpreter] = {}
        self._wanted: deque[Environment] = deque()
        self._fresh: dict[Interpreter, Running] = {}
        self._running: dict[str, Running] = {}
        self._ended: dict[int, Ended] = {}
        self._done: Callable[[int, Ended], None] = lambda *_: None
        self.until: float | None = None
        """The moment, as `time.monotonic` has it, after which no trial starts; None for never."""
        self._selector = selectors.DefaultSelector()
        become_subreaper()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        for interpreter, running in self._fresh.items():
            if running.job.request.on_several:
                interpreter.process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    interpreter.process.wait(timeout=TERMINATE_SECONDS + LINGER_SECONDS)
        for interpreter in (*self._zygotes.values(), *self._fresh):
            interpreter.close()
        for running in (*self._running.values(), *self._fresh.values()):
            os.close(running.pipe)
        self._selector.close()
        kill_descendants()

    def warm(self, environments: Iterable[Environment]) -> None:
        """Ask for zygotes that will be needed; they start where trials leave a core to them, else one by one."""
        self._wanted.extend(environments)

    def preload(self, modules: Sequence[str]) -> None:
        """Have all zygotes import what the first trial had imported, those that start later too."""
        self.modules = tuple(modules)
        for zygote in self._zygotes.values():
            zygote.send({"do": "preload", "modules": list(modules)})

    notes: tuple[str, ...] = ()
    """What the report is to say of where trials ran."""

    def spread(self, digest: str, *, uses_gpu: bool) -> tuple[str, ...]:
        """There is one machine; see `cluster.runner.ClusterRunner.spread`."""
        return ()

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """Have trials share no cores with each other."""
        before, self.side_by_side = self.side_by_side, 1
        try:
            yield
        finally:
            self.side_by_side = before

    @property
    def spent(self) -> bool:
        """Whether no trial starts any more."""
        return self.until is not None and time.monotonic() > self.until

    def run(
        self, jobs: Sequence[Job], done: Callable[[int, Ended], None] = lambda *_: None
    ) -> list[Ended]:
        """Run all jobs; their ends in the same order. `done` is told of each at its end, with its place among them."""
        self._ended, self._done = {}, done
        self.planned(len(jobs))
        for zygote in list(self._zygotes.values()):
            if zygote.process.poll() is not None:  # killed since the last batch
                self._bury(zygote)
        waiting = deque(enumerate(jobs))
        while len(self._ended) < len(jobs):
            if self.spent:
                self._ended |= {index: UNTESTED for index, _ in waiting}
                waiting.clear()
            self._start(waiting)
            self._wait()
            self._check_clocks()
        return [self._ended[index] for index in range(len(jobs))]

    # Starting

    def _room(self) -> int:
        """How many more trials may run."""
        return self.side_by_side - len(self._running) - len(self._fresh)

    def _room_to_load(self, most: int) -> bool:
        """Whether another zygote may start, where so many at most do at a time; the first trial waits for none."""
        return sum(not zygote.ready for zygote in self._zygotes.values()) < most

    def _start(self, waiting: deque[tuple[int, Job]]) -> None:
        """Start the trials that there is room for, the interpreters that others wait for, then those wanted."""
        for _ in range(len(waiting)):
            index, job = waiting.popleft()
            zygote = self._zygotes.get(job.environment)
            is_late = zygote is not None and zygote.ready and zygote.ran_kernels
            fresh = job.fresh or (job.before_kernels and is_late)
            if fresh and self._room() > 0:
                interpreter = self._interpreter(job.environment, ())
                self._launch(index, job, interpreter, "run")
                continue
            if zygote and zygote.ready and self._room() > 0 and not fresh:
                self._launch(index, job, zygote, "fork")
                continue
            if zygote is None and not job.fresh and self._room_to_load(self.side_by_side):
                self._open_zygote(job.environment)
            waiting.append((index, job))
        while self._wanted and self._room_to_load(max(1, self._room())):
            environment = self._wanted.popleft()
            if environment not in self._zygotes:
                self._open_zygote(environment)

    def _interpreter(self, environment: Environment, preload: Sequence[str]) -> Interpreter:
        return Interpreter(
            environment, preload=preload, temporary=self.temporary, python=self.python
        )

    def _open_zygote(self, environment: Environment) -> None:
        zygote = self._interpreter(environment, (*PRELOADED, *self.modules))
        self._zygotes[environment] = zygote
        self._selector.register(zygote.control, selectors.EVENT_READ, zygote)

    def _launch(self, index: int, job: Job, interpreter: Interpreter, do: str) -> None:
        request = job.request
        request.save()
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        running = Running(job=job, index=index, started=time.monotonic(), pipe=reader)
        self._selector.register(reader, selectors.EVENT_READ, running)
        interpreter.send({"do": do, "directory": str(request.directory)}, [writer, writer])
        os.close(writer)
        if do == "run":
            running.pid = interpreter.process.pid
            self._fresh[interpreter] = running
        else:
            self._running[str(request.directory)] = running
        self.progress(request.directory.name, request.setting)

    # Waiting

    def _wait(self) -> None:
        """Wait for output, answers, or ends; a fresh interpreter's end shows at the next round."""
        for key, _ in self._selector.select(timeout=0.01 if self._fresh else 0.2):
            if isinstance(key.data, Running):
                if not key.data.finished:  # an event of the same round may have ended it
                    self._drain(key.data)
            else:
                self._hear(key.data)
        for interpreter, running in list(self._fresh.items()):
            code = interpreter.process.poll()
            if code is not None:
                del self._fresh[interpreter]
                interpreter.close()
                self._finish(running, code)

    def _drain(self, running: Running) -> None:
        """Take what the trial printed; at its end stop listening."""
        with suppress(BlockingIOError):
            for _ in range(64):
                data = os.read(running.pipe, 65536)
                if not data:
                    with suppress(KeyError):
                        self._selector.unregister(running.pipe)
                    return
                running.output.add(data)

    def _hear(self, zygote: Interpreter) -> None:
        """Act on a zygote's answers."""
        answers = zygote.receive()
        if answers is None:
            self._bury(zygote)
            return
        for answer in answers:
            match answer["event"]:
                case "ready":
                    zygote.ready, zygote.ran_kernels = True, answer["ran_kernels"]
                case "forked":
                    self._running[answer["directory"]].pid = answer["pid"]
                case "ended":
                    self._finish(self._running.pop(answer["directory"]), answer["code"])

    def _bury(self, zygote: Interpreter) -> None:
        """A zygote died: so did its trials. The next job that needs one gets a new zygote."""
        self._selector.unregister(zygote.control)
        del self._zygotes[zygote.environment]
        zygote.close()
        for directory, running in list(self._running.items()):
            if running.job.environment == zygote.environment:
                del self._running[directory]
                self._finish(running, zygote.process.returncode)
        if not zygote.ready:
            raise InternalError(
                f"an interpreter died while it imported torch (exit {zygote.process.returncode})",
                next_step="does `python -c 'import torch'` work in this environment?",
            )

    def _check_clocks(self) -> None:
        """Kill the trials that are past their limit, once they have said where they are, and those that linger."""
        now = time.monotonic()
        for running in (*self._running.values(), *self._fresh.values()):
            if running.over is not None:
                if now - running.over > LINGER_SECONDS:
                    kill_tree(running.pid)
                continue
            if (running.job.request.directory / FACTS).exists():
                running.over = now
                continue
            if running.began is None and (running.job.request.directory / BEGUN).exists():
                running.began, running.watched = now, None
            # A second half waits for the first one, which may take as long to begin.
            waits = running.began is None and running.job.request.half == "second"
            left = self.timeout * (1 + waits) - (now - (running.began or running.started))
            if not running.pid or left > min(WATCHED_SECONDS, self.timeout / 2):
                continue
            if running.watched is None:
                running.watched = (now, cpu_seconds(running.pid))
            elif left <= 0 and not running.timed_out:
                running.timed_out = True
                since, used = running.watched
                running.idle = cpu_seconds(running.pid) - used < IDLE_SHARE * (now - since)
                with suppress(ProcessLookupError):
                    os.kill(running.pid, STACKS_SIGNAL)
            elif left <= -STACKS_SECONDS:
                _end(running, late=-left - STACKS_SECONDS)

    # Ending

    def _finish(self, running: Running, code: int) -> None:
        """A trial's process is gone: end what it left running, and keep what it said."""
        running.finished = True
        if running.pid:
            kill_group(running.pid)
        self._drain(running)
        with suppress(KeyError):
            self._selector.unregister(running.pipe)
        os.close(running.pipe)
        directory = running.job.request.directory
        defect = directory / DEFECT
        if defect.exists():
            said = defect.read_text(encoding="utf-8")
            raise room.from_json(said) or InternalError(f"trial {directory.name} failed:\n{said}")
        facts, stacks = None, ""
        with suppress(FileNotFoundError):
            facts = Facts.load(directory / FACTS)
        if facts is None or facts.failure is not None:
            room.check(directory)
        if running.timed_out:
            with suppress(OSError):
                stacks = (directory / STACKS).read_text(encoding="utf-8", errors="replace")
        self._ended[running.index] = Ended(
            status=_status(facts, timed_out=running.timed_out),
            seconds=time.monotonic() - running.started,
            output=running.output.text(),
            facts=facts,
            exit=_exit_in_words(code, running, self.timeout),
            stacks=stacks,
            idle=running.idle,
        )
        self.progress(directory.name, None)
        self._done(running.index, self._ended[running.index])


def _end(running: Running, *, late: float) -> None:
    """Kill a trial that is past its limit; where it has processes on other machines, it may end them first."""
    if running.job.request.on_several and late < TERMINATE_SECONDS + LINGER_SECONDS:
        with suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGTERM)
    else:
        kill_tree(running.pid)


def _status(facts: Facts | None, *, timed_out: bool) -> RunStatus:
    """A trial's status from what it left."""
    if timed_out:
        return "timeout"
    if facts is None:
        return "crashed"
    if facts.failure is not None:
        return "no-steps" if facts.failure.stopped_training else "crashed"
    return "ok"


def _exit_in_words(code: int, running: Running, timeout: float) -> str:
    """How a process ended."""
    if running.timed_out:
        where = "after its first step" if running.began else "before it made a step"
        return f"was stopped {timeout:g} s {where} (--timeout)"
    if code < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"
    return f"exited with status {code}"
