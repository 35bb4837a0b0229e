"""`repro-audit rng`: parse, call, print. PyTorch is imported by the commands that look at it, and by no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from repro_audit.report.style import TerminalStyle

app = typer.Typer(
    help="The random number generators behind it all: what is there, what it is, what an LCG would be.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


@app.command()
def show(*, json: AsJson = False) -> None:
    """Show each generator of this process and its devices: engine, state, seed, and who seeds it."""
    from repro_audit.report import generators as pages
    from repro_audit.rng.inventory import generators

    found = generators()
    _print(pages.inventory(found), found, as_json=json)


@app.command()
def identify(*, json: AsJson = False) -> None:
    """Prove from their outputs which engines PyTorch, NumPy and Python use: no LCG is among them."""
    from repro_audit.report import generators as pages
    from repro_audit.rng import identification

    found = identification.identify()
    _print(pages.identifications(found, _look()), found, as_json=json)


# A negative number is an argument, and its error is ours to word.
@app.command(context_settings={"ignore_unknown_options": True})
def lcg(
    a: Annotated[str, typer.Argument(metavar="A", help="Multiplier, 0 <= A < M.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Increment, 0 <= B < M.")],
    m: Annotated[str, typer.Argument(metavar="M", help="Modulus, such as 2147483647 or 2**64.")],
    *,
    seed: Annotated[
        str | None,
        typer.Option(help="First state, 0 <= seed < M; 1 by default, or 0 where M is 1."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Take the generator S' = (A*S + B) mod M apart: period, weakness, how it is cracked, what clocks do to it."""
    from repro_audit.report import generators as pages
    from repro_audit.rng.lcg.anatomy import dissect
    from repro_audit.rng.lcg.generator import Lcg
    from repro_audit.rng.lcg.integers import parse_integer

    generator = Lcg(
        multiplier=parse_integer("A", a),
        increment=parse_integer("B", b),
        modulus=parse_integer("M", m),
    )
    first = 1 % generator.modulus if seed is None else parse_integer("seed", seed)
    found = dissect(generator, first)
    _print(pages.anatomy(found, _look()), found, as_json=json)


def _look() -> TerminalStyle:
    from repro_audit.report.style import TerminalStyle
    from repro_audit.report.terminal import stdout_console

    return TerminalStyle.of(stdout_console())


def _print(page: RenderableType, found: object, *, as_json: bool) -> None:
    from repro_audit.report import generators as pages
    from repro_audit.report.style import TerminalStyle
    from repro_audit.report.terminal import print_whole, stdout_console

    if as_json:
        typer.echo(pages.as_json(found))
    else:
        console = stdout_console()
        print_whole([page], console, TerminalStyle.of(console))
