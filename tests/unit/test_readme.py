"""The README's tables and commands follow from the code."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from repro_audit import __version__, cli
from tests.auditing import REPOSITORY
from tests.benchmarks.audits import ALLOWED
from tests.picture import PICTURE, drawn, lacks, rows
from tests.readme import README, rewritten
from tests.report_models import BROKEN

TEXT = README.read_text(encoding="utf-8")


def test_the_table_of_sources_is_the_catalogue() -> None:
    assert rewritten(TEXT) == TEXT, "write it anew with `python -m tests.readme`"


def test_a_table_that_lags_behind_is_noticed() -> None:
    row = "| `hash-seed` | rerun |"
    assert row in TEXT
    assert rewritten(TEXT.replace(row, "| `hash-seeds` | rerun |")) == TEXT
    with pytest.raises(ValueError, match="0 tables"):
        rewritten(TEXT.replace("| id | breaks | what it is |", ""))


def test_commands_name_files_that_exist() -> None:
    samples = re.findall(r"sample_models/\w+\.py", TEXT)
    assert samples
    assert all((REPOSITORY / sample).exists() for sample in samples)
    assert "@@" not in TEXT


BLOCK = re.compile(r"^```(?:sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The words after `repro-audit` of every command in a block of the page, after a `$` too."""
    lines = [
        line.removeprefix("$ ") for block in BLOCK.findall(text) for line in block.splitlines()
    ]
    said = [part.strip() for line in lines for part in line.split("&&")]
    return [shlex.split(each)[1:] for each in said if each.startswith("repro-audit ")]


def refused(words: list[str]) -> str | None:
    """What the command line would say of its words, without doing anything; None where it takes them."""
    command: Any = typer.main.get_command(cli.app)
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    try:
        command.make_context(command.name, words)
    except Exception as error:
        return str(error)
    return None


def test_commands_are_taken() -> None:
    found = commands(TEXT)
    assert len(found) > 10
    assert [(words, refused(words)) for words in found if refused(words) is not None] == []


def test_a_command_that_is_not_taken_is_noticed() -> None:
    (words,) = commands("```sh\nrepro-audit check --jsn a.json train.py\n```\n")
    assert "--jsn" in str(refused(words))


def test_the_picture_shows_four_findings() -> None:
    """That they are those of an audit is found by the one of three_causes in tests/audit/test_samples.py."""
    assert ".github/report.svg" in TEXT
    (said,) = re.findall(r"!\[(.*?)\]\(.github/report.svg\)", TEXT)
    assert "the verdict, four findings, what was not tried, three promises" in said
    shown = rows(PICTURE.read_text(encoding="utf-8"))
    assert shown[0] == "✗ NOT REPRODUCIBLE on rerun (exit #; rerun required)"
    assert sum(" breaks " in row for row in shown) == 4
    assert sum(row.startswith(("rerun", "settings", "portable", "not tried")) for row in shown) == 4


def test_a_picture_of_another_audit_is_noticed() -> None:
    picture = drawn(BROKEN)
    assert lacks(picture, BROKEN) == []
    assert lacks(picture.replace("num-workers", "num-worker"), BROKEN)
    assert lacks(PICTURE.read_text(encoding="utf-8"), BROKEN)


def misprinted(text: str) -> list[str]:
    """The commands of blocks of the page that do not print what stands below them; `…` stands for the rest."""
    found = []
    for block in re.findall(r"^```text\n\$ (.*?)^```$", text, re.MULTILINE | re.DOTALL):
        command, _, shown = block.partition("\n")
        printed = (
            CliRunner().invoke(cli.app, shlex.split(command)[1:], env={"COLUMNS": "80"}).output
        )
        whole, rest = shown.removesuffix("…\n"), shown.endswith("…\n")
        if not (printed.startswith(whole) if rest else printed == whole):
            found.append(f"{command}\n{printed}")
    return found


def test_outputs_are_what_the_commands_print() -> None:
    assert misprinted(TEXT) == []


def test_an_output_that_is_not_printed_is_noticed() -> None:
    block = "```text\n$ repro-audit --version\nrepro-audit 99\n```\n"
    assert misprinted(block)
    assert misprinted(block.replace("99", "99\n…"))
    assert not misprinted(block.replace("99", __version__))


def costly(text: str) -> list[str]:
    """The rows of the table of costs whose ratio is above what is allowed."""
    table = re.findall(r"^\| (.*) \| .* \| ([\d.]+)x \| ([\d.]+)x \|$", text, re.MULTILINE)
    assert len(table) > 5
    return [what for what, ratio, allowed in table if float(ratio) > float(allowed)]


def test_the_table_of_costs_is_within_what_it_allows() -> None:
    assert costly(TEXT) == []
    assert costly(TEXT.replace("| 2.31x | 3.00x |", "| 3.31x | 3.00x |"))
    for name, allowed in ALLOWED.items():
        assert re.search(rf"of {name}\.py, \d+ trials \|.*\| {allowed:.2f}x \|", TEXT)
