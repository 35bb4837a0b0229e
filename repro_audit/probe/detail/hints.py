"""What a line reads besides its variables, told by the functions that it names: for the words of a report.

A function that is named may not have been called: so these only tell which of several lines is likelier to blame.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from repro_audit.probe.detail.names import GLOBAL, LOCAL, Chain, Plan
from repro_audit.probe.digest.stored import MISSING
from repro_audit.storage.reads import ADDRESS, CLOCK, ENTROPY, ENVIRONMENT, HASH, LISTING, SET_ORDER

_MODULES: dict[str, dict[str, str]] = {
    "time": dict.fromkeys(
        (
            *("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns"),
            *("process_time", "process_time_ns", "thread_time", "localtime", "gmtime", "ctime"),
            *("strftime", "asctime"),
        ),
        CLOCK,
    ),
    "timeit": {"default_timer": CLOCK},
    "secrets": dict.fromkeys(
        ("token_bytes", "token_hex", "token_urlsafe", "randbits", "randbelow", "choice"), ENTROPY
    ),
    "uuid": {"uuid1": ENTROPY, "uuid4": ENTROPY, "getnode": ENVIRONMENT},
    "random": {"SystemRandom": ENTROPY},
    "torch.random": {"seed": ENTROPY},
    "glob": {"glob": LISTING, "iglob": LISTING},
    "os": {
        **dict.fromkeys(("urandom", "getrandom"), ENTROPY),
        **dict.fromkeys(("listdir", "scandir", "walk", "fwalk"), LISTING),
        **dict.fromkeys(
            (
                *("getenv", "environ", "getcwd", "uname", "getlogin", "getuid", "geteuid"),
                *("cpu_count", "getpid", "statvfs"),
            ),
            ENVIRONMENT,
        ),
    },
    "posixpath": {"expanduser": ENVIRONMENT},
    "shutil": {"disk_usage": ENVIRONMENT},
    "socket": {"gethostname": ENVIRONMENT, "getfqdn": ENVIRONMENT},
    "platform": {"node": ENVIRONMENT, "uname": ENVIRONMENT},
    "getpass": {"getuser": ENVIRONMENT},
    "builtins": {"id": ADDRESS, "hash": HASH},
}
_ALIASES = {"posix": "os", "_socket": "socket", "torch": "torch.random"}
_CLASSES = {
    "datetime": {"now": CLOCK, "utcnow": CLOCK, "today": CLOCK},
    "date": {"today": CLOCK},
    "Path": {"cwd": ENVIRONMENT, "home": ENVIRONMENT},
}
_OF_PATHS = {"iterdir": LISTING, "glob": LISTING, "rglob": LISTING, "walk": LISTING}
_ITERATING = frozenset(
    ("list", "tuple", "iter", "next", "enumerate", "zip", "map", "sum", "join", "pop", "filter")
)


def reads(
    plan: Plan, values: Iterable[Any], variables: Mapping[str, Any], module: dict[str, Any]
) -> tuple[str, ...]:
    """What a line that has just run reads; `values` are those that it named."""
    found: dict[str, None] = {}
    words: set[str] = set()
    for chain in plan.chains:
        words.update(chain.path)
        what = _of_chain(chain, variables, module)
        if what:
            found.setdefault(what)
    iterates = plan.iterates or not _ITERATING.isdisjoint(words)
    makes_set = plan.builds_set or not {"set", "frozenset"}.isdisjoint(words)
    holds_set = any(type(value) in {set, frozenset} for value in values)
    # What makes a set goes through something else; what sorts one does not see its order.
    if iterates and "sorted" not in words and (holds_set or (makes_set and not plan.adds_to_set)):
        found.setdefault(SET_ORDER)
    return tuple(found)


def _of_chain(chain: Chain, variables: Mapping[str, Any], module: dict[str, Any]) -> str:
    base, *rest = chain.path
    value = MISSING if chain.where == GLOBAL else variables.get(base, MISSING)
    if value is MISSING and chain.where != LOCAL:
        value = module.get(base, MISSING)
        if value is MISSING:
            return _MODULES["builtins"].get(base, "")
    for name in rest:
        kind = type(value)
        if kind is ModuleType:
            found = _in_module(value.__name__, name)
            value = vars(value).get(name, MISSING)
        elif issubclass(kind, type):
            return _CLASSES.get(value.__name__, {}).get(name, "")
        else:
            return _OF_PATHS.get(name, "") if issubclass(kind, pathlib.PurePath) else ""
        if found or value is MISSING:
            return found
    return _of_function(value)


def _of_function(value: Any) -> str:
    """What a function reads that a module imported by its own name, or a class that is named alone."""
    if type(value) in {FunctionType, BuiltinFunctionType, type, MethodType}:
        return _in_module(str(value.__module__), str(value.__name__))
    # `from os import environ`: its type says so.
    kind = type(value)
    return ENVIRONMENT if (kind.__module__, kind.__name__) == ("os", "_Environ") else ""


def _in_module(module: str, name: str) -> str:
    return _MODULES.get(_ALIASES.get(module, module), {}).get(name, "")
