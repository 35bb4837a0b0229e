"""Trees for the tests of the sandbox, programs that write to them, and processes that do it as some user."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import mmap
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from repro_audit.isolation import copying, overlay, sandbox
from repro_audit.isolation.sandbox import Isolation, Tree, plan_isolation
from repro_audit.isolation.tree import Mechanism
from repro_audit.storage.border import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from repro_audit.isolation.tree import Kind

linux = pytest.mark.skipif(sys.platform != "linux", reason="overlays need Linux")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
users = pytest.mark.parametrize("who", ["self", pytest.param("nobody", marks=root_only)])

NOBODY = 65534

LIBC = ctypes.CDLL(None, use_errno=True)


# Processes


class ChildError(Exception):
    """What a child raised."""


def run(action: Callable[[], Any], user: int | None = None) -> Any:
    """The JSON-able result of `action` in a forked child, as `user`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if user is not None:
                become(user)
            answer = {"result": action()}
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = json.loads(stream.read() or '{"error": "died"}')
    os.waitpid(child, 0)
    if "error" in answer:
        raise ChildError(answer["error"])
    return answer["result"]


def become(user: int) -> None:
    """Turn root into an ordinary user as a login would, with /proc/self that user's own."""
    os.setgroups([user])
    os.setgid(user)
    os.setuid(user)
    set_dumpable = 4
    LIBC.prctl(set_dumpable, *map(ctypes.c_ulong, (1, 0, 0, 0)))


def plan(root: Path, scratch_parents: list[Path] | None = None) -> Isolation:
    """`plan_isolation`, also in a forked child whose user may not execute this Python."""
    if not os.access(os.path.realpath(sys.executable), os.X_OK):
        vars(overlay)["probe"] = lambda trees, _: overlay.try_each(trees)
    return plan_isolation(root, scratch_parents)


def trial(tree: Tree, action: Callable[[], Any], user: int | None = None) -> Any:
    """The result of `action` in a trial's process."""

    def enter_and_act() -> Any:
        sandbox.enter(tree)
        return action()

    return run(enter_and_act, user)


# Trees


def plant(root: Path) -> None:
    """A small project, some time ago."""
    (root / "package" / "inner").mkdir(parents=True)
    (root / "package" / "module.py").write_text("ANSWER = 42\n")
    (root / "package" / "inner" / "deep.txt").write_text("deep")
    (root / "empty").mkdir()
    (root / "data.txt").write_text("data")
    (root / "link.txt").symlink_to("data.txt")
    for path in [root, *root.rglob("*")]:
        os.utime(path, (1e9, 1e9), follow_symlinks=False)


def names(directory: Path | str = "") -> list[str]:
    """What is in `directory`, sorted."""
    return sorted(path.name for path in Path(directory).iterdir())


def snapshot(root: Path) -> dict[str, tuple[Any, ...]]:
    """Everything about a tree but access times: no write of any kind leaves it equal."""
    found = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        content: str | bytes = b""
        if stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (
            content,
            *(status.st_mode, status.st_uid, status.st_gid, status.st_nlink),
            *(status.st_mtime_ns, status.st_ctime_ns),
        )
    return found


class Ground(NamedTuple):
    """A directory that `user` may write to, with a tree in it."""

    place: Path
    root: Path
    user: int | None = None

    def isolation(self, root: Path | None = None) -> Isolation:
        """One with an overlay, planned as the user; the test is skipped where there is none."""
        root = root or self.root

        def make() -> dict[str, Any]:
            made = plan(root, [self.place])
            mechanism = dataclasses.astuple(made.mechanism) if made.mechanism else None
            lowers = [[str(place), *map(str, layers)] for place, layers in made.lowers.items()]
            return {
                "kind": made.kind,
                "scratch": str(made.scratch),
                "reason": made.reason,
                "mechanism": mechanism,
                "lowers": lowers,
            }

        made = run(make, self.user)
        if made["kind"] != "overlay":
            pytest.skip(made["reason"])
        namespace, options = made["mechanism"]
        return Isolation(
            kind="overlay",
            scratch=Path(made["scratch"]),
            reason=made["reason"],
            root=root.resolve(),
            cwd=self.root,
            mechanism=Mechanism(user_namespace=namespace, options=options),
            lowers={
                Path(place): tuple(Path(each) for each in layers)
                for place, *layers in made["lowers"]
            },
        )

    def tree(self, isolation: Isolation, name: str, after: str | None = None) -> Tree:
        """`Isolation.tree`, with directories that belong to the user."""
        tree = loads(Tree, run(lambda: dumps(isolation.tree(name, after)), self.user))
        isolation.trees[name] = tree
        return tree

    def trial(self, tree: Tree, action: Callable[[], Any]) -> Any:
        """The result of `action` in a trial's process."""
        return trial(tree, action, self.user)


@contextmanager
def new_ground(who: str) -> Iterator[Ground]:
    """A ground that `who` ("self" or "nobody") owns."""
    place = Path(tempfile.mkdtemp(prefix="test-sandbox-"))
    try:
        plant(place / "tree")
        user = NOBODY if who == "nobody" else None
        if user is not None:
            for path in [place, *place.rglob("*")]:
                os.chown(path, user, user, follow_symlinks=False)
        yield Ground(place, place / "tree", user)
    finally:
        copying.delete(place)


