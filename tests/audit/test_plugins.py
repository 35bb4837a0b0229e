"""Sources of other packages: found, audited, told apart; and those that can not be used stop nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from repro_audit.experiment import Judgement
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources import _plugins as plugins
from repro_audit.sources import built_in
from repro_audit.sources._plugins import guarded
from repro_audit.storage.facts import Facts
from tests.auditing import check, environment, write_target

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = '''"""The luck of the day decides the result.

## Example
Like any other.
"""

import os
from contextlib import contextmanager

from repro_audit.option import Kind, Option
from repro_audit.source import Fix, Levels, Scope, Source, in_words

NUMBERS = Option(name="numbers", kind=Kind.INTEGERS, default=(2,), help="Other lucky numbers.")


def levels(facts):
    return Levels(varied=tuple(map(str, NUMBERS.of(facts))))


@contextmanager
def apply(level, trial):
    os.environ["LUCK"] = level
    yield


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.{scope},
    pinned="1",
    levels=levels,
    apply=apply,
    options=(NUMBERS,),
    judge=in_words(held="luck changes nothing", broke="another number gives another result"),
    fix=lambda facts: Fix(summary="Do not trust to luck.", snippet=""),
)
'''
GOOD = {"acme/daily_luck.py": SOURCE.replace("{scope}", "SETTINGS")}
BROKEN = {
    "acme/raising.py": "raise RuntimeError('no licence')\n",
    "acme/leaving.py": "raise SystemExit(3)\n",
    "acme/empty.py": "",
    "acme/wrong_type.py": "SOURCE = {'id': 'wrong-type'}\n",
    "acme/hash_seed.py": SOURCE.replace("{scope}", "RERUN"),
    "acme/Shouting.py": SOURCE.replace("{scope}", "RERUN"),
    # As if it imported torch, without the wait.
    "acme/eager.py": "import sys\nsys.modules['torch'] = sys\nSOURCE = None\n",
}
PROGRAM = """
    import os
    import torch
    from torch import nn

    def build():
        luck = float(os.environ.get("LUCK", 0))
        return nn.Linear(2, 1), [(torch.full((4, 2), luck), torch.ones(4, 1))]
"""
HELD = Judgement(id="luck", status="held")


def install(site: Path, name: str, files: dict[str, str], *places: str) -> None:
    """Put a package there as pip would: its files, and metadata with its entry points."""
    for path, content in {"acme/__init__.py": "", **files}.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(content, encoding="utf-8")
    metadata = site / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    modules = [path.removesuffix(".py").replace("/", ".") for path in files] + list(places)
    lines = [f"{module.rpartition('.')[2]} = {module}" for module in modules]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{plugins.GROUP}]", *lines, ""]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of packages that every Python process of the test sees."""
    directory = tmp_path / "site"
    directory.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(directory))
    return directory


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "repro_audit", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_plugin_beside_broken_ones(site: Path, tmp_path: Path) -> None:
    install(site, "acme_luck", GOOD)
    install(site, "acme_broken", BROKEN, "acme.missing")

    listed = run("sources")
    assert listed.returncode == 0, listed.stderr
    said = " ".join(listed.stdout.split())
    assert "daily-luck settings 1 / 2 yes The luck of the day decides the result" in said
    ids = [line.split()[0] for line in listed.stdout.splitlines()[1:] if line[:1].isalpha()]
    assert ids[: len(built_in()) + 1] == [*built_in(), "daily-luck"]
    complaints = {
        "acme.raising": "its import fails with RuntimeError: no licence",
        "acme.leaving": "its import fails with SystemExit: 3",
        "acme.missing": "its import fails with ModuleNotFoundError",
        "acme.empty": "its SOURCE is nothing, not a repro_audit.source.Source",
        "acme.wrong_type": "its SOURCE is a dict",
        "acme.hash_seed": "repro-audit itself has a source with the id hash-seed",
        "acme.Shouting": "its id, 'Shouting', is not in kebab case",
        "acme.eager": "it imports torch at its top level",
    }
    for place, words in complaints.items():
        assert f"note: the plugin {place} is left out: {words}" in said

    program = write_target(tmp_path, PROGRAM)
    (program.parent / "pyproject.toml").write_text(
        "[tool.repro-audit]\nskip = ['wrong-type']\n"
        "sources.raising.key = 1\nsources.daily-luck.numbers = [2, 3]\n",
        encoding="utf-8",
    )
    saved = tmp_path / "report.json"
    options = ("--only", "daily-luck", "--steps", "2", "--require", "settings")
    audited = check("train.py:build", *options, cwd=program.parent, saved=saved)
    assert audited.broke == {"daily-luck"}, audited.terminal
    assert audited.exit_code == 1
    assert [source["id"] for source in audited.report["sources"]] == [*built_in(), "daily-luck"]
    entry = audited.source("daily-luck")
    assert [level["level"] for level in entry["levels"]] == ["2", "3"]
    assert entry["confidence"] == "proven"
    said = " ".join(audited.terminal.split())
    for place, words in complaints.items():
        assert f"the plugin {place} is left out: {words}"[:60] in said

    assert "Like any other." in run("explain", "daily-luck").stdout
    unusable = run("explain", "raising")
    assert unusable.returncode == 2
    assert "no licence" in unusable.stderr


