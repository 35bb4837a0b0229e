"""The catalogue: one file a source, found by discovery. Ids come from file names, the order from the scope."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from repro_audit.source import Scope, Source


@cache
def catalogue() -> dict[str, Source]:
    """Every source by its id, in the fixed order of reports: by scope, then by id."""
    found = []
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        if not module.name.rpartition(".")[2].startswith("_"):
            found.append(importlib.import_module(module.name).SOURCE)
    order = list(Scope)
    found.sort(key=lambda source: (order.index(source.scope), source.id))
    return {source.id: source for source in found}
