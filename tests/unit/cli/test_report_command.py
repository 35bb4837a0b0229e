"""`repro-audit report`, and where a check's report goes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from repro_audit.cli import app, delivery
from repro_audit.config import Check, Options
from repro_audit.errors import UsageError
from repro_audit.report import as_json, formats, github, markdown
from repro_audit.report.formats import FORMATS, Output
from tests.report_models import BROKEN, CLEAN, NUM_WORKERS, RACE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a saved report, on no CI."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audit.json").write_text(as_json.render(BROKEN))
    return tmp_path


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["report", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_saved_report_is_shown_again() -> None:
    short = said("audit.json")
    assert short.startswith("✗ NOT REPRODUCIBLE on rerun")
    assert "released ✗ differs" not in short
    assert "released ✗ differs" in said("audit.json", "-v")


def test_one_finding_is_shown_whole() -> None:
    shown = said("audit.json", "--finding", NUM_WORKERS.id)
    assert "worker_init_fn=seed_worker" in shown
    assert RACE.id not in shown
    with pytest.raises(UsageError, match="num-workers"):
        said("audit.json", "--finding", "num-worker")
    for other in (("--format", "junit"), ("-o", "x.txt")):
        with pytest.raises(UsageError, match="on the terminal only"):
            said("audit.json", "--finding", NUM_WORKERS.id, *other)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "terminal"])
def test_a_format_is_printed(name: str) -> None:
    assert said("audit.json", "--format", name) == FORMATS[name].render(BROKEN)


def test_a_format_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match=r"did you mean markdown\?"):
        said("audit.json", "--format", "markdwon")


def test_files_have_the_format_of_their_suffix_or_the_one_that_is_named(here: Path) -> None:
    named = ("-o", "gitlab:quality", "--output", "markdown:-")
    assert said("audit.json", "-o", "a.sarif", "-o", "A.XML", *named) == markdown.render(BROKEN)
    written = {"a.sarif": "sarif", "A.XML": "junit", "quality": "gitlab"}
    for file, name in written.items():
        assert (here / file).read_text() == FORMATS[name].render(BROKEN)
    assert said("audit.json", "--format", "html", "-o", "page", "-o", "json:b") == ""
    assert (here / "page").read_text() == FORMATS["html"].render(BROKEN)
    assert (here / "b").read_text() == as_json.render(BROKEN)


def test_what_is_no_report(here: Path) -> None:
    (here / "later.json").write_text('{"schema_version": 3}')
    (here / "other.json").write_text("[]")
    for file, why in (("later.json", "schema version 3"), ("other.json", "no report"), ("x", "x")):
        with pytest.raises(UsageError, match=why):
            said(file)


def asked(*outputs: str, quiet: bool = False) -> Check:
    found = tuple(formats.output(each, where="-o") for each in outputs)
    return Check(options=Options(), outputs=found, quiet=quiet, verbose=False)


def test_a_check_saves_and_prints(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    delivery.deliver(BROKEN, asked("a.json", "b.md", quiet=True))
    printed = capsys.readouterr()
    assert printed.out.startswith("✗ NOT REPRODUCIBLE on rerun")
    assert (printed.err, "::" in printed.out) == ("", False)
    assert json.loads((here / "a.json").read_text())["verdict"] == "not-reproducible"
    assert (here / "b.md").read_text() == markdown.render(BROKEN)


def test_what_can_not_be_saved_keeps_nothing_else_back(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "gone").mkdir()
    wanted = asked("gone/a.json", "b.md")
    (here / "gone").rmdir()
    with pytest.raises(UsageError, match=r"gone/a\.json"):
        delivery.deliver(BROKEN, wanted)
    assert "NOT REPRODUCIBLE" in capsys.readouterr().out
    assert (here / "b.md").is_file()


def test_github_gets_annotations_and_a_summary(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "below").mkdir()
    (here / "summary.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(here))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(here / "summary.md"))
    monkeypatch.chdir(here / "below")
    delivery.deliver(BROKEN, asked())
    first, *page, last = (
        capsys.readouterr().out.removesuffix(github.render(BROKEN, "below")).split("\n")[:-1]
    )
    assert first == f"::stop-commands::{last.strip(':')}"
    assert not any(line.lstrip().startswith("::") for line in page)
    assert page[0].startswith("✗ NOT REPRODUCIBLE")
    assert (here / "summary.md").read_text() == "before\n" + markdown.render(BROKEN)


def test_github_gets_none_where_stdout_is_taken(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(here / "missing" / "summary.md"))
    delivery.deliver(CLEAN, asked("json:-"))
    printed = capsys.readouterr()
    assert printed.out == as_json.render(CLEAN)
    assert printed.err.startswith("✓ REPRODUCIBLE")
    assert "summary can not be written" in printed.err


def test_where_nothing_may_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UsageError) as caught:
        asked("a.json")
    assert caught.value.why == "nothing may be written there"
    asked("json:-")


def test_two_reports_in_one_place(here: Path) -> None:
    (here / "link.md").symlink_to("a.md")
    outputs = [Output(format=FORMATS["json"], destination=each) for each in ("a.md", "link.md")]
    with pytest.raises(UsageError, match=r"written as 'link\.md'"):
        formats.refuse_twice(outputs, where="-o")
