"""Under an overlay no write of a trial reaches the user's tree, and a trial sees its own as on any file system."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit.isolation import overlay, sandbox
from repro_audit.isolation.sandbox import written
from repro_audit.isolation.tree import Mechanism
from tests.trees import (
    LIBC,
    NOBODY,
    WRITES,
    ChildError,
    Ground,
    become,
    linux,
    names,
    new_ground,
    plant,
    put,
    root_only,
    run,
    snapshot,
    trial,
    users,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = linux

DEADLINE = 30.0


@pytest.fixture(params=["self", pytest.param("nobody", marks=root_only)])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    with new_ground(request.param) as ground:
        yield ground


@users
def test_no_write_of_a_trial_reaches_the_tree(who: str) -> None:
    """One tree for all of them: each finds it as the first did."""
    with new_ground(who) as ground:
        isolation = ground.isolation()
        before = snapshot(ground.root)
        for name, (write, expected) in WRITES.items():
            tree = ground.tree(isolation, name)
            ground.trial(tree, lambda write=write: write() and None)  # type: ignore[misc]
            found = set(run(lambda tree=tree: written(tree), ground.user))  # type: ignore[misc]
            is_barred = name == "bar" and (ground.user or os.geteuid()) != 0
            assert found == ({"package"} if is_barred else expected), name
            assert snapshot(ground.root) == before, name
        isolation.cleanup()
        assert names(ground.place) == ["tree"]


@pytest.mark.parametrize("name", WRITES)
def test_each_of_those_writes_would_change_the_tree(name: str, tmp_path: Path) -> None:
    plant(tmp_path / "tree")
    before = snapshot(tmp_path / "tree")

    def write() -> None:
        os.chdir(tmp_path / "tree")
        WRITES[name][0]()

    run(write)
    assert snapshot(tmp_path / "tree") != before


# What a trial sees


def test_a_trial_works_where_the_audit_was_started(ground: Ground) -> None:
    isolation = ground.isolation()
    for cwd in (ground.root, ground.root / "package" / "inner", ground.place):
        tree = ground.tree(isolation, cwd.name)
        tree = replace(tree, cwd=cwd)
        assert ground.trial(tree, lambda: str(Path.cwd())) == str(cwd)


def test_a_trial_is_who_the_user_is(ground: Ground) -> None:
    """Ids, owners and rights, and no capabilities of a user namespace beyond them."""

    def identity() -> list[Any]:
        os.chdir(ground.root)
        owner = Path("data.txt").stat()
        Path("package").chmod(0o500)
        return [
            *(os.getuid(), os.getgid(), os.geteuid(), owner.st_uid, owner.st_gid),
            succeeds("package/new.txt"),
        ]

    inside = ground.trial(ground.tree(ground.isolation(), "t0"), identity)
    assert inside == run(identity, ground.user)


def succeeds(path: str) -> bool:
    """Whether a write to `path` does."""
    try:
        put(path)
    except OSError:
        return False
    return True


@users
def test_only_root_can_take_the_overlay_away(who: str) -> None:
    with new_ground(who) as ground:

        def unmount() -> int:
            return int(LIBC.umount2(os.fsencode(ground.root), overlay.MNT_DETACH))

        result = ground.trial(ground.tree(ground.isolation(), "t0"), unmount)
        assert result == (0 if (ground.user or os.geteuid()) == 0 else -1)


def test_the_root_of_the_tree_looks_as_it_did(ground: Ground) -> None:
    def look() -> list[int]:
        status = Path(ground.root).stat()
        return [status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns]

    ground.root.chmod(0o750)
    tree = ground.tree(ground.isolation(), "t0")
    assert ground.trial(tree, look) == run(look, ground.user)


def test_a_read_only_tree(ground: Ground) -> None:
    """What root can write anyway others can not, in a trial as outside."""
    for path in [ground.root, *ground.root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o555)
    before = snapshot(ground.root)
    paths = ["new.txt", "data.txt", "package/new.txt"]
    tree = ground.tree(ground.isolation(), "t0")
    is_root = (ground.user or os.geteuid()) == 0
    assert ground.trial(tree, lambda: [succeeds(path) for path in paths]) == [is_root] * 3
    assert snapshot(ground.root) == before


@root_only
@pytest.mark.parametrize("mode", [0o666, 0o644])
def test_files_of_others_can_be_changed_where_that_is_permitted(mode: int) -> None:
    with new_ground("self") as own:
        ground = own._replace(user=NOBODY)
        os.chown(ground.place, NOBODY, NOBODY)
        (ground.root / "data.txt").chmod(mode)
        (ground.root / "package").chmod(mode | 0o111)
        before = snapshot(ground.root)

        def change() -> list[Any]:
            os.chdir(ground.root)
            attempts = [succeeds(path) for path in ("data.txt", "package/new.txt", "new.txt")]
            return [*attempts, *names("package"), Path("package/module.py").read_text()]

        tree = ground.tree(ground.isolation(), "t0")
        inside = ground.trial(tree, change)
        assert snapshot(ground.root) == before
        assert inside == run(change, NOBODY)
        assert inside[:3] == [mode == 0o666, mode == 0o666, False]


@root_only
def test_a_shared_group_can_write_in_a_trial_too(ground: Ground) -> None:
    """Project directories with the setgid bit, of a group that is not the user's first."""
    for path in [ground.root, *ground.root.rglob("*")]:
        os.chown(path, ground.user or 0, 1234, follow_symlinks=False)
    tree = ground.tree(ground.isolation(), "t0")
    paths = ["data.txt", "package/new.txt", "package/module.py"]
    assert ground.trial(tree, lambda: [succeeds(path) for path in paths]) == [True] * 3
    assert run(lambda: written(tree), ground.user) == sorted(paths)


