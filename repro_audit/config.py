"""What a check is to do: the command line's flags, before them `[tool.repro-audit]` in pyproject.toml."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from repro_audit.errors import UsageError, nearest
from repro_audit.option import Kind, Option
from repro_audit.report import as_json, formats, saving
from repro_audit.source import Scope

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from repro_audit.report.formats import Output
    from repro_audit.report.model import Report


TABLE = "tool.repro-audit"
_UNITS = {"s": 1, "m": 60, "h": 3600}
_MARKS = (".git", ".hg", ".svn")

_FLAGS = (
    Option(
        name="seed",
        kind=Kind.INTEGER,
        default=0,
        minimum=0,
        maximum=2**32 - 2,
        help="Seed of every trial.",
    ),
    Option(name="steps", kind=Kind.INTEGER, default=8, minimum=1, help="Optimizer steps a trial."),
    Option(
        name="until-epoch",
        kind=Kind.INTEGER,
        default=None,
        minimum=1,
        help="Go on to the end of this epoch of a training loader, however many steps that takes.",
    ),
    Option(
        name="runs",
        kind=Kind.INTEGER,
        default=3,
        minimum=1,
        help="Repeats of the pinned run and of each race.",
    ),
    Option(
        name="require",
        kind=Kind.TEXT,
        default=Scope.RERUN.value,
        choices=tuple(scope.value for scope in Scope if scope is not Scope.NONE),
        help="Promise that the exit code enforces.",
    ),
    Option(
        name="scope",
        kind=Kind.TEXT,
        default=None,
        choices=tuple(scope.value for scope in Scope if scope is not Scope.NONE),
        help="Try only what can break this promise or a narrower one.",
    ),
    Option(name="only", kind=Kind.TEXTS, default=(), help="Try only this source; repeatable."),
    Option(name="skip", kind=Kind.TEXTS, default=(), help="Leave this source out; repeatable."),
    Option(name="jobs", kind=Kind.INTEGER, default=None, minimum=1, help="Trials side by side."),
    Option(
        name="on",
        kind=Kind.TEXT,
        default=None,
        help="Run the trials on a Ray cluster: ray (the one that Ray finds, or a new one here) or ray://HOST:PORT.",
    ),
    Option(
        name="trace-dir",
        kind=Kind.TEXT,
        default=None,
        help="A directory that all nodes share, for what a command's ranks leave that run on several.",
    ),
    Option(
        name="timeout",
        kind=Kind.NUMBER,
        default=300.0,
        minimum=0.1,
        help="Seconds that a trial may take before its first step, and again after it.",
    ),
    Option(
        name="budget",
        kind=Kind.TEXT,
        default=None,
        help="Time for the whole audit, such as 90s, 10m or 2h; what is not got to by then is not tried.",
    ),
    Option(
        name="continue",
        kind=Kind.SWITCH,
        default=False,
        help="Keep each trial on disk, and take from there those that an audit of the same program has made.",
    ),
    Option(
        name="fresh",
        kind=Kind.SWITCH,
        default=False,
        help="Never fork: an interpreter of its own for every trial.",
    ),
    Option(
        name="resume-args",
        kind=Kind.TEXT,
        default=None,
        help="What has a script go on from its checkpoint, as one word.",
    ),
    Option(name="json", kind=Kind.TEXT, default=None, help="Save the JSON report; - for stdout."),
    Option(
        name="output",
        kind=Kind.TEXTS,
        default=(),
        help=f"Save the report in the format of FILE's suffix ({', '.join(formats.BY_SUFFIX)}), or as "
        f"FORMAT:FILE ({', '.join(formats.FORMATS)}); - for stdout; repeatable.",
    ),
    Option(
        name="baseline",
        kind=Kind.TEXT,
        default=None,
        help="A saved JSON report: what broke there already, at the same place, is accepted.",
    ),
    Option(name="quiet", kind=Kind.SWITCH, default=False, help="Print only the verdict."),
    Option(
        name="verbose",
        kind=Kind.SWITCH,
        default=False,
        help="Print each finding whole, and why each source was not tried.",
    ),
    Option(
        name="no-pinpoint",
        kind=Kind.SWITCH,
        default=False,
        help="Do not search for the op and the line where runs part.",
    ),
)
FLAGS = {flag.name: flag for flag in _FLAGS}
"""The flags of `check`, by name: the command line's options and the keys of the table follow from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a pyproject.toml says, checked."""

    path: Path | None = None
    """None where none has the table."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """By the name of the flag."""
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of sources, by id and by name."""
    accept: Mapping[str, str] = field(default_factory=dict)
    """Why a source is accepted that breaks a promise, by id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asks for."""

    seed: int = 0
    steps: int = 8
    until_epoch: int | None = None
    runs: int = 3
    require: Scope = Scope.RERUN
    scope: Scope | None = None
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    jobs: int | None = None
    """Trials side by side; None: as many as make sense."""
    on: str | None = None
    """The Ray cluster whose nodes run the trials; None for this machine."""
    trace_dir: Path | None = None
    """Where several machines find what trials write and the tree that they have; None where there is one machine."""
    timeout: float = 300.0
    budget: str | None = None
    """After what time no trial starts any more, such as `10m`; see `seconds`."""
    goes_on: bool = False
    """Trials of earlier audits of the same program count."""
    outputs: tuple[Path, ...] = ()
    """Files that the audit writes, which are no part of the program."""
    fresh: bool = False
    resume_args: tuple[str, ...] | None = None
    """With which a script goes on from a checkpoint of its own; None where nobody said how."""
    pinpoint: bool = True
    """Where something broke, run it once more to find the op and the line."""
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What was chosen of the sources' options, by id and by name."""
    origin: str = ""
    """Which of these are no flags, and where they come from; empty where all are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What a check is to do."""

    options: Options
    outputs: tuple[Output, ...]
    """Where reports go, and in which formats."""
    quiet: bool
    verbose: bool
    accept: Mapping[str, str] = field(default_factory=dict)
    """Why a source is accepted that breaks a promise, by id."""
    baseline: Report | None = None


