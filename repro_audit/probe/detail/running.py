"""What runs: modules by their paths in the model, and optimizers and loaders that torch runs for the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from repro_audit.probe.steps.models import ByIdentity, Labels
from repro_audit.torch_internals.operators import CURRENT_NODE

if TYPE_CHECKING:
    import torch
    from torch import nn

_current_node: Callable[[], object] = CURRENT_NODE.get()
_WRAPPERS = "_orig_mod."
"""What `torch.compile` puts in front of names."""


class Paths:
    """Dotted paths of modules. The first model's have no prefix; those of others begin with their class, numbered."""

    def __init__(self) -> None:
        self._paths: ByIdentity[str] = ByIdentity()
        self._owners: ByIdentity[str] = ByIdentity()
        """By parameter: the module that holds it."""
        self._names = Labels()

    def of(self, module: nn.Module, *, is_outermost: bool) -> str:
        """The path of a module; of one that no model has, its class."""
        known = self._paths.get(module)
        if known is not None:
            return known
        if is_outermost and any(True for _ in module.parameters()):
            return self._name(module)
        return type(module).__name__

    def owner(self, parameter: torch.Tensor) -> str:
        """The path of the module that holds a parameter; empty where no model does."""
        return self._owners.get(parameter) or ""

    def _name(self, root: nn.Module) -> str:
        """Name a model's modules; what an earlier one holds keeps its name."""
        label = self._names.new(root)
        for name, module in root.named_modules():
            path = ".".join(filter(None, (label, f"{name}.".replace(_WRAPPERS, "")[:-1])))
            if self._paths.get(module) is None:
                self._paths.set(module, path)
            for parameter in module.parameters(recurse=False):
                if self._owners.get(parameter) is None:
                    self._owners.set(parameter, path)
        return label


class Frame(NamedTuple):
    """One thing that runs."""

    made: int
    """The line that made it, or what runs it."""
    module: int
    """Its path; of nothing where it is no module."""
    again: bool
    """A backward runs it: a checkpointed module."""
    what: object = None
    """An optimizer, to find it again."""


class Running:
    """The stack of what runs, outermost first."""

    def __init__(self, intern: Callable[[str], int], made: Callable[[object], int]) -> None:
        self._intern = intern
        self._made = made
        self.paths = Paths()
        self._nothing = intern("")
        self.stack: list[Frame] = []

    def enter_module(self, module: nn.Module) -> None:
        """A module is called."""
        stack = self.stack
        path = self.paths.of(module, is_outermost=not stack)
        made = self._made(module)
        if made == self._nothing and stack:
            made = stack[-1].made
        again = _current_node() is not None
        stack.append(Frame(made, self._intern(path), again))

    def enter(self, made: int, what: object = None) -> Frame:
        """Something else runs, which a line made."""
        frame = Frame(made, self._nothing, _current_node() is not None, what)
        self.stack.append(frame)
        return frame

    def leave(self) -> None:
        """The innermost ends; not an error where it began before anybody looked."""
        if self.stack:
            self.stack.pop()

    def leave_all_since(self, what: object) -> None:
        """End what `enter` began, and what an exception left inside of it."""
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at].what is what:
                del self.stack[at:]
                return
