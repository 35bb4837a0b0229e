"""The line-level probe: every line of the program's own code, with the values that it names before and after it ran.

Lines are seen through `sys.settrace`, in the thread that installed it, and in those that take turns with it (see
`sources._baton`); frames of other code cost a dictionary look-up a call. Code that `torch.compile` wrote, and what runs
while it traces, goes unseen, and so does what autograd runs on threads of its own (backward on a CUDA device). What the
probe computes it computes from memory: it calls nothing of the program's, and an error of its own ends it rather than
the program.

Where a line names a tensor that the next one names too, it is read once: between the two nothing has run. Longer than
that no digest is kept, since memory can change under a tensor whose version does not (`.data`, `numpy()`).
"""

from __future__ import annotations

import dis
import inspect
import sys
import time
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, final

import torch
import xxhash

from repro_audit.probe.clock import Clock
from repro_audit.probe.detail.hints import reads
from repro_audit.probe.detail.names import (
    GLOBAL,
    LOCAL,
    Chain,
    Plan,
    instructions_of,
    is_opaque,
    leaving,
    look_up,
    plans_of,
)
from repro_audit.probe.detail.rng_log import RngLog, module_name
from repro_audit.probe.detail.sites import Sites
from repro_audit.probe.digest.limited import digest
from repro_audit.probe.digest.stored import MISSING, is_generator
from repro_audit.storage.events import DetailWriter, Kind, Line
from repro_audit.torch_internals import compiler

MOST_EVENTS = 2_000_000
MOST_SECONDS = 60.0
_MOST_SEARCHES = 64
_LINE = int(Kind.LINE)
_NOTHING_NAMED = xxhash.xxh3_128_digest(b"")
_NO_PLAN = Plan(
    chains=(),
    stores=frozenset(),
    seeds=False,
    iterates=False,
    builds_set=False,
    adds_to_set=False,
    searches=0,
)
_NO_DATA = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
_YIELDS = frozenset(("YIELD_VALUE", "YIELD_FROM", "SEND"))
_RESUMABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_hash: Callable[[bytes], bytes] = xxhash.xxh3_128_digest
_is_compiling = torch.compiler.is_compiling
_seconds = time.perf_counter
_set_compiler: Callable[[Any], Any] = compiler.SET_COMPILER.get()
"""What `torch.compile` has each frame of this thread go through; nothing of ours must, as it would be compiled."""

Memo = dict[int, tuple[object, bytes]]
"""Digests by the identity of values that are held meanwhile, good for one event."""


@final
class _Code:
    """What is known of a code object, which it keeps alive: ids of objects that are gone come round again."""

    __slots__ = ("code", "is_function", "is_opaque", "leaving", "operations", "plans")

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.is_opaque = is_opaque(code)
        instructions = [] if self.is_opaque else list(instructions_of(code))
        self.plans = plans_of(code.co_filename, instructions) if instructions else {}
        self.leaving = leaving(instructions)
        """Where a `with` block is left: the `return` that does so is at a line before."""
        self.is_function = bool(code.co_flags & inspect.CO_OPTIMIZED)
        """Neither a module nor the body of a class, which return nothing."""
        self.operations = code.co_code if code.co_flags & _RESUMABLE else b""

    def yields_at(self, offset: int) -> bool:
        """Whether a frame that is left at an instruction may go on."""
        return 0 <= offset < len(self.operations) and (
            dis.opname[self.operations[offset]] in _YIELDS
        )


