"""What `torch.compile` made: each call is one row, and the probe is out of the way inside.

Under a dispatch mode PyTorch leaves functions uncompiled, so that the program would compute other things than it does
when nobody looks. What AOTAutograd made of a region's backward is a row too; a backend that leaves the backward to
autograd (`eager`) has its ops seen one by one, at the line that called the region.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Protocol

import torch

from repro_audit import torch_internals
from repro_audit.probe.detail.operators import state
from repro_audit.replacements import Replacements
from repro_audit.torch_internals import compiler
from repro_audit.torch_internals import operators as internals

REGION: Final = "torch.compile"
_BACKWARD_NODE: Final = "CompiledFunctionBackward"
_is_compiling = torch.compiler.is_compiling
_current_node: Callable[[], Any] = internals.CURRENT_NODE.get()
_modes: Callable[[], int] = internals.MODES.get()
_mode_at: Callable[[int], Any] = internals.MODE_AT.get()
_pop_mode: Callable[[None], Any] = internals.POP_MODE.get()
push_mode: Callable[[Any], None] = internals.PUSH_MODE.get()


class Watcher(Protocol):
    """A mode that watches operators, steps aside while a region runs, and writes the region's row."""

    @property
    def active(self) -> bool:
        """Whether it writes rows at the moment."""
        ...

    def region(
        self, frame: FrameType | None, inputs: Any, run: Callable[[], Any], written: Any
    ) -> Any:
        """Run a region and write its row; see `ops.Ops.region`."""
        ...


def step_aside(mode: Watcher) -> int | None:
    """Take a mode off the stack; how many lie above it, or None where it is not on it."""
    if not any(_mode_at(at) is mode for at in range(_modes())):
        return None
    above = []
    while (top := _pop_mode(None)) is not mode:
        above.append(top)
    for each in reversed(above):
        push_mode(each)
    return len(above)


def step_back(mode: Watcher, below: int) -> None:
    """Put a mode back on the stack, below so many others."""
    above = [_pop_mode(None) for _ in range(below)]
    push_mode(mode)
    for each in reversed(above):
        push_mode(each)


class Regions:
    """Wraps what `torch.compile` returns."""

    def __init__(self, ops: Watcher) -> None:
        self._ops = ops
        self._replacements = Replacements()
        self._owner = 0
        self._wraps = self._sees_backward = False

    def install(self) -> None:
        """Wrap what is compiled from now on; PyTorch imports its compiler late, which is a second's work."""
        self._owner = threading.get_ident()
        self._replacements = Replacements()
        if compiler.COMPILER.is_loaded():
            self._wrap_compiler()
        else:
            self._patch(torch, "compile", self._compile(torch.compile))
        for name in ("trace", "trace_module"):
            self._patch(torch.jit, name, self._tracing(getattr(torch.jit, name)))

    def uninstall(self) -> None:
        """Undo `install`. What was compiled in between stays wrapped, to no effect."""
        self._owner = 0
        self._replacements.close()
        self._wraps = self._sees_backward = False

    def covers(self, node: Any, frame: FrameType) -> bool:
        """Whether an op belongs to a compiled backward, which is a row of its own."""
        # The engine adds up gradients itself, under the node that gave them, with no code of Python's in between.
        return (
            self._sees_backward
            and node.name() == _BACKWARD_NODE
            and frame.f_code.co_name != internals.ENGINE.name
        )

    def _patch(self, owner: Any, name: str, new: Any) -> None:
        original = getattr(owner, name)
        self._replacements.attribute(owner, name, functools.wraps(original)(new))

    def _compile(self, original: Any) -> Any:
        def compile(*args: Any, **kwargs: Any) -> Any:  # noqa: A001 - replaces one
            if self._owner and not self._wraps:
                self._wrap_compiler()  # imports the compiler, as the original does next
            return original(*args, **kwargs)

        return compile

    def _tracing(self, original: Any) -> Any:
        """The JIT's tracer takes numbers for tensors, and fails, under any dispatch mode: its ops are not seen."""

        def trace(*args: Any, **kwargs: Any) -> Any:
            below = step_aside(self._ops) if threading.get_ident() == self._owner else None
            try:
                return original(*args, **kwargs)
            finally:
                if below is not None:
                    step_back(self._ops, below)

        return trace

    def _wrap_compiler(self) -> None:
        self._wraps = True
        original, compiling = compiler.COMPILER.get(), compiler.COMPILING.get()

        def __call__(context: Any, fn: Any) -> Any:  # noqa: N807 - replaces one
            made = original(context, fn=fn)
            if isinstance(context, compiling) and inspect.isfunction(made):
                return self._wrap(made, fn)
            return made

        self._patch(*compiler.COMPILER.spot(), __call__)

    def _wrap(self, compiled: Any, function: Any) -> Any:
        @functools.wraps(compiled)
        def region(*args: Any, **kwargs: Any) -> Any:
            if _is_compiling() or threading.get_ident() != self._owner:
                return compiled(*args, **kwargs)
            return self._run(compiled, function, args, kwargs, sys._getframe(1))

        if hasattr(region, compiler.COMPILED_ID.name):
            # By which the compiler knows that it looks at what it made itself.
            setattr(region, compiler.COMPILED_ID.name, id(region))
        return region

    def _run(
        self, compiled: Any, function: Any, args: Any, kwargs: Any, frame: FrameType | None
    ) -> Any:
        below = step_aside(self._ops)
        if below is None:  # in another region
            return compiled(*args, **kwargs)
        try:
            if not self._ops.active:
                return compiled(*args, **kwargs)
            return self._ops.region(
                frame,
                (args, kwargs, _reachable(function)),
                lambda: compiled(*args, **kwargs),
                (args, kwargs, _reachable(function)),
            )
        finally:
            step_back(self._ops, below)
            self._wrap_backward()

    def _wrap_backward(self) -> None:
        """Once AOTAutograd has compiled something, see to the backward."""
        backward = compiler.COMPILED_BACKWARD
        if self._sees_backward or not self._owner or not backward.is_loaded():
            return
        self._sees_backward = True
        original = backward.get()

        def call(*args: Any, **kwargs: Any) -> Any:
            rows = self._ops
            is_ours = threading.get_ident() == self._owner and rows.active
            node = _current_node() if is_ours else None
            if node is None or node.name() != _BACKWARD_NODE:
                return original(*args, **kwargs)
            below = step_aside(self._ops)
            if below is None:
                return original(*args, **kwargs)
            given = torch_internals.bind(original, *args, **kwargs).arguments["args"]
            try:
                # What it may write in place are buffers of its own.
                return rows.region(sys._getframe(1), given, lambda: original(*args, **kwargs), None)
            finally:
                step_back(self._ops, below)

        self._patch(*backward.spot(), call)


def _reachable(function: Any) -> list[Any]:
    """Modules and tensors that a function reads besides its arguments, as far as a look at it tells."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, torch.nn.Module):
        return list(state(owner))
    code = getattr(function, "__code__", None)
    if code is None:
        return [function] if isinstance(function, torch.nn.Module) else []
    names = getattr(function, "__globals__", {})
    found = [names[name] for name in code.co_names if name in names]
    with contextlib.suppress(TypeError, ValueError):  # no function, or a cell without a value yet
        found += inspect.getclosurevars(function).nonlocals.values()
    return [value for value in found if isinstance(value, (torch.Tensor, torch.nn.Module))]