def settle(given: Mapping[str, Any], directory: Path) -> Check:
    """Put the flags that were given (the others are None) over the configuration that holds in `directory`.

    Raises:
        UsageError: one of both asks for what does not exist or can not be.
    """
    from repro_audit.sources import catalogue

    config = load(directory)
    flags = {name: value for name, value in given.items() if value is not None}
    for name in {"only", "skip"} & flags.keys():
        flags[name] = _ids(",".join(flags[name]).split(","), where=f"--{name}")
        if name == "only" and not flags[name]:
            raise UsageError(
                "no source is named", where="--only", next_step="see: repro-audit sources"
            )
    chosen = {**{name: flag.default for name, flag in FLAGS.items()}, **config.flags, **flags}
    if not set(chosen["only"] or catalogue()) - set(chosen["skip"]):
        raise UsageError("nothing is left to try", where=_origins(config, flags, "only", "skip"))
    outputs = _outputs(chosen, config, flags)
    return Check(
        options=Options(
            seed=chosen["seed"],
            steps=chosen["steps"],
            until_epoch=chosen["until-epoch"],
            runs=chosen["runs"],
            require=Scope(chosen["require"]),
            scope=Scope(chosen["scope"]) if chosen["scope"] else None,
            only=chosen["only"],
            skip=chosen["skip"],
            jobs=chosen["jobs"],
            on=_cluster(chosen, where=_origins(config, flags, "on")),
            trace_dir=None if chosen["trace-dir"] is None else directory / chosen["trace-dir"],
            timeout=chosen["timeout"],
            budget=_time(chosen["budget"], where=_origins(config, flags, "budget")),
            goes_on=chosen["continue"],
            outputs=tuple(directory / each.destination for each in outputs),
            fresh=chosen["fresh"],
            resume_args=_words(chosen["resume-args"], where=_origins(config, flags, "resume-args")),
            pinpoint=not chosen["no-pinpoint"],
            sources=config.sources,
            origin=_origin(config, flags),
        ),
        outputs=outputs,
        quiet=chosen["quiet"],
        verbose=chosen["verbose"],
        accept=config.accept,
        baseline=None if chosen["baseline"] is None else as_json.read(chosen["baseline"]),
    )


