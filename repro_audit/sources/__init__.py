"""The catalogue: one file a source, found by discovery. Ids come from file names, the order from the scope."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from repro_audit.source import Scope, Source


@cache
def catalogue() -> dict[str, Source]:
    """Every source by its id, in the fixed order of reports: by scope, then by id."""
    names = [module.name for module in pkgutil.iter_modules(__path__, __name__ + ".")]
    public = [name for name in names if not name.rpartition(".")[2].startswith("_")]
    found: list[Source] = [importlib.import_module(name).SOURCE for name in public]
    order = list(Scope)
    found.sort(key=lambda source: (order.index(source.scope), source.id))
    return {source.id: source for source in found}
