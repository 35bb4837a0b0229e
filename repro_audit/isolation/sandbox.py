"""Keeps what trials write from the user's tree: the choice of means, and the entry into them.

`plan_isolation` is for the parent: it tries out what this machine allows, once, and hands a `Tree` to each trial. The
trial's process calls `enter` with it before it runs any of the user's code.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.errors import UsageError
from repro_audit.isolation import overlay
from repro_audit.isolation.changes import written
from repro_audit.isolation.copying import copy_tree, delete, measure, take_after
from repro_audit.isolation.layers import adopt, build_around
from repro_audit.isolation.scratch import delete_scratch, make_scratch, sweep
from repro_audit.isolation.tree import Kind, Mechanism, Part, SandboxUnavailable, Tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Isolation", "SandboxUnavailable", "Tree", "enter", "plan_isolation", "written"]

ROOMY_BYTES = 256 << 20
"""Free space below which a place (a container's /dev/shm, say) is the last that writes should go to."""

MANY_FILES = 2_000
"""A trial that writes more than this is quicker in memory."""
MEMORY = Path("/dev/shm")  # noqa: S108
MOST_FILES, MOST_BYTES = 1_000_000, 1 << 30
"""What is counted at most."""
MEMORY_SHARE = 50
"""Of the room in memory, one trial's writes may take this part."""

LIBRARY = Path(__file__).resolve().parents[2]


Mounts = tuple[Path, ...]
"""Mount points inside the tree."""

Lowers = dict[Path, tuple[Path, ...]]
"""By the place of a part of the tree: the layers that a trial finds there, or the original of a copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """How this audit keeps its trials' writes from the tree, and the directory that is its own."""

    kind: Kind
    scratch: Path
    """The audit's own directory, outside the tree: trials' directories may be made here too."""
    reason: str
    """Why it is no overlay, and what is not covered: a sentence for the report, or nothing."""
    root: Path
    cwd: Path
    mechanism: Mechanism | None = None
    lowers: Lowers = field(default_factory=dict)
    """What a trial finds that goes on from no other."""
    mounts: Mounts = ()
    """Mount points inside the tree, where writes are shared."""
    trees: dict[str, Tree] = field(default_factory=dict)
    """By the id of their trial, those that are not discarded."""
    lock: int = -1
    """File descriptor that tells other audits that this one lives."""
    memory: list[tuple[Path, int]] = field(default_factory=list)
    """A scratch directory in memory, with its lock, where trees are made from now on; at most one."""

    def tree(self, trial_id: str, after: str | None = None) -> Tree:
        """A tree for the trial of that id, as the user has it or as the trial `after` left it."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", trial_id, re.ASCII):
            msg = f"{trial_id!r} is no name for a directory"
            raise ValueError(msg)
        earlier = self.trees[after].parts if after is not None else ()
        tree = Tree(kind=self.kind, root=self.root, cwd=self.cwd, mechanism=self.mechanism)
        if self.kind != "shared":
            scratch = self.memory[0][0] if self.memory else self.scratch
            base = scratch / "trees" / trial_id
            (base / overlay.MERGED).mkdir(parents=True)
            lowers = dict(self.lowers)
            for part in earlier:
                below = part.lowers if self.kind == "overlay" else ()
                lowers[part.place] = (part.upper, *below)
            tree = dataclasses.replace(tree, parts=_parts(base, lowers))
            for number, part in enumerate(tree.parts):
                like = earlier[number].upper if earlier else self.root / part.place
                _prepare(part, like, self)
        self.trees[trial_id] = tree
        return tree

    def move_to_memory(self, tree: Tree) -> bool:
        """Make further trees in memory, where the trial of this one wrote many small files.

        To write and delete them takes a disk minutes over all trials. The trees of one audit must be all alike, so the
        trial is to be made again: a directory lists its files in another order there.
        """
        if (
            self.kind != "overlay"
            or self.memory
            or not tree.parts
            or MEMORY not in _places(self.root, self.mounts, None)
        ):
            return False
        size = measure(tree.base, most_files=MOST_FILES, most_bytes=MOST_BYTES)
        free = shutil.disk_usage(MEMORY).free
        if size.files < MANY_FILES or size.bytes * MEMORY_SHARE > free:
            return False
        if self.scratch.parent == MEMORY:
            return False
        scratch, lock = make_scratch(MEMORY)
        mechanism, _ = _probe(self.root, scratch, self.lowers)
        self.memory.append((scratch, lock))
        if mechanism != self.mechanism:
            self._leave_memory()
        return bool(self.memory)

    def _leave_memory(self) -> None:
        while self.memory:
            scratch, lock = self.memory.pop()
            delete_scratch(scratch)
            os.close(lock)

    def discard(self, tree: Tree) -> None:
        """Delete what the trial wrote. No trial can go on from it any more."""
        if tree.parts:
            delete(tree.base)
        for trial_id, known in list(self.trees.items()):
            if known is tree:
                del self.trees[trial_id]

    def cleanup(self) -> None:
        """Delete the scratch directories, with everything that trials left there; once is enough."""
        self._leave_memory()
        if not self.scratch.exists():
            return
        self.trees.clear()
        delete_scratch(self.scratch)
        if self.lock >= 0:
            os.close(self.lock)


def enter(tree: Tree, also: Mapping[Path, Path] | None = None) -> None:
    """Give this process, and all that it starts, the tree of its trial, and the working directory in it.

    In a tree that is a copy, only the working directory and what is reached from it are the copy's: map absolute
    paths with `tree.map`. Python caches no bytecode from now on, neither in the user's tree nor in the trial's.

    Args:
        tree: of the trial.
        also: directories, outside the tree, in whose places others shall be found, where an overlay is mounted.

    Raises:
        SandboxUnavailable: the overlay can not be had here; the process must end.
    """
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    if tree.kind == "overlay":
        overlay.enter(tree, also or {})
    else:
        os.chdir(tree.map(tree.cwd))


def plan_isolation(
    root: Path, scratch_parents: Sequence[Path] | None = None, *, name: str = ""
) -> Isolation:
    """Find out how writes can be kept from the tree below `root`, and make the audit's scratch directory.

    Args:
        root: the user's tree.
        scratch_parents: where the scratch directory may be made; the usual places if not given.
        name: how to call it, so that trials of several audits find their files by the same paths.
    """
    root = Path(os.path.realpath(root))
    mounts = _mounts(root)
    parents = _places(root, mounts, scratch_parents)
    for parent in parents:
        sweep(parent)
    roomy = [parent for parent in parents if shutil.disk_usage(parent).free >= ROOMY_BYTES]
    cramped = [parent for parent in parents if parent not in roomy]

    isolation, no_overlay = _plan_overlay(root, mounts, roomy, name)
    if isolation is not None:
        return isolation
    isolation, no_copy = _plan_copy(root, mounts, roomy, no_overlay, name)
    if isolation is not None:
        return isolation
    if cramped:
        isolation, no_overlay = _plan_overlay(root, mounts, cramped, name)
    return isolation or _plan_shared(root, parents, f"{no_overlay}, and {no_copy}")


def plan_copies(root: Path, place: Path) -> Isolation:
    """Give each trial a copy of the tree in a directory that several machines share, where none can mount an overlay.

    Args:
        root: the user's tree.
        place: where the scratch directory is made.

    Raises:
        UsageError: there is no such directory, it lies in the tree, or the tree is too large for a copy a trial.
    """
    root = Path(os.path.realpath(root))
    shared = Path(os.path.realpath(place))
    where = f"--trace-dir {place}"
    if not shared.is_dir() or not os.access(shared, os.W_OK | os.X_OK):
        raise UsageError(
            "There is no directory of that name in which files can be made.",
            where=where,
            next_step="make it, on a file system that all nodes share",
        )
    if _is_below(shared, root):
        raise UsageError(
            "The directory lies in the tree that is copied there for each trial.",
            where=where,
            next_step=f"name one that is not below {root}",
        )
    sweep(shared)
    mounts = _mounts(root)
    isolation, why = _plan_copy(root, mounts, [shared], "several machines share it", "")
    if isolation is None:
        raise UsageError(
            f"Trials can not have the tree there: {why}.",
            where=where,
            next_step="start the audit in a directory that holds the program alone, and have its data elsewhere",
        )
    return isolation


def sweep_all(root: Path) -> None:
    """Delete what audits that were killed left wherever `plan_isolation` may put something."""
    mounts = _mounts(root)
    for parent in _places(root, mounts, None):
        sweep(parent)


def elsewhere(root: Path, kind: Kind, reason: str) -> Isolation:
    """What stands here for an isolation on other machines: a scratch directory, and trees without any parts."""
    scratch, lock = make_scratch(Path(_default_place()))
    return Isolation(
        kind=kind, scratch=scratch, reason=reason, root=root, cwd=Path.cwd(), lock=lock
    )


def _plan_overlay(
    root: Path, mounts: Mounts, parents: list[Path], name: str
) -> tuple[Isolation | None, str]:
    """An overlay with its upper layers in the first of `parents` that can hold them, or why there is none."""
    if sys.platform != "linux":
        return None, "copy-on-write mounts of a directory need Linux"
    why = "there is no place for what trials write"
    for parent in parents:
        scratch, lock = make_scratch(parent, name)
        lowers: Lowers = {Path(): (root,)}
        notes = []
        mechanism, why = _probe(root, scratch, lowers)
        if mechanism is None and mounts:
            mechanism, lowers = _probe_around(root, mounts, scratch)
            kept = [str(place) for place in lowers if place != Path()]
            if kept:
                notes.append(
                    f"directories that a trial can not remove or rename: {', '.join(kept)}"
                )
        if mechanism is None:
            delete_scratch(scratch)
            os.close(lock)
            continue
        if mechanism.user_namespace and not _adopt_all(root, mounts, scratch, lowers):
            notes.append("files of other owners or groups may refuse to be changed")
        isolation = Isolation(
            kind="overlay",
            scratch=scratch,
            reason="; ".join((*notes, *_not_covered(root, mounts))),
            root=root,
            cwd=Path.cwd(),
            mechanism=mechanism,
            lowers=lowers,
            mounts=mounts,
            lock=lock,
        )
        return isolation, ""
    return None, f"no overlay can be mounted here ({why})"


def _not_covered(root: Path, mounts: Mounts) -> tuple[str, ...]:
    """What the report says of mounts inside the tree."""
    names = ", ".join(str(path.relative_to(root)) for path in mounts)
    return (f"not covered, as mounts of their own: {names}",) if names else ()


def _plan_copy(
    root: Path, mounts: Mounts, parents: list[Path], why_not: str, name: str
) -> tuple[Isolation | None, str]:
    """Copies of a small tree, or why not."""
    size = measure(root, mounts)
    if not size.is_small:
        return None, "the tree is too large to copy it for each trial"
    for parent in parents:
        if _is_below(parent, root) or shutil.disk_usage(parent).free < 8 * size.bytes + ROOMY_BYTES:
            continue
        scratch, lock = make_scratch(parent, name)
        reasons = (
            f"each trial has a copy of the tree, because {why_not}",
            "absolute paths into the tree are not covered",
            *_not_covered(root, mounts),
        )
        isolation = Isolation(
            kind="copy",
            scratch=scratch,
            reason="; ".join(reasons),
            root=root,
            cwd=Path.cwd(),
            lowers={Path(): (root,)},
            mounts=mounts,
            lock=lock,
        )
        return isolation, ""
    return None, "there is no room for copies of the tree"


def _plan_shared(root: Path, parents: list[Path], why_not: str) -> Isolation:
    """The tree itself, openly."""
    for parent in (*parents, Path(_default_place())):
        with suppress(OSError):
            scratch, lock = make_scratch(parent)
            reason = f"trials write to the tree itself: {why_not}"
            return Isolation(
                kind="shared", scratch=scratch, reason=reason, root=root, cwd=Path.cwd(), lock=lock
            )
    msg = "there is no directory for temporary files that can be written to"
    raise UsageError(msg, next_step="set TMPDIR")


def _probe(root: Path, scratch: Path, lowers: Lowers) -> tuple[Mechanism | None, str]:
    """The first way to mount overlays on `root` that works with upper layers in `scratch`, or why none does."""
    trees = []
    for number, mechanism in enumerate(overlay.mechanisms()):
        base = scratch / f"probe-{number}-{scratch.name}"
        inner = base / "lower" / base.name / "inner"
        inner.mkdir(parents=True)
        (inner / "old").touch()
        (base / overlay.MERGED).mkdir()
        layers = {**lowers, Path(): (base / "lower", *lowers[Path()])}
        tree = Tree(
            kind="overlay", root=root, cwd=root, parts=_parts(base, layers), mechanism=mechanism
        )
        for part in tree.parts:
            part.upper.mkdir()
            part.work.mkdir()
        trees.append(tree)
    works, why = overlay.probe(trees, LIBRARY)
    if works is not None:
        base = trees[works].base
        new = trees[works].parts[0].upper / base.name / "inner" / "new"
        if not new.exists() or (root / base.name).exists():
            works, why = None, "what was written there went elsewhere"
    for tree in trees:
        delete(tree.base)
    return (trees[works].mechanism if works is not None else None), why


def _probe_around(root: Path, mounts: Mounts, scratch: Path) -> tuple[Mechanism | None, Lowers]:
    """What `_probe` finds for a tree that is put together around its mounts, and its layers."""
    empty, around = scratch / "empty", scratch / "around"
    empty.mkdir()
    around.mkdir()
    if _probe(empty, scratch, {Path(): (empty,)})[0] is None:
        return None, {}
    large = build_around(root, mounts, around)
    if large is None:
        return None, {}
    lowers: Lowers = {Path(): (around,)}
    lowers.update((path.relative_to(root), (path,)) for path in large)
    return _probe(root, scratch, lowers)[0], lowers


def _adopt_all(root: Path, mounts: Mounts, scratch: Path, lowers: Lowers) -> bool:
    """Put a layer with what the overlay could not take up from the tree over each part in `lowers` that needs it."""
    complete = True
    for number, (place, layers) in enumerate(list(lowers.items())):
        if layers == (root / place,):
            adopted = scratch / f"adopted-{number}"
            adopted.mkdir()
            complete &= adopt(root / place, mounts, adopted)
            if any(adopted.iterdir()):
                lowers[place] = (adopted, *layers)
    return complete


def _parts(base: Path, lowers: Lowers) -> tuple[Part, ...]:
    """Parts of a tree whose own directories are in `base`."""
    return tuple(
        Part(
            place=place, upper=base / f"upper-{number}", work=base / f"work-{number}", lowers=layers
        )
        for number, (place, layers) in enumerate(lowers.items())
    )


def _prepare(part: Part, like: Path, isolation: Isolation) -> None:
    """Make the copy, or the overlay's directories, that `part` speaks of; its root takes after `like`."""
    if isolation.mechanism is None:
        copy_tree(part.lowers[0], part.upper, isolation.mounts)
        return
    part.upper.mkdir()
    part.work.mkdir()
    # A user namespace knows no other owner than its user.
    take_after(like, part.upper, owner=not isolation.mechanism.user_namespace)


def _places(root: Path, mounts: Mounts, given: Sequence[Path] | None) -> list[Path]:
    """Directories that can hold the scratch directory: outside the tree, or in a mount that is not covered."""
    usual = (_default_place(), "/dev/shm", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR", ""))  # noqa: S108
    candidates = given if given is not None else [Path(place) for place in usual if place]
    outside, inside = [], []
    for candidate in dict.fromkeys(Path(os.path.realpath(each)) for each in candidates):
        if not candidate.is_dir() or not os.access(candidate, os.W_OK | os.X_OK):
            continue
        if not _is_below(candidate, root):
            outside.append(candidate)
        elif any(_is_below(candidate, mount) for mount in mounts):
            inside.append(candidate)
    return outside + inside


def _default_place() -> str:
    """Where Python puts temporary files; it writes one, to find out."""
    try:
        return tempfile.gettempdir()
    except OSError as error:
        raise UsageError(
            "there is no directory in which a file can be written",
            where="TMPDIR, /tmp, /var/tmp, and the working directory",
            why="they do not exist, are full, or a limit forbids it (ulimit -f)",
            next_step="set TMPDIR to a directory with room, or raise the limit",
        ) from error


def _mounts(root: Path) -> Mounts:
    """The mount points inside a tree, as far as the system tells them."""
    return overlay.submounts(root) if sys.platform == "linux" else ()


def _is_below(path: Path, root: Path) -> bool:
    """Whether `path` is `root` or below it."""
    return path == root or path.is_relative_to(root)
