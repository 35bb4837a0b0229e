"""The README's tables and commands follow from the code."""

from __future__ import annotations

import html
import re
import shlex
from typing import Any

import pytest
import typer

from repro_audit import cli
from tests.auditing import REPOSITORY
from tests.picture import PICTURE, drawn
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


def test_the_picture_shows_what_the_command_prints() -> None:
    """Of the same audit: its verdict, its findings and their lines; times apart."""
    assert ".github/report.svg" in TEXT
    shown = html.unescape(PICTURE.read_text(encoding="utf-8")).replace("\xa0", " ")
    for words in (
        "NOT REPRODUCIBLE on rerun",
        "artifact-cache",
        "num-workers",
        "cpu-isa",
        "not tried",
    ):
        assert words in shown
    again = html.unescape(drawn(BROKEN)).replace("\xa0", " ")
    assert "NOT REPRODUCIBLE on rerun" in again
    assert "num-workers" in again
