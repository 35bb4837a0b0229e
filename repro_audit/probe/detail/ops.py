"""Every operator that PyTorch runs: what it was given, what it left, and the program's own line that it is due to.

The mode lies below all modes that the program pushes, and sees what their operators come to; a tensor subclass with
a `__torch_dispatch__` of its own is seen as a whole, and so is a region that `torch.compile` made (see `regions`).
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any, Final, final

import torch

from repro_audit.probe.detail.creation_sites import Makers
from repro_audit.probe.detail.exchange import Exchange, Row
from repro_audit.probe.detail.nodes import Nodes
from repro_audit.probe.detail.operators import Forms, Operator, digest_all
from repro_audit.probe.detail.regions import REGION, Regions, push_mode, step_aside
from repro_audit.probe.detail.running import Paths
from repro_audit.probe.digest.tensors import describe, leaves
from repro_audit.storage.columns import DIGEST_BYTES
from repro_audit.storage.events import DetailWriter, Kind
from repro_audit.storage.trace import Phase
from repro_audit.torch_internals import operators as internals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch.utils._python_dispatch import TorchDispatchMode

    from repro_audit.probe.clock import Clock
    from repro_audit.probe.detail.sites import Sites
    from repro_audit.probe.digest.capture import ValueWriter
    from repro_audit.storage.facts import Key
    from repro_audit.storage.values import Value
else:
    TorchDispatchMode = internals.DISPATCH_MODE.get()

_OP, _BACKWARD = int(Kind.OP), int(Phase.BACKWARD)
_UNREADABLE = bytes(DIGEST_BYTES)
_ENGINE: Final = internals.ENGINE.get().__code__
"""The function whose frame separates what called a backward from what the backward runs."""
_SITE_BITS: Final = 32
_MODULE_MASK: Final = (1 << _SITE_BITS) - 1
_LEAF: Final = (1 << 64) - 1
"""The number of a node that belongs to no op: it adds to a leaf's gradient."""
_NO_VALUES: Mapping[Any, Any] = MappingProxyType({})

_current_node: Callable[[], Any] = internals.CURRENT_NODE.get()
_peek: Callable[[], int] = internals.NEXT_NODE.get()
_is_compiling = torch.compiler.is_compiling
_thread = threading.get_ident
_frame = sys._getframe


