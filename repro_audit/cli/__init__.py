"""The command line: parse, call, map errors to exit codes. Torch is never imported in this process."""

from __future__ import annotations

import os
import sys
import traceback
from enum import Enum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from repro_audit import __version__
from repro_audit.cli import records
from repro_audit.cli import rng as rng_commands
from repro_audit.cli.check_command import CheckCommand
from repro_audit.cli.flags import flag, ids
from repro_audit.cli.pinned_run import Cap, Place
from repro_audit.errors import InternalError, ReproAuditError, UsageError
from repro_audit.report.formats import FORMATS, TERMINAL
from repro_audit.source import Scope

Promise = Enum("Promise", {scope.name: scope.value for scope in Scope if scope is not Scope.NONE})  # type: ignore[misc]
"""What --require takes."""

app = typer.Typer(
    name="repro-audit",
    help="Find what makes a PyTorch training irreproducible, by running it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(rng_commands.app, name="rng")


def main() -> NoReturn:
    """Run the command line; each error ends with its exit code."""
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except ReproAuditError as error:
        print(f"repro-audit: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
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


@app.callback(invoke_without_command=True)
def _common(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="With --version: the environment too.")
    ] = False,
) -> None:
    """Find what makes a PyTorch training irreproducible, by running it."""
    if version:
        print(f"repro-audit {__version__}")
        if verbose:
            from repro_audit.cli.checkup import versions

            print(*versions(), sep="\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise UsageError(
            "no command is named",
            next_step="repro-audit check train.py; repro-audit --help shows the others",
        )


def _formats(incomplete: str) -> list[str]:
    """For the shell's completion: the formats' names."""
    return [name for name in FORMATS if name.startswith(incomplete)]


@app.command(cls=CheckCommand)
def check(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="train.py or -m pkg.train, as Python runs it; a function, as train.py:build; or -- and a command.",
        ),
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="The script's own.")
    ] = None,
    seed: Annotated[int | None, flag("seed")] = None,
    steps: Annotated[int | None, flag("steps")] = None,
    until_epoch: Annotated[int | None, flag("until-epoch")] = None,
    runs: Annotated[int | None, flag("runs")] = None,
    require: Annotated[Promise | None, flag("require")] = None,
    scope: Annotated[Promise | None, flag("scope")] = None,
    only: Annotated[list[str] | None, flag("only", metavar="ID")] = None,
    skip: Annotated[list[str] | None, flag("skip", metavar="ID")] = None,
    jobs: Annotated[int | None, flag("jobs")] = None,
    on: Annotated[str | None, flag("on", metavar="CLUSTER")] = None,
    trace_dir: Annotated[str | None, flag("trace-dir", metavar="DIR")] = None,
    timeout: Annotated[float | None, flag("timeout")] = None,
    budget: Annotated[str | None, flag("budget", metavar="TIME")] = None,
    continue_: Annotated[bool | None, flag("continue", "--continue/--no-continue")] = None,
    fresh: Annotated[bool | None, flag("fresh", "--fresh/--no-fresh")] = None,
    resume_args: Annotated[str | None, flag("resume-args", metavar="ARGS")] = None,
    json: Annotated[str | None, flag("json", metavar="FILE")] = None,
    output: Annotated[list[str] | None, flag("output", "--output", "-o", metavar="FILE")] = None,
    baseline: Annotated[str | None, flag("baseline", metavar="FILE")] = None,
    accepted: Annotated[
        list[str] | None,
        typer.Option(
            "--accept",
            metavar="ID",
            help="Accept that a source breaks a promise; kept in pyproject.toml, with --reason.",
            autocompletion=ids,
        ),
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why: every report shows it.")] = "",
    quiet: Annotated[bool | None, flag("quiet", "--quiet/--no-quiet", "-q")] = None,
    verbose: Annotated[bool | None, flag("verbose", "--verbose/--no-verbose", "-v")] = None,
    no_pinpoint: Annotated[bool | None, flag("no-pinpoint", "--no-pinpoint/--pinpoint")] = None,
) -> None:
    """Audit a training: run it many times, change one thing at a time, and compare every tensor bit by bit.

    Flags stand before the target; what follows a script is the script's.
    What no flag says is taken from the table tool.repro-audit in pyproject.toml.
    """
    from repro_audit.auditing import audit
    from repro_audit.cli.delivery import deliver
    from repro_audit.config import settle
    from repro_audit.report.acceptance import accept
    from repro_audit.report.progress import Progress
    from repro_audit.target import parse
    from repro_audit.trial import kept

    flags = {
        "seed": seed,
        "steps": steps,
        "until-epoch": until_epoch,
        "runs": runs,
        "require": require.value if require else None,
        "scope": scope.value if scope else None,
        "only": only or None,
        "skip": skip or None,
        "jobs": jobs,
        "on": on,
        "trace-dir": trace_dir,
        "timeout": timeout,
        "budget": budget,
        "continue": continue_,
        "fresh": fresh,
        "resume-args": resume_args,
        "json": json,
        "output": tuple(output or ()) or None,
        "baseline": baseline,
        "quiet": quiet,
        "verbose": verbose,
        "no-pinpoint": no_pinpoint,
    }
    if accepted or reason:
        from repro_audit.cli.acceptances import keep

        keep(accepted or (), reason, Path.cwd())
    asked = settle(flags, Path.cwd())
    parsed = parse(target, tuple(arguments or ()))
    if resume_args is not None and (parsed.mode != "script" or parsed.is_notebook):
        raise UsageError(
            f"{target} takes no arguments that could have it resume.",
            where="--resume-args",
            next_step="have the program run as a script: train.py ARGS or -m pkg.train ARGS",
        )
    with Progress(quiet=asked.quiet) as progress:
        report = audit(parsed, asked.options, progress, kept_in=kept.directory())
    report = accept(report, asked.accept, asked.baseline)
    deliver(report, asked)
    raise typer.Exit(report.exit_code)