# Trials after trials


def test_a_trial_finds_what_the_one_before_left(ground: Ground) -> None:
    def first() -> None:
        put("new.txt")
        put("data.txt", "first")
        shutil.rmtree("package")
        Path("empty").rmdir()
        Path().chmod(0o700)

    def second() -> None:
        assert Path("new.txt").read_text() == "new"
        assert Path("data.txt").read_text() == "first"
        assert Path().stat().st_mode & 0o777 == 0o700
        assert names() == ["data.txt", "link.txt", "new.txt"]
        put("data.txt", "second")
        Path("new.txt").unlink()
        Path("package").mkdir()

    def third() -> None:
        assert names("package") == []
        assert names() == ["data.txt", "link.txt", "package"]
        assert Path("data.txt").read_text() == "second"

    before = snapshot(ground.root)
    isolation = ground.isolation()
    changed = []
    for name, action, after in (("t0", first, None), ("t1", second, "t0"), ("t2", third, "t1")):
        tree = ground.tree(isolation, name, after)
        ground.trial(tree, action)
        changed.append(written(tree))
    assert changed[1:] == [("data.txt", "new.txt", "package"), ()]
    assert snapshot(ground.root) == before


# Ends


def test_a_kill_leaves_neither_writes_nor_mounts(ground: Ground) -> None:
    tree = ground.tree(isolation := ground.isolation(), "t0")
    before, mounts = snapshot(ground.root), Path("/proc/self/mountinfo").read_bytes()
    child = os.fork()
    if child == 0:
        try:
            if ground.user is not None:
                become(ground.user)
            sandbox.enter(tree)
            while True:
                put("data.txt", mode="a")
                Path("package").rename("moved")
                Path("moved").rename("package")
        finally:
            os._exit(1)
    deadline = time.monotonic() + DEADLINE
    while not (tree.parts[0].upper / "data.txt").exists():
        assert time.monotonic() < deadline
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert snapshot(ground.root) == before
    assert Path("/proc/self/mountinfo").read_bytes() == mounts
    isolation.cleanup()
    assert names(ground.place) == ["tree"]


def test_entering_keeps_the_bond_to_the_parent(ground: Ground) -> None:
    """A process that changes its credentials may lose its death signal (prctl(2))."""
    set_signal, get_signal = 1, 2

    def enter_and_ask() -> int:
        LIBC.prctl(set_signal, *map(ctypes.c_ulong, (signal.SIGKILL, 0, 0, 0)))
        sandbox.enter(tree)
        number = ctypes.c_int(0)
        LIBC.prctl(get_signal, ctypes.byref(number), *map(ctypes.c_ulong, (0, 0, 0)))
        return number.value

    tree = ground.tree(ground.isolation(), "t0")
    assert run(enter_and_ask, ground.user) == signal.SIGKILL


def test_a_process_with_threads_is_refused(ground: Ground) -> None:
    tree = ground.tree(ground.isolation(), "t0")
    done = threading.Event()

    def enter_with_thread() -> None:
        threading.Thread(target=done.wait, daemon=True).start()
        sandbox.enter(tree)

    with pytest.raises(ChildError, match=r"SandboxUnavailable.*several threads"):
        run(enter_with_thread, ground.user)


def test_options_that_the_kernel_does_not_know_are_refused(tmp_path: Path) -> None:
    plant(tmp_path / "tree")
    tree = Ground(tmp_path, tmp_path / "tree").isolation().tree("t0")
    mechanism = Mechanism(
        user_namespace=overlay.mechanisms()[0].user_namespace, options="no-such-option"
    )
    tree = replace(tree, mechanism=mechanism)
    works, why = overlay.probe([tree], sandbox.LIBRARY)
    assert works is None
    assert "mount overlay" in why
    with pytest.raises(ChildError, match="SandboxUnavailable"):
        trial(tree, lambda: None)


def test_a_name_that_mount_would_cut_is_refused(tmp_path: Path) -> None:
    part = sandbox._parts(tmp_path, {Path(): (Path("/" + "x" * 5000),)})[0]
    with pytest.raises(sandbox.SandboxUnavailable, match="too long"):
        overlay._options(part, tmp_path, overlay.mechanisms()[0])