@final
class _Running:
    """A frame of the program's, and the line that runs in it; the frame's own trace function."""

    __slots__ = (
        *("before", "code", "last", "line", "lines", "phase", "plan", "raised", "site", "step"),
    )

    def __init__(self, lines: Lines, code: _Code) -> None:
        self.lines = lines
        self.code = code
        self.plan: Plan | None = None
        """None while no line has begun since the frame is watched."""
        self.line = 0
        self.site = lines.nowhere
        self.before = b""
        self.step = self.phase = 0
        self.last: tuple[int, bytes] | None = None
        """While `with` blocks are left: the site of the line that ran until then, and what it started from."""
        self.raised = False
        """An exception has passed, and no line has begun since."""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> _Running | None:
        lines = self.lines
        if not lines.on:
            frame.f_trace = None
            return None
        started = _seconds()
        compiler = _set_compiler(None)
        try:
            if event == "line":
                lines.line(self, frame)
            elif event == "return":
                lines.left(self, frame, arg)
            else:
                self.raised = True
        except RecursionError:
            pass  # the program is as deep as it may be; it shall have the error, not the trace
        except Exception as error:
            lines.end(f"the probe of lines failed ({type(error).__name__}: {error})")
        lines.spend(_seconds() - started)
        if compiler is not None:
            _set_compiler(compiler)
        return self


