"""What `build()` may return, and how each form is recognised."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from repro_audit.errors import TargetError

ACCEPTED = (
    "accepted: (model, loader[, loss_fn[, optimizer]]); a mapping or an object with model, loader and optionally "
    "loss_fn, optimizer, scheduler, train_step(model, batch); a function without arguments that trains; an object "
    "with .train(); a Lightning (trainer, module[, data])"
)
_LOADER_NAMES = ("loader", "train_loader", "dataloader")
_LOSS_NAMES = ("loss_fn", "criterion")
_LIGHTNING = ("lightning.pytorch", "pytorch_lightning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the driver's own loop trains."""

    model: Any
    """A module, or with a `train_step` of the user's whatever that takes."""
    loader: Iterable[Any]
    loss_fn: Callable[..., Any] | None = None
    optimizers: tuple[Any, ...] = ()
    schedulers: tuple[Any, ...] = ()
    train_step: Callable[[Any, Any], Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Procedure:
    """The user's own training, which is called and counted."""

    run: Callable[[], object]
    model: nn.Module | None
    """Where it is known before training."""
    what: str
    """Its name for messages."""


Bundle: TypeAlias = "Parts | Procedure"


def recognise(returned: object) -> Bundle:
    """Tell what `build()` returned.

    Raises:
        TargetError: it is none of the accepted forms.
    """
    if isinstance(returned, Mapping):
        return _from_names(returned.get, returned)
    if isinstance(returned, (tuple, list)) and not hasattr(returned, "model"):  # a namedtuple may
        return _from_lightning(returned) or _from_sequence(returned)
    if inspect.iscoroutine(returned):
        returned.close()
        raise refused(returned)
    if isinstance(returned, (nn.Module, torch.Tensor, type)):
        raise refused(returned)
    train = getattr(returned, "train", None)
    if callable(train) and takes(train, 0):
        model = getattr(returned, "model", None)
        return Procedure(
            run=train,
            model=model if isinstance(model, nn.Module) else None,
            what=f"{type(returned).__name__}.train()",
        )
    if getattr(returned, "model", None) is not None:
        return _from_names(lambda name: getattr(returned, name, None), returned)
    if callable(returned) and takes(returned, 0):
        name = getattr(returned, "__name__", type(returned).__name__)
        return Procedure(run=returned, model=None, what=f"{name}()")
    raise refused(returned)


def refused(returned: object, why: str = "") -> TargetError:
    """The error for something that is not accepted; says of what types it is, and calls no `repr` of the user's."""
    return TargetError(
        f"build() returned {describe(returned)}.", where="", why=why, next_step=ACCEPTED
    )


def describe(value: object) -> str:
    """The type of a value in words, with the types of its items."""
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with the keys {', '.join(map(str, list(value)[:8])) or '(none)'}"
    if isinstance(value, (tuple, list)):
        items = ", ".join(_type_name(item) for item in value[:8])
        return f"a {_type_name(value)} of {len(value)} ({items})".replace(" ()", "")
    if value is None or isinstance(value, type):
        return "None" if value is None else f"the class {value.__name__}, not an object of it"
    name = _type_name(value)
    words = f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
    if isinstance(value, nn.Module):
        return f"{words}, a model alone"
    if inspect.iscoroutine(value):
        return f"{words} (build is an async function)"
    return f"{words} that needs arguments" if callable(value) else words


def _type_name(value: object) -> str:
    return type(value).__name__


# Forms


def _from_sequence(items: tuple[Any, ...] | list[Any]) -> Parts:
    if not 2 <= len(items) <= 4:  # noqa: PLR2004 - as ACCEPTED says
        raise refused(items)
    names = ("model", "loader", "loss_fn", "optimizer")
    return _from_names(dict(zip(names, items, strict=False)).get, items)


def _from_names(get: Callable[[str], Any], returned: object) -> Parts:
    """Pick the parts by name, and see that each can do what it is for."""

    def first(names: Iterable[str]) -> Any:
        return next((value for name in names if (value := get(name)) is not None), None)

    model, loader, train_step = get("model"), first(_LOADER_NAMES), get("train_step")
    loss_fn, optimizers = first(_LOSS_NAMES), _as_tuple(get("optimizer"))
    if model is None or loader is None:
        missing = "model" if model is None else "loader"
        raise refused(returned, why=f"it has no {missing}")
    if train_step is None and not (isinstance(model, nn.Module) or callable(model)):
        raise refused(returned, why=f"the model is {describe(model)}, which can not be called")
    if not isinstance(loader, Iterable) and not hasattr(loader, "__getitem__"):
        raise refused(returned, why=f"the loader is {describe(loader)}, which can not be iterated")
    if isinstance(loader, (nn.Module, torch.Tensor, str, bytes, Mapping)) or _is_dataset(loader):
        why = f"the loader is {describe(loader)}; it must yield batches"
        raise refused(
            returned, why=why + ("; wrap it in a DataLoader" if _is_dataset(loader) else "")
        )
    for name, part in (("loss_fn", loss_fn), ("train_step", train_step)):
        if part is not None and not callable(part):
            raise refused(returned, why=f"{name} is {describe(part)}, which can not be called")
    schedulers = _as_tuple(get("scheduler"))
    for name, part in (
        *(("optimizer", each) for each in optimizers),
        *(("scheduler", each) for each in schedulers),
    ):
        if isinstance(part, type) or not callable(getattr(part, "step", None)):
            raise refused(returned, why=f"the {name} is {describe(part)}, which has no step()")
    return Parts(
        model=model,
        loader=loader,
        loss_fn=loss_fn,
        optimizers=optimizers,
        schedulers=schedulers,
        train_step=train_step,
    )


def _from_lightning(items: tuple[Any, ...] | list[Any]) -> Procedure | None:
    """A Lightning trainer with its module; only a program that imported Lightning can have one."""
    trainers = tuple(
        trainer
        for name in _LIGHTNING
        if isinstance(trainer := getattr(sys.modules.get(name), "Trainer", None), type)
    )
    if not trainers or not items or not isinstance(items[0], trainers):
        return None
    trainer, *rest = items
    if not 1 <= len(rest) <= 2:  # noqa: PLR2004 - as ACCEPTED says
        raise refused(items)
    return Procedure(run=lambda: trainer.fit(*rest), model=rest[0], what="trainer.fit()")


# Looking at values of the user's


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _is_dataset(value: object) -> bool:
    data = torch.utils.data
    return isinstance(value, data.Dataset) and not isinstance(value, data.IterableDataset)


def takes(function: Callable[..., Any], count: int, *, unknown: bool = False) -> bool:
    """Whether a function can be called with so many arguments; `unknown` of a builtin without a signature."""
    try:
        inspect.signature(function).bind(*(None,) * count)
    except TypeError:
        return False
    except ValueError:
        return unknown
    return True
