"""The hook on `torch.func.grad` and `grad_and_value`: programs that pass their parameters as an argument.

Such a program has no optimizer of torch's and changes no module: a step is over where `grad` is called by other values
than before. Where an optimizer is around, it makes the steps, and what is differentiated may be data.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch

from repro_audit.probe.digest.leaves import leaves
from repro_audit.probe.digest.tensors import reading, unwrapped
from repro_audit.torch_internals import bind

_is_compiling = torch.compiler.is_compiling


class Steps(Protocol):
    """Who counts the steps, as `Hooks` does."""

    @property
    def functional(self) -> bool:
        """Whether what is differentiated by may be the parameters."""
        ...

    def settle(self) -> None:
        """Count a step where parameters were changed by hand since gradients were last asked for."""
        ...

    def remember(self) -> None:
        """Gradients are asked for, perhaps by data: parameters of modules that change from now on make a step."""
        ...

    def differentiates(self, arguments: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Gradients by these are asked for."""
        ...

    def differentiated(self, value: Any, gradients: Any) -> None:
        """They have come to these."""
        ...


class Functional:
    """What stands in place of the function that both of them call, for one training."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._inside = False
        self._steps_elsewhere: bool | None = None

    def wrap(self, impl: Callable[..., Any]) -> Callable[..., Any]:
        """What stands for that function."""

        @functools.wraps(impl)
        def observed(*args: Any, **kwargs: Any) -> Any:
            # A gradient inside of another's function, as of meta-learning, is no step of its own.
            if _is_compiling() or self._inside or not self._steps.functional:
                return impl(*args, **kwargs)
            if self._steps_elsewhere is None:
                self._steps_elsewhere = _is_an_optimizer_around()
            if self._steps_elsewhere:
                self._steps.settle()
                self._steps.remember()
                return impl(*args, **kwargs)
            given = bind(impl, *args, **kwargs).arguments
            self._steps.differentiates(_chosen(given["args"], given["argnums"]))
            self._inside = True
            try:
                result = impl(*args, **kwargs)
            finally:
                self._inside = False
            with reading("what torch.func.grad gives"):
                gradients, value = result
                self._steps.differentiated(
                    unwrapped(value[0] if given["has_aux"] else value), gradients
                )
            return result

        return observed


def _chosen(
    args: tuple[Any, ...], argnums: int | tuple[int, ...]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that are differentiated by, with their names; of those that `vmap` holds, the whole."""
    chosen = args[argnums] if isinstance(argnums, int) else tuple(args[each] for each in argnums)
    for name, value in leaves(chosen):
        if isinstance(value, torch.Tensor):
            yield name or "tensor0", unwrapped(value)


def _is_an_optimizer_around() -> bool:
    return any(issubclass(type(each), torch.optim.Optimizer) for each in gc.get_objects())
