"""What `repro-audit rng` prints, as pure functions of what was found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from math import isqrt, log2
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from repro_audit.report.style import TerminalStyle, heading, rows, separated, words
from repro_audit.report.text import listed, plural
from repro_audit.rng.identification import Identification
from repro_audit.rng.inventory import GeneratorFacts
from repro_audit.rng.lcg import clock
from repro_audit.rng.lcg.anatomy import Anatomy, Attempt
from repro_audit.rng.lcg.clock import Remedy
from repro_audit.rng.lcg.generator import HullDobell, Orbit, nu_limit
from repro_audit.rng.lcg.recovery import KNOWN_MODULUS_NEEDS, Recovery

_WIDTH = 11
Row = tuple[str, str]


def as_json(found: object) -> str:
    """What was found as a JSON document; large integers are written in full."""
    return json.dumps(_plain(found), indent=2)


def _plain(found: Any) -> Any:
    if isinstance(found, (list, tuple)):
        return [_plain(entry) for entry in found]
    if not dataclasses.is_dataclass(found):
        return found
    names = [field.name for field in dataclasses.fields(found)]
    names += [name for name, kind in vars(type(found)).items() if isinstance(kind, property)]
    return {name: _plain(getattr(found, name)) for name in names}


def inventory(found: Sequence[GeneratorFacts]) -> RenderableType:
    """`rng show`."""
    return Group(*separated(_generator(facts) for facts in found))


def _generator(facts: GeneratorFacts) -> RenderableType:
    title = Text(facts.name, style="bold")
    title.append(f"  {facts.library}, {facts.engine}, {facts.status}", style="not bold")
    content = [
        ("state", f"{facts.state_bytes:,} bytes"),
        ("seed", _seed(facts)),
        ("position", facts.position),
        ("seeded by", facts.seeded_by),
        ("", f"seed_everything: {'yes' if facts.seed_everything else 'no, out of its reach'}"),
        ("unseeded", f"starts from {facts.at_start}"),
        ("workers", facts.workers),
    ]
    if facts.note:
        content.append(("note", facts.note))
    return Group(title, _rows(content))


def _seed(facts: GeneratorFacts) -> str:
    if facts.seed is not None:
        return str(facts.seed)
    return "not kept" if facts.status in {"started", "made by each call"} else "none yet"


def identifications(found: Sequence[Identification], look: TerminalStyle) -> RenderableType:
    """`rng identify`."""
    return Group(*separated(_identification(one, look) for one in found))


def _identification(one: Identification, look: TerminalStyle) -> RenderableType:
    if not one.exercised:
        title = Text(f"? {one.name}", style="bold")
        title.append(f"  {one.claim}?", style="not bold")
        return Group(title, _rows([("predicted", one.how)]))
    as_expected = one.proven != one.control
    title = Text(
        f"{look.good if as_expected else look.bad} {one.name}",
        style="bold green" if as_expected else "bold red",
    )
    title.append(f"  {_verdict(one)}", style="not bold")
    predicted = f"{one.right:,} of {one.predicted:,} next outputs exactly, {one.how}"
    return Group(title, _rows([("predicted", predicted), ("LCG test", one.lcg)]))


def _verdict(one: Identification) -> str:
    if one.proven:
        return f"is {one.claim}"
    return f"is not {one.claim}" if one.control else f"is not shown to be {one.claim}"


def anatomy(found: Anatomy, look: TerminalStyle) -> RenderableType:
    """`rng lcg`."""
    sections = [
        _generator_itself(found),
        _period(found, look),
        _weakness(found, look),
        _cracked(found, look),
        _at_start(found.at_start, found, look),
        _while_running(found.while_running, look),
        _rows(
            [("instead", "choose the seed, write it down, and give each purpose its own stream")]
        ),
    ]
    return Group(*separated(section for section in sections if section is not None))


def _generator_itself(found: Anatomy) -> RenderableType:
    lcg = found.lcg
    title = words(f"S' = ({lcg.multiplier}*S + {lcg.increment}) mod {lcg.modulus}", "bold")
    return Group(title, _rows([("seed", str(found.seed)), ("outputs", _numbers(found.outputs))]))


def _period(found: Anatomy, look: TerminalStyle) -> RenderableType:
    full = found.hull_dobell.full
    title = _title("full period" if full else "no full period", look, good=full)
    return Group(
        title,
        _rows([*_conditions(found.hull_dobell, look), *_orbit(found.orbit, found, look)]),
    )


def _conditions(conditions: HullDobell, look: TerminalStyle) -> Iterator[Row]:
    """Hull and Dobell's, one by one."""
    yield "B and M", _checked(f"gcd(B, M) = {conditions.gcd}", "1", look, holds=conditions.coprime)
    dividing = [str(prime) for prime, divides in conditions.primes if divides]
    missing = [str(prime) for prime, divides in conditions.primes if not divides]
    if conditions.rest > 1:
        which = f"factor of {conditions.rest}, which was not factored"
        if conditions.rest_divides:
            dividing.append(f"every {which}")
        else:
            missing.append(f"some {which}")
    said = f"divisible by {listed(dividing)}" if dividing else ""
    if missing:
        said += f", not by {listed(missing)}" if said else f"not divisible by {listed(missing)}"
    said = said or "M = 1 has no prime factors"
    yield (
        "A-1",
        _checked(
            said, "divisible by every prime factor of M", look, holds=conditions.primes_divide
        ),
    )
    if conditions.four is None:
        yield "4", f"{look.good} does not divide M, so it need not divide A-1"
    else:
        said = "divides M and A-1" if conditions.four else "divides M, but not A-1"
        yield "4", _checked(said, "divides both", look, holds=conditions.four)


