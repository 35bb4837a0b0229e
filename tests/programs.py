"""Random straight-line programs whose events differ between two runs for one planted cause, and for noise."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import xxhash
from hypothesis import strategies as st

from repro_audit.storage.events import Kind, Line
from tests.details import Row

REAL = tuple("abcde")
NOISY = ("t0", "t1")
VARIABLES = (*REAL, *NOISY, "record")

Deed: TypeAlias = Literal[
    "op",  # target = op(sources)
    "in-place",  # target.op_(sources)
    "python",  # target = function(sources), no op
    "clock",  # noise = time()
    "took",  # noise = time() - noise
    "print",  # print(noise, sources)
    "log",  # record.append((noise, sources))
    "logged tensor",  # noise = op(time())
    "call",  # target = function(sources), its lines in events
    "draw",  # target = op(random())
]
DEEDS: tuple[Deed, ...] = (
    "op",
    "in-place",
    "python",
    "clock",
    "took",
    "print",
    "log",
    "logged tensor",
    "call",
    "draw",
)
NOISE = frozenset(("clock", "took", "print", "log", "logged tensor"))


@dataclass(frozen=True, slots=True)
class Statement:
    """One line."""

    deed: Deed
    target: str
    sources: tuple[str, ...]
    noise: str


statements = st.builds(
    Statement,
    deed=st.sampled_from(DEEDS),
    target=st.sampled_from(REAL),
    sources=st.lists(st.sampled_from(REAL), min_size=1, max_size=2, unique=True).map(tuple),
    noise=st.sampled_from(NOISY),
)
programs = st.lists(statements, min_size=1, max_size=25)


@dataclass(kw_only=True)
class Execution:
    """One run of a program, value by value; a value is told by how it was made."""

    second: bool
    noisy: bool
    """Clocks differ between the runs."""
    tell_sets: bool
    rows: list[Row] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=lambda: {name: name for name in VARIABLES})
    state: int = 0
    """Of the generator: how often it was drawn from."""
    moments: int = 0

    def run(self, program: list[Statement], culprit: int) -> None:
        """Execute; the statement at `culprit` makes something else in the second run."""
        for number, statement in enumerate(program):
            self.step(number + 1, statement, "!" if self.second and number == culprit else "")

    def step(self, line: int, statement: Statement, odd: str = "") -> None:
        """Execute one line; `odd` is added to what it makes."""
        real = list(statement.sources)
        if statement.deed in NOISE:
            self._noise(line, statement.deed, statement.noise, real)
            return
        used = [statement.target, *real] if statement.deed == "in-place" else real
        value = self._read(used)
        if statement.deed == "python":
            made = f"f({value}){odd}"
        elif statement.deed == "call":
            made = self._call(line, value, odd)
        else:
            value = self._drawn(line) if statement.deed == "draw" else value
            made = self._op(line, statement.deed, value, odd)
        self._assign(line, statement.target, used, made)

    def _noise(self, line: int, deed: Deed, noise: str, real: list[str]) -> None:
        """Execute a line that makes nothing of the loss."""
        if deed == "clock":
            self._assign(line, noise, [], self._now())
        elif deed == "logged tensor":
            self._assign(line, noise, [], self._op(line, "tensor", "", self._now()))
        elif deed == "took":
            self._assign(line, noise, [noise], f"{self._now()} - {self._read([noise])}")
        else:
            used = [noise, *real] if deed == "print" else ["record", noise, *real]
            before = self._read(used)
            if deed == "log":
                self.values["record"] = f"[{before}]"
            self._line(line, used, [], before)

    def decide(self, line: int) -> None:
        """Run an `if`, whose outcome nothing that is seen tells."""
        self._line(line, ["os"], [], "")

    def one_more(self, line: int, target: str) -> None:
        """An op that only one run has."""
        before = self._read([target])
        self._assign(line, target, [target], self._op(line, "extra_", before))

    def finish(self, line: int, names: list[str]) -> None:
        """The loss, out of some variables."""
        before = self._read(names)
        self._op(line, "sum", before)
        self._line(line, names, [], before)

    def draw(self, line: int) -> None:
        """Draw, and make nothing of it."""
        self._drawn(line)
        self._line(line, ["random"], [], "")

    def _read(self, names: list[str]) -> str:
        return xxhash.xxh3_64_hexdigest(
            json.dumps([self.values.get(name) for name in names]).encode()
        )

    def _now(self) -> str:
        self.moments += 1
        return f"at {self.moments}{' later' if self.second and self.noisy else ''}"

    def _op(self, line: int, name: str, before: str, odd: str = "", function: str = "main") -> str:
        after = f"{name}({before}){odd}"
        self.rows.append(Row(Kind.OP, f"aten::{name}", line, before, after, function=function))
        return after

    def _drawn(self, line: int) -> str:
        before, self.state = self.state, self.state + 1
        self.rows.append(
            Row(Kind.DRAW, "python", line, f"{before}", f"{self.state}", "draw", function="main")
        )
        return f"number {before}"

    def _call(self, line: int, argument: str, odd: str) -> str:
        """`def helper(v): since = time(); v = op(v); return v`."""
        inner, first = "helper", 1000 + 10 * line
        now = self._now()
        self._inner(first, "since", ["time", None], ["time", now])
        value = self._op(first + 1, "op", argument, odd, inner)
        self._inner(first + 1, "v", [argument], [value])
        self._inner(first + 2, "", [value], [value], names=["v"])
        self.rows.append(Row(Kind.LINE, "return", first + 2, "", value, function=inner))
        return value

    def _inner(
        self,
        line: int,
        target: str,
        before: list[str | None],
        after: list[str],
        names: list[str] | None = None,
    ) -> None:
        meta = self._meta(names or [target], [target] if target else [])
        self.rows.append(
            Row(Kind.LINE, "", line, json.dumps(before), json.dumps(after), meta, "helper")
        )

    def _assign(self, line: int, target: str, used: list[str], value: str) -> None:
        """The row of a line that has assigned to a variable, whatever it ran being done."""
        names = list(dict.fromkeys([target, *used]))
        before = self._read(names)
        self.values[target] = value
        self._line(line, names, [target], before)

    def _line(self, line: int, names: list[str], sets: list[str], before: str) -> None:
        after = before if not sets and "record" not in names else self._read(names)
        self.rows.append(
            Row(Kind.LINE, "", line, before, after, self._meta(names, sets), function="main")
        )

    def _meta(self, names: list[str], sets: list[str]) -> str:
        told = sets if self.tell_sets else names
        return Line(names=tuple(names), reads=(), sets=tuple(told)).text()


def differing(a: Execution, b: Execution) -> list[str]:
    """The real variables that two runs do not share."""
    return [name for name in REAL if a.values[name] != b.values[name]]
