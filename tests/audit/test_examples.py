"""The programs in the sources' documentation are audited: each Example breaks its source, each Use instead does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from repro_audit.auditing import Audit
from repro_audit.config import Options
from repro_audit.isolation.sandbox import plan_isolation
from repro_audit.report import as_json
from repro_audit.report.explanation import program, sections
from repro_audit.report.progress import Progress
from repro_audit.sources import _exercise as exercise
from repro_audit.sources import catalogue
from repro_audit.sources._exercise import Answer
from repro_audit.target import parse
from repro_audit.trial.oracle import TrialOracle
from tests.auditing import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from repro_audit.trial.runner import Runner
    from tests.sharing import Interpreters

EXAMPLE, MEND = "Example", "Use instead"


def complaint(section: str, entry: dict[str, Any], answer: Answer) -> str | None:
    """What is wrong with what an audit of a section's program found of its source; None where nothing is."""
    status, reason = entry["status"], entry["reason"]
    if status == "not-exercised" and not reason:
        return "it does not say why it was not exercised"
    if section == MEND:
        return f"it {status}: {reason}" if status in {"broke", "error"} else None
    # What no kernel here obeys may still be something that a program asks for, and goes by.
    wanted = {"broke", "not-exercised"} if answer is Answer.NO else {"broke"}
    return None if status in wanted else f"it is {status}, not {' or '.join(wanted)}: {reason}"


@pytest.fixture(scope="module")
def runner(interpreters: Interpreters) -> Iterator[Runner]:
    """The interpreters of all audits: most of what one costs is the import of torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])  # trials are of this tree too
        yield interpreters.runner(baseline=False, side_by_side=2, timeout=120)


def audited_program(name: str, section: str, tree: Path, runner: Runner) -> dict[str, Any]:
    """The report on the program in a section of a source's documentation, tried for this source alone."""
    body = program(sections(catalogue()[name].doc or "")[section])
    (tree / "train.py").write_text(body, encoding="utf-8")
    isolation = plan_isolation(tree)
    try:
        oracle = TrialOracle(
            runner=runner,
            isolation=isolation,
            sources=catalogue(),
            target=parse("train.py:build" if "def build(" in body else "train.py"),
            seed=0,
            steps=3,
            fresh=False,
        )
        return as_json.document(
            Audit(oracle, Options(only=(name,), steps=3), Progress(quiet=True)).report()
        )
    finally:
        isolation.cleanup()


@pytest.mark.parametrize("section", [EXAMPLE, MEND])
@pytest.mark.parametrize(
    "name",
    [
        # Their programs start ranks, each an interpreter that imports torch; `test_command` has others.
        pytest.param(name, marks=[pytest.mark.deep] if name.startswith("rank-") else [])
        for name in catalogue()
    ],
)
def test_program(
    name: str, section: str, tmp_path: Path, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = audited_program(name, section, tmp_path, runner)
    answer = exercise.prospect(catalogue()[name], exercise.this_machine()).answer
    (entry,) = (source for source in report["sources"] if source["id"] == name)
    assert complaint(section, entry, answer) is None, report
    assert report["unexplained"] is None
    assert section == EXAMPLE or report["exit_code"] == 0
    others = {source["status"] for source in report["sources"] if source["id"] != name}
    assert "broke" not in others


@pytest.mark.parametrize("answer", Answer)
def test_an_example_must_break_and_its_mend_must_not(answer: Answer) -> None:
    broke = {"status": "broke", "reason": "it differs"}
    held = {"status": "held", "reason": "it agrees"}
    silent = {"status": "not-exercised", "reason": ""}
    assert complaint(MEND, broke, answer)
    assert not complaint(MEND, held, answer)
    assert complaint(EXAMPLE, held, answer)
    assert complaint(EXAMPLE, silent, answer)
    assert not complaint(EXAMPLE, broke, answer)
    reasoned = {**silent, "reason": "no CUDA device"}
    assert bool(complaint(EXAMPLE, reasoned, answer)) is (answer is not Answer.NO)