def _checked(said: str, wanted: str, look: TerminalStyle, *, holds: bool) -> str:
    return f"{look.good} {said}" if holds else f"{look.bad} {said}; wanted: {wanted}"


def _orbit(orbit: Orbit, found: Anatomy, look: TerminalStyle) -> Iterator[Row]:
    if orbit.period is None:
        yield "period", "not known: M, or p-1 for one of its primes p, could not be factored"
        yield "bounds", f"at least {orbit.at_least:,} and at most {orbit.at_most:,} states"
        return
    where = "from every seed" if found.hull_dobell.full else f"from seed {found.seed}"
    yield (
        "period",
        f"{orbit.period:,} of {plural(found.lcg.modulus, 'state')} {where}, by {orbit.by}",
    )
    if orbit.tail:
        yield "tail", f"{plural(orbit.tail, 'state')} before the cycle, which never come back"
    if found.walked:
        yield "checked", f"{look.good} cycle finding (Brent) walked it: the same numbers"
    else:
        yield "checked", f"{look.good} a jump of so many steps leads back; too long to walk"


def _weakness(found: Anatomy, look: TerminalStyle) -> RenderableType | None:
    lines: list[Row] = []
    if found.low_bits:
        lines.extend((f"low {entry.bits}", f"period {entry.period:,}") for entry in found.low_bits)
    if found.spectral is not None:
        nu = isqrt(found.spectral)
        most = nu_limit(found.lcg.modulus)
        lines.append(("pairs", f"spectral test: nu_2 = {nu:,}, where at most {most:,} is possible"))
    if not lines:
        return None
    name = "the low bits repeat soon, as M = 2**k" if found.low_bits else "pairs of outputs"
    return Group(_title(name, look, good=not found.low_bits), _rows(lines))


def _cracked(found: Anatomy, look: TerminalStyle) -> RenderableType:
    known, last = found.known_modulus, found.unknown_modulus[-1]
    lines: list[Row] = []
    if known.lcg is not None:
        said = (
            f"{KNOWN_MODULUS_NEEDS} outputs: A = {known.lcg.multiplier}, B = {known.lcg.increment}"
        )
        alike = f", one of {known.alike:,} multipliers that give these outputs"
        lines.append(("M known", said if known.alike == 1 else said + alike))
    lines.extend(
        (f"{attempt.outputs} outputs", _attempt(attempt.recovery, found))
        for attempt in _telling(found.unknown_modulus)
    )
    if last.recovery.lcg is None:
        title = "cracked from its outputs where M is known"
        lines.append((f"{last.outputs} outputs", "still so"))
    else:
        title = "cracked from its outputs, M or no M"
        if last.recovery.lcg.modulus != found.lcg.modulus:
            lines.append((f"{last.outputs} outputs", "still so: that M predicts every one of them"))
    return Group(_title(title, look, good=False), _rows(lines))


