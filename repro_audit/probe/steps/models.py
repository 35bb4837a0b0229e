"""Parameters, gradients, optimizer state and buffers: their names, and their observation at every step.

Names come from `named_parameters`, never from `id`. The first model's have no prefix; those of others begin with their
class, numbered where there are several.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
import xxhash
from torch.nn.parameter import is_lazy

from repro_audit.probe.digest.plain import SCALARS
from repro_audit.probe.digest.tensors import digest
from repro_audit.probe.steps.recorder import Recorder, TensorSlot
from repro_audit.storage.trace import PUT_BACK, SETTING, Phase
from repro_audit.torch_internals.tensors import BUFFERS

if TYPE_CHECKING:
    from torch import nn


T = TypeVar("T")

_INIT, _BACKWARD, _OPTIMIZER = int(Phase.INIT), int(Phase.BACKWARD), int(Phase.OPTIMIZER)
_LIST = bytes(16)
"""In place of a digest, where it is enough that there is something."""
_NEVER, _UNKNOWN = -1, -2
"""A parameter's version before its first observation, and where it keeps none."""


class ByIdentity(Generic[T]):
    """Values by the identity of objects that may define equality (tensors, modules); keeps none of them alive."""

    def __init__(self) -> None:
        self._items: dict[int, tuple[weakref.ref[Any], T]] = {}

    def get(self, key: object) -> T | None:
        """The value for an object, or None."""
        found = self._items.get(id(key))
        # An id comes round again once its object is gone; the reference tells.
        return found[1] if found is not None and found[0]() is key else None

    def set(self, key: object, value: T) -> None:
        """Set the value for an object."""
        # Taken out first: where the id was another object's that is gone, the order would tell of addresses.
        self._items.pop(id(key), None)
        self._items[id(key)] = (weakref.ref(key), value)

    def drop(self, reference: weakref.ref[Any]) -> None:
        """Forget an object, if it is alive and known."""
        key = reference()
        if self.get(key) is not None:
            del self._items[id(key)]

    def items(self) -> Iterator[tuple[Any, T]]:
        """The objects that are still alive, in the order in which they were set."""
        for reference, value in list(self._items.values()):
            key = reference()
            if key is not None:
                yield key, value


class Labels:
    """What models are called: the first has no name, others have that of their class, numbered where it comes again."""

    def __init__(self) -> None:
        self._used: Counter[str] = Counter()

    def new(self, model: nn.Module) -> str:
        """The name of one more."""
        kind = type(model).__name__ if self._used else ""
        self._used[kind] += 1
        return f"{kind}{self._used[kind] - 1}" if self._used[kind] > 1 else kind


class Parameter:
    """What is known of one parameter: its places in the trace, and the version and step of its last observation."""

    __slots__ = ("grad", "name", "of_module", "param", "states", "step", "version")

    def __init__(self, name: str, recorder: Recorder) -> None:
        self.name = name
        self.grad = TensorSlot(recorder.intern(f"grad.{name}"))
        self.param = TensorSlot(recorder.intern(f"param.{name}"))
        self.states: dict[object, TensorSlot] = {}
        self.version = _NEVER
        self.step = 0
        self.of_module = False