records.add_to(app)


@app.command()
def report(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A report that `check --json FILE` saved.")
    ],
    format: Annotated[  # noqa: A002  # the option's name
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=_formats,
            help=f"One of {', '.join(FORMATS)} (default: {TERMINAL.name})",
        ),
    ] = None,
    output: Annotated[list[str] | None, flag("output", "--output", "-o", metavar="FILE")] = None,
    finding: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            autocompletion=ids,
            help="Show one finding whole, by the id of its source.",
        ),
    ] = None,
    verbose: Annotated[bool, flag("verbose", "--verbose", "-v")] = False,
) -> None:
    """Show a saved report again, or write it in other formats.

    The exit code is 0 where that was possible, whatever the verdict.
    """
    from repro_audit.report import as_json, formats, saving, terminal

    chosen = None if format is None else formats.known(format, where="--format")
    on_terminal = chosen is None or chosen is TERMINAL
    outputs = [formats.output(each, where="--output", chosen=chosen) for each in output or ()]
    formats.refuse_twice(outputs, where="--output")
    if finding is not None and (outputs or not on_terminal):
        raise UsageError("one finding is shown on the terminal only", where="--finding")
    if not outputs and chosen is not None and not on_terminal:
        outputs.append(formats.Output(format=chosen, destination=saving.STDOUT))
    found = as_json.read(file)
    if outputs:
        formats.save(found, outputs)
    elif finding is None:
        terminal.print_report(found, terminal.stdout_console(), verbose=verbose)
    else:
        terminal.print_finding(found, finding, terminal.stdout_console())


@app.command()
def sources() -> None:
    """List the catalogue: what can break reproducibility, and what an audit varies to find out."""
    from repro_audit.report import listing, terminal
    from repro_audit.sources import catalogue, installed

    listing.print_catalogue(catalogue(), installed(), terminal.stdout_console())


@app.command(cls=CheckCommand)
def init(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="As for check.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="The script's own.")
    ] = None,
    require: Annotated[Promise | None, flag("require")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write without asking.")] = False,
) -> None:
    """Set up a project: a table in pyproject.toml and a GitHub workflow that audits TARGET, both shown first.

    Nothing is overwritten.
    """
    from repro_audit.cli.init_files import additions, offer

    promise = require.value if require else None
    words = (target, *(arguments or ()))
    offer(additions(words[0], words[1:], require=promise), words, require=promise, sure=yes)


@app.command(name="exec", context_settings={"allow_interspersed_args": False})
def exec_(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND...", help="What to run.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Intra-op threads (default: as many as are taken here)"
        ),
    ] = None,
    cpu: Annotated[
        Cap | None,
        typer.Option(help="Cap the instruction sets, as CPUs of several kinds have them."),
    ] = None,
    skip: Annotated[list[str] | None, flag("skip", metavar="ID")] = None,
    place: Annotated[
        Place | None, typer.Option("--print", help="Run nothing: print the lines to put there.")
    ] = None,
) -> None:
    """Run a command with every pin on that changes no result on purpose, and say what was set.

    Its exit code is the command's.
    """
    from repro_audit.cli import pinned_run
    from repro_audit.sources import known
    from repro_audit.trial.launched.pinned import pins

    if not command and place is None:
        raise UsageError(
            "no command is named", where="exec", next_step="repro-audit exec -- python train.py"
        )
    left = [known(name, where="--skip").id for name in skip or ()]
    given = {"threads": threads, "cpu": cpu and cpu.value}
    asked = {name: str(value) for name, value in given.items() if value is not None}
    chosen = pins(command or (), os.environ, asked=asked, skip=left)
    if place is None:
        print(*pinned_run.told(chosen), sep="\n", file=sys.stderr, flush=True)
        pinned_run.become(command or (), chosen)
    print(*pinned_run.lines(chosen, place), sep="\n")


@app.command()
def doctor() -> None:
    """Say what an audit on this machine can try, what not, and why; exit code 1 where it can not audit at all."""
    from repro_audit.cli.checkup import print_checkup
    from repro_audit.report import terminal

    raise typer.Exit(0 if print_checkup(terminal.stdout_console()) else 1)


@app.command()
def explain(
    source: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="As `repro-audit sources` lists them.", autocompletion=ids
        ),
    ],
) -> None:
    """Explain a source: what it does, why it breaks reproducibility, an example, and what to use instead."""
    from repro_audit.report import explanation, terminal
    from repro_audit.sources import known

    explanation.print_source(known(source, where="explain"), terminal.stdout_console())