def without_overlay(place: Path, kind: Kind = "copy") -> Isolation:
    """An isolation of that kind, without asking what this machine can do."""
    root, scratch = place / "tree", place / "scratch"
    plant(root)
    scratch.mkdir()
    lowers: sandbox.Lowers = {Path(): (root,)}
    return Isolation(kind=kind, scratch=scratch, reason="", root=root, cwd=root, lowers=lowers)


# What programs do to trees


def put(path: str | Path, text: str = "new", mode: str = "w") -> None:
    with Path(path).open(mode) as file:
        file.write(text)


def append_by_c() -> None:
    """As `torch.save` to a path does: through the C library, out of Python's sight."""
    LIBC.fopen.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(LIBC.fopen(b"data.txt", b"a"))
    assert stream.value
    LIBC.fputs(b"from C", stream)
    LIBC.fclose(stream)


def write_by_mmap() -> None:
    with Path("data.txt").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[:2] = b"DA"
    assert Path("data.txt").read_text() == "DAta"


def wander() -> None:
    """Working directories in and out of the tree, by path and by descriptor."""
    root = Path.cwd()
    inner = os.open("package/inner", os.O_RDONLY)
    os.chdir("/")
    os.chdir(root / "package")
    put("../by-dots.txt")
    os.fchdir(inner)
    put("by-descriptor.txt")
    os.close(os.open("../by-openat.txt", os.O_CREAT | os.O_WRONLY, dir_fd=inner))
    os.chdir(root.parent)
    put(Path(root.name, "by-name.txt"))
    assert len(list(root.rglob("by-*"))) == 4


def remake() -> None:
    shutil.rmtree("package")
    Path("package").mkdir()
    assert names("package") == []
    put("package/module.py", "ANSWER = 42\n")


def rename_directory() -> None:
    Path("package").rename("moved")
    assert Path("moved/inner/deep.txt").read_text() == "deep"
    assert not Path("package").exists()


def rotate() -> None:
    """As checkpoints are: one directory in place of another, which must be empty."""
    with pytest.raises(OSError, match="not empty"):
        Path("empty").replace("package")
    Path("package").replace("empty")
    assert Path("empty/inner/deep.txt").exists()


def exchange() -> None:
    Path("data.txt").unlink()
    Path("data.txt").mkdir()


def relink() -> None:
    Path("link.txt").unlink()
    Path("link.txt").symlink_to("elsewhere")


def bar() -> None:
    put("package/new.txt")
    Path("package").chmod(0)


def start_process() -> None:
    subprocess.run(["/bin/sh", "-c", "echo x > new.txt"], check=True)


PACKAGE = {"package/module.py", "package/inner/deep.txt"}
MOVED = {"moved/module.py", "moved/inner/deep.txt"}
ROTATED = {"empty/module.py", "empty/inner/deep.txt"}
WANDERED = {
    *("by-dots.txt", "by-name.txt"),
    *("package/by-openat.txt", "package/inner/by-descriptor.txt"),
}

WRITES: dict[str, tuple[Callable[[], object], set[str]]] = {
    "create": (lambda: put("new.txt"), {"new.txt"}),
    "create-below": (lambda: put("package/inner/new.txt"), {"package/inner/new.txt"}),
    "append": (lambda: put("data.txt", mode="a"), {"data.txt"}),
    "overwrite": (lambda: put("data.txt"), {"data.txt"}),
    "overwrite-alike": (lambda: put("data.txt", "data"), set()),
    "through-link": (lambda: put("link.txt"), {"data.txt"}),
    "truncate": (lambda: os.truncate("data.txt", 1), {"data.txt"}),
    "delete": (lambda: Path("data.txt").unlink(), {"data.txt"}),
    "rename": (lambda: Path("data.txt").rename("moved.txt"), {"data.txt", "moved.txt"}),
    "replace": (lambda: Path("data.txt").replace("link.txt"), {"data.txt", "link.txt"}),
    "exchange": (exchange, {"data.txt"}),
    "rename-directory": (rename_directory, MOVED | PACKAGE),
    "rotate": (rotate, ROTATED | PACKAGE),
    "chmod": (lambda: Path("data.txt").chmod(0o600), set()),
    "utime": (lambda: os.utime("data.txt", (0, 0)), set()),
    "mkdir": (lambda: Path("made/below").mkdir(parents=True), {"made/below"}),
    "rmdir": (lambda: Path("empty").rmdir(), {"empty"}),
    "remove-tree": (lambda: shutil.rmtree("package"), PACKAGE),
    "remake-tree": (remake, {"package/inner/deep.txt"}),
    "symlink": (lambda: Path("etc").symlink_to("/etc"), {"etc"}),
    "relink": (relink, {"link.txt"}),
    "hard-link": (lambda: os.link("data.txt", "again.txt"), {"again.txt"}),
    "pipe": (lambda: os.mkfifo("pipe"), {"pipe"}),
    "mmap": (write_by_mmap, {"data.txt"}),
    "c": (append_by_c, {"data.txt"}),
    "absolute": (lambda: put(Path.cwd() / "absolute.txt"), {"absolute.txt"}),
    "wander": (wander, WANDERED),
    "process": (start_process, {"new.txt"}),
    "bar": (bar, {"package/new.txt"}),
}
"""Programs, and what each creates, changes or deletes."""
