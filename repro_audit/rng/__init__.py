"""Random number generators: seed them, fork them, take and restore their states, list them, and prove what they are.

`repro-audit rng` shows the same in a terminal. Seeding is imported at once, the rest when it is first asked for, and
neither NumPy nor PyTorch before a function needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from repro_audit.rng.seeding import (
    SEED_LIMIT,
    GeneratorStates,
    PendingCall,
    fork_rng,
    restore,
    seed_everything,
    seed_worker,
    snapshot,
)

if TYPE_CHECKING:
    from repro_audit.rng.identification import Identification, identify
    from repro_audit.rng.inventory import GeneratorFacts, generators
    from repro_audit.rng.lcg.generator import HullDobell, Lcg, Orbit
    from repro_audit.rng.lcg.recovery import Recovery, recover, seeds_of

__all__ = [
    "SEED_LIMIT",
    "GeneratorFacts",
    "GeneratorStates",
    "HullDobell",
    "Identification",
    "Lcg",
    "Orbit",
    "PendingCall",
    "Recovery",
    "fork_rng",
    "generators",
    "identify",
    "recover",
    "restore",
    "seed_everything",
    "seed_worker",
    "seeds_of",
    "snapshot",
]

_LATER = {
    "GeneratorFacts": "inventory",
    "HullDobell": "lcg.generator",
    "Identification": "identification",
    "Lcg": "lcg.generator",
    "Orbit": "lcg.generator",
    "Recovery": "lcg.recovery",
    "generators": "inventory",
    "identify": "identification",
    "recover": "lcg.recovery",
    "seeds_of": "lcg.recovery",
}
"""What is imported when it is first asked for, and the module that has it: trials import this package too."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import what was asked for: https://peps.python.org/pep-0562/."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
