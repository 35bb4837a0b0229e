"""The user's tree is as it was after any trial, and a trial sees its own writes as on any file system."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import mmap
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from repro_audit.trial import copying, overlay, sandbox
from repro_audit.trial.sandbox import Isolation, SandboxUnavailable, Tree, plan_isolation, written
from repro_audit.trial.tree import Mechanism

linux = pytest.mark.skipif(sys.platform != "linux", reason="overlays need Linux")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

NOBODY = 65534
DEADLINE = 30.0

LIBC = ctypes.CDLL(None, use_errno=True)


# Children


def run(action: Callable[[], Any], user: int | None = None) -> Any:
    """The JSON-able result of `action` in a forked child, as `user`; what it raises is raised here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if user is not None:
                become(user)
            answer = {"result": action()}
            status = 0
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        os.write(writer, json.dumps(answer).encode())
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = json.loads(stream.read() or '{"error": "died"}')
    os.waitpid(child, 0)
    if "error" in answer:
        raise ChildError(answer["error"])
    return answer["result"]


class ChildError(Exception):
    """What the child raised."""


def become(user: int) -> None:
    """Turn root into an ordinary user, as a login would: /proc/self stays that user's own."""
    os.setgroups([user])
    os.setgid(user)
    os.setuid(user)
    set_dumpable = 4
    LIBC.prctl(set_dumpable, ctypes.c_ulong(1), *[ctypes.c_ulong(0)] * 3)


def plan(root: Path, scratch_parents: list[Path] | None = None) -> Isolation:
    """`plan_isolation`, also in a child that turned into a user who may not execute this Python."""
    if not os.access(os.path.realpath(sys.executable), os.X_OK):
        overlay.probe = lambda trees, _library: overlay.try_each(trees)
    return plan_isolation(root, scratch_parents)


# Trees


def snapshot(root: Path) -> dict[str, tuple[Any, ...]]:
    """Everything about a tree but access times: no write of any kind leaves it equal."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in [".", *names, *files]:
            path = Path(directory, name)
            status = path.lstat()
            content: str | bytes = b""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            found[str(path.relative_to(root))] = (
                *(status.st_mode, status.st_uid, status.st_gid, status.st_nlink),
                *(status.st_mtime_ns, status.st_ctime_ns, content),
            )
    return found


def plant(root: Path) -> None:
    """A small project."""
    (root / "package" / "inner").mkdir(parents=True)
    (root / "package" / "module.py").write_text("ANSWER = 42\n")
    (root / "package" / "inner" / "deep.txt").write_text("deep")
    (root / "empty").mkdir()
    (root / "data.txt").write_text("data")
    (root / "link.txt").symlink_to("data.txt")


class Ground(NamedTuple):
    """A directory that the user `user` owns, with a tree in it."""

    place: Path
    root: Path
    user: int | None


@pytest.fixture(params=["self", pytest.param("nobody", marks=root_only)])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    place = Path(tempfile.mkdtemp(prefix="test-sandbox-"))
    root = place / "tree"
    plant(root)
    user = NOBODY if request.param == "nobody" else None
    if user is not None:
        for path in [place, *place.rglob("*")]:
            os.chown(path, user, user, follow_symlinks=False)
    yield Ground(place, root, user)
    copying.delete(place)


def planned(ground: Ground, root: Path | None = None) -> Isolation:
    """An isolation with an overlay, planned as the ground's user; the test is skipped where there is none."""

    def make() -> dict[str, Any]:
        isolation = plan(root or ground.root, [ground.place])
        mechanism = isolation.mechanism
        return {
            "kind": isolation.kind,
            "scratch": str(isolation.scratch),
            "reason": isolation.reason,
            "mechanism": [mechanism.user_namespace, mechanism.options] if mechanism else None,
            "lowers": [[str(a), [str(b) for b in c]] for a, c in isolation.lowers.items()],
        }

    made = run(make, ground.user)
    if made["kind"] != "overlay":
        pytest.skip(made["reason"])
    return Isolation(
        kind="overlay",
        scratch=Path(made["scratch"]),
        reason=made["reason"],
        root=Path(os.path.realpath(root or ground.root)),
        cwd=ground.root,
        mechanism=Mechanism(user_namespace=made["mechanism"][0], options=made["mechanism"][1]),
        lowers={Path(a): tuple(Path(b) for b in c) for a, c in made["lowers"]},
    )


