"""`environment`: what each level changes, that it is put back, and what an audit says of programs that depend on it."""

from __future__ import annotations

import getpass
import locale
import multiprocessing
import os
import platform
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit.source import Levels
from repro_audit.sources.emulation.machine import (
    ASKS,
    CPUS,
    DISK,
    INODES,
    MEMORY,
    REVERSED_TIMES,
    SORTED_TIMES,
    START,
    TEMPORARY,
)
from repro_audit.sources.emulation.names import HOST, USER
from repro_audit.sources.environment import LEVELS, PINNED, SOURCE, WORKING_DIRECTORY, other_locale
from repro_audit.storage.facts import Facts
from tests.auditing import check, write_target
from tests.sourcing import context, in_force

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("shared_interpreters")

STAMP = 1_767_268_800


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def mode_of_new_files() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


FILE_TIMES = "file times"


def entry() -> os.DirEntry[str]:
    with os.scandir() as entries:
        return next(each for each in entries if each.name == "old.txt")


def on_disk(function: Callable[[int], Any]) -> Any:
    with Path("old.txt").open(encoding="utf-8") as file:
        return function(file.fileno())


SEEN: dict[str, tuple[Callable[[], Any], ...]] = {
    "time zone": (
        lambda: time.localtime(STAMP),
        lambda: datetime.fromtimestamp(STAMP),  # noqa: DTZ006 - as programs do
        lambda: said("date", "+%H", f"--date=@{STAMP}"),
    ),
    "locale": (lambda: os.environ.get("LC_ALL"),),
    WORKING_DIRECTORY: (os.getcwd, lambda: os.path.abspath("data")),  # noqa: PTH100
    HOST: (
        lambda: socket.gethostname(),  # noqa: PLW0108 - looked up when it is called
        platform.node,
        lambda: os.uname().nodename,
        lambda: uuid.getnode(),  # noqa: PLW0108
    ),
    USER: (
        getpass.getuser,
        lambda: os.environ.get("USER"),
        lambda: os.getuid(),  # noqa: PLW0108
        lambda: os.geteuid(),  # noqa: PLW0108
        Path.home,
        lambda: os.path.expanduser("~/data"),  # noqa: PTH111
        lambda: Path("old.txt").stat().st_uid,
    ),
    "umask": (mode_of_new_files,),
    TEMPORARY: (
        lambda: tempfile.gettempdir(),  # noqa: PLW0108
        lambda: os.environ.get("TMPDIR"),
    ),
    FILE_TIMES: (
        lambda: Path("old.txt").stat().st_mtime,
        lambda: os.path.getmtime("old.txt"),  # noqa: PTH204
        lambda: os.path.getatime("old.txt"),  # noqa: PTH203
        lambda: os.stat("old.txt").st_ctime_ns,  # noqa: PTH116
        lambda: entry().stat().st_mtime,
    ),
    INODES: (lambda: Path("old.txt").stat().st_ino, lambda: entry().inode()),
    CPUS: (
        lambda: os.cpu_count(),  # noqa: PLW0108
        lambda: multiprocessing.cpu_count(),  # noqa: PLW0108
        lambda: len(os.sched_getaffinity(0)),
    ),
    MEMORY: (lambda: os.sysconf("SC_PHYS_PAGES"), lambda: os.sysconf("SC_AVPHYS_PAGES")),
    DISK: (
        lambda: shutil.disk_usage(".").total,
        lambda: os.statvfs(".").f_blocks,
        lambda: on_disk(os.fstatvfs).f_blocks,
    ),
}
SEEN_AS = {REVERSED_TIMES: FILE_TIMES, SORTED_TIMES: FILE_TIMES}


@pytest.fixture(autouse=True)
def _in_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "old.txt").touch()
    (tmp_path / "other" / "tree").mkdir(parents=True)  # stands in for a mount
    (tmp_path / "other" / "tree" / "old.txt").hardlink_to(tmp_path / "tree" / "old.txt")
    monkeypatch.chdir(tmp_path / "tree")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("level", [level for level in LEVELS if level != START])