def _telling(attempts: Sequence[Attempt]) -> Iterator[Attempt]:
    """Those at which something changed."""
    last: Recovery | None = None
    for attempt in attempts:
        if attempt.recovery != last:
            yield attempt
        last = attempt.recovery


def _attempt(recovery: Recovery, found: Anatomy) -> str:
    if recovery.lcg is None:
        return recovery.reason
    if recovery.lcg.modulus == found.lcg.modulus:
        lcg = recovery.lcg
        return f"M = {lcg.modulus}, A = {lcg.multiplier}, B = {lcg.increment}"
    return f"M divides {recovery.lcg.modulus}"


def _at_start(remedy: Remedy, found: Anatomy, look: TerminalStyle) -> RenderableType:
    seeds = min(remedy.tried, found.lcg.modulus)
    lines = [
        (_time(clock.INSTANT), _numbers(remedy.first)),
        (_time(clock.INSTANT + 1), _numbers(remedy.second)),
        (
            "equal",
            (
                f"{remedy.equal} of {clock.DRAWS} outputs; the first outputs of neighbouring seconds "
                "always differ by A mod M"
            ),
        ),
        (
            "space",
            f"{remedy.tried:,} seconds in a day ({_bits(remedy.tried)}), {plural(seeds, 'seed')}",
        ),
        ("tried all", _search(remedy, _time(remedy.match))),
        ("cost", _cost(remedy, "no run can be repeated, unless it writes its seed down")),
    ]
    title = "remedy: seed from the clock as the program starts"
    return Group(_title(title, look, good=False), _rows(lines))


def _cost(remedy: Remedy, words: str) -> str:
    """What a remedy costs; of a generator that forgets its seed, nothing."""
    if remedy.equal == clock.DRAWS:
        return "none here: the outputs are the same, whatever the clock says"
    return words


def _while_running(remedy: Remedy, look: TerminalStyle) -> RenderableType:
    first, second = (f"+{reading:,} us" for reading in clock.READINGS)
    lines = [
        (first, _numbers(remedy.first)),
        (second, _numbers(remedy.second)),
        (
            "equal",
            (
                f"{remedy.equal} of {clock.DRAWS} outputs; the first {clock.EVERY} come before "
                "the clock is read"
            ),
        ),
        ("space", f"{remedy.tried:,} microseconds in a tenth of a second ({_bits(remedy.tried)})"),
        ("tried all", _search(remedy, f"+{remedy.match:,} us")),
        (
            "cost",
            _cost(
                remedy,
                "no run can be repeated, not even with its seed: every reading would have to be "
                "kept. The period is lost too: a jump may land on states already used",
            ),
        ),
    ]
    title = f"remedy: add the clock to the state every {clock.EVERY} draws"
    return Group(_title(title, look, good=False), _rows(lines))


def _bits(readings: int) -> str:
    return f"{log2(readings):.1f} bits"


def _search(remedy: Remedy, match: str) -> str:
    found = (
        f"only {match} fits, which it was"
        if remedy.matching == 1
        else f"{remedy.matching:,} fit, and give the very same outputs"
    )
    return f"{clock.SHOWN} outputs give the clock away: {found}"


def _time(second: int) -> str:
    return datetime.fromtimestamp(second, tz=timezone.utc).strftime("%H:%M:%S")


def _title(name: str, look: TerminalStyle, *, good: bool) -> RenderableType:
    style = "green" if good else "yellow"
    return heading(Text(name, style=f"bold {style}"), look, style)


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _rows(content: Sequence[Row]) -> RenderableType:
    return rows(((label, words(said)) for label, said in content), width=_WIDTH)
