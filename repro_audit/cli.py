"""The command line: parse, call, map errors to exit codes. Torch is never imported in this process."""

from __future__ import annotations

import signal
import sys
import traceback
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from repro_audit import __version__
from repro_audit.errors import InternalError, ReproAuditError, UsageError
from repro_audit.rng import commands as rng_commands
from repro_audit.source import Scope

if TYPE_CHECKING:
    from types import FrameType

Promise = Enum("Promise", {scope.name: scope.value for scope in Scope if scope is not Scope.NONE})  # type: ignore[misc]
"""What --require takes."""

app = typer.Typer(
    name="repro-audit",
    help="Find what makes a PyTorch training irreproducible, by running it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(rng_commands.app, name="rng")


def main() -> NoReturn:
    """Run the command line; the only place that exits."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False)
    except ReproAuditError as error:
        print(f"repro-audit: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print(
            "repro-audit: interrupted; every trial is ended, and your files are as they were",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
    except typer.Exit as stop:
        raise SystemExit(stop.exit_code) from None
    except Exception as error:
        _usage_or_defect(error)
    raise SystemExit(code or 0)


def _usage_or_defect(error: Exception) -> NoReturn:
    """Click's own usage errors end with 2; anything else is a defect of the tool and ends with 70."""
    show = getattr(error, "show", None)
    if show is not None:
        show()
        raise SystemExit(UsageError.exit_code)
    traceback.print_exception(error)
    print(
        "repro-audit: this is a defect of repro-audit, not of your program; please report it",
        file=sys.stderr,
    )
    raise SystemExit(InternalError.exit_code)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM ends the audit as Ctrl-C does, so that nothing is left behind."""
    raise KeyboardInterrupt


def _version(wanted: bool) -> None:
    if wanted:
        print(f"repro-audit {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Find what makes a PyTorch training irreproducible, by running it."""


@app.command()
def check(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="train.py:build or pkg.module:build")
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="None in build mode.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 2, help="Seed of every trial.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps a trial.")] = 8,
    runs: Annotated[
        int, typer.Option(min=1, help="Repeats of the pinned run and of each race.")
    ] = 3,
    require: Annotated[
        Promise, typer.Option(help="Promise that the exit code enforces.")
    ] = Promise["RERUN"],
    only: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Try only this source; repeatable.")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Leave this source out; repeatable.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Trials side by side.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a trial may take.")] = 300.0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Never fork: an interpreter of its own for every trial.")
    ] = False,
    json: Annotated[
        str | None, typer.Option(metavar="FILE", help="Save the JSON report; - for stdout.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the verdict.")] = False,
) -> None:
    """Audit a training: run it many times, change one thing at a time, and compare every tensor bit by bit."""
    from repro_audit.audit import Options, audit
    from repro_audit.report import as_json, terminal
    from repro_audit.report.look import Look
    from repro_audit.report.progress import Progress
    from repro_audit.target import parse

    options = Options(
        seed=seed,
        steps=steps,
        runs=runs,
        require=Scope(require.value),
        only=_known(only, "--only"),
        skip=_known(skip, "--skip"),
        jobs=jobs,
        timeout=timeout,
        fresh=fresh,
    )
    parsed = parse(target, tuple(arguments or ()))
    if json not in {None, "-"} and not Path(str(json)).absolute().parent.is_dir():
        raise UsageError(
            f"the report can not be saved as {json}",
            where="--json",
            why="its directory does not exist",
            next_step="make the directory first",
        )
    if options.only and not set(options.only) - set(options.skip):
        raise UsageError("nothing is left to try", where="--only and --skip")
    with Progress(quiet=quiet) as progress:
        report = audit(parsed, options, progress)
    console = terminal.stderr_console()
    if quiet:
        console.print(terminal.verdict_line(report, Look.of(console)))
    else:
        terminal.print_report(report, console)
    if json is not None:
        as_json.write(report, json)
    raise typer.Exit(report.exit_code)


def _known(ids: list[str] | None, option: str) -> tuple[str, ...]:
    """The ids, separated by commas or given several times; each must be in the catalogue."""
    import difflib

    from repro_audit.sources import catalogue

    names = tuple(name.strip() for entry in ids or () for name in entry.split(",") if name.strip())
    for name in names:
        if name not in catalogue():
            nearest = difflib.get_close_matches(name, catalogue(), n=1)
            raise UsageError(
                f"there is no source {name!r}",
                where=option,
                next_step=f"did you mean {nearest[0]}?"
                if nearest
                else "the ids are: " + ", ".join(catalogue()),
            )
    return names
