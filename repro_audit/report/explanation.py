"""A source's documentation on the terminal: its docstring is Markdown, with addresses and code that stay whole."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.markdown import Markdown
from rich.text import Text

from repro_audit.report.style import TerminalStyle, code, heading, indented, words
from repro_audit.report.terminal import print_whole
from repro_audit.source import Scope, Source

FENCED = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REFERENCE = re.compile(r"^- ([^<>]+?):\s+<(https?://\S+)>$", re.MULTILINE)
PROMISES = {
    Scope.RERUN: "breaks rerun: the same command again gives other bits",
    Scope.SETTINGS: "breaks settings: other settings on the same machine give other bits",
    Scope.PORTABLE: "breaks portable: another machine gives other bits",
    Scope.NONE: "breaks no promise: it is a yardstick",
}


def sections(doc: str) -> dict[str, str]:
    """The text of each section of a docstring by its title; what precedes them all has the title ''."""
    parts = re.split(r"^## (.+)$", doc.strip(), flags=re.MULTILINE)
    return {
        "": parts[0].strip(),
        **dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True)),
    }


def program(section: str) -> str:
    """The program in a section."""
    (block,) = FENCED.findall(section)
    return str(block)


def print_source(source: Source, console: Console) -> None:
    """Print the whole of what a source's docstring says, and how to set its options."""
    look = TerminalStyle.of(console)
    print_whole(_parts(source, look), console, look, paged=True)


def _parts(source: Source, look: TerminalStyle) -> Iterator[RenderableType]:
    yield heading(words(source.id, "bold"), look, "")
    yield words(source.title)
    yield words(PROMISES[source.scope], "dim")
    for title, content in sections(source.doc or "").items():
        if title:
            yield Text("")
            yield words(title, "bold")
            yield from _body(content, look)
    if source.options:
        yield Text("")
        yield words("Options", "bold")
        yield _whole(code(textwrap.indent(_options(source), "    "), look))


def _body(content: str, look: TerminalStyle) -> Iterator[RenderableType]:
    """Prose and code in turn; a list of references line by line."""
    if not REFERENCE.sub("", content).strip():
        for title, address in REFERENCE.findall(content):
            yield indented(words(f"- {' '.join(title.split())}:".replace("`", "")), 2)
            yield _whole(Text(f"    {address}", "cyan"))
        return
    for number, part in enumerate(FENCED.split(content)):
        if number % 2:
            yield Text("")
            yield _whole(code(textwrap.indent(part, "    "), look))
        elif part.strip():
            if number:
                yield Text("")
            yield indented(Markdown(part.strip()), 2)


def _whole(content: Text) -> RenderableType:
    """Lines that are neither folded nor cut, whatever the width: they are there to be copied."""
    content.no_wrap = True
    content.overflow = "ignore"
    return Group(content)  # a bare Text would take on the manners of the console


def _options(source: Source) -> str:
    """The table in pyproject.toml that sets every option to its default."""
    lines = [f"[tool.repro-audit.sources.{source.id}]"]
    for option in source.options:
        lines.append(f"# {option.help}")
        default = list(option.default) if isinstance(option.default, tuple) else option.default
        lines.append(f"# {option.name} = …" if default is None else f"{option.name} = {default!r}")
    return "\n".join(lines)