def test_each_level_changes_one_thing_and_puts_it_back(level: str, tmp_path: Path) -> None:
    (tmp_path / "request.json").touch()  # when the trial begins
    later = time.time_ns() + 10**9  # than old.txt by a tick of the clock that stamps files
    os.utime(tmp_path / "request.json", ns=(later, later))
    environ = dict(os.environ)
    places = (tmp_path, tmp_path / "other")
    trial = context(tmp_path, SOURCE, level, elsewhere=places[1], temporary=places)
    pinned = context(tmp_path, SOURCE, PINNED)
    with in_force(SOURCE, PINNED, pinned):
        before = {name: [see() for see in ways] for name, ways in SEEN.items()}
    with in_force(SOURCE, level, trial):
        during = {name: [see() for see in ways] for name, ways in SEEN.items()}
    with in_force(SOURCE, PINNED, pinned):
        assert {name: [see() for see in ways] for name, ways in SEEN.items()} == before
    assert dict(os.environ) == environ
    for name, values in during.items():
        changed = [new != old for new, old in zip(values, before[name], strict=True)]
        assert all(changed) == any(changed) == (name == SEEN_AS.get(level, level))


def test_pinned_changes_nothing_but_how_much_memory_is_free(tmp_path: Path) -> None:
    (tmp_path / "request.json").touch()
    ways = {name: ways for name, ways in SEEN.items() if name != MEMORY}
    before = {name: [see() for see in ways] for name, ways in ways.items()}
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
        assert {name: [see() for see in ways] for name, ways in ways.items()} == before


def test_from_another_directory_relative_paths_lead_to_the_same_files(tmp_path: Path) -> None:
    place = tmp_path / "tree" / "old.txt"
    trial = context(tmp_path, SOURCE, START, elsewhere=tmp_path / "other")
    assert os.path.relpath(place) == "old.txt"
    with in_force(SOURCE, START, trial):
        assert Path(os.path.relpath(place)).samefile(place)
        assert os.path.relpath(place) != "old.txt"
        assert Path("old.txt").exists()
        assert trial.start == tmp_path / "tree"
    assert trial.start is None


def test_what_the_other_names_lead_to_is_there(tmp_path: Path) -> None:
    home = Path.home()
    (home / "data.txt").write_text("12", encoding="utf-8")
    real = os.getuid()
    trial = context(tmp_path, SOURCE, USER, temporary=(tmp_path, tmp_path / "other"))
    with in_force(SOURCE, USER, trial):
        assert Path.home() != home
        assert Path("~/data.txt").expanduser().read_text(encoding="utf-8") == "12"
        assert pwd.getpwuid(os.getuid()) == pwd.getpwnam(getpass.getuser())
        assert pwd.getpwuid(os.getuid()).pw_dir == str(Path.home())
        assert Path("old.txt").stat().st_uid == os.getuid() not in {0, real}
        assert os.environ["HOME"] == str(Path.home())
    with in_force(SOURCE, USER, context(tmp_path, SOURCE, USER)):
        assert Path.home() == home  # where no other path is the same in all trials
    with in_force(SOURCE, HOST, context(tmp_path, SOURCE, HOST)):
        assert socket.gethostbyname(socket.gethostname()) == socket.gethostbyname("localhost")


def test_a_disk_of_half_the_size_agrees_with_itself(tmp_path: Path) -> None:
    real = shutil.disk_usage(".")
    with in_force(SOURCE, DISK, context(tmp_path, SOURCE, DISK)) as trial:
        usage, state = shutil.disk_usage("."), os.statvfs(".")
    size = state.f_frsize
    assert abs(usage.total - size * state.f_blocks) <= size
    assert abs(usage.free - size * state.f_bavail) < 1e8  # others write meanwhile
    assert usage.total == real.total // 2 == usage.used + usage.free
    assert state.f_fsid == os.statvfs(".").f_fsid
    assert SOURCE.survey is not None
    assert len(SOURCE.survey(trial)["asked"][DISK]) == 1  # both on one line


