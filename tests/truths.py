"""What audits of the programs in `tests/cases` must find: each directory has a program and the truth about it.

A directory's `expected.toml` has a table `[[audit]]` for each audit that is made of its program; see `Truth`.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.auditing import Audited

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROGRAMS = Path(__file__).with_name("cases")
YARDSTICK = "seed-effect"
"""It breaks no promise, so it may be said of any program unless a truth expects it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """One audit, and what it must say."""

    case: str
    """The directory below `tests/cases`."""
    target: str
    options: tuple[str, ...] = ()
    """Of the command, before the target's own."""
    exit_code: int
    broke: dict[str, list[int | str]] = field(default_factory=dict)
    """By id of the sources that must break, the lines that may be blamed: `12`, or `"other.py:12"`; none for any."""
    allowed: tuple[str, ...] = ()
    """Sources that may break besides; all others must not."""
    held: tuple[str, ...] = ()
    """Sources whose status must be `held`."""
    says: tuple[str, ...] = ()
    """Regular expressions that the terminal report must match, its lines joined by single blanks."""
    never: tuple[str, ...] = ()
    """Those that it must not match."""
    fix: dict[str, str] = field(default_factory=dict)
    """By id, a regular expression that the fix's summary or snippet must match."""
    trials: int = 0
    """As many trials, at most; 0 for any number."""
    needs: tuple[str, ...] = ()
    """Modules without which the program can not run."""
    tools: tuple[str, ...] = ()
    """Commands of the system without which it can not run."""
    deep: bool = False
    """Audited by `python -m tests.benchmarks.cases` alone: what it shows is near to what another one shows."""
    own_cpu: bool = False
    """With this CPU's own kernels; else it counts as the smallest one, so that `cpu-isa` breaks nothing."""

    @property
    def id(self) -> str:
        """For pytest."""
        return "-".join((self.case, self.target.replace(":", "-"), *self.options))

    @property
    def missing(self) -> list[str]:
        """What the program needs and this environment lacks."""
        modules = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return [*modules, *(name for name in self.tools if shutil.which(name) is None)]

    @property
    def baseline(self) -> bool:
        """As `tests.auditing.check` has it."""
        return not self.own_cpu

    def wrong(self, audited: Audited) -> list[str]:
        """What an audit says that is not true, or does not say; empty where all is right."""
        if not audited.report:
            return [f"no report, exit {audited.exit_code}"]
        said = [] if audited.exit_code == self.exit_code else [f"exit {audited.exit_code}"]
        if audited.report["unexplained"] is not None:
            said.append("something is unexplained")
        if self.trials and len(audited.report["trials"]) > self.trials:
            said.append(f"{len(audited.report['trials'])} trials")
        return [*said, *self._of_sources(audited), *self._of_words(audited)]

    def _of_sources(self, audited: Audited) -> Iterator[str]:
        free = {*self.allowed, *self.broke, YARDSTICK}
        yield from (f"accused: {name}" for name in sorted(audited.broke - free))
        yield from (f"overlooked: {name}" for name in sorted(set(self.broke) - audited.broke))
        for name in audited.broke & set(self.broke):
            place = _place(audited.source(name))
            lines = [str(x) if isinstance(x, str) else f":{x}" for x in self.broke[name]]
            if lines and not place.endswith(tuple(lines)):
                yield f"{name} blames {place or 'no line'}, not one of {', '.join(lines)}"
        for name in self.held:
            if (status := audited.source(name)["status"]) != "held":
                yield f"{name} is {status}"
        for name, pattern in self.fix.items():
            fix = audited.source(name)["fix"] or {"summary": "", "snippet": ""}
            if not re.search(pattern, f"{fix['summary']}\n{fix['snippet']}"):
                yield f"the fix of {name} does not match {pattern!r}"

    def _of_words(self, audited: Audited) -> Iterator[str]:
        terminal = " ".join(audited.terminal.split())
        yield from (f"not said: {text!r}" for text in self.says if not re.search(text, terminal))
        yield from (f"said: {text!r}" for text in self.never if re.search(text, terminal))


def _place(source: dict[str, Any]) -> str:
    """`train.py:12`, or nothing."""
    location = (source["divergence"] or {}).get("location")
    return f"{location['file']}:{location['line']}" if location else ""


def _read(path: Path) -> list[Truth]:
    tables: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["audit"]
    found = []
    for table in tables:
        told: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
        }
        found.append(Truth(case=path.parent.name, **told))
    return found


TRUTHS = [truth for path in sorted(PROGRAMS.glob("*/expected.toml")) for truth in _read(path)]
