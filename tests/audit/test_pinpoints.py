"""Programs with one planted cause each: the audit names the source, and the very line that parts the runs.

In each file of `pinpoints`, the docstring begins with the source's id, and a comment marks the line: `HERE`, with the
op and what else must be said about it (`backward`, `in MODULE`); `ALSO` marks a second, independent cause.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from repro_audit.isolation import sandbox
from tests.auditing import check

pytestmark = pytest.mark.usefixtures("shared_interpreters")

PROGRAMS = Path(__file__).parents[1] / "pinpoints"
IMPORTED = "reseeds.py"
RACE = "nondeterministic-op"
_MARK = re.compile(r"# .*\b(?P<mark>HERE|ALSO|RESEED)\b ?(?P<said>.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A cause, as its program states it."""

    program: str
    source: str
    file: str
    line: int
    code: str
    op: str | None
    phase: str | None
    module: str | None
    also: int | None
    """The line of a second cause."""


def planted(path: Path) -> Planted:
    """Read the marks of a program, or of the module that it imports."""
    text = path.read_text(encoding="utf-8")
    source = re.match(r'"""([a-z-]+):', text)
    assert source is not None
    marks = _marks(path)
    file, (line, said) = path.name, marks["HERE"]
    if "reseeds" in text:
        file, (line, said) = IMPORTED, _marks(PROGRAMS / IMPORTED)["RESEED"]
    op = re.match(r"(aten::\w+)", said)
    module = re.search(r"\bin (\S+)$", said)
    phase = re.search(r"\b(backward|optimizer)\b", said)
    code = (PROGRAMS / file).read_text(encoding="utf-8").splitlines()[line - 1]
    return Planted(
        program=path.name,
        source=source[1],
        file=file,
        line=line,
        code=code.strip(),
        op=op[1] if op else None,
        phase=phase[1] if phase else None,
        module=module[1] if module else None,
        also=marks["ALSO"][0] if "ALSO" in marks else None,
    )


def _marks(path: Path) -> dict[str, tuple[int, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = ((number, _MARK.search(line)) for number, line in enumerate(lines, start=1))
    return {match["mark"]: (number, match["said"]) for number, match in found if match}


PLANTED = [planted(path) for path in sorted(PROGRAMS.glob("*.py")) if path.name != IMPORTED]


def test_there_are_enough() -> None:
    assert len(PLANTED) >= 25


@pytest.mark.parametrize("cause", PLANTED, ids=lambda cause: cause.program.removesuffix(".py"))
def test_line(cause: Planted, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in (cause.program, IMPORTED):
        shutil.copy(PROGRAMS / name, tree)
    spec = f"{cause.program}:build"
    options = ("--only", cause.source, "--steps", "4")
    saved = tmp_path / "report.json"
    audited = check(spec, *options, cwd=tree, saved=saved, baseline=False)
    assert audited.broke == {cause.source}, audited.terminal
    divergence = audited.source(cause.source)["divergence"]
    location = divergence["location"]
    if cause.source == RACE and location is None:
        # A race may hide from whoever watches; then the report must say so.
        assert "watching changes" in " ".join(audited.terminal.split()), audited.terminal
        return
    assert location is not None, audited.terminal
    found = (location["file"], location["line"])
    if cause.also is not None and found == (cause.file, cause.also):
        return  # of two races, the first one did not show while it was watched
    assert found == (cause.file, cause.line), audited.terminal
    assert location["code"] == cause.code
    if cause.op is not None:
        assert divergence["op"] == cause.op
    if cause.module is not None:
        assert divergence["module"] == cause.module
    if cause.phase is not None:
        assert f"in {cause.phase}" in audited.terminal
    if cause.also is not None and "  also  " in audited.terminal:
        _, _, also = audited.terminal.partition("  also  ")
        assert f"{cause.program}:{cause.also}" in also, audited.terminal


@pytest.mark.parametrize("program", ["transform_workers", "nested_module"])
def test_line_in_copies_of_the_tree(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trial has the program at another path there; the report knows the tree's own."""
    monkeypatch.setattr(sandbox, "_plan_overlay", lambda *_: (None, "no such luck"))
    (cause,) = (each for each in PLANTED if each.program == f"{program}.py")
    test_line(cause, tmp_path)
