"""Sources of other packages, named by entry points of the group `repro_audit.sources`.

An entry point names a module that is built as those in `repro_audit/sources` are. The audit looks entry points up once;
its trials are told what to import. A package that can not be used is left out, with the reason.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points

from repro_audit.experiment import Judgement
from repro_audit.option import Option
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.storage.facts import Facts

GROUP = "repro_audit.sources"
ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
STATUSES = frozenset({"broke", "held", "delegated", "not-exercised", "error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugins:
    """What other packages bring."""

    sources: Mapping[str, Source]
    """By id, in the order of the ids."""
    places: Mapping[str, str]
    """What to import for each: the value of its entry point."""
    broken: Mapping[str, str]
    """Why an entry point can not be used, by its value."""

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each that can not be used."""
        return tuple(f"the plugin {place} is left out: {why}" for place, why in self.broken.items())

    def why_broken(self, name: str) -> str | None:
        """Why there is no source with an id that a plugin was to bring."""
        return next(
            (
                note
                for note, place in zip(self.notes, self.broken, strict=True)
                if _id(place) == name
            ),
            None,
        )


class UnusableError(Exception):
    """Why an entry point can not be used."""


def find(taken: Collection[str]) -> Plugins:
    """The sources of all installed packages; ids that are `taken` belong to others."""
    sources: dict[str, Source] = {}
    places: dict[str, str] = {}
    broken: dict[str, str] = {}
    try:
        found = sorted({entry.value for entry in entry_points(group=GROUP)})
    except Exception as error:  # damaged metadata of any package at all
        return Plugins(
            sources={}, places={}, broken={GROUP: f"no entry point can be read: {_words(error)}"}
        )
    for place in found:
        try:
            source = load(place)
        except UnusableError as error:
            broken[place] = str(error)
            continue
        if source.id in taken or source.id in sources:
            owner = (
                f"the plugin {places[source.id]}" if source.id in sources else "repro-audit itself"
            )
            broken[place] = f"{owner} has a source with the id {source.id}"
        else:
            sources[source.id], places[source.id] = guarded(source), place
    return Plugins(sources=dict(sorted(sources.items())), places=places, broken=broken)


def load(place: str) -> Source:
    """Import the source that an entry point names.

    Raises:
        UnusableError: there is none, or it does what a source must not.
    """
    entry = EntryPoint(name="", value=place, group=GROUP)
    had_torch = "torch" in sys.modules
    try:
        loaded = entry.load()
    except (Exception, SystemExit) as error:
        raise UnusableError(f"its import fails with {_words(error)}") from error
    if "torch" in sys.modules and not had_torch:
        raise UnusableError(
            "it imports torch at its top level, which would come before the program's own settings"
        )
    source = loaded if isinstance(loaded, Source) else getattr(loaded, "SOURCE", None)
    if not isinstance(source, Source):
        kind = "nothing" if source is None else f"a {type(source).__name__}"
        raise UnusableError(f"its SOURCE is {kind}, not a repro_audit.source.Source")
    if not ID.fullmatch(source.id):
        raise UnusableError(f"its id, {source.id!r}, is not in kebab case")
    _check_fields(source)
    return source


def _check_fields(source: Source) -> None:
    """Refuse a source of which a field has another type than its annotation, which nothing else would check."""
    functions = ("levels", "judge", "fix", "apply", "environment")
    wrong = [name for name in functions if not callable(getattr(source, name))]
    wrong += [
        name
        for name, kind in (("scope", Scope), ("pinned", str))
        if not isinstance(getattr(source, name), kind)
    ]
    if not all(isinstance(option, Option) for option in source.options):
        wrong.append("options")
    if wrong:
        raise UnusableError(f"these fields of its SOURCE have a wrong type: {', '.join(wrong)}")
    if not source.title:
        raise UnusableError("it has no docstring")
    try:
        variables: object = source.environment(source.pinned)
    except Exception as error:
        raise UnusableError(f"its environment() fails with {_words(error)}") from error
    if not isinstance(variables, Mapping) or not all(
        isinstance(text, str) for pair in variables.items() for text in pair
    ):
        raise UnusableError(f"its environment() returns {variables!r}, not strings by strings")


def guarded(source: Source) -> Source:
    """A source whose errors are told in its entry of the report, and do not end the audit."""

    def levels(facts: Facts) -> Levels | str:
        try:
            answer: object = source.levels(facts)
        except Exception as error:
            return f"its levels() fails with {_words(error)}"
        if isinstance(answer, (Levels, str)):
            return answer
        return f"its levels() returns a {type(answer).__name__}"

    def judge(judgement: Judgement, facts: Facts) -> Verdict:
        try:
            verdict: object = source.judge(judgement, facts)
        except Exception as error:
            return Verdict(status="error", reason=f"its judge() fails with {_words(error)}")
        if isinstance(verdict, Verdict) and verdict.status in STATUSES:
            return verdict
        return Verdict(status="error", reason=f"its judge() returns {verdict!r}")

    def fix(facts: Facts) -> Fix:
        try:
            return source.fix(facts)
        except Exception as error:
            return Fix(summary=f"None: its fix() fails with {_words(error)}", snippet="")

    return replace(source, levels=levels, judge=judge, fix=fix)


def _id(place: str) -> str:
    """The id that a plugin's source would have, as for a built-in one: the last part of the module's name."""
    return place.partition(":")[0].strip().rpartition(".")[2].replace("_", "-")


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
