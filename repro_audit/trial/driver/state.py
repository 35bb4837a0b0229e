"""What a training holds at one moment: what a checkpoint saves of it, and a ledger of the rest.

The walk begins at what `build()` returned, and at the top level of the program's own modules. It reads attributes as
they are stored, and calls nothing of the program's but `state_dict` and `load_state_dict`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Sampler

from repro_audit import rng
from repro_audit.probe.digest.generators import digest_of
from repro_audit.probe.digest.plain import encode
from repro_audit.probe.digest.stored import inside, is_generator, walk
from repro_audit.probe.digest.tensors import describe, digest
from repro_audit.probe.files import program_modules
from repro_audit.torch_internals.compiler import COMPILED_MODULE, ORIGINAL_MODULE
from repro_audit.torch_internals.tensors import BUFFERS, MODULES, UNSAVED_BUFFERS

Ledger = dict[str, list[str]]
"""By name: the kind of a value, and the digest of its form and bytes."""

_LOADER_PARTS = ("dataset", "sampler", "batch_sampler", "collate_fn", "worker_init_fn")
_MODULE_PARTS = frozenset(vars(nn.Module()))
"""What a module holds by being one; the rest are attributes of its class."""
_TORCHS_OWN = (torch.optim.Optimizer, LRScheduler, torch.amp.GradScaler)
"""Their `state_dict` is all of their state, so what else they hold is no loss."""


# The checkpoint


def save(path: Path, roots: Mapping[str, Any]) -> None:
    """Save everything that has a `state_dict`, and the generators."""
    states = {name: value.state_dict() for name, value in _stateful(roots)}
    loaders = {name: each.get_state() for name, each in _loaders_generators(roots)}
    # Seedings that wait for CUDA's start are functions; the new process has made its own.
    ambient = dataclasses.replace(rng.snapshot(), cuda_pending=())
    torch.save({"states": states, "ambient": ambient, "loaders": loaders}, path)


def load(path: Path, roots: Mapping[str, Any]) -> None:
    """Load what `save` saved into what a new process has built."""
    saved = torch.load(path, weights_only=False)
    for name, value in _stateful(roots):
        if name in saved["states"]:
            value.load_state_dict(saved["states"][name])
    for name, generator in _loaders_generators(roots):
        if name in saved["loaders"]:
            generator.set_state(saved["loaders"][name])
    pending = rng.snapshot().cuda_pending
    rng.restore(dataclasses.replace(saved["ambient"], cuda_pending=pending))


def has_state(name: str, roots: Mapping[str, Any]) -> bool:
    """Whether a root is saved by itself."""
    return any(found == name for found, _ in _stateful(roots))


def _stateful(roots: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Everything that can save and load itself, the outermost of several that are inside one another."""
    found = _walk(roots, closed=_saves_itself)
    return ((name, value) for name, value in found if _saves_itself(value))


def _saves_itself(value: Any) -> bool:
    kind = type(value)
    return all(
        callable(getattr(kind, method, None)) for method in ("state_dict", "load_state_dict")
    )


def _loaders_generators(roots: Mapping[str, Any]) -> Iterator[tuple[str, torch.Generator]]:
    """The generators that DataLoaders and their samplers were given."""
    for name, value in _walk(roots, closed=_saves_itself):
        if isinstance(value, (DataLoader, Sampler)):
            generator = vars(value).get("generator")
            if isinstance(generator, torch.Generator):
                yield f"{name}.generator", generator


# The walk


def _walk(roots: Mapping[str, Any], *, closed: Callable[[Any], bool]) -> Iterator[tuple[str, Any]]:
    """Each object once, by the shortest name that leads to it; those that are `closed` are not entered."""
    at_top = (
        (f"{module}.{key}", value)
        for module, _, contents in program_modules()
        for key, value in list(contents.items())
        if not isinstance(value, (ModuleType, FunctionType, type)) and not key.startswith("__")
    )

    def items(value: Any) -> Iterable[tuple[object, Any]] | None:
        if isinstance(value, (torch.Tensor, np.ndarray, str, bytes, int, float, type(None))):
            return None
        return () if closed(value) else _items(value)

    return walk((*roots.items(), *at_top), items)


def _items(value: Any) -> Iterable[tuple[object, Any]]:
    """What an object holds, with names that are alike in every process."""
    if COMPILED_MODULE.is_loaded() and isinstance(value, COMPILED_MODULE.get()):
        # The rest is the compiler's, and leads everywhere.
        return [(ORIGINAL_MODULE.name, ORIGINAL_MODULE.of(value))]
    if isinstance(value, nn.Module):
        return _items_of_module(value)
    if isinstance(value, DataLoader):
        return [(key, vars(value).get(key)) for key in _LOADER_PARTS]
    return inside(value, len(value)) if isinstance(value, dict) else inside(value)


def _items_of_module(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Its buffers that are not saved, its own attributes, its submodules; not what its `state_dict` covers."""
    for key in sorted(UNSAVED_BUFFERS.of(module)):
        yield key, BUFFERS.of(module).get(key)
    yield from ((key, item) for key, item in vars(module).items() if key not in _MODULE_PARTS)
    yield from MODULES.of(module).items()


# The ledger


def ledger(roots: Mapping[str, Any]) -> Ledger:
    """Every value that can be compared, but for those that a checkpoint has by the letter."""
    found: Ledger = {}
    loaders = {id(generator) for _, generator in _loaders_generators(roots)}
    buffers = _buffers(roots)
    for name, value in values(roots).items():
        kind = _kind(name, value, buffers, roots)
        if is_generator(value):
            if id(value) not in loaders:
                found[name] = ["generator", digest_of(value).hex()]
        elif isinstance(value, torch.Tensor) or (
            not isinstance(value, FunctionType) and encode(value) is not None
        ):
            with suppress(Exception):  # what can't be read can't be compared
                found[name] = [kind, f"{describe(value)} {digest(value).hex()}"]
    return found


def _buffers(roots: Mapping[str, Any]) -> set[int]:
    """The ids of buffers that no `state_dict` holds; the modules keep them alive."""
    return {
        id(BUFFERS.of(module).get(key))
        for module in values(roots).values()
        if isinstance(module, nn.Module)
        for key in UNSAVED_BUFFERS.of(module)
        if BUFFERS.of(module).get(key) is not None
    }


def _kind(name: str, value: Any, buffers: set[int], roots: Mapping[str, Any]) -> str:
    """What kind of thing it is to lose this."""
    if isinstance(value, torch.Tensor) and id(value) in buffers:
        return "buffer"
    root, _, rest = name.partition(".")
    if root == "scheduler":
        return "scheduler"
    in_loader = root == "loader" and not isinstance(roots[root], DataLoader)
    if in_loader or rest.startswith(("sampler", "batch_sampler")):
        return "position"
    return "attribute"


def values(roots: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the ledger's walk meets, by its name."""
    return dict(_walk(roots, closed=lambda each: isinstance(each, _TORCHS_OWN)))


def lost(before: Ledger, after: Ledger) -> list[list[str]]:
    """The name and kind of what differs, in the order of the walk."""
    names = dict.fromkeys((*before, *after))
    return [
        [name, (before.get(name) or after[name])[0]]
        for name in names
        if before.get(name) != after.get(name)
    ]