def new_tree(isolation: Isolation, user: int | None, name: str, after: str | None = None) -> Tree:
    """`Isolation.tree`, with directories that belong to `user`."""
    tree = run(lambda: isolation.tree(name, after).to_json(), user)
    isolation.trees[name] = Tree.from_json(tree)
    return isolation.trees[name]


def trial(tree: Tree, action: Callable[[], Any], user: int | None = None) -> Any:
    """The result of `action` in a trial's process."""

    def enter_and_act() -> Any:
        sandbox.enter(tree)
        return action()

    return run(enter_and_act, user)


# What programs do to trees


def write_by_c() -> None:
    """As `torch.save` to a path does: through the C library, out of Python's sight."""
    LIBC.fopen.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(LIBC.fopen(b"data.txt", b"a"))
    assert stream.value
    LIBC.fputs(b"from C", stream)
    LIBC.fclose(stream)


def write_by_mmap() -> None:
    with open("data.txt", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[:2] = b"DA"
    assert Path("data.txt").read_text() == "DAta"


def wander() -> None:
    """Working directories in and out of the tree, by path and by descriptor."""
    root = Path.cwd()
    inner = os.open("package/inner", os.O_RDONLY)
    os.chdir("/")
    os.chdir(root / "package")
    Path("../by-dots.txt").write_text("x")
    os.fchdir(inner)
    Path("by-descriptor.txt").write_text("x")
    os.close(os.open("../by-openat.txt", os.O_CREAT | os.O_WRONLY, dir_fd=inner))
    os.chdir(root.parent)
    Path(root.name, "by-name.txt").write_text("x")
    assert sorted(path.name for path in root.rglob("by-*")) == [
        "by-descriptor.txt",
        "by-dots.txt",
        "by-name.txt",
        "by-openat.txt",
    ]


def remake() -> None:
    shutil.rmtree("package")
    Path("package").mkdir()
    assert list(Path("package").iterdir()) == []
    Path("package/module.py").write_text("ANSWER = 42\n")


def rename_directory() -> None:
    Path("package").rename("moved")
    assert Path("moved/inner/deep.txt").read_text() == "deep"
    assert not Path("package").exists()


def rotate() -> None:
    """Checkpoint rotation, over a directory that is there already."""
    os.replace("package", "empty")
    assert Path("empty/inner/deep.txt").exists()


def put(path: str, text: str = "new", mode: str = "w") -> None:
    with open(path, mode) as file:
        file.write(text)


PACKAGE = {"package/module.py", "package/inner/deep.txt"}
WRITES: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "create": (lambda: put("new.txt"), {"new.txt"}),
    "create-below": (lambda: put("package/inner/new.txt"), {"package/inner/new.txt"}),
    "append": (lambda: put("data.txt", mode="a"), {"data.txt"}),
    "overwrite": (lambda: put("data.txt"), {"data.txt"}),
    "overwrite-alike": (lambda: put("data.txt", "data"), set()),
    "through-link": (lambda: put("link.txt"), {"data.txt"}),
    "truncate": (lambda: os.truncate("data.txt", 1), {"data.txt"}),
    "delete": (lambda: os.unlink("data.txt"), {"data.txt"}),
    "rename": (lambda: os.rename("data.txt", "moved.txt"), {"data.txt", "moved.txt"}),
    "replace": (
        lambda: os.replace("data.txt", "package/module.py"),
        {"data.txt", "package/module.py"},
    ),
    "exchange-kind": (lambda: (os.unlink("data.txt"), os.mkdir("data.txt")), {"data.txt"}),
    "rename-directory": (
        rename_directory,
        {"moved/inner/deep.txt", "moved/module.py", *PACKAGE},
    ),
    "rotate": (rotate, {"empty/module.py", "empty/inner/deep.txt", *PACKAGE}),
    "chmod": (lambda: os.chmod("data.txt", 0o600), set()),
    "utime": (lambda: os.utime("data.txt", (0, 0)), set()),
    "mkdir": (lambda: os.makedirs("made/below"), {"made/below"}),
    "rmdir": (lambda: os.rmdir("empty"), {"empty"}),
    "remove-tree": (lambda: shutil.rmtree("package"), PACKAGE),
    "remake-tree": (remake, {"package/inner/deep.txt"}),
    "symlink": (lambda: os.symlink("/etc", "etc"), {"etc"}),
    "relink": (lambda: (os.unlink("link.txt"), os.symlink("x", "link.txt")), {"link.txt"}),
    "hard-link": (lambda: os.link("data.txt", "again.txt"), {"again.txt"}),
    "pipe": (lambda: os.mkfifo("pipe"), {"pipe"}),
    "mmap": (write_by_mmap, {"data.txt"}),
    "c": (write_by_c, {"data.txt"}),
    "absolute": (lambda: put(str(Path.cwd() / "absolute.txt")), {"absolute.txt"}),
    "wander": (
        wander,
        {"by-dots.txt", "by-name.txt", "package/by-openat.txt", "package/inner/by-descriptor.txt"},
    ),
    "attribute": (lambda: os.setxattr("data.txt", "user.mine", b"x"), set()),
    "bar": (lambda: (put("package/new.txt"), os.chmod("package", 0)), {"package/new.txt"}),
    "process": (
        lambda: subprocess.run(["/bin/sh", "-c", "echo x > new.txt"], check=True),
        {"new.txt"},
    ),
}