def load(directory: Path) -> Config:
    """The table of the nearest pyproject.toml that has it, in `directory` or above, within its repository.

    Raises:
        UsageError: the file can not be read, or the table holds what it must not.
    """
    root = repository(directory)
    for place in (directory, *directory.parents):
        path = place / "pyproject.toml"
        if path.is_file():
            table = _table(path)
            if table is not None:
                return _checked(table, path)
        if place == root:
            break
    return Config()


def repository(directory: Path) -> Path | None:
    """The root of the repository that a directory lies in; None where it lies in none."""
    places = (directory, *directory.parents)
    marked = (place for place in places if any((place / mark).exists() for mark in _MARKS))
    return next(marked, None)


def _table(path: Path) -> Any:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: neither TOML nor even UTF-8
        raise UsageError(
            "the configuration can not be read", where=str(path), why=str(error)
        ) from None
    tool = content.get("tool")
    if not isinstance(tool, dict):
        return None
    if "repro_audit" in tool:
        raise UsageError(
            "there is no table [tool.repro_audit]", where=str(path), next_step=f"name it [{TABLE}]"
        )
    return tool.get("repro-audit")


def _checked(table: Any, path: Path) -> Config:
    flags: dict[str, Any] = {}
    sources: dict[str, dict[str, Any]] = {}
    accept: dict[str, str] = {}
    for spelt, value in _items(table, path, TABLE):
        key = spelt.replace("_", "-")
        if key == "sources":
            sources = _source_options(value, path)
            continue
        if key == "accept":
            accept = _accepted(value, path)
            continue
        where = f"{path}, {key} in [{TABLE}]"
        if key not in FLAGS:
            raise UsageError(
                f"there is no key {spelt!r}",
                where=f"{path}, [{TABLE}]",
                next_step=nearest(key, (*FLAGS, "sources", "accept"), "key"),
            )
        flags[key] = _value(FLAGS[key], value, where)
        if key in {"only", "skip"}:
            flags[key] = _ids(flags[key], where=where)
        if key in {"json", "baseline"} and value not in {saving.STDOUT, ""}:
            flags[key] = str(path.parent / value)
        if key == "output":
            flags[key] = tuple(formats.below(each, path.parent) for each in flags[key])
    return Config(path=path, flags=flags, sources=sources, accept=accept)


def _source_options(table: Any, path: Path) -> dict[str, dict[str, Any]]:
    """What was chosen for each source; a plugin that can not be used may keep its table."""
    from repro_audit.sources import catalogue, known

    found: dict[str, dict[str, Any]] = {}
    for name, chosen in _items(table, path, f"{TABLE}.sources"):
        where = f"{path}, [{TABLE}.sources.{name}]"
        if _is_broken(name):
            continue
        known(name, where=where)
        options = {option.name: option for option in catalogue()[name].options}
        found[name] = {}
        for key, value in _items(chosen, path, f"{TABLE}.sources.{name}"):
            if key not in options:
                raise UsageError(
                    f"the source {name} has no option {key!r}",
                    where=where,
                    next_step=nearest(key, options, "option"),
                )
            found[name][key] = _value(options[key], value, f"{where}, {key}")
    return found


def _accepted(table: Any, path: Path) -> dict[str, str]:
    """The reasons, by the id of a source."""
    found = dict(_items(table, path, f"{TABLE}.accept"))
    where = f"{path}, [{TABLE}.accept]"
    for name, reason in found.items():
        _ids((name,), where=where)
        if not isinstance(reason, str) or not reason.strip():
            raise UsageError(f"{name} is accepted without a reason", where=where)
    return found


