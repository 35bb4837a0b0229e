"""The table that the benchmarks print; the README shows a copy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One ratio and the most that it may be."""

    what: str
    against: str
    ratio: float
    allowed: float

    @property
    def met(self) -> bool:
        """Whether the ratio is within what is allowed."""
        return self.ratio <= self.allowed


def render(rows: list[Row]) -> str:
    """Markdown, so that it can be pasted as it is."""
    lines = ["| what | against | costs | at most |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row.what} | {row.against} | {row.ratio:.2f}x | {row.allowed:.2f}x |" for row in rows
    ]
    return "\n".join(lines)