@final
class Lines:
    """Writes a row for every line of the program's own that runs in this thread.

    Args:
        writer: of the rows.
        sites: of the same writer.
        clock: the step and the phase under way.
        ledger: told of every line that has ended.
        most_events: lines and returns after which the probe switches itself off.
        most_seconds: likewise, spent in the probe.
    """

    def __init__(
        self,
        *,
        writer: DetailWriter,
        sites: Sites,
        clock: Clock,
        ledger: RngLog,
        most_events: int = MOST_EVENTS,
        most_seconds: float = MOST_SECONDS,
    ) -> None:
        self.on = False
        self.truncated = ""
        """Why the probe switched itself off; empty while it did not."""
        self.nowhere = sites.nowhere
        self._writer = writer
        self._sites = sites
        self._clock = clock
        self._ledger = ledger
        self._events = most_events
        self._time = most_seconds
        self._limits = f"{most_events} lines, or {most_seconds:g} seconds"
        self._return = writer.intern("return")
        self._earlier: Any = None
        self._codes: dict[int, _Code] = {}
        self._users: dict[str, bool] = {}
        self._modules: set[str] = set()
        self._stack: list[_Running] = []

    # Switching

    def install(self, *, running: bool = True) -> None:
        """Watch this thread; `running`: and the program's frames that are running now, from their next line on."""
        if self.on or self.truncated:
            return
        self.on = True
        self._ledger.start()
        self._modules.clear()
        self._earlier = sys.gettrace()
        frames = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and running:
            if self._sites.is_users(frame.f_code):
                frames.append(frame)
            frame = frame.f_back
        for frame in reversed(frames):
            entered = self._enter(frame)
            if entered is not None:
                entered.line = frame.f_lineno or 0
                entered.site = self._sites.at(frame.f_code, entered.line)
                frame.f_trace = entered
        sys.settrace(self._called)

    def uninstall(self) -> None:
        """Watch no longer; a trace function that was there before is there again."""
        if not self.on:
            return
        self.poll()
        self._switch_off()

    def end(self, why: str) -> None:
        """Switch off for good."""
        self.truncated = self.truncated or why
        self._switch_off()

    def _switch_off(self) -> None:
        self.on = False
        self._stack.clear()
        if sys.gettrace() == self._called:
            sys.settrace(self._earlier)
        self._earlier = None

    def spend(self, seconds: float) -> None:
        """Count an event against the budget."""
        self._events -= 1
        self._time -= seconds
        if self._events <= 0 or self._time <= 0:
            self.end(f"the probe of lines stopped after its share of the time ({self._limits})")

    def poll(self) -> None:
        """Have the ledger look at all generators, on account of the line that is running."""
        if self._stack:
            top = self._stack[-1]
            self._ledger.poll(top.site, seeds=top.plan is not None and top.plan.seeds)
        else:
            # A library that takes a state far on, without a line of the program's, sets it: torch does, in workers.
            self._ledger.poll(self.nowhere, seeds=True)

    # Events

    def _called(self, frame: FrameType, _event: str, _arg: Any) -> _Running | None:
        if self._users.get(frame.f_code.co_filename) is False or not self.on:
            return None
        started = _seconds()
        compiler = _set_compiler(None)
        running = None
        try:
            running = self._called_users(frame)
        except RecursionError:
            pass  # as in `_Running`
        except Exception as error:
            self.end(f"the probe of lines failed ({type(error).__name__}: {error})")
        if compiler is not None:
            _set_compiler(compiler)
        self.spend(_seconds() - started)
        return running

    def _called_users(self, frame: FrameType) -> _Running | None:
        name = frame.f_code.co_filename
        known = self._users.get(name)
        if known is None:
            known = self._users[name] = self._sites.is_users(frame.f_code)
        if not known or _is_compiling():
            return None
        self.poll()
        return self._enter(frame)

    def _enter(self, frame: FrameType) -> _Running | None:
        """A frame begins, or a generator's goes on."""
        running = frame.f_trace
        if not isinstance(running, _Running) or running.lines is not self:
            code = self._codes.get(id(frame.f_code))
            if code is None:
                code = self._codes[id(frame.f_code)] = _Code(frame.f_code)
            if code.is_opaque:
                return None
            running = _Running(self, code)
            running.site = self._sites.at(frame.f_code, frame.f_code.co_firstlineno)
            self._stack.append(running)
            self._see_module(frame.f_globals, running.site)
            return running
        self._stack.append(running)
        if running.plan is not None:
            self._begin(running, frame, frame.f_locals, {})
        return running

    def _see_module(self, module: dict[str, Any], site: int) -> None:
        name = module_name(module)
        if name not in self._modules:
            self._modules.add(name)
            self._ledger.search_module(module, site)

    def line(self, running: _Running, frame: FrameType) -> None:
        """A line is about to run, so the one before it has ended."""
        self._settle(running)
        memo: Memo = {}
        variables = frame.f_locals
        self.poll()
        if running.plan is not None:
            self._finish(running, frame, variables, memo)
        if frame.f_lasti not in running.code.leaving:
            running.last = None
        elif running.last is None and running.plan is not None:
            running.last = running.site, running.before
        running.raised = False
        running.line = frame.f_lineno or 0
        running.site = self._sites.at(frame.f_code, running.line)
        running.plan = running.code.plans.get(running.line, _NO_PLAN)
        self._begin(running, frame, variables, memo)

    def left(self, running: _Running, frame: FrameType, value: Any) -> None:
        """A frame returns, yields, or is left by an exception."""
        self._settle(running)
        self.poll()
        if running.plan is not None:
            self._finish(running, frame, frame.f_locals, {})
            goes_on = running.code.yields_at(frame.f_lasti)
            is_thrown = running.raised and value is None and not goes_on
            if running.code.is_function and not is_thrown:
                bits = digest(value)
                if running.last is not None and not goes_on:
                    running.site, running.before = running.last
                self._write(running, self._return, self._writer.intern(""), bits)
        self._stack.pop()

    def _settle(self, running: _Running) -> None:
        """See that the frame is on top: what was above it and has ended unseen is gone."""
        stack = self._stack
        if stack and stack[-1] is running:
            return
        while running in stack and stack[-1] is not running:
            stack.pop()
        if not stack or stack[-1] is not running:
            stack.append(running)

    # Values

    def _begin(
        self, running: _Running, frame: FrameType, variables: Mapping[str, Any], memo: Memo
    ) -> None:
        plan = running.plan
        assert plan is not None  # noqa: S101 - set by both callers
        running.step, running.phase = self._clock.step, self._clock.phase
        values = self._values(running, plan, variables, frame.f_globals)
        running.before = _digest_all(values, memo)
        if plan.searches > 0 and values:
            self._search(running, plan, frame)

    def _finish(
        self, running: _Running, frame: FrameType, variables: Mapping[str, Any], memo: Memo
    ) -> None:
        """Write the row of a line that has run."""
        plan = running.plan
        assert plan is not None  # noqa: S101 - seen to by both callers
        values = self._values(running, plan, variables, frame.f_globals)
        after = _digest_all(values, memo)
        if plan.searches > 0:
            new = self._search(running, plan, frame)
            # A line that brought a generator along may bring another one each time.
            plan.searches = plan.searches - 1 if plan.meta >= 0 else (new and _MOST_SEARCHES)
        if plan.meta < 0:
            found = reads(plan, values, variables, frame.f_globals)
            names = _names_of_data(plan, variables, frame.f_globals)
            sets = tuple(name for name, assigned in names.items() if assigned)
            line = Line(names=tuple(names), reads=found, sets=sets)
            plan.meta = self._writer.intern(line.text())
        self._write(running, self.nowhere, plan.meta, after)

    def _write(self, running: _Running, name: int, meta: int, after: bytes) -> None:
        self._writer.add(
            _LINE,
            running.step,
            running.phase,
            name,
            running.site,
            self.nowhere,
            meta,
            running.before,
            after,
        )

    def _values(
        self,
        running: _Running,
        plan: Plan,
        variables: Mapping[str, Any],
        module: dict[str, Any],
    ) -> list[Any]:
        """What the names on a line stand for now; of generators the ledger is told."""
        values = []
        for chain in plan.chains:
            value, depth = look_up(chain, variables, module)
            # Where a generator stands is for the ledger: the line only has it.
            values.append(type(value) if is_generator(value) else value)
            if is_generator(value):
                name = _place(chain, depth, running.code, module)
                self._ledger.look(value, name, running.site, seeds=plan.seeds)
        return values

    def _search(self, running: _Running, plan: Plan, frame: FrameType) -> bool:
        """Whether one of the objects that a line names holds a generator that was not known."""
        variables, module = frame.f_locals, frame.f_globals
        new = False
        for chain in plan.chains:
            value, depth = look_up(chain, variables, module)
            if not is_generator(value):
                name = _place(chain, depth, running.code, module)
                new |= self._ledger.search(value, name, running.site)
        return new