@linux
def test_no_write_of_a_trial_reaches_the_tree(ground: Ground) -> None:
    isolation = planned(ground)
    before = snapshot(ground.root)
    for name, (write, expected) in WRITES.items():
        tree = new_tree(isolation, ground.user, name)
        trial(tree, lambda write=write: discard(write()), ground.user)
        if name == "bar" and ground.user is not None:
            expected = {"package"}
        assert set(run(lambda tree=tree: written(tree), ground.user)) == expected, name
        assert snapshot(ground.root) == before, name
    isolation.cleanup()
    assert os.listdir(ground.place) == ["tree"]


def discard(_: Any) -> None:
    """Give a write's result, which JSON may not know, up."""


@pytest.mark.parametrize("name", WRITES)
def test_each_of_those_writes_would_change_the_tree(name: str, tmp_path: Path) -> None:
    plant(tmp_path)
    before = snapshot(tmp_path)

    def write() -> None:
        os.chdir(tmp_path)
        WRITES[name][0]()

    run(write)
    assert snapshot(tmp_path) != before


# What a trial sees


@linux
def test_a_trial_works_where_the_audit_was_started(ground: Ground) -> None:
    isolation = planned(ground)
    for cwd in (ground.root, ground.root / "package" / "inner", ground.place):
        tree = new_tree(isolation, ground.user, cwd.name)
        tree = Tree.from_json({**tree.to_json(), "cwd": str(cwd)})
        assert trial(tree, os.getcwd, ground.user) == str(cwd)


@linux
def test_a_trial_is_who_the_user_is(ground: Ground) -> None:
    """Ids, owners and rights, and no capabilities of a user namespace beyond them."""

    def identity() -> list[Any]:
        os.chdir(ground.root)
        owner = Path("data.txt").stat()
        barred = Path("package")
        barred.chmod(0o500)
        try:
            put("package/new.txt")
            may_write = True
        except PermissionError:
            may_write = False
        return [os.getuid(), os.getgid(), os.geteuid(), owner.st_uid, owner.st_gid, may_write]

    isolation = planned(ground)
    inside = trial(new_tree(isolation, ground.user, "t0"), identity, ground.user)
    assert inside == run(identity, ground.user)


@linux
def test_an_ordinary_user_can_not_take_the_overlay_away(ground: Ground) -> None:
    if ground.user is None and os.geteuid() == 0:
        pytest.skip("root may unmount anything")

    def unmount() -> int:
        return int(LIBC.umount2(os.fsencode(ground.root), 2))

    assert trial(new_tree(planned(ground), ground.user, "t0"), unmount, ground.user) == -1


@linux
def test_the_modes_of_the_root_are_the_trees_own(ground: Ground) -> None:
    ground.root.chmod(0o750)
    tree = new_tree(planned(ground), ground.user, "t0")
    seen = trial(tree, lambda: [os.stat(".").st_mode, os.stat(".").st_mtime_ns], ground.user)
    assert seen == [ground.root.stat().st_mode, ground.root.stat().st_mtime_ns]


@linux
def test_a_read_only_tree(ground: Ground) -> None:
    """What root can write anyway, others can not, in a trial as outside."""
    paths = [ground.root, *ground.root.rglob("*")]
    for path in paths:
        if not path.is_symlink():
            path.chmod(0o555)
    before = snapshot(ground.root)

    def attempts() -> list[bool]:
        outcomes = []
        for attempt in (
            lambda: put("new.txt"),
            lambda: put("data.txt"),
            lambda: put("package/new.txt"),
        ):
            try:
                attempt()
                outcomes.append(True)
            except OSError:
                outcomes.append(False)
        return outcomes

    tree = new_tree(planned(ground), ground.user, "t0")
    assert trial(tree, attempts, ground.user) == [ground.user is None and os.geteuid() == 0] * 3
    assert snapshot(ground.root) == before


