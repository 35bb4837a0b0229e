"""Targets that crash, hang, exit, kill themselves, print without end, or write into their tree."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.auditing import Audited, check, command, environment, fingerprint, write_target

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = """
    import os, signal, subprocess, sys, time
    from pathlib import Path
    import torch
    from torch import nn

    def parts():
        data = [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(4)]
        return nn.Linear(3, 1), data
"""


def audit(tmp_path: Path, body: str, *options: str) -> Audited:
    """Audit a program that starts with `MODEL`; its tree must come out as it went in."""
    program = write_target(tmp_path, MODEL + body)
    before = fingerprint(program.parent)
    audited = check(
        "train.py:build",
        *options,
        "--steps",
        "2",
        cwd=program.parent,
        saved=tmp_path / "report.json",
    )
    assert fingerprint(program.parent) == before
    return audited


def test_exception(tmp_path: Path) -> None:
    audited = audit(
        tmp_path,
        """
    def build():
        raise ValueError("no [data] here \\x1b[31m")
    """,
    )
    assert audited.exit_code == 3
    assert audited.report["verdict"] == "target-failed"
    assert "ValueError: no [data] here" in audited.terminal
    assert "train.py" in audited.terminal
    assert "repro_audit/" not in audited.terminal
    assert "\x1b" not in audited.terminal


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.exit(5)", "sys.exit(5)"),
        ("os._exit(0)", "exited with status 0"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    ],
)
def test_process_that_ends_early(tmp_path: Path, body: str, words: str) -> None:
    audited = audit(tmp_path, f"\n    def build():\n        {body}\n")
    assert audited.exit_code == 3
    assert words in audited.terminal


def test_a_pinned_level_that_breaks_the_program_is_left_alone(tmp_path: Path) -> None:
    audited = audit(
        tmp_path,
        """
    if os.environ.get("PYTHONHASHSEED") == "0":
        raise RuntimeError("the hash seed is fixed")

    def build():
        torch.manual_seed(0)
        return parts()
    """,
        "--only",
        "process-reuse",
        "--only",
        "hash-seed",
    )
    assert audited.exit_code == 0, audited.terminal
    assert audited.source("process-reuse")["status"] == "held"
    assert audited.source("hash-seed")["status"] == "not-exercised"
    assert "RuntimeError: the hash seed is fixed" in audited.source("hash-seed")["reason"]


def test_a_program_that_only_the_probe_breaks_is_not_blamed(tmp_path: Path) -> None:
    audited = audit(
        tmp_path,
        """
    def build():
        if "repro_audit" in torch.nn.Module.__call__.__code__.co_filename:
            raise RuntimeError("someone is watching")
        return parts()
    """,
    )
    assert audited.exit_code == 70
    assert not audited.report
    assert "RuntimeError: someone is watching" in audited.terminal
    assert "defect of repro-audit" in audited.terminal


def test_a_program_that_deletes_the_audits_own_files_is_told(tmp_path: Path) -> None:
    audited = audit(
        tmp_path,
        """
    import shutil
    shutil.rmtree(Path(os.environ["TMPDIR"]).parents[2])

    def build(): ...
    """,
    )
    assert audited.exit_code == 2
    assert "the audit's own files are gone" in audited.terminal
    assert "Traceback" not in audited.terminal


def test_a_program_may_close_every_descriptor_as_daemons_do(tmp_path: Path) -> None:
    audited = audit(
        tmp_path,
        """
    def build():
        os.closerange(3, 256)
        theirs = [open(f"{number}.txt", "w") for number in range(20)]
        torch.manual_seed(0)
        model, data = parts()

        def loss(output, target):
            os.closerange(3, 256)
            return ((output - target) ** 2).mean()

        assert not any(os.path.getsize(file.name) for file in theirs)
        return model, data, loss
    """,
        "--only",
        "torch-rng",
    )
    assert audited.exit_code == 0, audited.terminal
    assert audited.source("torch-rng")["status"] == "held"


@pytest.mark.parametrize("blocks", [0, 4])
def test_a_limit_on_the_size_of_files_is_named(tmp_path: Path, blocks: int) -> None:
    program = write_target(tmp_path, MODEL + "\n    def build():\n        return parts()\n")
    limited = f"ulimit -f {blocks}; exec " + " ".join(command("train.py:build"))
    ended = subprocess.run(
        ["/bin/bash", "-c", limited],
        cwd=program.parent,
        env=environment(),
        capture_output=True,
        check=False,
        text=True,
    )
    assert ended.returncode == 2
    assert "ulimit -f" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_hang_ends_at_the_timeout_though_it_ignores_sigterm(tmp_path: Path) -> None:
    audited = audit(
        tmp_path,
        """
    def build():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
    """,
        "--timeout",
        "6",
    )
    assert audited.exit_code == 4
    assert audited.report["verdict"] == "inconclusive"
    assert "--timeout" in audited.terminal


def test_a_gigabyte_of_output_is_bounded(tmp_path: Path) -> None:
    audited = audit(
        tmp_path,
        """
    def build():
        for _ in range(1024):
            os.write(1, b"x" * (1 << 20))
        raise RuntimeError("that was it")
    """,
    )
    assert audited.exit_code == 3
    assert "that was it" in audited.terminal
    assert len(audited.terminal) < 200_000


def test_writes_into_the_tree_do_not_reach_it(tmp_path: Path) -> None:
    audited = audit(
        tmp_path,
        """
    def build():
        Path("new.txt").write_text("new")
        Path(__file__).write_text("gone")
        Path(__file__).with_name("other").mkdir()
        return parts()
    """,
        "--only",
        "artifact-cache",
    )
    assert audited.report["settings"]["isolation"] in {"overlay", "copy"}


def test_nothing_trained(tmp_path: Path) -> None:
    audited = audit(
        tmp_path,
        """
    def build():
        return lambda: None
    """,
    )
    assert audited.exit_code == 3
    assert "step" in audited.terminal


def test_what_build_may_return_is_said(tmp_path: Path) -> None:
    audited = audit(
        tmp_path,
        """
    def build():
        return 42
    """,
    )
    assert audited.exit_code == 3
    assert "int" in audited.terminal
    assert "(model, loader" in audited.terminal


STUBBORN = """
    def build():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        code = "import signal, time\\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\\nsignal.pause()  # {mark}"
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        model, data = parts()
        return model, data
