"""Audits that go on where another one stopped, and audits whose time is over."""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

from tests.auditing import Audited, command, environment, read, write_target

if TYPE_CHECKING:
    from pathlib import Path

TRAIN = """
    import os
    import time

    import torch
    from torch import nn

    with open(os.environ["SSH_RUNS"], "a") as log:
        log.write("run\\n")
    torch.manual_seed(int(time.time()))
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(16, 4)
    for step in range(4):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
"""
"""It notes each run, in a file that is named by a variable which may be another one in another session."""
FLAGS = (
    *("--continue", "--only", "os-entropy,clock,num-workers", "--no-pinpoint", "--jobs", "1"),
    *("--json", "report.json"),
)


def session(tree: Path, cache: str, log: str) -> dict[str, str]:
    return {
        **environment(),
        # Other tests may run in this tree for the first time.
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_CACHE_HOME": str(tree.parent / cache),
        "SSH_RUNS": str(tree.parent / log),
    }


def audit(tree: Path, cache: str, log: str, *flags: str) -> tuple[Audited, int]:
    """An audit, and how often the program ran in it."""
    ended = subprocess.run(
        command(*FLAGS, *flags, "train.py"),
        cwd=tree,
        env=session(tree, cache, log),
        capture_output=True,
        text=True,
        check=False,
    )
    found = read(tree / "report.json", exit_code=ended.returncode, terminal=ended.stderr)
    runs = tree.parent / log
    return found, len(runs.read_text("utf-8").splitlines()) if runs.exists() else 0


def kept(tree: Path, cache: str) -> int:
    return len(list((tree.parent / cache).glob("repro-audit/trials/*/entry.json")))


def without_times(report: dict[str, Any]) -> str:
    """A report without what the clock says in it."""
    trials = [{**trial, "seconds": 0} for trial in report["trials"]]
    told = json.dumps({**report, "seconds": 0, "trials": trials}, sort_keys=True)
    return re.sub(r"\d+\.\d s", "a while", told)


def test_an_audit_that_was_killed_goes_on_and_says_the_same(tmp_path: Path) -> None:
    tree = write_target(tmp_path, TRAIN).parent
    words = command(*FLAGS, "train.py")
    with subprocess.Popen(
        words,
        cwd=tree,
        env=session(tree, "killed", "killed.log"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as killed:
        while killed.poll() is None and kept(tree, "killed") < 3:
            time.sleep(0.02)
        killed.kill()
    before = kept(tree, "killed")
    assert before >= 3
    went_on, made = audit(tree, "killed", "continued.log")
    whole, all_made = audit(tree, "whole", "whole.log")
    assert without_times(went_on.report) == without_times(whole.report)
    assert whole.broke == {"clock"}
    assert "a run differs, and why is looked for, after 3 trials" in whole.terminal
    assert f"{before} trials of earlier audits taken" in went_on.terminal
    assert made == all_made - before
    answered, made = audit(tree, "whole", "answered.log")
    assert made == 0
    assert without_times(answered.report) == without_times(whole.report)
    assert not any(source["unfinished"] for source in answered.report["sources"])


def test_what_there_was_no_time_for_is_not_exercised(tmp_path: Path) -> None:
    tree = write_target(tmp_path, TRAIN).parent
    found, made = audit(tree, "cache", "runs.log", "--budget", "1s")
    assert (found.report["verdict"], found.exit_code, made) == ("inconclusive", 4, 1)
    late = [source for source in found.report["sources"] if source["unfinished"]]
    assert {source["id"] for source in late} == {"clock"}
    assert {source["status"] for source in late} == {"not-exercised"}
    assert {source["reason"] for source in late} == {"not tried within the budget of 1s"}