@linux
@root_only
@pytest.mark.parametrize("mode", [0o666, 0o644])
def test_files_of_other_users_can_be_changed_where_that_is_permitted(mode: int) -> None:
    place = Path(tempfile.mkdtemp(prefix="test-sandbox-"))
    ground = Ground(place, place / "tree", NOBODY)
    try:
        os.chown(place, NOBODY, NOBODY)
        plant(ground.root)
        (ground.root / "data.txt").chmod(mode)
        (ground.root / "package").chmod(mode | 0o111)
        before = snapshot(ground.root)
        isolation = planned(ground)
        tree = new_tree(isolation, NOBODY, "t0")

        def change() -> list[str]:
            put("data.txt", mode="a")
            put("package/new.txt")
            Path("package/module.py").unlink()
            return sorted(os.listdir("package"))

        if mode == 0o644:
            with pytest.raises(ChildError, match="PermissionError"):
                trial(tree, change, NOBODY)
            with pytest.raises(ChildError, match="PermissionError"):
                run(lambda: os.chdir(ground.root) or change(), NOBODY)
        else:
            assert trial(tree, change, NOBODY) == ["inner", "new.txt"]
            changed = run(lambda: written(tree), NOBODY)
            assert changed == ["data.txt", "package/module.py", "package/new.txt"]
        assert snapshot(ground.root) == before
    finally:
        copying.delete(place)


@linux
@root_only
def test_a_shared_group_can_write_in_a_trial_too(ground: Ground) -> None:
    """Project directories with the setgid bit, of a group that is not the user's first."""
    for path in [ground.root, *ground.root.rglob("*")]:
        os.chown(path, ground.user or 0, 1234, follow_symlinks=False)
    tree = new_tree(planned(ground), ground.user, "t0")
    trial(tree, lambda: put("data.txt", mode="a"), ground.user)
    trial(new_tree(planned(ground), ground.user, "t1"), lambda: put("package/new.txt"), ground.user)


