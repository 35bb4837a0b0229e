"""The hooks on torch: forward, backward and optimizers. Those on DataLoaders are in `loaders`.

Each hook returns what it was given, draws nothing and keeps no tensor. While `torch.compile` traces they do nothing, so
that they leave nothing in what it traces.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

import torch
from torch.optim import optimizer as torch_optimizer

from repro_audit.probe import Probe, StopTraining
from repro_audit.probe.clock import Clock
from repro_audit.probe.digest.generators import ambient
from repro_audit.probe.digest.tensors import pass_over, reading
from repro_audit.probe.steps.counters import MOST_BACKWARDS
from repro_audit.probe.steps.functional import Functional
from repro_audit.probe.steps.loaders import Loaders
from repro_audit.probe.steps.models import Models, Parameter, behind
from repro_audit.probe.steps.recorder import Recorder
from repro_audit.probe.steps.stakes import Watch
from repro_audit.replacements import Replacements
from repro_audit.storage.trace import Phase, Trace
from repro_audit.torch_internals.tensors import GRAD_AND_VALUE, TRACING, TRANSFORMS

_INIT, _DATA, _FORWARD = int(Phase.INIT), int(Phase.DATA), int(Phase.FORWARD)
_BACKWARD, _OPTIMIZER = int(Phase.BACKWARD), int(Phase.OPTIMIZER)
_is_compiling = torch.compiler.is_compiling
_is_transforming: Callable[[], object] = TRANSFORMS.get()
"""Something where `vmap`, `grad` or another transform of `torch.func` is under way."""
_tracing: Callable[[], object] = TRACING.get()
_INSIDE_TRANSFORMS = "outputs of modules inside of transforms of torch.func"
_MODULE = "what a module holds"
_thread = threading.get_ident
_clock = time.perf_counter


class Hooks:
    """What `Probe.install` puts in place: one object for one training."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self.recorder = Recorder(probe.trace, probe.values, probe.capture, probe.prefix)
        self.recorder.step = self._first_step = probe.steps
        if probe.detailed is not None:
            self.recorder.tell(probe.detailed.observed)
        self._clock = Clock() if probe.detailed is None else probe.detailed.clock
        self._models = Models(self.recorder)
        self._stakes = Watch(probe.stakes)
        loaders = self._loaders = Loaders(probe, self)
        self.enter, self.skip, self.next_batch = loaders.enter, loaders.skip, loaders.next_batch
        self._replacements = Replacements()
        self._thread = self._owner = 0
        self._enough = False
        self._in_module = False
        self._muted = 0
        """Modules run now for a loader, or again for a backward: not as a step of the training."""
        self._stepping: list[tuple[object, FrameType]] = []
        self._loss: float | None = None
        self._before: dict[Parameter, bytes] | None = None
        """While no optimizer has stepped: the parameters at the last backward."""
        self.by_hand = False
        """Parameters were changed with no optimizer of torch's."""
        self._begun = False
        self._generators_seen = False
        """A batch of this step came with the states of the generators."""
        self._call = torch.nn.Module.__call__

    # Putting in place

    def install(self) -> None:
        """Hook torch, process-wide."""
        global _installed  # noqa: PLW0603 - as in `install`
        if _installed is not None:
            raise RuntimeError("another probe is installed")
        _installed = self
        self._thread = self._owner = _thread()
        for handle in (
            torch_optimizer.register_optimizer_step_pre_hook(self._enter_step),
            torch_optimizer.register_optimizer_step_post_hook(self._leave_step),
        ):
            self._replacements.callback(handle.remove)
        for owner, name, new in (
            (torch.nn.Module, "__call__", self._wrap_call()),
            (torch.autograd, "backward", self._wrap_backward()),
            (torch.autograd, "grad", self._wrap_grad()),
            (torch.amp.GradScaler, "scale", self._wrap_scale()),
            (*GRAD_AND_VALUE.spot(), Functional(self).wrap(GRAD_AND_VALUE.get())),
        ):
            self._replacements.attribute(owner, name, new)
        self._loaders.install()

    def uninstall(self) -> None:
        """Leave torch as it was."""
        global _installed  # noqa: PLW0603 - as in `install`
        _installed = None
        self.stop()
        self._replacements.close()
        self._loaders.uninstall()

    def stop(self) -> None:
        """Observe nothing more."""
        self._thread = 0
        if self._probe.detailed is not None:
            self._probe.detailed.stop()

    @property
    def observing(self) -> bool:
        """Whether this is the thread, and the process, that is observed."""
        return _thread() == self._thread

    def mute(self) -> None:
        """Let modules run unobserved, in a loader's hands or a backward's."""
        self._muted += 1

    def unmute(self) -> None:
        """End what `mute` began."""
        self._muted -= 1

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """Mute, while a loader is at work."""
        clock = self._clock
        earlier, clock.phase = clock.phase, _DATA
        self.mute()
        try:
            yield
        finally:
            self.unmute()
            # Of a loader that a module reads, or a dataset, the phase is that of its owner again.
            clock.phase = _FORWARD if earlier in {_INIT, _OPTIMIZER} else earlier

    def meet(self, event: str) -> None:
        """Tell whoever waits for it that the training goes on."""
        if self._probe.between is not None:
            self._probe.between(event)

    # Forward

    def _wrap_call(self) -> Callable[..., Any]:
        """Observe the output of each module that no other module runs.

        No global forward hooks: they cost every inner module ten times as much, and `torch.compile` warns of them.
        """
        call = self._call

        @functools.wraps(call)
        def observed(module: torch.nn.Module, /, *args: Any, **kwargs: Any) -> Any:
            # First of all, so that torch.compile finds nothing to trace or to guard.
            if _is_compiling() or self._in_module or self._muted or _thread() != self._thread:
                return call(module, *args, **kwargs)
            return self._run_root(module, args, kwargs)

        detailed = self._probe.detailed
        ops = detailed.ops if detailed is not None else None
        return observed if ops is None else ops.telling(observed)

    def _run_root(self, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        if _tracing() is not None:
            return self._call(module, *args, **kwargs)
        if _is_transforming():
            # Its parameters are stand-ins then, its output is seen from inside, and more than once perhaps.
            pass_over(_INSIDE_TRANSFORMS)
            return self._call(module, *args, **kwargs)
        self.settle()
        self.meet("model")
        self._begin()
        self._clock.phase = _FORWARD
        with reading(_MODULE):
            if not self._models.knows(module):
                self._probe.models.append(type(module).__name__)
                if self._probe.met is not None:
                    self._probe.met(module)
            self._models.module(module)
        self._in_module = True
        try:
            output = self._call(module, *args, **kwargs)
        finally:
            self._in_module = False
        with reading(_MODULE):
            self._models.materialised()
            self.recorder.tree(_FORWARD, self._models.output_name(module), output)
        return output

    # Backward

    def _wrap_backward(self) -> Callable[..., None]:
        backward = torch.autograd.backward

        @functools.wraps(backward)
        def observed(*args: Any, **kwargs: Any) -> None:
            if _thread() != self._thread or self._muted:
                return backward(*args, **kwargs)
            losses = args[0] if args else kwargs.get("tensors")
            self._meet_tensors(losses)
            self.meet("backward")
            self._observe_loss(losses)
            # What a backward runs (a checkpointed module again, another backward) is part of it.
            self.mute()
            earlier, self._clock.phase = self._clock.phase, _BACKWARD
            try:
                return backward(*args, **kwargs)
            finally:
                self._clock.phase = earlier
                self.unmute()

        return observed

    def _wrap_grad(self) -> Callable[..., Any]:
        grad = torch.autograd.grad

        @functools.wraps(grad)
        def observed(*args: Any, **kwargs: Any) -> Any:
            if _thread() != self._thread or self._muted or _is_transforming():
                return grad(*args, **kwargs)
            self._meet_tensors(args[0] if args else kwargs.get("outputs"))
            self.remember()
            earlier, self._clock.phase = self._clock.phase, _BACKWARD
            try:
                return grad(*args, **kwargs)
            finally:
                self._clock.phase = earlier

        return observed

    def _wrap_scale(self) -> Callable[..., Any]:
        """Remember what a loss was before it is scaled, so that reports show it as the program knows it."""
        scale = torch.amp.GradScaler.scale

        @functools.wraps(scale)
        def observed(scaler: torch.amp.GradScaler, outputs: Any) -> Any:
            scaled = scale(scaler, outputs)
            if _thread() == self._thread and isinstance(scaled, torch.Tensor):
                self._stakes.scaled(outputs, scaled)
            return scaled

        return observed

    def _observe_loss(self, tensors: Any) -> None:
        losses = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors or ())
        for number, loss in enumerate(losses):
            if not isinstance(loss, torch.Tensor):
                continue  # a GradientEdge
            name = f"loss.{number}" if len(losses) > 1 else "loss"
            self.recorder.outcome(_FORWARD, self.recorder.intern(name), loss)
            value = self._stakes.loss(loss)
            if self._loss is None:
                self._loss = value
        self._probe.backwards += 1
        if not self._probe.steps and self._probe.backwards > MOST_BACKWARDS:
            raise StopTraining
        self.remember()

    # torch.func

    @property
    def functional(self) -> bool:
        """Whether what `torch.func` differentiates by may be the parameters: nothing else makes the steps."""
        return self.observing and not self._muted and self._may_be_by_hand()

    def differentiates(self, arguments: Iterable[tuple[str, torch.Tensor]]) -> None:
        """A transform of `torch.func` begins, by these."""
        prefix = "func." if self._models.have_parameters else ""
        self._differentiate((prefix + name, tensor) for name, tensor in arguments)
        self._clock.phase = _FORWARD

    def differentiated(self, value: Any, gradients: Any) -> None:
        """It has come to these."""
        self._observe_loss(value)
        self.recorder.tree(_BACKWARD, "grad", gradients)

    # Steps

    def _enter_step(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        if self._enough and _thread() == self._owner:
            raise StopTraining  # the program caught the first one
        if _thread() != self._thread:
            self._probe.other_thread = threading.current_thread().name
            return
        # Of steps that an exception left, nothing is on the stack any more.
        frame = sys._getframe(1)
        self._stepping = [entry for entry in self._stepping if _is_running(entry[1], frame)]
        self._stepping.append((optimizer, frame))
        if len(self._stepping) == 1:
            self._before_step(optimizer)
        self._clock.phase = _OPTIMIZER
        self._stakes.entering(optimizer)
        self._before = None  # what changes now is the optimizer's doing

    def _before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Observe what a resumed training must have put back by now."""
        self.meet("step")
        if self._probe.resumable:
            with reading(f"what {type(optimizer).__name__} holds"):
                self._models.settings(optimizer)
                if self._first_step:
                    self._models.put_back(optimizer)

    def _leave_step(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        if _thread() != self._thread:
            return
        while self._stepping and self._stepping.pop()[0] is not optimizer:
            pass
        if self._stepping:
            return  # an optimizer that steps another one, such as Lookahead or SAM, makes one step
        self._clock.phase = _FORWARD
        self._before = None
        with reading(f"what {type(optimizer).__name__} holds"):
            holds = self._models.optimizer_step(optimizer)
        self._stakes.stepped(optimizer, holds=holds)
        self._count_step()

    def _count_step(self) -> None:
        if not self._generators_seen:
            self.generators(_OPTIMIZER)
        self._generators_seen = False
        self._probe.losses.append(float("nan") if self._loss is None else self._loss)
        self._loss = None
        self._stakes.step_over()
        self._probe.step_ends.append(_clock())
        self._probe.steps += 1
        if self._probe.steps == 1:
            self._probe.begun()
        self.recorder.step = self._probe.steps
        if self._probe.detailed is not None:
            self._probe.detailed.step_ended(self._probe.steps - 1)
        if self._probe.steps >= self._probe.max_steps:
            self.end()

    def end(self) -> NoReturn:
        """End the training, which has made the steps that are wanted."""
        self._enough = self._probe.stopped = True
        self.stop()  # what the program does as it unwinds is no training
        self._probe.enough()
        raise StopTraining

    # Steps by hand

    def _may_be_by_hand(self) -> bool:
        """No optimizer is known."""
        return not self._stepping and (self.by_hand or self._probe.steps == self._first_step)

    def _meet_tensors(self, losses: Any) -> None:
        """Know the parameters that are in no module, by the losses that depend on them."""
        if self._may_be_by_hand() and not self._models.have_parameters:
            self._differentiate(behind(losses))

    def _differentiate(self, parameters: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Count a step where these are not what they were when gradients were last asked for.

        Nothing else than the next backward shows that a step is over where no module holds the parameters.
        """
        self._begin()
        with reading("the tensors that a loss depends on"):
            self._models.tensors(parameters)
        self.settle()

    def remember(self) -> None:
        """Before a backward of a program of which no optimizer is known: a change after it is a step."""
        if self._may_be_by_hand():
            with reading(_MODULE):
                self._before = self._models.bits()

    def settle(self) -> None:
        """Count a step where parameters were changed by hand since the last backward."""
        if self._before is None:
            return
        changed = False
        with reading(_MODULE):
            changed = self._models.changed(self._before)
        if changed:
            self.by_hand = True
            self.stepped()

    def stepped(self) -> None:
        """Count a step that no optimizer of torch's made."""
        self._before = None
        with reading(_MODULE):
            self._models.hand_step()
        self._count_step()

    # For the driver

    def resume(self, earlier: Trace, *, by_hand: bool) -> None:
        """Go on from the rows of another process, and take everything here as it is now for known."""
        self.recorder.resume(earlier, self._probe.trace, self._probe.steps)
        self._models.resume()
        self.by_hand, self._begun = by_hand, True
        self._before, self._loss = None, None

    def module(self, model: Any) -> None:
        """Observe the modules of a model: itself, or those in a container of several."""
        if isinstance(model, Mapping):
            model = list(model.values())
        for item in model if isinstance(model, (list, tuple)) else [model]:
            if isinstance(item, torch.nn.Module):
                with reading(_MODULE):
                    self._models.module(item)
        self._begin()

    def _begin(self) -> None:
        """Observe where the generators start."""
        if not self._begun:
            self._begun = True
            seen = self._generators_seen
            self.generators(_INIT)
            self._generators_seen = seen

    def generators(self, phase: int) -> None:
        """Observe the state of every ambient generator."""
        self._generators_seen = True
        for name, bits in ambient():
            self.recorder.context(phase, name, bits)

    def finish(self) -> None:
        """Observe, at the end, what no step covered."""
        with suppress(StopTraining):  # of a last step by hand
            self.settle()
        self.recorder.step = max(0, self._probe.steps - 1)
        with reading(_MODULE):
            self._models.finish()
        self.stop()


def _is_running(frame: FrameType, current: FrameType | None) -> bool:
    while current is not None:
        if current is frame:
            return True
        current = current.f_back
    return False


_installed: Hooks | None = None


def _stop_in_child() -> None:
    if _installed is not None:
        _installed.stop()


os.register_at_fork(after_in_child=_stop_in_child)