class Models:
    """The modules that the program has run or that it was built with."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._labels: ByIdentity[str] = ByIdentity()
        self._parameters: ByIdentity[Parameter] = ByIdentity()
        self._roots: list[weakref.ref[nn.Module]] = []
        self._buffers: list[tuple[weakref.ref[nn.Module], str, TensorSlot]] = []
        self._lazy: list[weakref.ref[nn.Module]] = []
        self._tensors: dict[str, tuple[weakref.ref[torch.Tensor], Parameter]] = {}
        """Parameters that no module holds, by their names: a step may put another tensor in the place of one."""
        self._names = Labels()
        self._met: ByIdentity[int] = ByIdentity()
        """The first steps of optimizers in a resumed training."""

    # Names

    def output_name(self, module: nn.Module) -> str:
        """What a root module's output is called; a module not seen before is observed first."""
        label = self._labels.get(module)
        if label is None:
            label = self._register(module)
        return f"{label}.output" if label else "output"

    def knows(self, module: nn.Module) -> bool:
        """Whether it was observed, by itself or within another one."""
        return self._labels.get(module) is not None

    def module(self, module: nn.Module) -> None:
        """Observe a module's parameters and buffers, unless it is known."""
        if not self.knows(module):
            self._register(module)

    def _register(self, module: nn.Module) -> str:
        """Name a module and all that is in it; observe it if it has any state."""
        parameters = list(module.named_parameters())
        buffers = list(module.named_buffers())
        if not parameters and not buffers:
            # A loss or an activation, perhaps a new object at each step: its class says all there is to say.
            label = type(module).__name__
            self._labels.set(module, label)
            return label
        label = self._names.new(module)
        self._roots.append(weakref.ref(module))
        prefix = f"{label}." if label else ""
        for name, inner in module.named_modules():
            if self._labels.get(inner) is None:
                self._labels.set(inner, f"{prefix}{_clean(name)}" if name else label)
        for name, parameter in parameters:
            self._observe_new(f"{prefix}{_clean(name)}", parameter)
        for name, buffer in buffers:
            owner, _, key = name.rpartition(".")
            place = TensorSlot(self._recorder.intern(f"buffer.{prefix}{_clean(name)}"))
            self._buffers.append((weakref.ref(module.get_submodule(owner)), key, place))
            if not is_lazy(buffer):
                self._recorder.first(_INIT, place, buffer)
        if any(is_lazy(item) for _, item in (*parameters, *buffers)):
            self._lazy.append(weakref.ref(module))
        return label

    def _observe_new(self, name: str, parameter: torch.Tensor) -> None:
        known = self._parameters.get(parameter)
        if known is not None:
            known.of_module = True
            return
        known = Parameter(name, self._recorder)
        known.of_module = True
        self._parameters.set(parameter, known)
        if not is_lazy(parameter):
            known.version = _version(parameter)
            self._recorder.first(_INIT, known.param, parameter)

    def materialised(self) -> None:
        """Observe the parameters of lazy modules that their first forward has made."""
        if not self._lazy:
            return
        waiting, self._lazy = self._lazy, []
        for reference in waiting:
            module = reference()
            if module is None:
                continue
            if any(is_lazy(item) for item in module.parameters()):
                self._lazy.append(reference)
                continue
            for parameter in module.parameters():
                known = self._parameters.get(parameter)
                if known is not None and known.version == _NEVER:
                    known.version = _version(parameter)
                    self._recorder.first(_INIT, known.param, parameter)

    def _of(self, parameter: torch.Tensor, fallback: str) -> Parameter:
        """What is known of a parameter, which may have joined its module late, or belong to none."""
        known = self._parameters.get(parameter)
        if known is None:
            found = self._find(parameter)
            known = Parameter(found or fallback, self._recorder)
            known.of_module = found is not None
            self._parameters.set(parameter, known)
        return known

    def _find(self, parameter: torch.Tensor) -> str | None:
        for reference in self._roots:
            module = reference()
            if module is not None:
                for name, candidate in module.named_parameters():
                    if candidate is parameter:
                        label = self._labels.get(module)
                        return f"{label}.{_clean(name)}" if label else _clean(name)
        return None

    # Steps

    def optimizer_step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Observe what a step used and what it changed: gradients, then parameters and their state, then buffers.

        Returns:
            Whether the optimizer holds a parameter of a module.
        """
        again = self._recorder.again
        while self._tensors:  # the optimizer knows them by better names
            self._parameters.drop(self._tensors.popitem()[1][0])
        pairs = []
        for group_number, group in enumerate(optimizer.param_groups):
            for number, parameter in enumerate(group["params"]):
                known = self._parameters.get(parameter)
                if known is None:
                    known = self._of(
                        parameter, f"{type(optimizer).__name__}.{group_number}.{number}"
                    )
                pairs.append((parameter, known))
        for parameter, known in pairs:
            grad = parameter.grad
            if grad is not None:
                again(_BACKWARD, known.grad, grad)
        states = optimizer.state
        for parameter, known in pairs:
            self._observe_change(parameter, known)
            state = states.get(parameter)
            if state:
                self._state(state, known)
        self._rest()
        return any(known.of_module for _, known in pairs)

    def settings(self, optimizer: torch.optim.Optimizer) -> None:
        """Observe, as circumstances, what is set for each group of parameters: learning rates and the like."""
        groups = optimizer.param_groups
        for number, group in enumerate(groups):
            kind = type(optimizer).__name__ + (f".{number}" if len(groups) > 1 else "")
            for key, value in group.items():
                text = _plainly(value) if key != "params" else None
                if text is not None:
                    bits = xxhash.xxh3_128_digest(text.encode())
                    self._recorder.context(_OPTIMIZER, f"{SETTING}{kind}.{key}", bits, text)

    def put_back(self, optimizer: torch.optim.Optimizer) -> None:
        """Observe, as circumstances, parameters and their state before the first step of a resumed training."""
        if self._met.get(optimizer) is not None:
            return
        self._met.set(optimizer, self._recorder.step)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                known = self._parameters.get(parameter)
                if known is None:
                    continue
                held = {f"param.{known.name}": parameter}
                state = optimizer.state.get(parameter) or {}
                held.update((f"state.{known.name}.{key}", value) for key, value in state.items())
                for name, value in held.items():
                    bits = digest(value) if isinstance(value, (torch.Tensor, int, float)) else _LIST
                    self._recorder.context(_OPTIMIZER, PUT_BACK + name, bits)

    def _state(self, state: Any, known: Parameter) -> None:
        again = self._recorder.again
        if not isinstance(state, dict):
            self._recorder.tree(_OPTIMIZER, f"state.{known.name}", state)
            return
        places = known.states
        for key, value in state.items():
            if isinstance(value, (torch.Tensor, int, float)):
                place = places.get(key)
                if place is None:
                    place = places[key] = TensorSlot(
                        self._recorder.intern(f"state.{known.name}.{key}")
                    )
                again(_OPTIMIZER, place, value)
            else:  # L-BFGS keeps lists of tensors
                self._recorder.tree(_OPTIMIZER, f"state.{known.name}.{key}", value)

    def hand_step(self) -> None:
        """Observe a step that no optimizer of torch's made: every gradient, every parameter."""
        again = self._recorder.again
        pairs = list(self._parameters.items())
        for parameter, known in pairs:
            if parameter.grad is not None:
                again(_BACKWARD, known.grad, parameter.grad)
        for parameter, known in pairs:
            self._observe_change(parameter, known)
        self._rest()

    def _observe_change(self, parameter: torch.Tensor, known: Parameter) -> None:
        self._recorder.again(_OPTIMIZER, known.param, parameter)
        known.version = _version(parameter)
        known.step = self._recorder.step

    def _rest(self) -> None:
        """Buffers, and parameters outside of the optimizer that something has written to."""
        again = self._recorder.again
        for reference, key, place in self._buffers:
            owner = reference()
            buffer = BUFFERS.of(owner).get(key) if owner is not None else None
            if buffer is not None:
                again(_OPTIMIZER, place, buffer)
        for parameter, known in self._parameters.items():
            if known.version not in {_version(parameter), _NEVER}:
                self._observe_change(parameter, known)

    def resume(self) -> None:
        """Take every parameter for observed as it is now, after a checkpoint was loaded."""
        for parameter, known in self._parameters.items():
            if known.version != _NEVER:
                known.version = _version(parameter)

    def finish(self) -> None:
        """Observe what the last step did not: writes through `.data` leave no version behind."""
        for parameter, known in self._parameters.items():
            if known.step != self._recorder.step:
                self._observe_change(parameter, known)

    # Steps by hand

    @property
    def have_parameters(self) -> bool:
        """Whether a module with state was seen."""
        return bool(self._roots)

    def tensors(self, named: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Observe tensors as parameters, unless a module holds them."""
        for name, tensor in named:
            if self._parameters.get(tensor) is not None:
                continue
            replaced = self._tensors.get(name)
            if replaced is not None:
                self._parameters.drop(replaced[0])
                known = replaced[1]
            else:
                known = Parameter(name, self._recorder)
                if self._recorder.step == 0:
                    self._recorder.first(_INIT, known.param, tensor)
            self._tensors[name] = (weakref.ref(tensor), known)
            known.version = _version(tensor)
            self._parameters.set(tensor, known)

    def bits(self) -> dict[Parameter, bytes]:
        """The bits of every parameter that there is."""
        return {
            known: digest(parameter)
            for parameter, known in self._parameters.items()
            if not is_lazy(parameter)
        }

    def changed(self, before: dict[Parameter, bytes]) -> bool:
        """Whether something has written to a parameter since `bits`, `.data` included, or has replaced it."""
        return any(
            known in before and digest(parameter) != before[known]
            for parameter, known in self._parameters.items()
        )


def behind(losses: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that a backward from these gives gradients to, named by their places in the graph."""
    roots = losses if isinstance(losses, (list, tuple)) else [losses]
    waiting = [each.grad_fn for each in roots if isinstance(each, torch.Tensor) and each.grad_fn]
    seen = set(waiting)
    number = 0
    while waiting:
        node = waiting.pop()
        tensor = getattr(node, "variable", None)
        if isinstance(tensor, torch.Tensor):
            yield f"tensor{number}", tensor
            number += 1
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


def _clean(name: str) -> str:
    """A parameter's name without what `torch.compile` puts in front."""
    return name.replace("_orig_mod.", "")


def _plainly(value: Any) -> str | None:
    """A number, a text or several of them as text; None for what may show an address."""
    value = value.tolist() if isinstance(value, torch.Tensor) else value
    items = value if isinstance(value, (list, tuple)) else (value,)
    return repr(value) if SCALARS.issuperset(map(type, items)) else None


def _version(tensor: torch.Tensor) -> int:
    return _UNKNOWN if tensor.is_inference() else tensor._version
