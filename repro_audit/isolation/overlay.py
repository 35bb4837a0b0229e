"""A copy-on-write mount of the user's tree, seen by one process and its descendants only.

The process gets a mount namespace of its own, so that no mount outlives it or is seen elsewhere. An ordinary user
may do that inside a user namespace, where overlayfs keeps its marks in `user.overlay.*` attributes (Linux 5.11).
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from repro_audit.isolation.processes import tied_to_this
from repro_audit.isolation.renaming import allow_directory_renames
from repro_audit.isolation.tree import ELSEWHERE, Mechanism, Part, SandboxUnavailable, Tree
from repro_audit.storage.border import dumps, loads

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_BIND, MS_MOVE, MS_REC, MS_SLAVE = 4096, 8192, 16384, 1 << 19
MNT_DETACH = 2
"""From `linux/sched.h` and `linux/mount.h`."""

MERGED = "merged"
"""The directory, in a tree's `base`, where the overlay is put together."""

OPTIONS_LIMIT = 4095
"""mount(2) takes a page of options, and cuts what is longer without a word."""

TRUSTED = "index=off,metacopy=off,redirect_dir=nofollow"
PERMITTED = "index=off,userxattr"
VOLATILE = ",volatile"
"""No sync of the upper file system, which else comes with every unmount (Linux 5.10)."""


def mechanisms() -> tuple[Mechanism, ...]:
    """Ways to mount an overlay, best first."""
    ordinary = Mechanism(user_namespace=True, options=PERMITTED + VOLATILE)
    if os.geteuid() != 0:
        return (ordinary,)
    options = (TRUSTED + VOLATILE, TRUSTED, PERMITTED + VOLATILE)
    return (*(Mechanism(user_namespace=False, options=each) for each in options), ordinary)


def enter(tree: Tree, also: Mapping[Path, Path] | None = None) -> None:
    """Give this process, and what it starts from now on, the overlay in place of the tree.

    The process must have one thread. Capabilities that a user namespace lends are dropped again.

    Args:
        tree: an overlay.
        also: directories in whose places others are mounted too, if that can be.

    Raises:
        SandboxUnavailable: the process is then neither here nor there, and must end.
    """
    if tree.mechanism is None:
        raise ValueError(f"a tree of kind {tree.kind!r} is no overlay")
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise SandboxUnavailable("a process with several threads can not leave its namespaces")
    _leave_namespaces(user=tree.mechanism.user_namespace)
    below = submounts(tree.root)
    merged = tree.base / MERGED
    os.chdir(tree.base)  # layers by relative paths, since the length of their names is limited
    for part in tree.parts:
        options = _options(part, tree.base, tree.mechanism)
        _mount("overlay", merged / part.place, kind="overlay", data=options)
    for path in below:
        _mount(path, merged / path.relative_to(tree.root), flags=MS_BIND | MS_REC)
    if tree.root == Path("/"):
        _become_root(merged)
    else:
        _mount(merged, tree.root, flags=MS_MOVE)
        _mount_elsewhere(tree)
    for place, directory in (also or {}).items():
        with suppress(SandboxUnavailable):
            _mount(directory, place, flags=MS_BIND)
    try:
        os.chdir(tree.cwd)
    except FileNotFoundError:  # an earlier trial, whose tree this one goes on with, removed it
        os.chdir(tree.root)
    if tree.mechanism.user_namespace and os.geteuid() != 0:
        _drop_capabilities()
    allow_directory_renames()


def submounts(root: Path) -> tuple[Path, ...]:
    """Mount points below `root` that can be seen, without those inside others."""
    prefix = str(root).rstrip("/") + "/"
    found: list[Path] = []
    for path, number in sorted(_mounts()):
        nested = any(path.startswith(f"{mount}/") for mount in found)
        if path.startswith(prefix) and path != prefix and not nested and _is_visible(path, number):
            found.append(Path(path))
    return tuple(found)