def test_files_of_one_moment_are_told_apart_by_their_names(tmp_path: Path) -> None:
    files = [tmp_path / "tree" / name for name in "cab"]
    for file in files:
        file.touch()
        os.utime(file, (STAMP, STAMP))
    (tmp_path / "request.json").touch()
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
        stamps = {file.name: file.stat().st_mtime for file in files}
    assert STAMP == stamps["a"] < stamps["b"] < stamps["c"] < STAMP + 0.001
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
        assert stamps == {file.name: file.stat().st_mtime for file in reversed(files)}


def test_file_times_are_reversed_or_by_name_and_those_of_new_files_stay(tmp_path: Path) -> None:
    paths = [tmp_path / "tree" / name for name in ("b", "c", "a", "d")]
    for number, path in enumerate(paths):
        path.touch()
        os.utime(path, (number // 2, number // 2))
    (tmp_path / "request.json").touch()

    def order(level: str) -> str:
        with in_force(SOURCE, level, context(tmp_path, SOURCE, level)):
            stamps = {path.name: path.stat().st_mtime for path in paths}
            new = tmp_path / "tree" / "new"
            new.touch()
            assert new.stat().st_mtime > max(stamps.values())
            assert {path.name: path.stat().st_mtime for path in reversed(paths)} == stamps
        return "".join(sorted(stamps, key=lambda name: stamps[name]))

    assert order(PINNED) == "bcad"  # the first two are of one moment, and so are the last
    assert order(REVERSED_TIMES) == "dacb"
    assert order(SORTED_TIMES) == "abcd"


def test_levels_are_tried_where_a_line_asks(tmp_path: Path) -> None:
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)) as trial:
        Path("old.txt").exists()
        _ = Path("old.txt").stat().st_size
        Path("old.txt").resolve().read_text(encoding="utf-8")
        os.cpu_count()
    assert SOURCE.survey is not None
    survey = {**SOURCE.survey(trial), "movable": True}
    levels = SOURCE.levels(Facts(survey={SOURCE.id: survey}))
    assert isinstance(levels, Levels)
    assert set(levels.varied) & set(ASKS) == {START, CPUS}


@pytest.mark.parametrize("ours", ["C", "C.UTF-8", "C.utf8", "POSIX", "en_US.UTF-8", "xx_YY", ""])
def test_the_other_locale_is_another_one_and_exists(ours: str) -> None:
    other = other_locale({"LANG": ours})
    before = locale.setlocale(locale.LC_COLLATE)
    assert other not in {ours, "POSIX" if ours == "C" else "C" if ours == "POSIX" else ours}
    assert locale.setlocale(locale.LC_COLLATE, other)
    locale.setlocale(locale.LC_COLLATE, before)


def test_without_another_path_for_the_tree_the_level_is_left_out() -> None:
    for movable in (True, False):
        levels = SOURCE.levels(Facts(survey={SOURCE.id: {"movable": movable}}))
        assert isinstance(levels, Levels)
        assert (WORKING_DIRECTORY in levels.varied) is movable


# Audits

HEAD = """
    import os
    import random
    import socket
    import tempfile
    import time
    from pathlib import Path
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    def parts(shift=0.0):
        x = torch.randn(16, 3) + shift
        return nn.Linear(3, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
"""


def audit(tmp_path: Path, body: str, *options: str) -> Any:
    program = write_target(tmp_path, HEAD + body)
    saved = tmp_path / "report.json"
    return check("train.py:build", "--steps", "4", *options, cwd=program.parent, saved=saved)