@linux
@root_only
@pytest.mark.parametrize("limit", [copying.FILES_LIMIT, 3])
def test_mounts_below_the_tree_are_shared_and_said_to_be(
    limit: int, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a user namespace the tree is put together around them: by copies, or by overlays of what is large."""
    monkeypatch.setattr(copying, "FILES_LIMIT", limit)
    before = snapshot(ground.root)

    def mount(path: Path) -> None:
        overlay._mount("tmpfs", path, kind="tmpfs")
        path.chmod(0o777)

    def with_mounts() -> list[Any]:
        assert LIBC.unshare(overlay.CLONE_NEWNS) == 0
        overlay._mount("none", Path("/"), flags=overlay.MS_REC | overlay.MS_SLAVE)
        (ground.root / "empty" / "mount").mkdir()
        os.chown(ground.root / "empty" / "mount", NOBODY, NOBODY)
        mount(ground.root / "empty" / "mount")
        (ground.root / "empty" / "mount" / "nested dir").mkdir()
        mount(ground.root / "empty" / "mount" / "nested dir")
        reason = run(plan_and_write, ground.user)
        shared = [str(path) for path in (ground.root / "empty" / "mount").rglob("*.txt")]
        LIBC.umount2(os.fsencode(ground.root / "empty" / "mount"), 2)
        return [reason, sorted(shared)]

    def plan_and_write() -> str:
        os.chdir(ground.root)
        isolation = plan(ground.root, [ground.place])
        tree = isolation.tree("t0")
        trial(tree, write)
        changed = ("data.txt", "empty/own.txt", "package/inner/own.txt", "package/module.py")
        assert written(tree) == changed
        trial(isolation.tree("t1", after="t0"), write_again)
        assert written(isolation.trees["t1"]) == ("package/inner/own.txt",)
        isolation.cleanup()
        return isolation.reason

    def write() -> None:
        assert sorted(os.listdir()) == ["data.txt", "empty", "link.txt", "package"]
        put("empty/mount/shared.txt")
        put("empty/mount/nested dir/shared.txt")
        put("empty/own.txt")
        put("link.txt", mode="a")
        put("package/inner/own.txt")
        Path("package/module.py").unlink()

    def write_again() -> None:
        assert Path("data.txt").read_text() == "datanew"
        assert os.listdir("package") == ["inner"]
        put("package/inner/own.txt", mode="a")

    reason, shared = run(with_mounts)
    assert "not covered, as mounts of their own: empty/mount" in reason
    assert ("can not remove or rename: package" in reason) == (
        limit == 3 and ground.user is not None
    )
    mounted = ground.root / "empty" / "mount"
    assert shared == [str(mounted / "nested dir" / "shared.txt"), str(mounted / "shared.txt")]
    mounted.rmdir()
    assert {path: entry[6] for path, entry in snapshot(ground.root).items()} == {
        path: entry[6] for path, entry in before.items()
    }


def test_mounts_below_a_copied_tree_are_linked(tmp_path: Path) -> None:
    isolation = copies(tmp_path)
    mounted = isolation.root / "package"
    isolation = dataclasses.replace(isolation, mounts=(mounted,))
    tree = isolation.tree("t0")
    assert written(tree) == ()
    trial(tree, lambda: put("package/shared.txt"))
    assert (mounted / "shared.txt").exists()
    assert written(tree) == ()
    assert written(isolation.tree("t1", after="t0")) == ()


@linux
def test_the_whole_file_system_can_be_the_tree(ground: Ground) -> None:
    def plan_and_write() -> list[Any]:
        isolation = plan(Path("/"))
        if isolation.kind != "overlay":
            isolation.cleanup()
            return [isolation.reason]
        file = ground.root / "new.txt"

        def write() -> list[str]:
            put(str(file))
            put("/dev/null")
            assert Path("/proc/self/status").read_bytes()
            return [os.getcwd(), *map(str, Path(isolation.scratch).glob("trees/*"))]

        try:
            return [
                isolation.reason,
                *trial(isolation.tree("t0"), write),
                list(written(isolation.trees["t0"])),
            ]
        finally:
            isolation.cleanup()

    before = snapshot(ground.root)
    reason, *rest = run(plan_and_write, ground.user)
    assert snapshot(ground.root) == before
    if not rest:
        pytest.skip(reason)
    cwd, scratch, changed = rest
    assert cwd == os.getcwd()
    assert scratch.endswith("trees/t0")
    assert changed == [str(ground.root / "new.txt").lstrip("/")]
    assert "dev" in reason


@linux
def test_a_tree_by_a_symbolic_link(ground: Ground) -> None:
    link = ground.place / "link"
    link.symlink_to(ground.root)
    before = snapshot(ground.root)
    isolation = planned(ground, link)
    tree = new_tree(isolation, ground.user, "t0")
    trial(tree, lambda: put(str(link / "new.txt")), ground.user)
    assert written(tree) == ("new.txt",)
    assert snapshot(ground.root) == before


@linux
@pytest.mark.parametrize("place", ["/dev/shm", "/var/tmp"])
def test_a_tree_on_another_file_system_than_the_scratch_directory(
    place: str, tmp_path: Path
) -> None:
    if not os.access(place, os.W_OK):
        pytest.skip(f"no {place}")
    root = Path(tempfile.mkdtemp(dir=place))
    try:
        plant(root)
        before = snapshot(root)
        isolation = planned(Ground(tmp_path, root, None))
        trial(isolation.tree("t0"), lambda: put("data.txt"))
        assert written(isolation.trees["t0"]) == ("data.txt",)
        assert snapshot(root) == before
    finally:
        copying.delete(root)


@linux
@pytest.mark.parametrize(
    "name", ["a:b", "a,b=c", "back\\slash", "new\nline", "spa ce", "é", "x" * 200]
)
def test_a_tree_of_any_name(name: str, tmp_path: Path) -> None:
    root = tmp_path / name / name
    plant(root)
    isolation = planned(Ground(tmp_path, root, None))
    tree = isolation.tree("t0")
    trial(Tree.from_json(json.loads(json.dumps(tree.to_json()))), lambda: put("new.txt"))
    assert written(tree) == ("new.txt",)
    assert not (root / "new.txt").exists()


# Trials after trials


@linux
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
        assert sorted(os.listdir()) == ["data.txt", "link.txt", "new.txt"]
        put("data.txt", "second")
        Path("new.txt").unlink()
        Path("package").mkdir()

    def third() -> list[str]:
        assert os.listdir("package") == []
        return sorted([Path("data.txt").read_text(), *os.listdir()])

    before = snapshot(ground.root)
    isolation = planned(ground)
    for name, action, after in (("t0", first, None), ("t1", second, "t0")):
        trial(new_tree(isolation, ground.user, name, after), action, ground.user)
    assert written(isolation.trees["t1"]) == ("data.txt", "new.txt", "package")
    found = trial(new_tree(isolation, ground.user, "t2", "t1"), third, ground.user)
    assert found == ["data.txt", "link.txt", "package", "second"]
    assert written(isolation.trees["t2"]) == ()
    assert snapshot(ground.root) == before


def test_a_trial_has_one_tree_and_a_plain_name(tmp_path: Path) -> None:
    isolation = copies(tmp_path)
    isolation.tree("t0")
    with pytest.raises(FileExistsError):
        isolation.tree("t0")
    with pytest.raises(ValueError, match=r"\.\./t0"):
        isolation.tree("../t0")
    with pytest.raises(KeyError):
        isolation.tree("t1", after="t9")


# Copies, and the tree itself


def copies(tmp_path: Path, kind: sandbox.Kind = "copy") -> Isolation:
    """An isolation of that kind, without asking what this machine can do."""
    root, scratch = tmp_path / "tree", tmp_path / "scratch"
    plant(root)
    scratch.mkdir()
    return Isolation(
        kind=kind, scratch=scratch, reason="", root=root, cwd=root, lowers={Path(): (root,)}
    )


@pytest.mark.parametrize(
    "name", sorted(set(WRITES) - {"overwrite-alike", "hard-link", "attribute"})
)
def test_a_copy_takes_a_trials_writes(name: str, tmp_path: Path) -> None:
    isolation = copies(tmp_path)
    before = snapshot(isolation.root)
    write, expected = WRITES[name]
    tree = isolation.tree("t0")
    trial(tree, lambda: discard(write()))
    assert set(written(tree)) == expected
    assert snapshot(isolation.root) == before
    isolation.cleanup()
    assert not isolation.scratch.exists()


def test_a_copy_is_like_its_original(tmp_path: Path) -> None:
    isolation = copies(tmp_path)
    (isolation.root / "package").chmod(0o555)
    tree = isolation.tree("t0")
    assert written(tree) == ()
    for path in isolation.root.rglob("*"):
        copy, original = tree.map(path).lstat(), path.lstat()
        assert (copy.st_mode, copy.st_size) == (original.st_mode, original.st_size)
        assert path.is_symlink() or copy.st_mtime_ns == original.st_mtime_ns


def test_links_in_a_copy_lead_into_it_or_where_they_led(tmp_path: Path) -> None:
    isolation = copies(tmp_path)
    outside = tmp_path / "outside.txt"
    outside.write_text("outside")
    (isolation.root / "absolute").symlink_to(isolation.root / "data.txt")
    (isolation.root / "package" / "climbing").symlink_to("../../outside.txt")
    (isolation.root / "package" / "sideways").symlink_to("../data.txt")
    tree = isolation.tree("t0")
    later = isolation.tree("t1", after="t0")
    for each in (tree, later):
        assert (each.parts[0].upper / "absolute").resolve() == each.parts[0].upper / "data.txt"
        assert (each.parts[0].upper / "package/climbing").resolve() == outside
        assert (each.parts[0].upper / "package/sideways").resolve() == each.parts[
            0
        ].upper / "data.txt"
        assert written(each) == ()


def test_a_copy_goes_on_from_an_earlier_one(tmp_path: Path) -> None:
    isolation = copies(tmp_path)
    trial(isolation.tree("t0"), lambda: put("new.txt"))
    trial(isolation.tree("t1", after="t0"), lambda: put("new.txt", mode="a"))
    assert written(isolation.trees["t0"]) == written(isolation.trees["t1"]) == ("new.txt",)


def test_paths_into_a_copied_tree_are_mapped(tmp_path: Path) -> None:
    isolation = copies(tmp_path)
    tree = isolation.tree("t0")
    link = tmp_path / "link"
    link.symlink_to(isolation.root)
    assert tree.map(isolation.root / "data.txt") == tree.parts[0].upper / "data.txt"
    assert tree.map(link / "data.txt") == tree.parts[0].upper / "data.txt"
    assert tree.map(Path("package")) == tree.parts[0].upper / "package"
    assert tree.map(tmp_path / "x") == tmp_path / "x"
    assert copies(tmp_path / "other", "shared").tree("t0").map(isolation.root) == isolation.root


def test_a_shared_tree_is_the_tree(tmp_path: Path) -> None:
    isolation = copies(tmp_path, "shared")
    tree = isolation.tree("t0")
    trial(tree, lambda: put("new.txt"))
    assert (isolation.root / "new.txt").exists()
    assert written(tree) == ()
    isolation.discard(tree)
    isolation.cleanup()
    assert (isolation.root / "new.txt").exists()


# The choice


def test_a_small_tree_is_copied_where_no_overlay_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "tree")
    monkeypatch.setattr(overlay, "probe", lambda *_: (None, "no such luck"))
    isolation = plan_isolation(tmp_path / "tree", [tmp_path])
    assert isolation.kind == "copy"
    assert not isolation.scratch.is_relative_to(tmp_path / "tree")
    if sys.platform == "linux":
        assert "no such luck" in isolation.reason
    isolation.cleanup()


@pytest.mark.parametrize(("limit", "value"), [("FILES_LIMIT", 3), ("BYTES_LIMIT", 3)])
def test_a_large_tree_is_shared_where_no_overlay_can_be(
    limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "tree")
    monkeypatch.setattr(overlay, "probe", lambda *_: (None, "no such luck"))
    monkeypatch.setattr(copying, limit, value)
    isolation = plan_isolation(tmp_path / "tree", [tmp_path])
    assert isolation.kind == "shared"
    assert "too large" in isolation.reason
    isolation.cleanup()


def test_the_scratch_directory_is_not_in_the_tree(tmp_path: Path) -> None:
    """As when an audit is started in /tmp."""
    root, other = tmp_path / "tree", tmp_path / "other"
    plant(root)
    other.mkdir()
    isolation = plan_isolation(root, [root, root / "package", other])
    assert isolation.scratch.parent == other
    isolation.cleanup()


def test_a_cramped_place_is_taken_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / "cramped", tmp_path / "roomy"]
    for place in (*places, tmp_path / "tree"):
        place.mkdir()
    usage = shutil.disk_usage(tmp_path)

    def disk_usage(place: Path) -> Any:
        return usage._replace(free=1 << 20 if place.name == "cramped" else 1 << 40)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    isolation = plan_isolation(tmp_path / "tree", places)
    assert isolation.scratch.parent.name == "roomy"
    isolation.cleanup()


@linux
def test_a_place_that_can_not_hold_an_overlay_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tree", "bad", "good"):
        (tmp_path / name).mkdir()

    def probe(trees: list[Tree], library: Path) -> tuple[int | None, str]:
        bad = any("bad" in str(tree.parts[0].upper) for tree in trees)
        return (None, "bad place") if bad else real(trees, library)

    real = overlay.probe
    monkeypatch.setattr(overlay, "probe", probe)
    isolation = plan_isolation(tmp_path / "tree", [tmp_path / "bad", tmp_path / "good"])
    if isolation.kind == "overlay":
        assert isolation.scratch.parent.name == "good"
    assert list((tmp_path / "bad").iterdir()) == []
    isolation.cleanup()


@linux
def test_an_overlay_that_does_not_work_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe believes what it finds on disk, not what it is told."""
    (tmp_path / "tree").mkdir()
    monkeypatch.setattr(overlay, "probe", lambda *_: (0, ""))
    isolation = plan_isolation(tmp_path / "tree", [tmp_path])
    assert isolation.kind == "copy"
    isolation.cleanup()


@linux
def test_options_that_the_kernel_does_not_know_are_refused(tmp_path: Path) -> None:
    plant(tmp_path / "tree")
    isolation = planned(Ground(tmp_path, tmp_path / "tree", None))
    tree = isolation.tree("t0")
    odd = {**tree.to_json(), "mechanism": [tree.to_json()["mechanism"][0], "no-such-option"]}
    works, why = overlay.probe([Tree.from_json(odd)], sandbox.LIBRARY)
    assert works is None
    assert "mount overlay" in why
    with pytest.raises(ChildError, match="SandboxUnavailable"):
        trial(Tree.from_json(odd), os.getcwd)


@linux
def test_a_process_with_threads_is_refused(tmp_path: Path) -> None:
    plant(tmp_path / "tree")
    tree = planned(Ground(tmp_path, tmp_path / "tree", None)).tree("t0")
    done = threading.Event()

    def with_thread() -> None:
        threading.Thread(target=done.wait, daemon=True).start()
        sandbox.enter(tree)

    with pytest.raises(ChildError, match="SandboxUnavailable.*several threads"):
        run(with_thread)


# The end


@linux
def test_a_kill_leaves_neither_writes_nor_mounts(ground: Ground) -> None:
    isolation = planned(ground)
    tree = new_tree(isolation, ground.user, "t0")
    before, mounts = snapshot(ground.root), Path("/proc/self/mountinfo").read_bytes()

    def write_on() -> None:
        os.setsid()
        while True:
            put("data.txt", mode="a")
            put("package/module.py", os.urandom(20).hex())
            Path("package").rename("moved")
            Path("moved").rename("package")

    child = os.fork()
    if child == 0:
        try:
            if ground.user is not None:
                become(ground.user)
            sandbox.enter(tree)
            write_on()
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
    assert os.listdir(ground.place) == ["tree"]


@pytest.mark.parametrize("kind", ["overlay", "copy", "shared"])
def test_imports_leave_no_bytecode(kind: sandbox.Kind, tmp_path: Path) -> None:
    if kind == "overlay":
        plant(tmp_path / "tree")
        isolation = planned(Ground(tmp_path, tmp_path / "tree", None))
    else:
        isolation = copies(tmp_path, kind)
    tree = isolation.tree("t0")

    def import_module() -> int:
        sys.path.insert(0, str(tree.map(isolation.root)))
        answer = [sys.executable, "-c", "from package.module import ANSWER; print(ANSWER)"]
        assert subprocess.run(answer, check=True, capture_output=True).stdout == b"42\n"
        from package.module import ANSWER  # type: ignore[import-not-found]

        return int(ANSWER)

    assert trial(tree, import_module) == 42
    assert list(tmp_path.rglob("__pycache__")) == []
    assert written(tree) == ()


@linux
def test_entering_keeps_the_bond_to_the_parent(ground: Ground) -> None:
    """A process that changes its credentials may lose its death signal (prctl(2))."""
    tree = new_tree(planned(ground), ground.user, "t0")

    def enter_and_ask() -> int:
        LIBC.prctl(1, ctypes.c_ulong(signal.SIGKILL), *[ctypes.c_ulong(0)] * 3)
        sandbox.enter(tree)
        number = ctypes.c_int(0)
        LIBC.prctl(2, ctypes.byref(number), *[ctypes.c_ulong(0)] * 3)
        return number.value

    assert run(enter_and_ask, ground.user) == signal.SIGKILL


def test_cleaning_up_does_not_follow_links(tmp_path: Path) -> None:
    isolation = copies(tmp_path)
    outside = tmp_path / "outside"
    plant(outside)
    before = snapshot(outside)
    tree = isolation.tree("t0")

    def link() -> None:
        Path("out").symlink_to(outside)
        Path("up").symlink_to("..")

    trial(tree, link)
    (isolation.scratch / "out").symlink_to(outside)
    isolation.discard(tree)
    assert os.listdir(isolation.scratch / "trees") == []
    isolation.cleanup()
    assert snapshot(outside) == before
    assert not isolation.scratch.exists()


def test_cleaning_up_gets_past_barriers_and_depths(ground: Ground) -> None:
    def make_and_delete() -> bool:
        scratch = ground.root / "scratch"
        (scratch / "a" / "b").mkdir(parents=True)
        put(str(scratch / "a" / "b" / "file"))
        (scratch / "a" / "b").chmod(0o000)
        (scratch / "a").chmod(0o000)
        os.chdir(scratch)
        for _ in range(1500):  # deeper than recursion goes, and a longer path than PATH_MAX
            os.mkdir("deep-deep")
            os.chdir("deep-deep")
        os.chdir("/")
        copying.delete(scratch)
        copying.delete(scratch)  # gone already
        return scratch.exists()

    assert run(make_and_delete, ground.user) is False


def test_what_a_killed_audit_left_is_swept(tmp_path: Path) -> None:
    plant(tmp_path / "tree")
    place = tmp_path / "place"
    place.mkdir()
    (place / "repro-audit-someone-elses").mkdir()
    alive = plan_isolation(tmp_path / "tree", [place])

    def die() -> None:
        plan_isolation(tmp_path / "tree", [place])
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ChildError, match="died"):
        run(die)
    assert len(os.listdir(place)) == 3
    isolation = plan_isolation(tmp_path / "tree", [place])
    names = {alive.scratch.name, isolation.scratch.name, "repro-audit-someone-elses"}
    assert set(os.listdir(place)) == names
    alive.cleanup()
    isolation.cleanup()


def test_the_parent_needs_neither_torch_nor_numpy() -> None:
    program = (
        "import sys; import repro_audit.trial.sandbox, repro_audit.trial.processes; "
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=sandbox.LIBRARY)
