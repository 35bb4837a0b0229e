"""Which words of `repro-audit check` are the tool's, and which the program's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from repro_audit.cli.check_command import CheckCommand

if TYPE_CHECKING:
    from pathlib import Path

app = typer.Typer()


@app.command(cls=CheckCommand)
def check(
    target: Annotated[str, typer.Argument()],
    arguments: Annotated[list[str] | None, typer.Argument()] = None,
    steps: int = 8,
    only: list[str] | None = None,
    quiet: bool = False,  # noqa: FBT002 - a flag
) -> None:
    found: dict[str, Any] = {"steps": steps, "only": only or [], "quiet": quiet}
    typer.echo(f"{[target, *(arguments or [])]} {found}")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words(*args: str) -> str:
    ended = CliRunner().invoke(app, list(args))
    return ended.output.strip() if ended.exit_code == 0 else f"exit {ended.exit_code}"


@pytest.mark.parametrize(
    ("args", "target", "steps"),
    [
        (["train.py", "--steps", "3"], ["train.py", "--steps", "3"], 8),
        (["--steps", "2", "train.py", "--steps", "3"], ["train.py", "--steps", "3"], 2),
        (["--steps=2", "train.py", "--", "-m"], ["train.py", "--", "-m"], 2),
        (["--steps", "2", "-m", "pkg.train", "--quiet"], ["-m", "pkg.train", "--quiet"], 2),
        (["--steps", "2", "--", "torchrun", "--", "a"], ["--", "torchrun", "--", "a"], 2),
        (["train.py:build", "--steps", "3"], ["train.py:build"], 3),
        (["--steps", "3", "train.py:build"], ["train.py:build"], 3),
    ],
)
def test_words_after_a_script_are_its_own(args: list[str], target: list[str], steps: int) -> None:
    assert words(*args) == str(target) + f" {{'steps': {steps}, 'only': [], 'quiet': False}}"


def test_flags_of_all_kinds_stand_before_a_script() -> None:
    said = words("--only", "a", "--quiet", "--only=b", "train.py", "--quiet", "--only", "c")
    assert said == (
        "['train.py', '--quiet', '--only', 'c'] {'steps': 8, 'only': ['a', 'b'], 'quiet': True}"
    )


def test_an_unknown_flag_before_a_script_is_refused() -> None:
    assert words("--stpes", "2", "train.py") == "exit 2"


class Verify(CheckCommand):
    leading = 1


verifying = typer.Typer()


@verifying.command(cls=Verify)
def verify(
    file: Annotated[str, typer.Argument()],
    target: Annotated[str | None, typer.Argument()] = None,
    arguments: Annotated[list[str] | None, typer.Argument()] = None,
    steps: int = 8,
) -> None:
    typer.echo(f"{[file, target, *(arguments or [])]} {steps}")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["run.repro"], "['run.repro', None] 8"),
        (["run.repro", "--steps", "3"], "['run.repro', None] 3"),
        (["run.repro", "--steps", "3", "train.py:build"], "['run.repro', 'train.py:build'] 3"),
        (["run.repro", "train.py:build", "--steps", "3"], "['run.repro', 'train.py:build'] 3"),
        (
            ["--steps", "2", "run.repro", "train.py", "--steps", "3"],
            "['run.repro', 'train.py', '--steps', '3'] 2",
        ),
        (["run.repro", "-m", "pkg.train", "--lr"], "['run.repro', '-m', 'pkg.train', '--lr'] 8"),
        (
            ["run.repro", "--steps", "2", "--", "torchrun", "--", "a"],
            "['run.repro', '--', 'torchrun', '--', 'a'] 2",
        ),
    ],
)
def test_words_before_the_target(args: list[str], said: str) -> None:
    ended = CliRunner().invoke(verifying, args)
    assert ended.output.strip() == said
