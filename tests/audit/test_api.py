"""Audits from Python: functions of this process as targets, and the assertion and the marker for tests."""

from __future__ import annotations

import functools
import json
import linecache
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import repro_audit
from repro_audit import assert_reproducible, audit
from repro_audit.errors import UsageError
from repro_audit.report import as_json
from tests.auditing import REPOSITORY, SAMPLES
from tests.readme import README
from tests.sharing import Interpreters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def lent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Interpreters of this module's own: those of other tests have another environment."""
    directory = tmp_path_factory.mktemp("interpreters")
    with Interpreters(directory, fresh=False) as own, own.lent(baseline=True):
        yield


def parts(shift: float) -> Any:
    data = TensorDataset(torch.arange(32.0).reshape(8, 4) + shift, torch.ones(8, 1))
    return nn.Linear(4, 1), DataLoader(data, batch_size=4)


def build() -> Any:
    return parts(0.0)


@pytest.mark.usefixtures("lent")
def test_an_inner_function_is_audited_as_it_stands_in_its_file(tmp_path: Path) -> None:
    before, offset = os.environ.get("PYTHONPATH"), 0.5

    def inner() -> Any:
        return parts(offset + time.time() % 1)

    report = audit(inner, only=["clock"], steps=3)
    assert (report.broke, report.exit_code) == (("clock",), 1)
    (clock,) = (source for source in report.sources if source.id == "clock")
    assert clock.divergence is not None
    assert clock.divergence.cause is not None
    location = clock.divergence.cause.location
    assert location is not None
    assert (location.file, location.code) == (
        "tests/audit/test_api.py",
        "return parts(offset + time.time() % 1)",
    )
    assert "clock" in str(report)
    assert "clock" in report._repr_html_()
    assert repr(report) == f"<Report on {report.target.spec}: NOT REPRODUCIBLE on rerun>"
    report.save(str(tmp_path / "audit.json"), f"sarif:{tmp_path / 'audit.out'}")
    assert as_json.read(tmp_path / "audit.json").decision == report.decision
    assert json.loads((tmp_path / "audit.out").read_text())["version"] == "2.1.0"
    assert os.environ.get("PYTHONPATH") == before


CELL = """\
import time
import torch

def build():
    data = torch.utils.data.TensorDataset(torch.ones(8, 4) * (time.time() % 1), torch.ones(8, 1))
    return torch.nn.Linear(4, 1), torch.utils.data.DataLoader(data, batch_size=4)
"""


@pytest.mark.usefixtures("lent")
def test_a_function_of_a_cell_brings_its_text_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """As IPython keeps it: in `linecache`, under a name that is no file's."""
    name = "/nowhere/ipykernel_1/2.py"
    monkeypatch.setitem(linecache.cache, name, (len(CELL), None, CELL.splitlines(True), name))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(CELL, name, "exec"), namespace)  # noqa: S102 - a cell is nothing else

    class IPython:
        user_ns: dict[str, Any] = {"In": ["", "x = 1", CELL]}  # noqa: RUF012

        @staticmethod
        def get_ipython() -> type[IPython]:
            return IPython

    monkeypatch.setitem(sys.modules, "IPython", IPython)
    report = audit(namespace["build"], only=["clock"], steps=3)
    (clock,) = (source for source in report.sources if source.status.value == "broke")
    assert clock.divergence is not None
    assert clock.divergence.cause is not None
    assert clock.divergence.cause.location is not None
    assert clock.divergence.cause.location.place == "In [2]:5"


def test_what_can_not_be_handed_over_is_refused() -> None:
    lock = threading.Lock()
    with pytest.raises(UsageError, match="can not be handed to another process"):
        audit(lambda: lock)


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="no source"):
        audit(build, only=["clok"])
    with pytest.raises(AttributeError, match="no attribute 'audits'"):
        repro_audit.audits  # noqa: B018 - that it is looked up is the test


@pytest.mark.usefixtures("lent")
def test_a_clean_function_is_reproducible() -> None:
    assert_reproducible(build, only=["clock"], steps=3)


TESTS = """
import time
import unittest

import pytest
import torch
from repro_audit import assert_reproducible
from torch.utils.data import DataLoader, TensorDataset

OPTIONS = {"only": ["clock"], "steps": 3, "runs": 1, "pinpoint": False}


def parts(shift):
    data = TensorDataset(torch.ones(8, 4) + shift, torch.ones(8, 1))
    return torch.nn.Linear(4, 1), DataLoader(data, batch_size=4)


class TestHere:
    @pytest.mark.reproducible(**OPTIONS)
    @pytest.mark.parametrize("shift", [0])
    def test_marked(self, shift, tmp_path):
        return parts(shift)


@pytest.mark.reproducible(**OPTIONS)
def test_lock(request):
    return parts(0)


@pytest.mark.reproducible(**OPTIONS)
def test_skipped():
    pytest.skip("no device")


class TestCase(unittest.TestCase):
    @pytest.mark.reproducible
    def test_case(self):
        return parts(0)


@pytest.mark.reproducible
async def test_awaited():
    return parts(0)


def test_assertion():
    def build():
        return parts(time.time() % 1)

    assert_reproducible(build, **OPTIONS)
"""


def test_the_marker_and_the_assertion_under_xdist(tmp_path: Path) -> None:
    """The tests' module is known by its path alone."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_training.py").write_text(TESTS)
    words = ("-p", "repro_audit.pytest_plugin", "-p", "no:cacheprovider", "-n", "2", "-rA")
    modes = ("--strict-markers", "--import-mode=importlib", "-W", "error::pytest.PytestWarning")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *modes],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {
        line.split(" - ")[0].split("::", 1)[1]: line.split()[0]
        for line in ended.stdout.splitlines()
        if line.startswith(("PASSED", "FAILED", "ERROR")) and "::" in line
    }
    assert found == {
        "TestHere::test_marked[0]": "PASSED",
        "test_assertion": "FAILED",
        "test_lock": "FAILED",
        "TestCase::test_case": "ERROR",
        "test_awaited": "ERROR",
    }, ended.stdout
    assert re.search(r"^SKIPPED .* no device$", ended.stdout, re.MULTILINE)
    assert "\ntest_lock can not be handed to another process." in ended.stdout
    assert "test_awaited is awaited, and the marker can not audit what it returns" in ended.stdout
    assert "clock" in ended.stdout
    assert "NOT REPRODUCIBLE on rerun (exit 1; rerun required)" in ended.stdout


@pytest.mark.usefixtures("lent")
def test_the_program_of_the_readme_does_what_its_comment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = re.findall(
        r"^```python\n(from repro_audit .*?)^```$",
        README.read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    called, shown, saved = block.split("\n\n\n")[0].splitlines()[2:]
    expression, _, comment = shown.partition("  # ")
    shutil.copy(SAMPLES / "num_workers.py", tmp_path / "train.py")
    monkeypatch.chdir(tmp_path)
    namespace = {"audit": functools.partial(audit, only=["num-workers"], steps=2)}
    exec(called, namespace)  # noqa: S102 - a reader does so
    assert eval(expression, namespace) == eval(comment)  # noqa: S307
    exec(saved, namespace)  # noqa: S102
    assert "num-workers" in (tmp_path / "audit.html").read_text("utf-8")