def _items(table: Any, path: Path, name: str) -> list[tuple[str, Any]]:
    if not isinstance(table, dict):
        raise UsageError(f"[{name}] must be a table, not {table!r}", where=str(path))
    return list(table.items())


def _value(option: Option, value: Any, where: str) -> Any:
    complaint = option.complaint(value)
    if complaint is not None:
        raise UsageError(f"{option.name}: {complaint}", where=where)
    return option.taken(value)


def _ids(names: list[str] | tuple[str, ...], *, where: str) -> tuple[str, ...]:
    """Ids of the catalogue; one may leave out a plugin that can not be used."""
    from repro_audit.sources import known

    ids = tuple(name.strip() for name in names if name.strip())
    for name in ids:
        if not ("skip" in where and _is_broken(name)):
            known(name, where=where)
    return ids


def _is_broken(name: str) -> bool:
    from repro_audit.sources import catalogue, installed

    return name not in catalogue() and installed().why_broken(name) is not None


def _words(line: str | None, *, where: str) -> tuple[str, ...] | None:
    """Words as a shell reads them."""
    if line is None:
        return None
    try:
        return tuple(shlex.split(line))
    except ValueError as error:
        raise UsageError(
            f"the arguments for resuming can not be read: {line}", where=where, why=str(error)
        ) from None


def seconds(time: str) -> float:
    """A time such as `90s`, `10m` or `2h`."""
    return float(int(time[:-1]) * _UNITS[time[-1]])


def _cluster(chosen: Mapping[str, Any], *, where: str) -> str | None:
    address: str | None = chosen["on"]
    if address is None:
        return None
    if address != "ray" and not re.fullmatch(r"ray://[^/\s]+:\d+", address):
        raise UsageError(
            f"{address!r} is no cluster", where=where, next_step="write ray, or ray://HOST:PORT"
        )
    if chosen["trace-dir"] is not None:
        raise UsageError(
            "The nodes of a Ray cluster share no directory: their traces are sent back.",
            where=where,
            next_step="leave out --trace-dir",
        )
    if chosen["continue"]:
        raise UsageError(
            "Trials that ran on a cluster are not kept, so that there is nothing to continue.",
            where=where,
            next_step="leave out --continue",
        )
    return address


def _time(text: str | None, *, where: str) -> str | None:
    if text is not None and not re.fullmatch(f"0*[1-9][0-9]{{0,5}}[{''.join(_UNITS)}]", text):
        raise UsageError(f"{text!r} is no time", where=where, next_step="write 90s, 10m or 2h, say")
    return text


def _outputs(
    chosen: Mapping[str, Any], config: Config, flags: Mapping[str, Any]
) -> tuple[Output, ...]:
    """The JSON report, where it has a flag of its own, and the others."""
    outputs = []
    if chosen["json"] is not None:
        formats.check(chosen["json"], where=_origins(config, flags, "json"))
        outputs.append(formats.Output(format=formats.JSON, destination=chosen["json"]))
    where = _origins(config, flags, "output")
    outputs += [formats.output(each, where=where) for each in chosen["output"]]
    formats.refuse_twice(outputs, where=_origins(config, flags, "json", "output"))
    return tuple(outputs)


def _origins(config: Config, flags: Mapping[str, Any], *names: str) -> str:
    """Where the values in force of some flags come from."""
    return " and ".join(
        f"{name} in {config.path}" if name in config.flags and name not in flags else f"--{name}"
        for name in names
    )


def _origin(config: Config, flags: Mapping[str, Any]) -> str:
    """What of the configuration is in force, for the report; empty where nothing is."""
    in_force = [name for name in config.flags if name not in flags]
    in_force += [f"{name}.{key}" for name, chosen in config.sources.items() for key in chosen]
    if config.path is None or not in_force:
        return ""
    return f"{os.path.relpath(config.path)} sets {', '.join(in_force)}"
