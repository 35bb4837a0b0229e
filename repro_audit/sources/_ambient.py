"""What the four ambient generators' sources share: level B, and who is responsible for the seeding."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.fixes.remedies import Remedy
from repro_audit.probe.files import users_place
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.storage.facts import Facts

PINNED, OTHER = "A", "B"
NOT_THE_PROGRAM = ("repro_audit.trial", "repro_audit.sources", "torch.", "numpy.")
"""Modules that seed on their own account; `repro_audit.rng` seeds for the program."""
OTHER_SEED = 104_729
"""Level B starts this far from the audit's seed; any other state would do."""


def levels(facts: Facts) -> Levels:
    """State B alone; in a group only where the program is expected to overwrite it."""
    return Levels(varied=(OTHER,), alone=not facts.seeds_something)


def source(
    name: str,
    doc: str | None,
    *,
    library: str,
    generator: str,
    call: str,
    fix: Fix,
    levels: Callable[[Facts], Levels | str] = levels,
    seeded_by: str = "",
    remedies: tuple[Remedy, ...] = (),
) -> Source:
    """The source of a module.

    Args:
        name: of the module.
        doc: its docstring.
        library: whose ambient generator it is about, as `repro_audit.rng` calls it.
        generator: what to call that.
        call: what seeds it.
        fix: what to write.
        levels: for a program.
        seeded_by: the function that seeds it, where calls of the program's are to be noted.
        remedies: for the line to blame.
    """

    @contextmanager
    def apply(level: str, trial: TrialContext) -> Iterator[None]:
        if level == OTHER:
            trial.seeds[library] += OTHER_SEED
        module, _, function = seeded_by.rpartition(".")
        with Replacements() as replacements:
            if module:
                trial.when_imported(
                    module.partition(".")[0],
                    lambda: _watch(import_module(module), function, library, trial, replacements),
                )
            yield

    return Source(
        name=name,
        doc=doc,
        scope=Scope.RERUN,
        pinned=PINNED,
        levels=levels,
        apply=apply,
        judge=functools.partial(_judge, generator, call),
        fix=lambda _facts: fix,
        remedies=remedies,
    )


def _watch(
    owner: Any, function: str, library: str, trial: TrialContext, replacements: Replacements
) -> None:
    original: Callable[..., Any] = getattr(owner, function)

    @functools.wraps(original)
    def seed(*args: Any, **kwargs: Any) -> Any:
        # Without a seed it is the operating system that seeds, which promises nothing.
        given = next(iter((*args, *kwargs.values())), None)
        if given is not None and not sys._getframe(1).f_globals.get("__name__", "").startswith(
            NOT_THE_PROGRAM
        ):
            trial.reseeds.append(library)
            file, line = users_place()
            trial.seedings.append((library, file or "", line or 0))
        return original(*args, **kwargs)

    replacements.attribute(owner, function, seed)


def _judge(name: str, call: str, judgement: Judgement, facts: Facts) -> Verdict:
    """A divergence is the program's own where it seeds or trains by itself, its caller's otherwise."""
    if judgement.status == "broke" and not (facts.never_seeded or facts.seeds_something):
        return Verdict(
            status="delegated",
            reason=f"the program draws from {name} and leaves its seed to the caller; the audit seeded it",
            condition=f"{name} ({call})",
        )
    promise = (
        "build() takes a seed"
        if facts.accepts_seed
        else f"the program seeds {' and '.join(facts.reseeds)} itself"
    )
    return Verdict.of(
        judgement,
        held=f"another state of {name} at the start changes nothing",
        broke=f"the program trains by itself and draws from {name}, but nothing seeds it: each run starts it elsewhere"
        if facts.never_seeded
        else f"{promise}, but results depend on the state in which it finds {name}",
    )