"""


def alive(mark: str) -> list[int]:
    """Processes whose command line has the mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in line and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def test_processes_left_behind_are_ended(tmp_path: Path) -> None:
    mark = f"left behind in {tmp_path.name}"
    audit(tmp_path, STUBBORN.replace("{mark}", mark), "--only", "process-reuse")
    assert alive(mark) == []


ENDS = {
    "SIGINT": 130,
    "SIGTERM SIGTERM": 143,
    "SIGHUP": 129,
    "SIGQUIT": 131,
    "SIGKILL": -signal.SIGKILL,
}
"""The exit code, by the signals."""


@pytest.mark.parametrize("signals", ENDS)
def test_interrupted_audit_leaves_nothing(tmp_path: Path, signals: str) -> None:
    """Interrupted while trials write: no process, no mount, no changed file; no temporary file unless killed."""
    program = write_target(
        tmp_path,
        f"""
    from pathlib import Path

    Path(__file__).write_text("gone")
    Path({str(tmp_path / "began")!r}).touch()
    while True:
        Path("more.txt").open("a").write("x")

    def build(): ...
    """,
    )
    before = fingerprint(program.parent)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        command("train.py:build", "--json", str(tmp_path / "report.json")),
        cwd=program.parent,
        env={**environment(), "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    wait_for((tmp_path / "began").exists)
    children = offspring(process.pid)
    assert children
    for name in signals.split():
        process.send_signal(signal.Signals[name])
    _, said = process.communicate(timeout=30)
    assert process.returncode == ENDS[signals]
    wait_for(lambda: not any(running(pid) for pid in children))
    assert fingerprint(program.parent) == before
    assert str(tmp_path) not in Path("/proc/mounts").read_text(encoding="utf-8")
    assert not (tmp_path / "report.json").exists()
    if signals != "SIGKILL":
        assert list(scratch.iterdir()) == []
        first, *_ = signals.split()
        assert said == (
            f"repro-audit: interrupted ({first}); every trial is ended, and your files are as they were\n"
        )


def test_an_audit_may_be_ended_at_any_moment(tmp_path: Path) -> None:
    """From the first import to the first trial: no process is left, and no directory by one that was not killed."""
    program = write_target(tmp_path, "\n    def build():\n        raise SystemExit\n")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    left: set[Path] = set()
    for moment in range(6):
        number = signal.SIGKILL if moment % 2 else signal.SIGTERM
        process = subprocess.Popen(
            command("train.py:build"),
            cwd=program.parent,
            env={**environment(), "TMPDIR": str(scratch), "MARK": tmp_path.name},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.1 + 0.15 * moment)
        process.send_signal(number)
        process.wait(timeout=30)
        wait_for(lambda: not marked(tmp_path.name), seconds=2)
        if number == signal.SIGTERM:
            assert set(scratch.iterdir()) <= left
        left = set(scratch.iterdir())


def marked(mark: str) -> list[int]:
    """Processes that have the mark in their environment, zombies apart."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                variables = (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"MARK={mark}".encode() in variables and running(int(entry.name)):
                found.append(int(entry.name))
    return found


def offspring(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    children = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                children.append(int(entry.name))
    return [*children, *(grandchild for child in children for grandchild in offspring(child))]


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until a condition holds; fail where it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def test_a_report_on_stdout_is_json_and_nothing_else(tmp_path: Path) -> None:
    program = write_target(
        tmp_path, MODEL + "\n    def build():\n        print('chatter')\n        return parts()\n"
    )
    ended = subprocess.run(
        command("train.py:build", "--only", "process-reuse", "--json", "-"),
        cwd=program.parent,
        env=environment(),
        capture_output=True,
        check=False,
        text=True,
    )
    assert json.loads(ended.stdout)["verdict"] == "reproducible"
    assert "REPRODUCIBLE on rerun" in ended.stderr


def test_the_report_goes_to_stdout(tmp_path: Path) -> None:
    program = write_target(tmp_path, "\n    def build():\n        raise ValueError\n")
    ended = subprocess.run(
        command("train.py:build", "--quiet"),
        cwd=program.parent,
        env=environment(),
        capture_output=True,
        check=False,
        text=True,
    )
    assert "TARGET FAILED" in ended.stdout
    assert ended.stderr == ""