def probe(trees: list[Tree], library: Path) -> tuple[int | None, str]:
    """Try which of `trees` can be entered and written to, in a process of its own.

    Each of them has an uppermost lower layer made for the purpose: in it a directory named like the tree's `base`,
    in that a directory `inner`, in that a file `old`.

    Args:
        library: where this package is found.

    Returns:
        The index of the first that works, and why the last of those before it does not.
    """
    import subprocess

    boot = "import sys; sys.path.append(sys.argv[1]); from repro_audit.isolation import overlay; overlay.probe_main()"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-c", boot, str(library)],
            input="\n".join(map(dumps, trees)).encode(),
            capture_output=True,
            timeout=30,
            check=True,
            preexec_fn=tied_to_this(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"the attempt failed: {error}"
    answer = json.loads(done.stdout)
    return answer["works"], answer["why"]


def probe_main() -> None:
    """Program of the process that `probe` starts."""
    works, why = try_each([loads(Tree, line) for line in sys.stdin])
    sys.stdout.write(json.dumps({"works": works, "why": why}))


def try_each(trees: list[Tree]) -> tuple[int | None, str]:
    """Do what `probe` says in this process, which must have one thread: it forks a child a tree."""
    why = ""
    for index, tree in enumerate(trees):
        why = _in_child(partial(_try, tree))
        if not why:
            return index, ""
    return None, why


def _try(tree: Tree) -> None:
    """Enter `tree`, and do there what needs whiteouts and opaque directories."""
    enter(tree)
    inner = tree.root / tree.base.name / "inner"
    shutil.rmtree(inner)
    inner.mkdir()
    if any(inner.iterdir()):
        raise SandboxUnavailable("a directory that was removed and made again is not empty")
    (inner / "new").touch()


def _in_child(action: Callable[[], None]) -> str:
    """Run `action` in a forked child; what went wrong, in words."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException as error:
            os.write(writer, str(error).encode()[:4000])
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read().decode()
    _, status = os.waitpid(child, 0)
    return "" if status == 0 else said or f"the attempt ended with status {status}"


def _leave_namespaces(*, user: bool) -> None:
    """Get a mount namespace, and where `user` a user namespace in which we are who we were."""
    uid, gid = os.geteuid(), os.getegid()
    _call("unshare", ctypes.c_int(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)))
    if user:
        try:
            with suppress(FileNotFoundError):  # Linux before 3.19
                Path("/proc/self/setgroups").write_bytes(b"deny")
            Path("/proc/self/uid_map").write_bytes(b"%d %d 1" % (uid, uid))
            Path("/proc/self/gid_map").write_bytes(b"%d %d 1" % (gid, gid))
        except OSError as error:
            raise SandboxUnavailable(f"user namespace: {error.strerror}") from error
    # Slave, not private: what the machine unmounts meanwhile is not held back by us.
    _mount("none", Path("/"), flags=MS_REC | MS_SLAVE)


def _mount_elsewhere(tree: Tree) -> None:
    """Let the tree be had by another path too, where there is one to spare."""
    needed = (tree.root, tree.base, Path(sys.prefix), Path(__file__))
    for place in map(Path, ELSEWHERE):
        if place.is_dir() and not any(path.is_relative_to(place) for path in needed):
            with suppress(SandboxUnavailable):
                _mount(tree.root, place, flags=MS_BIND | MS_REC)
            return


def _become_root(merged: Path) -> None:
    """Make `merged` the root directory, and let go of the old one; see pivot_root(2)."""
    os.chdir(merged)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", ctypes.c_int(MNT_DETACH))
    os.chdir("/")


def _options(part: Part, base: Path, mechanism: Mechanism) -> str:
    """The mount options of an overlay, with its layers relative to `base`."""

    def layer(path: Path) -> str:
        return re.sub(r"([\\:,])", r"\\\1", os.path.relpath(path, base))

    lowers = ":".join(layer(path) for path in part.lowers)
    upper, work = layer(part.upper), layer(part.work)
    options = f"lowerdir={lowers},upperdir={upper},workdir={work},{mechanism.options}"
    if len(os.fsencode(options)) > OPTIONS_LIMIT:
        raise SandboxUnavailable("the path of the tree is too long for an overlay")
    return options


def _mounts() -> Iterator[tuple[str, int]]:
    """Mount point and number of every mount of this namespace."""
    with Path("/proc/self/mountinfo").open("rb") as stream:
        for line in stream:
            number, _, _, _, point, *_ = line.split(b" ")
            path = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), point)
            yield os.fsdecode(path), int(number)


def _is_visible(path: str, number: int) -> bool:
    """Whether `path` leads to the mount of that number, and not to another over it."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        facts = Path(f"/proc/self/fdinfo/{descriptor}").read_bytes()
    finally:
        os.close(descriptor)
    return b"mnt_id:\t%d\n" % number in facts


def _mount(
    source: str | Path, target: Path, *, kind: str = "", flags: int = 0, data: str = ""
) -> None:
    """`mount(2)`."""
    with _naming(f"mount on {target}" if not kind else f"mount {kind}"):
        _call(
            "mount",
            os.fsencode(source),
            os.fsencode(target),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            os.fsencode(data) if data else None,
        )


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say `what` it was that failed, in place of the function's name."""
    try:
        yield
    except SandboxUnavailable as error:
        raise SandboxUnavailable(f"{what}: {error.what.partition(': ')[2]}") from error


def _drop_capabilities() -> None:
    """Give up what the user namespace lent: file permissions hold again, and mounts stay."""
    version_3 = 0x20080522
    header = (ctypes.c_uint32 * 2)(version_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _call("capset", header, nothing)


def _call(name: str, *arguments: Any) -> None:
    """Call a function of the C library that returns 0 where it succeeds."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*arguments) != 0:
        raise SandboxUnavailable(f"{name}: {os.strerror(ctypes.get_errno())}")