def moved(audited: Any) -> set[str]:
    levels = audited.source("environment")["levels"]
    return {level["level"] for level in levels if level["diverged"]}


def test_alone_by_two_of_its_levels(tmp_path: Path) -> None:
    body = """
    def build(seed=0):
        torch.manual_seed(seed)
        return parts(sum(socket.gethostname().encode()) + time.localtime(0).tm_hour)
    """
    audited = audit(tmp_path, body)
    assert (audited.broke, audited.exit_code) == ({"environment"}, 0)
    assert moved(audited) == {HOST, "time zone"}
    assert audited.source("environment")["confidence"] == "proven"
    assert "time zone, host" in audited.source("environment")["reason"]


def test_among_several_causes(tmp_path: Path) -> None:
    body = """
    def build(seed=0):
        torch.manual_seed(seed)
        shift = random.random() + sum(os.urandom(1)) + sum(os.environ.get("USER", "").encode())
        return parts(shift)
    """
    only = ("environment", "python-rng", "os-entropy", "clock")
    audited = audit(tmp_path, body, *(f"--only={name}" for name in only))
    assert audited.broke == {"environment", "python-rng", "os-entropy"}
    assert moved(audited) == {USER}


def test_another_path_finds_the_same_files(tmp_path: Path) -> None:
    """What reads by relative paths and writes holds; what looks at the path itself does not."""
    body = """
    def build(seed=0):
        torch.manual_seed(seed)
        scale = float(Path("scale.txt").read_text())
        Path("log.txt").write_text("started")
        os.replace("log.txt", "old.txt")
        return parts(scale)
    """
    (tmp_path / "tree" / "scale.txt").write_text("2.5", encoding="utf-8")
    audited = audit(tmp_path, body, "--only", "environment")
    assert audited.source("environment")["status"] == "held", audited.terminal
    assert moved(audited) == set()
    by_path = audit(
        tmp_path,
        body.replace("(scale)", "(sum(f'{os.getcwd()}{tempfile.gettempdir()}'.encode()))"),
        *("--only", "environment"),
    )
    assert moved(by_path) == {WORKING_DIRECTORY, START, TEMPORARY}


PLACES = """
    import shutil
    import uuid

    def build(seed=0):
        torch.manual_seed(seed)
        shift = sum(str(Path.home()).encode()) * 1e-4
        shift += os.getuid() * 1e-4
        shift += uuid.getnode() % 1000 * 1e-3
        shift += shutil.disk_usage(".").total % 1001 * 1e-3
        return parts(shift)
"""
PLACES_FIXED = """
    import shutil
    import uuid

    def build(seed=0):
        torch.manual_seed(seed)
        os.makedirs(Path.home() / "data" / str(os.getuid()), exist_ok=True)
        (Path.home() / "data" / "shift.txt").write_text("0.5")
        shift = float(Path(os.path.expanduser("~/data/shift.txt")).read_text())
        run = f"{uuid.getnode():x}-{socket.gethostbyname(socket.gethostname())}"
        print(run, os.stat("train.py").st_uid == os.getuid())
        assert shutil.disk_usage(".").free > 1000
        return parts(shift)
"""


def test_by_what_names_a_host_a_user_and_a_disk(tmp_path: Path) -> None:
    audited = audit(tmp_path, PLACES, "--only", "environment")
    assert moved(audited) == {HOST, USER, DISK}, audited.terminal
    code = audited.source("environment")["divergence"]["location"]["code"]
    assert code == "shift += uuid.getnode() % 1000 * 1e-3"  # the host comes first among the levels


def test_programs_that_only_use_what_they_name_hold(tmp_path: Path) -> None:
    audited = audit(tmp_path, PLACES_FIXED, "--only", "environment")
    assert audited.source("environment")["status"] == "held", audited.terminal
    assert {DISK, HOST, USER} <= {
        level["level"] for level in audited.source("environment")["levels"]
    }
