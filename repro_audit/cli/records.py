"""The commands about records: one saves a pinned run, the others compare with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from repro_audit.cli.check_command import CheckCommand
from repro_audit.cli.flags import flag
from repro_audit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro_audit.config import Check

_TOLERANCE = "How far both may be apart: ulp=4, rel=1e-6, abs=1e-8, or of a part gradients:rel=1e-5; repeatable."
_TARGET = "As for check."


def _asked(flags: Mapping[str, Any]) -> Check:
    from repro_audit.config import settle

    return settle(flags, Path.cwd())


def record(
    target: Annotated[str, typer.Argument(metavar="TARGET", help=_TARGET)],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="The script's own.")
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to save the record.")
    ] = "run.repro",
    seed: Annotated[int | None, flag("seed")] = None,
    steps: Annotated[int | None, flag("steps")] = None,
    until_epoch: Annotated[int | None, flag("until-epoch")] = None,
    timeout: Annotated[float | None, flag("timeout")] = None,
    fresh: Annotated[bool | None, flag("fresh", "--fresh/--no-fresh")] = None,
    no_pinpoint: Annotated[bool | None, flag("no-pinpoint", "--no-pinpoint/--pinpoint")] = None,
    quiet: Annotated[bool | None, flag("quiet", "--quiet/--no-quiet", "-q")] = None,
) -> None:
    """Save the run that a program makes with everything pinned, and what it ran on, to compare later runs with.

    Flags stand before the target; what follows a script is the script's.
    """
    from repro_audit.cli.delivery import deliver
    from repro_audit.recording import record as save
    from repro_audit.report.progress import Progress
    from repro_audit.target import parse

    asked = _asked(
        {
            "seed": seed,
            "steps": steps,
            "until-epoch": until_epoch,
            "timeout": timeout,
            "fresh": fresh,
            "no-pinpoint": no_pinpoint,
            "quiet": quiet,
        }
    )
    parsed = parse(target, tuple(arguments or ()))
    path = Path(output)
    if not path.parent.is_dir():
        raise UsageError(
            "the record can not be saved", where=output, why="there is no such directory"
        )
    with Progress(quiet=asked.quiet) as progress:
        report = save(parsed, asked.options, progress, path)
    if report.exit_code:
        deliver(report, asked)
        raise typer.Exit(report.exit_code)
    if not asked.quiet:
        size = path.stat().st_size
        print(
            f"saved {output} ({math.ceil(size / 1e3):,} kB); compare with it: repro-audit verify {output}"
        )


def verify(
    file: Annotated[
        str, typer.Argument(metavar="RECORD", help="What `repro-audit record` has saved.")
    ],
    target: Annotated[
        str | None,
        typer.Argument(metavar="[TARGET]", help="What to run; if left out, what the record names."),
    ] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="The script's own.")
    ] = None,
    tolerance: Annotated[list[str] | None, typer.Option(metavar="BOUNDS", help=_TOLERANCE)] = None,
    timeout: Annotated[float | None, flag("timeout")] = None,
    fresh: Annotated[bool | None, flag("fresh", "--fresh/--no-fresh")] = None,
    json: Annotated[str | None, flag("json", metavar="FILE")] = None,
    output: Annotated[list[str] | None, flag("output", "--output", "-o", metavar="FILE")] = None,
    no_pinpoint: Annotated[bool | None, flag("no-pinpoint", "--no-pinpoint/--pinpoint")] = None,
    quiet: Annotated[bool | None, flag("quiet", "--quiet/--no-quiet", "-q")] = None,
    verbose: Annotated[bool | None, flag("verbose", "--verbose/--no-verbose", "-v")] = None,
) -> None:
    """Run a recorded program again, here and now, and say where it first computes something else, and why.

    Exit codes are those of check, so that `git bisect run repro-audit verify run.repro` finds the commit that changed
    the numbers.
    """
    from repro_audit.analysis.tolerance import parse as bounds
    from repro_audit.cli.delivery import deliver
    from repro_audit.recording import verify as compare
    from repro_audit.report.progress import Progress
    from repro_audit.target import parse

    asked = _asked(
        {
            "timeout": timeout,
            "fresh": fresh,
            "json": json,
            "output": tuple(output or ()) or None,
            "no-pinpoint": no_pinpoint,
            "quiet": quiet,
            "verbose": verbose,
        }
    )
    allowed = bounds(tolerance or ())
    parsed = None if target is None else parse(target, tuple(arguments or ()))
    with Progress(quiet=asked.quiet) as progress:
        report = compare(Path(file), parsed, asked.options, progress, tolerance=allowed)
    deliver(report, asked)
    raise typer.Exit(report.exit_code)


def diff(
    target: Annotated[
        str,
        typer.Argument(metavar="RECORD|TARGET", help="A record; or with --vary, as for check."),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECORD|[ARGS]...", help="The other record; or the script's own."),
    ] = None,
    varied: Annotated[
        str | None,
        typer.Option(
            "--vary",
            metavar="KIND=VALUE",
            help="Run TARGET twice, the second time with this changed: python=../old/bin/python, "
            "env=OMP_NUM_THREADS=4, args=--compile, commit=HEAD~3.",
        ),
    ] = None,
    tolerance: Annotated[list[str] | None, typer.Option(metavar="BOUNDS", help=_TOLERANCE)] = None,
    seed: Annotated[int | None, flag("seed")] = None,
    steps: Annotated[int | None, flag("steps")] = None,
    until_epoch: Annotated[int | None, flag("until-epoch")] = None,
    timeout: Annotated[float | None, flag("timeout")] = None,
    fresh: Annotated[bool | None, flag("fresh", "--fresh/--no-fresh")] = None,
    json: Annotated[str | None, flag("json", metavar="FILE")] = None,
    output: Annotated[list[str] | None, flag("output", "--output", "-o", metavar="FILE")] = None,
    no_pinpoint: Annotated[bool | None, flag("no-pinpoint", "--no-pinpoint/--pinpoint")] = None,
    quiet: Annotated[bool | None, flag("quiet", "--quiet/--no-quiet", "-q")] = None,
    verbose: Annotated[bool | None, flag("verbose", "--verbose/--no-verbose", "-v")] = None,
) -> None:
    """Compare two records, or two runs between which one thing is changed, and say where they first differ.

    Exit codes are those of check: 0 where both are equal, 1 where they differ.
    """
    from repro_audit import recording
    from repro_audit.analysis.tolerance import parse as bounds
    from repro_audit.cli.delivery import deliver
    from repro_audit.report.progress import Progress
    from repro_audit.target import parse
    from repro_audit.variation import Variation

    asked = _asked(
        {
            "seed": seed,
            "steps": steps,
            "until-epoch": until_epoch,
            "timeout": timeout,
            "fresh": fresh,
            "json": json,
            "output": tuple(output or ()) or None,
            "no-pinpoint": no_pinpoint,
            "quiet": quiet,
            "verbose": verbose,
        }
    )
    allowed = bounds(tolerance or ())
    words = arguments or []
    if varied is None:
        if len(words) != 1:
            raise UsageError(
                "two records are compared, or one target under --vary",
                where=" ".join((target, *words)),
                next_step="repro-audit diff a.repro b.repro, or repro-audit diff --vary env=OMP_NUM_THREADS=4 train.py",
            )
        report = recording.diff(Path(target), Path(words[0]), tolerance=allowed)
    else:
        variation = Variation.read(varied)
        parsed = parse(target, words)
        with Progress(quiet=asked.quiet) as progress:
            report = recording.vary(parsed, variation, asked.options, progress, tolerance=allowed)
    deliver(report, asked)
    raise typer.Exit(report.exit_code)


def add_to(app: typer.Typer) -> None:
    """Make them commands of the application."""
    app.command(cls=CheckCommand)(record)
    app.command(cls=VerifyCommand)(verify)
    app.command(cls=DiffCommand)(diff)


class VerifyCommand(CheckCommand):
    """`verify`, which has a record before the target."""

    leading = 1


class DiffCommand(CheckCommand):
    """`diff`, which has either two records or a target."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let flags follow records."""
        varied = any(word.partition("=")[0] == "--vary" for word in args)
        return super().parse_args(ctx, args) if varied else TyperCommand.parse_args(self, ctx, args)