def test_a_plugin_that_fails_in_a_trial_stops_no_audit(site: Path, tmp_path: Path) -> None:
    failing = GOOD["acme/daily_luck.py"].replace('os.environ["LUCK"] = level', "1 / 0")
    install(site, "acme_luck", {"acme/daily_luck.py": failing})
    program = write_target(tmp_path, PROGRAM)
    saved = tmp_path / "report.json"
    options = ("--only", "seed-effect", "--steps", "2")
    for more, why in (
        (("--only", "daily-luck"), "its apply() fails with ZeroDivisionError: division by zero"),
        ((), "left out by --only"),
    ):
        audited = check("train.py:build", *options, *more, cwd=program.parent, saved=saved)
        assert audited.exit_code == 0, audited.terminal
        entry = audited.source("daily-luck")
        assert (entry["status"], entry["reason"]) == ("not-exercised", why)


@pytest.mark.parametrize(
    ("written", "wrong", "why"),
    [
        ("scope=Scope.SETTINGS", "scope='settings'", "have a wrong type: scope"),
        ("apply=apply", "apply=None", "have a wrong type: apply"),
        ("apply=apply", "apply=apply, environment=lambda level: 1 / 0", "its environment() fails"),
        ("apply=apply", "apply=apply, environment=lambda level: {1: level}", "not strings by"),
        ("doc=__doc__", "doc=None", "it has no docstring"),
    ],
)
def test_a_plugin_with_wrong_fields_is_left_out(
    site: Path, written: str, wrong: str, why: str
) -> None:
    body = GOOD["acme/daily_luck.py"]
    assert written in body
    install(site, "acme_luck", {"acme/daily_luck.py": body.replace(written, wrong)})
    said = " ".join(run("sources").stdout.split())
    assert "the plugin acme.daily_luck is left out: " in said
    assert why in said


def test_two_plugins_of_one_id(site: Path) -> None:
    install(site, "acme_luck", GOOD)
    install(site, "acme_more", {"acme/more/daily_luck.py": GOOD["acme/daily_luck.py"]})
    said = " ".join(run("sources").stdout.split())
    assert "(plugin acme.daily_luck)" in said
    words = "the plugin acme.daily_luck has a source with the id daily-luck"
    assert f"the plugin acme.more.daily_luck is left out: {words}" in said


def test_damaged_metadata_leaves_our_own_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(**_: str) -> None:
        raise ValueError("not enough values to unpack")

    monkeypatch.setattr(plugins, "entry_points", damaged)
    found = plugins.find(taken=built_in())
    assert (found.sources, found.places) == ({}, {})
    assert "not enough values" in found.notes[0]


def test_a_plugins_own_errors_become_its_entry_in_the_report() -> None:
    def fail(*_: object) -> None:
        raise KeyError("loaders")

    parts = dict.fromkeys(("levels", "judge", "fix"), fail)
    source = Source(name="acme.luck", doc="Luck.", scope=Scope.RERUN, pinned="1", **parts)  # type: ignore[arg-type] # wrong on purpose
    assert guarded(source).levels(Facts()) == "its levels() fails with KeyError: 'loaders'"
    assert "KeyError" in guarded(source).judge(HELD, Facts()).reason
    assert "KeyError" in guarded(source).fix(Facts()).summary


def test_a_plugins_wrong_answers_do_too_and_right_ones_pass() -> None:
    right = Verdict(status="held", reason="equal")

    def source(levels: object, verdict: object) -> Source:
        return guarded(
            Source(
                name="acme.luck",
                doc="Luck.",
                scope=Scope.RERUN,
                pinned="1",
                levels=lambda _: levels,  # type: ignore[arg-type, return-value] # wrong on purpose
                judge=lambda *_: verdict,  # type: ignore[arg-type] # wrong on purpose
                fix=lambda _: Fix(summary="Mend.", snippet=""),
            )
        )

    wrong = source(["2"], Verdict(status="fine", reason=""))
    assert wrong.levels(Facts()) == "its levels() returns a list"
    assert wrong.judge(HELD, Facts()).status == "error"
    good = source(Levels(varied=("2",)), right)
    assert good.levels(Facts()) == Levels(varied=("2",))
    assert good.judge(HELD, Facts()) == right
    assert good.fix(Facts()).summary == "Mend."
