"""`[tool.repro-audit]`: where it is found, what flags override, and how what is wrong in it is answered."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit import cli
from repro_audit.config import FLAGS, Check, Options, load, seconds, settle
from repro_audit.errors import UsageError
from repro_audit.option import Kind, Option
from repro_audit.report.formats import FORMATS, Output
from repro_audit.source import Levels, Scope, configured
from repro_audit.sources import catalogue
from repro_audit.storage.facts import Facts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EVERYTHING = """
[tool.repro-audit]
budget = "90m"
continue = true
seed = 7
steps = 4
runs = 2
require = "portable"
only = ["hash-seed", "num-workers"]
skip = ["num-workers"]
jobs = 1
timeout = 20
fresh = true
json = "report.json"
output = ["sarif:a.json", "b.xml", "junit:-"]
quiet = true
verbose = true
no-pinpoint = true
resume-args = "--resume 'out/last one.pt'"

[tool.repro-audit.sources.num-workers]
workers = [0, 4, 4]

[tool.repro-audit.sources.hash-seed]
seeds = [3]
"""


def settled(directory: Path, content: str | None = None, **given: Any) -> Check:
    """What a check in `directory` is to do, with a pyproject.toml of this content there."""
    if content is not None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "pyproject.toml").write_text(content, encoding="utf-8")
    flags: Mapping[str, Any] = {name.replace("_", "-"): value for name, value in given.items()}
    return settle({**dict.fromkeys(FLAGS), **flags}, directory)


def test_every_flag_of_check_is_a_key_and_the_other_way_round() -> None:
    others = {"target", "arguments", "accepted", "reason"}  # the last two are kept as a table
    # A trailing underscore keeps a name from being a keyword.
    names = {name.rstrip("_") for name in inspect.signature(cli.check).parameters}
    parameters = names - others
    assert parameters == {name.replace("-", "_") for name in FLAGS}


def test_defaults_are_those_of_an_audit(tmp_path: Path) -> None:
    assert settled(tmp_path, "[project]\n") == Check(
        options=Options(), outputs=(), quiet=False, verbose=False
    )


def test_what_is_accepted_has_a_reason(tmp_path: Path) -> None:
    table = "[tool.repro-audit.accept]\nclock = '{}'\n"
    assert settled(tmp_path, table.format("logs only")).accept == {"clock": "logs only"}
    with pytest.raises(UsageError, match="clock is accepted without a reason"):
        settled(tmp_path, table.format(" "))
    with pytest.raises(UsageError, match="no source 'clok'"):
        settled(tmp_path, table.replace("clock", "clok"))


def test_underscores_are_hyphens(tmp_path: Path) -> None:
    found = settled(tmp_path, '[tool.repro-audit]\nresume_args = "-r x"\nno_pinpoint = true\n')
    assert found.options.resume_args == ("-r", "x")
    assert not found.options.pinpoint


def test_no_arguments_for_resuming_are_not_the_same_as_none(tmp_path: Path) -> None:
    assert settled(tmp_path, resume_args="").options.resume_args == ()
    assert settled(tmp_path).options.resume_args is None


def test_a_quote_that_is_not_closed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can not be read") as caught:
        settled(tmp_path, resume_args="--resume 'out")
    assert caught.value.where == "--resume-args"


def test_every_key_arrives(tmp_path: Path) -> None:
    found = settled(tmp_path, EVERYTHING)
    origin = found.options.origin
    assert found == Check(
        options=Options(
            seed=7,
            steps=4,
            runs=2,
            require=Scope.PORTABLE,
            only=("hash-seed", "num-workers"),
            skip=("num-workers",),
            jobs=1,
            timeout=20,
            fresh=True,
            pinpoint=False,
            resume_args=("--resume", "out/last one.pt"),
            budget="90m",
            goes_on=True,
            outputs=tuple(tmp_path / name for name in ("report.json", "a.json", "b.xml", "-")),
            sources={"num-workers": {"workers": (0, 4)}, "hash-seed": {"seeds": (3,)}},
            origin=origin,
        ),
        outputs=(
            Output(format=FORMATS["json"], destination=str(tmp_path / "report.json")),
            Output(format=FORMATS["sarif"], destination=str(tmp_path / "a.json")),
            Output(format=FORMATS["junit"], destination=str(tmp_path / "b.xml")),
            Output(format=FORMATS["junit"], destination="-"),
        ),
        quiet=True,
        verbose=True,
    )
    assert "pyproject.toml sets budget, continue, seed, steps" in origin
    assert "num-workers.workers" in origin


@pytest.mark.parametrize("time", ["", "10", "m", "0m", "-1m", "1.5h", "10 m", "10d", "1234567s"])
def test_a_budget_is_a_time(tmp_path: Path, time: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        settled(tmp_path, "", budget=time)
    assert [seconds(each) for each in ("90s", "010m", "2h")] == [90, 600, 7200]


def test_flags_override(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "seed": 0,
        "steps": 5,
        "require": "rerun",
        "only": ["thread-count,hash-seed", " seed-effect"],
        "skip": [""],
        "fresh": False,
        "json": "-",
        "output": ("github:notes",),
        "quiet": False,
        "no_pinpoint": False,
    }
    found = settled(tmp_path, EVERYTHING, **given)
    assert (found.options.seed, found.options.steps, found.options.runs) == (0, 5, 2)
    assert found.options.require is Scope.RERUN
    assert found.options.only == ("thread-count", "hash-seed", "seed-effect")
    assert found.options.skip == ()
    assert found.options.pinpoint
    assert (found.options.fresh, found.quiet) == (False, False)
    assert found.outputs == (
        Output(format=FORMATS["json"], destination="-"),
        Output(format=FORMATS["github"], destination="notes"),
    )
    assert "seed," not in found.options.origin


def test_the_nearest_table_up_to_the_root_of_the_repository(tmp_path: Path) -> None:
    inner = tmp_path / "repository" / "package" / "tests"
    inner.mkdir(parents=True)
    settled(tmp_path, "[tool.repro-audit]\nseed = 1\n")
    assert load(inner).flags == {"seed": 1}
    (tmp_path / "repository" / ".git").touch()  # a file in worktrees and submodules
    assert load(inner).path is None
    settled(tmp_path / "repository", "[tool.repro-audit]\nseed = 2\n")
    settled(inner.parent, "[tool.other]\n")
    assert load(inner).flags == {"seed": 2}
    settled(inner.parent, "[tool.repro-audit]\n")
    assert load(inner).flags == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("step = 3", ("no key 'step'", "did you mean steps?")),
        ("pinpoint = false", ("no key 'pinpoint'", "did you mean no-pinpoint?")),
        ("zzz = 3", ("no key 'zzz'", "the keys are: seed, ")),
        ("steps = '3'", ("steps: it must be an integer, 1 or more, not '3'", "steps in [")),
        ("steps = 0", ("steps: it must be an integer, 1 or more, not 0",)),
        ("steps = true", ("steps: it must be an integer",)),
        ("seed = 4294967295", ("4294967294 or less",)),
        ("timeout = nan", ("timeout: it must be a number",)),
        ("fresh = 1", ("fresh: it must be true or false, not 1",)),
        ("require = 'none'", ("one of rerun, settings, portable",)),
        ("only = 'hash-seed'", ("only: it must be a list of strings",)),
        ("skip = ['hash-sed']", ("no source 'hash-sed'", "did you mean hash-seed?", "skip in [")),
        ("only = ['hash-seed']\nskip = ['hash-seed']", ("nothing is left to try", "only in ")),
        ("json = 'missing/report.json'", ("can not be saved", "json in ")),
        ("json = '.'", ("can not be saved", "it names a directory")),
        ("json = ''", ("can not be saved", "it names a directory")),
        ("output = 'report.md'", ("output: it must be a list of strings",)),
        ("output = ['sarf:x']", ("no format 'sarf'", "did you mean sarif?", "output in ")),
        ("output = ['x.pdf']", ("does not say its format", ".json (json), ", "one of terminal, ")),
        ("output = ['missing/report.md']", ("its directory does not exist", "output in ")),
        ("output = ['junit:']", ("it names a directory",)),
        ("output = ['-']", ("'-' does not say its format",)),
        ("output = ['md:-']", ("no format 'md'",)),
        ("output = ['junit:-', 'sarif:-']", ("two reports would be written to stdout",)),
        ("json = '-'\noutput = ['junit:-']", ("to stdout", "json in ", " and output in ")),
        ("json = 'a'\noutput = ['junit:./a']", ("two reports would be written as ",)),
        ("sources = 3", ("[tool.repro-audit.sources] must be a table, not 3",)),
        ("[tool.repro-audit.sources]\nhash-seed = 3", ("sources.hash-seed] must be a table",)),
        ("[tool.repro-audit.sources.hash-sed]", ("no source 'hash-sed'", "did you mean")),
        (
            "[tool.repro-audit.sources.hash-seed]\nseed = [3]",
            ("hash-seed has no option 'seed'", "did you mean seeds?"),
        ),
        (
            "[tool.repro-audit.sources.torch-rng]\nseed = [3]",
            ("torch-rng has no option 'seed'", "there are no options"),
        ),
        (
            "[tool.repro-audit.sources.hash-seed]\nseeds = [3, 0]",
            ("seeds: it must be a list of integers, 1 or more", "sources.hash-seed], seeds"),
        ),
        ("[tool.repro-audit.sources.hash-seed]\nseeds = []", ("not empty, not []",)),
        ("steps = ", ("the configuration can not be read", "line 2")),
        ("# \udcff", ("the configuration can not be read", "utf-8")),
    ],
)
def test_what_is_wrong(content: str, words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_bytes(f"[tool.repro-audit]\n{content}\n".encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError) as raised:
        settled(tmp_path)
    assert str(path) in str(raised.value)
    for word in words:
        assert word in str(raised.value)


def test_a_table_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\[tool.repro-audit\] must be a table, not 3"):
        settled(tmp_path, "[tool]\nrepro-audit = 3\n")
    assert settled(tmp_path, "tool = 3\n").options == Options()


@pytest.mark.parametrize("flag", ["only", "skip"])
def test_unknown_ids_on_the_command_line(flag: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean numpy-rng") as raised:
        settled(tmp_path, None, **{flag: ["hash-seed,numpy-rgn"]})
    assert raised.value.where == f"--{flag}"


@pytest.mark.parametrize("source", catalogue().values(), ids=lambda source: source.id)
def test_options_of_sources_are_described_and_accept_their_defaults(source: Any) -> None:
    names = [option.name for option in source.options]
    assert len(set(names)) == len(names)
    for option in source.options:
        assert option.help.endswith(".")
        assert len(option.help) <= 72
        written = list(option.default) if isinstance(option.default, tuple) else option.default
        assert option.default is None or option.complaint(written) is None
        assert option.complaint({}) is not None


def test_a_source_tries_what_was_chosen() -> None:
    loaders = Facts(loaders=({"num_workers": 2},), threads=4)
    chosen: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        "num-workers": ({"workers": (0, 2, 5)}, ("0", "5")),
        "thread-count": ({"threads": (4, 3)}, ("3",)),
        "hash-seed": ({"seeds": (9, 8)}, ("9", "8")),
    }
    for name, (options, varied) in chosen.items():
        answer = configured(catalogue()[name], options).levels(loaders)
        assert isinstance(answer, Levels)
        assert answer.varied == varied
        assert catalogue()[name].levels(loaders) != answer
    nothing = configured(catalogue()["num-workers"], {"workers": (2,)}).levels(loaders)
    assert nothing == "every DataLoader has num_workers=2 anyway"


def test_every_kind_of_option_takes_its_own_and_nothing_else() -> None:
    values: dict[Kind, Any] = {
        Kind.INTEGER: 1,
        Kind.NUMBER: 1.5,
        Kind.TEXT: "a",
        Kind.SWITCH: True,
        Kind.INTEGERS: [1],
        Kind.TEXTS: ["a"],
    }
    assert set(values) == set(Kind)
    for kind in Kind:
        option = Option(name="name", kind=kind, default=None, help="")
        taken = {other for other, value in values.items() if option.complaint(value) is None}
        assert taken == {kind} | ({Kind.INTEGER} if kind is Kind.NUMBER else set())
