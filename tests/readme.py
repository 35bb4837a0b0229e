"""The README's table of sources, from the catalogue: `python -m tests.readme` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path

from repro_audit.sources import built_in

README = Path(__file__).resolve().parents[1] / "README.md"
TABLE = re.compile(
    r"(?<=^\| id \| breaks \| what it is \|\n\| --- \| --- \| --- \|\n)(?:\|.*\n)*", re.MULTILINE
)


def rewritten(text: str) -> str:
    """The README's text with a row for each source of the catalogue in its table."""
    rows = "".join(
        f"| `{source.id}` | {source.scope.value.replace('none', '-')} | {source.title} |\n"
        for source in built_in().values()
    )
    text, tables = TABLE.subn(lambda _: rows, text)
    if tables != 1:
        raise ValueError(f"the README has {tables} tables of sources")
    return text


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text(encoding="utf-8")), encoding="utf-8")