@final
class Ops(TorchDispatchMode):
    """Writes a row for each operator while it is `active`.

    It sees the thread that installed it, what autograd runs for that thread on threads of its own, and no forked child.

    Args:
        writer: where rows go.
        sites: which lines are the program's own.
        clock: the step and the phase; a backward is told from the rest here.
        drew: called with the site of an operator before it runs, as its line may have drawn numbers for it, and right
            after it ran, if it draws from a generator itself.
        values: where outputs go that `capture` asks for.
        capture: keys of outputs, as `exchange.Exchange` says.
        feed: outputs that are overwritten with these values, after the row was written.
    """

    supports_higher_order_operators = True

    def __init__(
        self,
        *,
        writer: DetailWriter,
        sites: Sites,
        clock: Clock,
        drew: Callable[[int], None] = lambda _site: None,
        values: ValueWriter | None = None,
        capture: frozenset[Key] = frozenset(),
        feed: Mapping[Key, Value] = _NO_VALUES,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # PyTorch's own
        self._writer = writer
        self._sites = sites
        self._clock = clock
        self._drew = drew
        self._nowhere = self._nothing = sites.nowhere
        self._exchange = Exchange(writer, values, capture, feed) if capture or feed else None
        self._operators: dict[Any, Operator] = {}
        self._forms = Forms(writer.intern)
        self._makers = Makers(writer.intern, sites)
        self._running = self._makers.running
        self._regions = Regions(self)
        self._nodes: dict[int, Nodes] = {}
        """By thread, since each counts for itself."""
        self._late: int | None = None
        """The place of an op in place on a view, whose node is made after it ran."""
        self._active = False
        self._owner = 0
        self.enter_module = self._running.enter_module
        """A module begins to run."""
        self.leave_module = self._running.leave
        """And ends."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No wrapper around the method below, which would cost each call as much as half of the row."""
        return False

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """`torch.compile` compiles as it would without this mode."""
        return True

    # Putting in place

    def install(self) -> None:
        """Begin to see operators; what is installed later must be uninstalled earlier."""
        global _installed  # noqa: PLW0603 - a forked child finds here what to leave
        self._owner = _thread()
        _installed = self
        self._makers.install()
        self._regions.install()
        # Without `__enter__`, which tells torch.compile to leave functions uncompiled.
        push_mode(self)

    def uninstall(self) -> None:
        """Leave torch as it was, also where the program left modes of its own behind."""
        global _installed  # noqa: PLW0603 - as in `install`
        _installed = None
        self.active = False
        step_aside(self)
        self._regions.uninstall()
        self._makers.uninstall()
        self._owner = 0

    @property
    def active(self) -> bool:
        """Whether rows are written."""
        return self._active

    @active.setter
    def active(self, value: bool) -> None:
        if value and not self._active:
            self._running.stack.clear()
            self._late = None
            self._nodes = {_thread(): Nodes(_peek())}
        self._active = value

    def step_ended(self) -> None:
        """Forget what only the step that ended needed."""
        if self._exchange is not None:
            self._exchange.step_ended(self._clock.step)

    def begin_again(self) -> None:
        """Forget the models: another run of the program begins in this process."""
        self._running.paths = Paths()

    def telling(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`torch.nn.Module.__call__`, or what is in its place, that tells which module runs."""

        @functools.wraps(call)
        def told(module: torch.nn.Module, /, *args: Any, **kwargs: Any) -> Any:
            # First of all, so that torch.compile finds nothing to trace or to guard.
            if _is_compiling() or not self._active or _thread() != self._owner:
                return call(module, *args, **kwargs)
            # Also of modules that other modules run, and of those that a backward runs again.
            self.enter_module(module)
            try:
                return call(module, *args, **kwargs)
            finally:
                self.leave_module()

        return told

    # What ran

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operator, once, and write its row."""
        if kwargs is None:
            kwargs = {}
        if not self._active:
            return func(*args, **kwargs)
        frame = _frame(1)
        node = _current_node()
        if node is not None and self._regions.covers(node, frame):
            return func(*args, **kwargs)
        phase, site, module = self._place(frame, node)
        operator = self._operators.get(func)
        if operator is None:
            operator = self._operators[func] = Operator.of(func, self._writer.intern)
        if operator.silent:
            return func(*args, **kwargs)
        place = site << _SITE_BITS | module
        nodes = self._look(place, args)
        # What was drawn for its arguments comes before it.
        self._drew(site)
        before = _read(operator, args, kwargs)
        result = func(*args, **kwargs)
        if (following := _peek()) != nodes.next:
            nodes.made(following, place)
        if operator.written and _writes_to_view(operator, args):
            self._late = place
        if operator.seeded:
            self._drew(site)
        row = (self._clock.step, phase, operator.name, site, module)
        outputs = self._write(row, operator, before, (args, kwargs, result))
        if self._exchange is not None:
            self._exchange.ran(row, outputs)
        return result

    def _write(
        self, row: Row, operator: Operator, before: bytes | str, values: tuple[Any, Any, Any]
    ) -> list[Any]:
        """Write the row of an op that ran; its outputs."""
        outputs: list[Any] = []
        failure = ""
        try:
            outputs = operator.outputs(*values)
            meta, after = self._forms.read(operator, outputs)
        except Exception as error:  # a type that no test of ours knows must not stop the program
            meta, after, failure = 0, _UNREADABLE, type(error).__name__
        if isinstance(before, str) or failure:
            # Both, since a row whose inputs are said to be equal must have equal ones.
            meta = self._writer.intern(f"unreadable ({failure or before!s})")
            before = after = _UNREADABLE
        step, phase, name, site, module = row
        self._writer.add(_OP, step, phase, name, site, module, meta, before, after)
        return outputs

    def region(
        self, frame: FrameType | None, inputs: Any, run: Callable[[], Any], written: Any
    ) -> Any:
        """Run what `torch.compile` made, and write one row for all of it. The mode is out of the way.

        Args:
            frame: that calls it.
            inputs: all that it is known to read.
            run: runs it.
            written: what it may write in place.
        """
        phase, site, module = self._place(frame, _current_node())
        place = site << _SITE_BITS | module
        nodes = self._look(place, ())
        before = _digest(inputs)
        del inputs
        result = run()
        nodes.made(_peek(), place)
        self._drew(site)  # it may have, for all that can be told
        after = _digest([result, written])
        is_read = before != _UNREADABLE != after
        seen = _forms_of(result) if is_read else "unreadable"
        meta = self._writer.intern(f"compiled, the ops inside are not seen: {seen}")
        name = self._writer.intern(REGION)
        bits = (before, after) if is_read else (_UNREADABLE, _UNREADABLE)
        self._writer.add(_OP, self._clock.step, phase, name, site, module, meta, *bits)
        return result

    # Whose line

    def _place(self, frame: FrameType | None, node: Any) -> tuple[int, int, int]:
        """The phase, and the ids of the line and the module that an op is due to."""
        if node is None:
            return self._clock.phase, *self._forward_place(frame)
        return _BACKWARD, *self._backward_place(frame, node)

    def _forward_place(self, frame: FrameType | None) -> tuple[int, int]:
        """The ids of the innermost line of the program's own, or of the line that made what runs, and of the module."""
        site = self._sites.innermost(frame)
        stack = self._running.stack
        if not stack:
            return site, self._nothing
        top = stack[-1]
        unknown = site == self._nowhere and not self._clock.fetching
        return (top.made if unknown else site), top.module

    def _backward_place(self, frame: FrameType | None, node: Any) -> tuple[int, int]:
        """The line of the program's own that the backward runs, or that of the op whose backward it is.

        `loss.backward()` in line 30 goes back through `self.layer(x)` in line 12 of `forward`:

        - An op of its node: the node's number was noted when line 12 made it, so it is due to line 12 and to `layer`.
        - An op in the `backward` of a Function that the program wrote: that method's line is on the stack.
        - An op of a module that a backward runs again (a checkpoint): that module, and the line on the stack.
        - The sum into the gradient of a parameter, a leaf: the module that owns it, and line 30, which called.
        """
        sites, nowhere = self._sites, self._nowhere
        site = nowhere
        while frame is not None and (code := frame.f_code) is not _ENGINE:
            if sites.is_users(code):
                site = sites.at(code, frame.f_lineno)
                break
            frame = frame.f_back
        number = node._sequence_nr()
        known = self._find(number) if number != _LEAF else None
        stack = self._running.stack
        top = stack[-1] if stack and stack[-1].again else None
        if top is not None:
            module = top.module
        elif known is not None:
            module = known & _MODULE_MASK
        else:
            module = self._owner_of_leaf(node) if number == _LEAF else self._nothing
        if site == nowhere and known is not None:
            site = known >> _SITE_BITS
        if site == nowhere and top is not None:
            site = top.made
        if site == nowhere:
            # On a thread of autograd's own there is no frame of the caller's, which waits on its thread.
            caller = frame if frame is not None else sys._current_frames().get(self._owner)
            site = sites.innermost(caller)
        return site, module

    def _owner_of_leaf(self, node: Any) -> int:
        leaf = getattr(node, "variable", None)
        path = self._running.paths.owner(leaf) if isinstance(leaf, torch.Tensor) else ""
        return self._writer.intern(path)

    # Nodes

    def _find(self, number: int) -> int | None:
        """The place where a node was made; None also where two threads gave out the same number."""
        found = [
            place for nodes in self._nodes.values() if (place := nodes.find(number)) is not None
        ]
        return found[0] if len(found) == 1 else None

    def _look(self, place: int, args: tuple[Any, ...]) -> Nodes:
        """Give the nodes that were made since the last op to this one, or the first of them to the last one.

        Autograd makes node 7 for `self.layer(x)`, then runs its op. The number to come is 8 now, and was 7 at the last
        look, so node 7 is this op's. For `y[0] += 1`, in place on a view, it makes the node after the op ran (`_late`).
        So where the next op finds two new numbers, or one though it makes none, the first is that line's.
        """
        thread, following = _thread(), _peek()
        nodes = self._nodes.get(thread)
        if nodes is None:
            nodes = self._nodes[thread] = Nodes(following)
        if following != nodes.next:
            if self._late is not None and (following - nodes.next > 1 or not _makes_node(args)):
                nodes.made(nodes.next + 1, self._late)
            nodes.made(following, place)
        self._late = None
        return nodes


def _read(operator: Operator, args: Any, kwargs: Any) -> bytes | str:
    """The digest of an op's inputs, or why there is none."""
    try:
        return operator.inputs(args, kwargs)
    except (
        Exception
    ) as error:  # as in `Ops._write`; the exception itself would keep the inputs alive
        return type(error).__name__


def _digest(value: Any) -> bytes:
    try:
        return digest_all([value])
    except Exception:  # as in `Ops._write`
        return _UNREADABLE


def _makes_node(args: tuple[Any, ...]) -> bool:
    """Whether autograd records the op that has these arguments."""
    return torch.is_grad_enabled() and any(
        isinstance(item, torch.Tensor) and item.requires_grad
        for value in args
        for item in (value if isinstance(value, (list, tuple)) else (value,))
    )


def _writes_to_view(operator: Operator, args: tuple[Any, ...]) -> bool:
    return any(
        place < len(args) and isinstance(args[place], torch.Tensor) and args[place]._is_view()
        for place, _ in operator.written
    )


def _forms_of(result: object) -> str:
    return ", ".join(describe(leaf) for _, leaf in leaves(result)) or "nothing"


_installed: Ops | None = None


def _leave_in_child() -> None:
    """A forked child, such as a DataLoader worker, is none of ours to see: it writes nothing, and pays nothing."""
    if _installed is not None:
        _installed.active = False
        step_aside(_installed)


os.register_at_fork(after_in_child=_leave_in_child)