def _place(chain: Chain, depth: int, code: _Code, module: dict[str, Any]) -> str:
    """Where a value is kept: the names that led to it, with the module for one at its top level."""
    text = ".".join(chain.path[:depth])
    at_top = chain.where == GLOBAL or (chain.where != LOCAL and not code.is_function)
    return f"{module_name(module)}.{text}" if at_top else text


def _keep_compiler_out(*functions: Any) -> None:
    """See that `torch.compile` does not compile these: it looks at every frame that begins below a compiled one."""
    leave = compiler.STRATEGY_ACTION.get().SKIP
    strategy = compiler.STRATEGY.get()(leave, leave)
    for function in functions:
        compiler.SET_STRATEGY.get()(function.__code__, strategy)


_keep_compiler_out(_Running.__call__, Lines._called)


def _names_of_data(
    plan: Plan, variables: Mapping[str, Any], module: dict[str, Any]
) -> dict[str, bool]:
    """The names on a line that stand for values, without those of functions, classes and modules.

    Each with whether the line assigns to it.
    """
    found: dict[str, bool] = {}
    for chain in plan.chains:
        value, depth = look_up(chain, variables, module)
        is_bound = value is not MISSING or chain.where == LOCAL
        if is_bound and not issubclass(type(value), _NO_DATA):
            name = ".".join(chain.path[:depth])
            found[name] = found.get(name, False) or chain in plan.stores
    return found


def _digest_all(values: list[Any], memo: Memo) -> bytes:
    """One digest for the values of a line, in their order."""
    found = []
    for value in values:
        known = memo.get(id(value))
        if known is None:
            known = memo[id(value)] = (value, digest(value))
        found.append(known[1])
    if len(found) == 1:
        return found[0]
    return _hash(b"".join(found)) if found else _NOTHING_NAMED
