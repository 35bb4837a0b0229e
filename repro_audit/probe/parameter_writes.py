"""Every write to a parameter, as it happens: which line made it, and what was there after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from repro_audit.probe.digest.tensors import digest
from repro_audit.probe.files import users_place
from repro_audit.torch_internals.operators import DISPATCH_MODE, SCHEMA

_Mode: Any = DISPATCH_MODE.get()


class ParameterWrites(_Mode):  # type: ignore[misc] # it is PyTorch's, and looked up
    """Notes operators that write to the parameters it knows, by where those lie."""

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[str, list[tuple[str, int, str]]] = {}
        """By a parameter's name: file, line, and the digest of what was there after it."""
        self._names: dict[int, str] = {}

    def know(self, model: torch.nn.Module) -> None:
        """Watch the parameters of a model too."""
        for name, parameter in model.named_parameters():
            self._names.setdefault(parameter.data_ptr(), name)

    def __torch_dispatch__(
        self,
        function: Any,
        _types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operator once, and look at what it wrote."""
        result = function(*args, **(kwargs or {}))
        for tensor in _written(function, args, kwargs or {}):
            name = self._names.get(tensor.data_ptr())
            if name is not None:
                file, line = users_place()
                bits = digest(tensor.detach()).hex()
                self.written.setdefault(name, []).append((file or "", line or 0, bits))
        return result


def _written(
    function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[torch.Tensor]:
    """The tensors that an operator writes in place, as its schema has them."""
    schema = getattr(function, SCHEMA.name, None)
    for place, argument in enumerate(schema.arguments if schema is not None else ()):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[place] if place < len(args) else kwargs.get(argument.name)
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, torch.Tensor):
                yield item
