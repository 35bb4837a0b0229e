"""The HTML format: one page for looking, which holds all that it needs and loads nothing.

The templates beside this file say what stands where; what they show is read from the report's model. Two guards keep
strings of the audited program harmless, and neither has to be remembered: Jinja2 escapes all that a template prints,
and `_shown` makes control and direction characters visible before that. A policy in the page lets the browser run
nothing but the page's own script, known by its digest.
"""

from __future__ import annotations

import base64
import hashlib
import re
import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

from repro_audit.report import causes, drift, effect, findings, plots, results, text, verdict
from repro_audit.report.model import Excerpt, LossCurve, Report, SourceStatus, TrialRecord
from repro_audit.report.style import PROMISE_WORDS
from repro_audit.source import Scope

if TYPE_CHECKING:
    Render = Callable[[Report], str]

_OUTPUT_LINES = 40
_MOST_LINKS = 6
"""Of a way to the loss; those between them and its end are folded."""


def render(report: Report) -> str:
    """The whole page."""
    return _environment().get_template("page.html").render(report=report)


def summary(report: Report) -> str:
    """The verdict, the promises and each finding in short: a piece of HTML to stand in another page."""
    return _environment().get_template("summary.html").render(report=report)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("repro_audit.report"),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style, script = (Markup(_template_text(name)) for name in ("style.css", "script.js"))  # noqa: S704  # our own files
    environment.globals |= {
        "style": style,
        "script": script,
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
        "verdict": verdict,
        "findings": findings,
        "causes": causes,
        "drift": drift,
        "effect": effect,
        "plots": plots,
        "results": results,
        "text": text,
        "Scope": Scope,
        "SourceStatus": SourceStatus,
        "PROMISE_WORDS": PROMISE_WORDS,
        "OUTPUT_LINES": _OUTPUT_LINES,
        "MOST_LINKS": _MOST_LINKS,
        "code": _code,
        "excerpt": _excerpt,
        "block": _block,
        "loss_rows": _loss_rows,
        "outcomes": _outcomes,
        "sentence": _sentence,
    }
    return environment


def _shown(value: object) -> object:
    """What a template prints: strings as one safe line, but for what is HTML already."""
    return text.line(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _template_text(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """The digest by which a policy knows a script or a style."""
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _block(content: str) -> Markup:
    """Several lines."""
    return escape(text.block(content))


def _code(content: str) -> Markup:
    """Python or a diff as it was written, in colours."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import DiffLexer, PythonLexer

    lexer = DiffLexer if content.startswith("--- ") else PythonLexer
    formatter = HtmlFormatter(nowrap=True)
    coloured = highlight(text.block(content, tabs=True), lexer(stripnl=False), formatter)
    return Markup(coloured.rstrip("\n"))  # noqa: S704  # Pygments has escaped it


def _excerpt(found: Excerpt) -> list[tuple[int, Markup]]:
    """Each line with its number, in colours, and as far to the left as they go together."""
    shown = (text.line(line.expandtabs(4).rstrip()) for line in found.lines)
    coloured = _code(textwrap.dedent("\n".join(shown)))
    return list(enumerate(coloured.split("\n"), found.first))


def _sentence(said: str) -> str:
    """`NOT REPRODUCIBLE on rerun` as a heading has it: `Not reproducible on rerun`."""
    return re.sub(r"^[A-Z]+( [A-Z]+)*", lambda found: found[0].capitalize(), said)


def _loss_rows(a: LossCurve, b: LossCurve) -> list[dict[str, Any]]:
    """Both losses step by step, with the digits that it takes to see where they differ."""
    pairs = list(zip(a.values, b.values))  # noqa: B905  # `strict` would refuse a run that ended early
    digits = text.telling_digits(pairs)
    rows = []
    for step in range(max(len(a.values), len(b.values))):
        *values, gap = findings.losses_at(step, a, b, digits)
        rows.append({"step": step, "values": values, "gap": gap, "same": gap in {"", "same"}})
    return rows


def _outcomes(trials: Sequence[TrialRecord]) -> dict[str, str]:
    """By the id of a trial, the first trial that came to the same outcome: itself, where none did before."""
    first: dict[str, str] = {}
    return {
        trial.id: first.setdefault(trial.digest, trial.id)
        for trial in trials
        if trial.digest is not None
    }
