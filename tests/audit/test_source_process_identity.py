"""`process-identity`: which numbers it shows to whom, that the system understands them, and what audits say of them."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import threading
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit.source import Levels
from repro_audit.sources.emulation.callers import may_ask
from repro_audit.sources.process_identity import INODES, PINNED, PROCESS, SOURCE, THREAD, TIMES
from repro_audit.storage.facts import Facts
from tests.auditing import check, write_target
from tests.sourcing import NOON, context, in_force

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("shared_interpreters")

REAL_PID = os.getpid()


def written(path: Path = Path("written.txt")) -> Path:
    path.write_text("new", encoding="utf-8")
    return path


READINGS: dict[str, dict[str, Callable[[], Any]]] = {
    PROCESS: {
        "getpid": lambda: os.getpid(),  # noqa: PLW0108 - looked up when it is called
        "getppid": lambda: os.getppid(),  # noqa: PLW0108
        "current_process": lambda: multiprocessing.current_process().pid,
        "ident": lambda: multiprocessing.current_process().ident,
    },
    THREAD: {
        "get_ident": lambda: threading.get_ident(),  # noqa: PLW0108
        "ident": lambda: threading.current_thread().ident,
        "get_native_id": lambda: threading.get_native_id(),  # noqa: PLW0108
        "native_id": lambda: threading.main_thread().native_id,
    },
    TIMES: {
        "os.stat": lambda: os.stat(written()).st_mtime,  # noqa: PTH116 - as programs do
        "Path.stat": lambda: written().stat().st_mtime_ns,
        "lstat": lambda: written().lstat().st_ctime,
        "getmtime": lambda: os.path.getmtime(written()),  # noqa: PTH204
        "getctime": lambda: os.path.getctime(written()),  # noqa: PTH205
        "scandir": lambda: entry().stat().st_mtime,
        "whole": lambda: tuple(written().stat())[8],
    },
    INODES: {
        "Path.stat": lambda: written().stat().st_ino,
        "scandir": lambda: entry().inode(),
        "scandir's stat": lambda: entry().stat().st_ino,
    },
}
EVERY = [(kind, name) for kind, ways in READINGS.items() for name in ways]


def entry() -> os.DirEntry[str]:
    written(Path("listed.txt"))
    with os.scandir() as entries:
        return next(each for each in entries if each.name == "listed.txt")


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tree").mkdir()
    monkeypatch.chdir(tmp_path / "tree")


def read(tmp_path: Path, level: str, kind: str, name: str) -> Any:
    with in_force(SOURCE, level, context(tmp_path, SOURCE, level)):
        return READINGS[kind][name]()


def survey(trial: Any) -> dict[str, list[tuple[str, int]]]:
    assert SOURCE.survey is not None
    found: dict[str, Any] = SOURCE.survey(trial)
    assert found.pop("level") == trial.setting[SOURCE.id]
    return found


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_level_decides_what_is_read(kind: str, name: str, tmp_path: Path) -> None:
    pinned = read(tmp_path, PINNED, kind, name)
    assert read(tmp_path, PINNED, kind, name) == pinned
    assert read(tmp_path, kind, kind, name) != pinned
    for other in {PROCESS, THREAD, TIMES, INODES} - {kind}:
        assert read(tmp_path, other, kind, name) == pinned


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_the_lines_are_told_apart_by_what_they_ask_for(
    kind: str, name: str, tmp_path: Path
) -> None:
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)) as trial:
        READINGS[kind][name]()
    found = survey(trial)
    asked = {each for each, lines in found.items() if lines}
    both = {TIMES, INODES} if name == "whole" else {kind}
    assert asked == both
    assert all(Path(file).name == "test_source_process_identity.py" for file, _ in found[kind])


def test_nothing_is_left_replaced(tmp_path: Path) -> None:
    before = [vars(each).copy() for each in (os, threading, signal, pathlib, os.DirEntry)]
    ident = threading.Thread.ident
    for kind, name in EVERY:
        read(tmp_path, kind, kind, name)
    after = [vars(each).copy() for each in (os, threading, signal, pathlib, os.DirEntry)]
    assert after == before
    assert threading.Thread.ident is ident
    assert os.getpid() == REAL_PID


def test_the_system_understands_the_numbers(tmp_path: Path) -> None:
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
        assert os.getpid() != REAL_PID
        os.kill(os.getpid(), 0)
        os.kill(os.getppid(), 0)
        assert os.getpgid(os.getpid()) == os.getpgid(0)
        assert os.sched_getaffinity(os.getpid()) == os.sched_getaffinity(0)
        assert os.getpriority(os.PRIO_PROCESS, os.getpid()) == os.getpriority(os.PRIO_PROCESS, 0)
        with open(f"/proc/{os.getpid()}/status", encoding="utf-8") as status:  # noqa: PTH123
            assert f"Pid:\t{REAL_PID}\n" in status.read()
        assert Path(f"/proc/{os.getpid()}/cmdline").read_bytes()
        assert Path(f"/proc/{os.getpid()}").exists()
        signal.pthread_kill(threading.get_ident(), 0)
        assert threading.get_ident() in sys._current_frames()
        with pytest.raises(OSError) as failed:  # noqa: PT011
            os.kill(REAL_PID + (1 << 22), 0)
        assert failed.value.errno == errno.ESRCH


def numbers_of_child(_: int) -> tuple[int, int]:
    return os.getpid(), os.getppid()


@pytest.mark.parametrize("method", ["fork"])
def test_processes_have_numbers_of_their_own(method: str, tmp_path: Path) -> None:
    def run() -> tuple[list[int], set[tuple[int, int, int]]]:
        with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)) as trial:
            trial.processes.restart()
            with multiprocessing.get_context(method).Pool(2) as pool:
                told = [each.pid or 0 for each in pool._pool]  # type: ignore[attr-defined]
                answers = [pool.apply(numbers_of_child, (number,)) for number in range(8)]
            return told, {(*each, os.getpid()) for each in answers}

    told, seen = run()
    assert run()[0] == told
    assert len(set(told)) == 2
    assert {pid for pid, *_ in seen} <= set(told)
    assert all(parent == main for _, parent, main in seen)


def test_forked_by_hand_they_have_too(tmp_path: Path) -> None:
    def run() -> list[bytes]:
        found = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            for _ in range(2):
                reader, writer = os.pipe()
                child = os.fork()
                if child == 0:
                    os.write(writer, str(os.getpid()).encode())
                    os._exit(0)
                os.waitpid(child, 0)
                found.append(os.read(reader, 99))
        return [str(os.getpid()).encode(), *found]

    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
        first = run()
    assert len(set(first)) == 3
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
        assert run() == first


def test_threads_have_numbers_of_their_own(tmp_path: Path) -> None:
    def run() -> list[int]:
        found = []
        wait = threading.Barrier(3)

        def work() -> None:
            found.append(threading.get_ident())
            wait.wait(5)

        threads = [threading.Thread(target=work, name=name) for name in ("a", "b", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == sorted(thread.ident or 0 for thread in threads)
        return sorted(found)

    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
        first = [*run(), threading.get_ident()]
    assert len(set(first)) == 4
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
        assert [*run(), threading.get_ident()] == first


def test_the_standard_library_sees_the_real_numbers(tmp_path: Path) -> None:
    with in_force(SOURCE, PROCESS, context(tmp_path, SOURCE, PROCESS)) as trial:
        with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(1) as pool:
            assert pool.submit(len, "word").result() == 4
            shutil.copytree(".", Path(directory, "copy"))
        assert threading.current_thread() is threading.main_thread()
        Path("none").exists()
        Path(".").is_dir()  # noqa: PTH201
        os.path.getsize(written())  # noqa: PTH202
        _ = written().stat().st_size
    assert not any(survey(trial).values())


def test_of_two_files_that_the_run_wrote_the_later_one_is_newer(tmp_path: Path) -> None:
    (tmp_path / "request.json").touch()
    old = tmp_path / "old.txt"
    old.touch()
    os.utime(old, (1_000_000_000, 1_000_000_000))
    for level in (PINNED, TIMES):
        with in_force(SOURCE, level, context(tmp_path, SOURCE, level)):
            first, second = written(Path("first")), written(Path("second"))
            os.utime(second, ns=(first.stat().st_mtime_ns + 10**18, NOON * 10**10))
            stamps = [path.stat().st_mtime for path in (old, first, second)]
            assert stamps == sorted(stamps)
            assert stamps[0] == 1_000_000_000
            assert stamps[1] - NOON >= 0
            assert first.stat().st_mtime == stamps[1]
            assert os.path.samefile(first, "first")  # noqa: PTH121


def test_a_library_asks_for_the_line_that_called_it(tmp_path: Path) -> None:
    code = "def stamp(path):\n    import os\n    return os.getpid(), os.stat(path).st_mtime\n"
    place = tmp_path / "site-packages" / "acme"
    place.mkdir(parents=True)
    made: dict[str, Any] = {}
    exec(compile(code, str(place / "stamps.py"), "exec"), made)  # noqa: S102 - a library's code
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)) as trial:
        pid, stamp = made["stamp"](written())
        with zipfile.ZipFile("archive.zip", "w") as archive:
            archive.write("written.txt")
    assert pid != REAL_PID
    assert abs(stamp - NOON) < 60
    found = survey(trial)
    assert len(found[PROCESS]) == 1
    assert len(found[TIMES]) == 2


def test_the_audit_itself_does_not_ask_wherever_it_is_installed() -> None:
    installed = "/venv/lib/python3.11/site-packages/{}/probe/workers.py"
    assert not may_ask(installed.format("repro_audit"))
    assert may_ask(installed.format("gymnasium"))


def test_each_kind_is_tried_where_it_is_asked_for() -> None:
    def levels(*kinds: str) -> Any:
        survey = {kind: [["train.py", 3]] if kind in kinds else [] for kind in READINGS}
        return SOURCE.levels(Facts(survey={SOURCE.id: survey}))

    assert isinstance(levels(), str)
    assert levels(PROCESS) == Levels(varied=(PROCESS,))
    assert levels(PROCESS, TIMES) == Levels(varied=(PROCESS, TIMES))


# Audits

HEAD = """
    import os
    import random
    import threading
    from pathlib import Path
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, Dataset, TensorDataset

    def parts(shift=0.0):
        x = torch.randn(16, 3) + shift
        return nn.Linear(3, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
"""


def audit(tmp_path: Path, body: str, *options: str) -> Any:
    program = write_target(tmp_path, HEAD + body)
    saved = tmp_path / "report.json"
    return check("train.py:build", "--steps", "4", *options, cwd=program.parent, saved=saved)


def place(audited: Any) -> int:
    line: int = audited.source("process-identity")["divergence"]["location"]["line"]
    return line


def test_among_several_causes(tmp_path: Path) -> None:
    body = """
    def build(seed=0):
        torch.manual_seed(seed)
        Path("log.txt").write_text("started")
        stamp = os.path.getmtime("log.txt") % 2
        shift = random.random() + stamp
        print(os.getpid(), "in", threading.get_ident())
        return parts(shift)
    """
    audited = audit(tmp_path, body, "--only", "process-identity,python-rng,clock,hash-seed")
    assert audited.broke == {"process-identity", "python-rng"}
    assert place(audited) == 17
    levels = {
        level["level"]: level["diverged"] for level in audited.source("process-identity")["levels"]
    }
    assert levels == {PROCESS: False, THREAD: False, TIMES: True}
    assert "train.py:17 asks for the times of a file" in audited.terminal
    assert "checkpoint-{step" in audited.source("process-identity")["fix"]["snippet"]


def test_numbers_that_are_logged_do_no_harm(tmp_path: Path) -> None:
    body = """
    class Logged(Dataset):
        def __len__(self):
            return 16

        def __getitem__(self, index):
            if index == 0:
                print(os.getpid(), os.getppid(), threading.get_ident())
            return torch.full((3,), index / 16), torch.tensor([index / 16])

    def build(seed=0):
        torch.manual_seed(seed)
        Path("log.txt").write_text("started")
        print(Path("log.txt").stat())
        os.kill(os.getpid(), 0)
        return nn.Linear(3, 1), DataLoader(Logged(), batch_size=4, num_workers=1)
    """
    audited = audit(tmp_path, body, "--only", "process-identity,num-workers,worker-start-method")
    assert audited.exit_code == 0
    assert audited.source("process-identity")["status"] == "held"
