"""The audit as a function, for tests and notebooks."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from repro_audit import auditing, config
from repro_audit.callables import named
from repro_audit.errors import UsageError
from repro_audit.report import as_text, formats, html, model, verdict
from repro_audit.report.acceptance import accept
from repro_audit.report.progress import Progress
from repro_audit.target import parse

Promise = Literal["rerun", "settings", "portable"]
_WIDTH = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(model.Report):
    """What an audit found; as text it is the page that the command prints."""

    def __str__(self) -> str:
        return as_text.page(self, width=_WIDTH)

    def __repr__(self) -> str:
        return f"<Report on {self.target.command}: {verdict.said(self)}>"

    def _repr_pretty_(self, printer: Any, _in_a_circle: bool) -> None:  # noqa: FBT001  # as IPython calls it
        """What IPython shows of it where it shows no HTML."""
        printer.text(str(self))

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        return html.summary(self)

    def save(self, *files: str) -> None:
        """Write it to files, as `-o` of the command takes them: `"audit.html"`, `"sarif:audit.out"`.

        Raises:
            UsageError: a file does not say its format, or can not be written.
        """
        formats.save(self, [formats.output(file, where="save") for file in files])

    @property
    def broke(self) -> tuple[str, ...]:
        """The ids of the sources that broke a promise."""
        status = model.SourceStatus.BROKE
        return tuple(source.id for source in self.sources if source.status is status)


def audit(
    target: str | Callable[..., object],
    *arguments: str,
    require: Promise | None = None,
    scope: Promise | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    seed: int | None = None,
    steps: int | None = None,
    until_epoch: int | None = None,
    runs: int | None = None,
    jobs: int | None = None,
    timeout: float | None = None,
    fresh: bool | None = None,
    resume_args: str | None = None,
    pinpoint: bool | None = None,
    baseline: str | None = None,
    progress: bool = False,
) -> Report:
    """Audit a training from the current directory, as `repro-audit check` does.

    Nothing runs in this process, and nothing of it changes. The trials import modules from where it does.

    Args:
        target: a function without required arguments that returns what `build()` may return, or trains by itself; it
            may be defined in a notebook or inside of a test. Or a target as the command line takes it:
            `"train.py:build"`, `"train.py"`.
        arguments: of a script.
        require: the promise that `exit_code` enforces: `"rerun"`, `"settings"` or `"portable"`.
        progress: show on stderr how far it is.
        scope, only, skip, seed, steps, until_epoch, runs, jobs, timeout, fresh, resume_args, baseline: as the flags of
            the command, which explains them; None leaves each to pyproject.toml, or to its default.
        pinpoint: find the line of what broke.

    Raises:
        UsageError: an argument, the target or pyproject.toml asks for what does not exist or can not be.

    Example:
        >>> report = audit("train.py:build", require="settings")  # doctest: +SKIP
        >>> report.exit_code, report.broke  # doctest: +SKIP
        (1, ('num-workers',))
    """
    flags = {
        "require": require,
        "scope": scope,
        "only": list(only) or None,
        "skip": list(skip) or None,
        "seed": seed,
        "steps": steps,
        "until-epoch": until_epoch,
        "runs": runs,
        "jobs": jobs,
        "timeout": timeout,
        "fresh": fresh,
        "resume-args": resume_args,
        "baseline": baseline,
        "no-pinpoint": None if pinpoint is None else not pinpoint,
    }
    asked = config.settle(flags, Path.cwd())
    with _importing_alike(), Progress(quiet=not progress) as shown:
        if isinstance(target, str):
            found = auditing.audit(parse(target, arguments), asked.options, shown)
        else:
            with named(target) as callable_target:
                found = callable_target.told(
                    auditing.audit(callable_target.target, asked.options, shown)
                )
    found = accept(found, asked.accept, asked.baseline)
    return Report(**{each.name: getattr(found, each.name) for each in fields(found)})


def assert_reproducible(
    target: str | Callable[..., object], *arguments: str, **options: Any
) -> None:
    """Assert that a training keeps the required promise; of a test that fails, the message is the whole report.

    Args:
        target: as for `audit`.
        arguments: likewise.
        options: likewise.

    Raises:
        AssertionError: a promise that is required broke, or the audit could not tell.
        UsageError: as from `audit`.
    """
    __tracebackhide__ = True
    try:
        report = audit(target, *arguments, **options)
    except UsageError as error:  # the test's own line is what to look at
        raise error.with_traceback(None) from None
    if report.exit_code:
        raise AssertionError(f"\n{report}")


@contextmanager
def _importing_alike() -> Iterator[None]:
    """Have the processes below import from where this one does: pytest and notebooks add directories of their own."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, dict.fromkeys([*_own_places(), before]))
    )
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _own_places() -> list[str]:
    """What is on `sys.path` and would not be on that of a new interpreter."""
    # A project may lie below a prefix: /usr/src/app, or next to one: env-models beside env.
    libraries = [Path(p, lib) for p in (sys.base_prefix, sys.prefix) for lib in ("lib", "lib64")]
    usual = [*libraries, *map(Path, site.getsitepackages())]
    places = [Path(place).absolute() for place in sys.path if place]
    return [str(p) for p in places if not any(p.is_relative_to(each) for each in usual)]
