"""The catalogue: one file a source, found by discovery. Ids come from file names, the order from the scope.

Sources of other packages follow, by id.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from repro_audit.errors import SourceFailedError, UsageError, nearest
from repro_audit.source import Scope, Source
from repro_audit.sources._plugins import Plugins, UnusableError, find, load


@cache
def built_in() -> dict[str, Source]:
    """This package's own sources by id, in the fixed order of reports: by scope, then by id."""
    modules = pkgutil.iter_modules(__path__, __name__ + ".")
    names = [module.name for module in modules if not module.ispkg]
    public = [name for name in names if not name.rpartition(".")[2].startswith("_")]
    found: list[Source] = [importlib.import_module(name).SOURCE for name in public]
    order = list(Scope)
    found.sort(key=lambda source: (order.index(source.scope), source.id))
    return {source.id: source for source in found}


@cache
def installed() -> Plugins:
    """What other packages bring."""
    return find(taken=built_in())


@cache
def catalogue() -> dict[str, Source]:
    """Every source by its id: our own, then those of other packages."""
    return {**built_in(), **installed().sources}


def of_trial(places: Mapping[str, str]) -> dict[str, Source]:
    """The catalogue in a trial's process, which is told what to import: it looks nothing up."""
    return {**built_in(), **{name: _of_plugin(name, place) for name, place in places.items()}}


def _of_plugin(name: str, place: str) -> Source:
    try:
        return load(place)
    except UnusableError as error:
        raise SourceFailedError.of(name, str(error)) from error


def known(name: str, *, where: str) -> Source:
    """The source with an id.

    Raises:
        UsageError: there is none; `where` is what asked for it.
    """
    if name in catalogue():
        return catalogue()[name]
    why = installed().why_broken(name)
    if why is not None:
        raise UsageError(f"the source {name!r} can not be used", where=where, why=why)
    raise UsageError(
        f"there is no source {name!r}", where=where, next_step=nearest(name, catalogue(), "id")
    )
