"""`repro-audit exec`: the pins that it sets reach the program, and what it prints can be put elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from repro_audit.cli.pinned_run import Place, lines, told
from repro_audit.sources import built_in, cpu_isa
from repro_audit.trial.launched.pinned import pins
from tests.auditing import environment

if TYPE_CHECKING:
    from pathlib import Path

SHOWS = """
import os, sys
words = list(set("the cat sat on a mat by the old red door".split()))
early = "numpy" in sys.modules
import torch
torch.backends.cudnn.benchmark = "own" in sys.argv
print(words, early, os.listdir.__name__, os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
      os.environ.get("OMP_NUM_THREADS"), torch.are_deterministic_algorithms_enabled(),
      torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, os.environ.get("USERS"), sep="|")
sys.exit(7)
"""


OTHERS = ("nondeterministic-op", "cudnn-deterministic", "cublas-workspace", "thread-count")
EXEC = (sys.executable, "-m", "repro_audit", "exec")


def run(words: list[str], tree: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=tree,
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A program, and a sitecustomize of the user's own."""
    (tmp_path / "shows.py").write_text(SHOWS, encoding="utf-8")
    (tmp_path / "own").mkdir()
    own = "import os\nos.environ['USERS'] = 'seen'\n"
    (tmp_path / "own" / "sitecustomize.py").write_text(own, encoding="utf-8")
    return tmp_path


@pytest.mark.audit
def test_pins_reach_a_python_below_a_shell(tree: Path) -> None:
    path = os.pathsep.join((str(tree / "own"), environment()["PYTHONPATH"]))
    started = f"{sys.executable} shows.py own"
    random = {"PYTHONHASHSEED": "random", "PYTHONPATH": path}
    words = SHOWS.split("\n")[2] + "; print(words)"
    zero = run([sys.executable, "-c", words], tree, PYTHONHASHSEED="0").stdout.strip()
    ended = run([*EXEC, "--threads", "3", "--", "sh", "-c", started], tree, **random)
    expected = [zero, "False", "listed", ":4096:8", "3", "True", "True", "True", "seen"]
    assert ended.stdout.strip().split("|") == expected
    assert ended.returncode == 7
    assert "PYTHONHASHSEED=0 (hash-seed)" in ended.stderr
    flags = [word for name in ("file-order", *OTHERS) for word in ("--skip", name)]
    bare = run([*EXEC, *flags, "--", sys.executable, "shows.py"], tree, **random)
    assert bare.stdout.strip().split("|")[1:] == [
        *("False", "listdir", "None", environment().get("OMP_NUM_THREADS", "None")),
        *("False", "False", "False", "seen"),
    ]


def test_what_the_user_has_set_stays() -> None:
    given = {"PYTHONHASHSEED": "5", "CUBLAS_WORKSPACE_CONFIG": ":16:8", "OMP_NUM_THREADS": "4"}
    kept = {pin.variable: pin for pin in pins((), given, asked={})}
    assert {name: kept[name].value for name in given} == given
    assert "PYTHONHASHSEED=5 (hash-seed, as you have set it)" in "\n".join(told([*kept.values()]))
    random = pins((), {"PYTHONHASHSEED": "random"}, asked={"threads": "2"})
    assert {pin.variable: pin.value for pin in random if pin.variable} == {
        "PYTHONHASHSEED": "0",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "OMP_NUM_THREADS": "2",
    }


def test_a_launcher_gives_its_ranks_their_threads_unless_told_otherwise() -> None:
    words = ("env/bin/torchrun", "--nproc-per-node", "2", "train.py")
    for asked, there in (({}, False), ({"threads": "2"}, True)):
        chosen = pins(words, {}, asked=asked)
        assert any(pin.source == "thread-count" for pin in chosen) is there


@pytest.mark.parametrize("place", list(Place))
def test_lines_say_all_that_is_pinned(place: Place) -> None:
    chosen = pins((), {}, asked={"threads": "2", "cpu": "baseline"})
    said = list(lines(chosen, place))
    pinned = {name for name, source in built_in().items() if source.run_pin is not None}
    for name in {*pinned, "thread-count", "cpu-isa"}:
        assert any(name in line for line in said)
    written = {
        pin.variable: pin.value for pin in chosen if pin.variable and "NPY" not in pin.variable
    }
    words = "ENV" if place is Place.DOCKER else "export"
    assert {f"{words} {name}={value}" for name, value in written.items()} <= set(said)
    assert (said[0] == "#SBATCH --cpus-per-task=2") is (place is Place.SLURM)
    if place is not Place.DOCKER:
        script = "\n".join((*said, "echo $PYTHONHASHSEED $NPY_DISABLE_CPU_FEATURES"))
        ended = subprocess.run(
            ["/bin/sh", "-c", script], capture_output=True, text=True, check=True
        )
        assert ended.stdout.split() == [
            "0",
            *cpu_isa.environment(cpu_isa.ALL).get(cpu_isa.FEATURES, "").split(),
        ]


@pytest.mark.audit
def test_a_command_that_is_none_is_refused(tree: Path) -> None:
    ended = run([*EXEC, "nosuch-program"], tree)
    assert (ended.returncode, "nosuch-program can not be started" in ended.stderr) == (2, True)
    assert run([*EXEC], tree).returncode == 2
