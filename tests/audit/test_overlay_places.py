"""Trees in odd places: around mounts, above everything, behind links, on other file systems, of any name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit.isolation import copying, overlay, sandbox
from repro_audit.isolation.sandbox import Tree, written
from repro_audit.storage.border import dumps, loads
from tests.trees import (
    LIBC,
    Ground,
    linux,
    names,
    new_ground,
    plan,
    plant,
    put,
    root_only,
    run,
    snapshot,
    trial,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = linux


@pytest.fixture(params=["self", pytest.param("nobody", marks=root_only)])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    with new_ground(request.param) as ground:
        yield ground


@root_only
@pytest.mark.parametrize("limit", [copying.FILES_LIMIT, 3])
def test_mounts_below_the_tree_are_shared_and_said_to_be(
    limit: int, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a user namespace the tree is put together around them: by copies, or overlays of what is large."""
    monkeypatch.setattr(copying, "FILES_LIMIT", limit)
    mounted = ground.root / "empty" / "mount"
    beside = ground.root / "empty" / "mount-2"  # sorts before what is in "mount"
    for path in (mounted, beside):
        path.mkdir()
        path.chmod(0o777)
    before = snapshot(ground.root)

    def with_mounts() -> list[Any]:
        assert LIBC.unshare(overlay.CLONE_NEWNS) == 0
        overlay._mount("none", Path("/"), flags=overlay.MS_REC | overlay.MS_SLAVE)
        for path in (mounted, beside, mounted / "nested dir"):
            path.mkdir(exist_ok=True)
            overlay._mount("tmpfs", path, kind="tmpfs")
            path.chmod(0o777)
        reason = run(plan_and_write, ground.user)
        shared = sorted(str(path.relative_to(mounted)) for path in mounted.rglob("*.txt"))
        for path in (mounted, beside):
            LIBC.umount2(os.fsencode(path), overlay.MNT_DETACH)
        return [reason, shared, snapshot(ground.root).keys() == before.keys()]

    def plan_and_write() -> str:
        os.chdir(ground.root)
        isolation = plan(ground.root, [ground.place])
        trial(isolation.tree("t0"), write)
        changed = ("data.txt", "empty/own.txt", "package/inner/own.txt", "package/module.py")
        assert written(isolation.trees["t0"]) == changed
        trial(isolation.tree("t1", after="t0"), write_again)
        assert written(isolation.trees["t1"]) == ("package/inner/own.txt",)
        isolation.cleanup()
        return isolation.reason

    def write() -> None:
        assert names() == ["data.txt", "empty", "link.txt", "package"]
        put("empty/mount/shared.txt")
        put("empty/mount/nested dir/shared.txt")
        put("empty/own.txt")
        put("link.txt", mode="a")
        put("package/inner/own.txt")
        Path("package/module.py").unlink()

    def write_again() -> None:
        assert Path("data.txt").read_text() == "datanew"
        assert names("package") == ["inner"]
        put("package/inner/own.txt", mode="a")

    reason, shared, same_names = run(with_mounts)
    assert reason.endswith("not covered, as mounts of their own: empty/mount, empty/mount-2")
    is_in_parts = limit == 3 and ground.user is not None
    assert ("can not remove or rename: package" in reason) == is_in_parts
    assert shared == ["nested dir/shared.txt", "shared.txt"]
    assert same_names
    assert snapshot(ground.root) == before


def test_the_whole_file_system_can_be_the_tree(ground: Ground) -> None:
    file = ground.root / "new.txt"

    def plan_and_write() -> list[Any]:
        isolation = plan(Path("/"))
        try:
            if isolation.kind != "overlay":
                return [isolation.reason]
            tree = isolation.tree("t0")
            return [isolation.reason, trial(tree, write), str(Path.cwd()), *written(tree)]
        finally:
            isolation.cleanup()

    def write() -> str:
        put(file)
        put("/dev/null")
        assert Path("/proc/self/stat").read_bytes()
        return str(Path.cwd())

    before = snapshot(ground.root)
    reason, *rest = run(plan_and_write, ground.user)
    assert snapshot(ground.root) == before
    if not rest:
        pytest.skip(reason)
    inside, outside, changed = rest
    assert inside == outside
    assert changed == str(file.relative_to("/"))
    assert "mounts of their own: dev" in reason


def test_a_tree_by_a_symbolic_link(ground: Ground) -> None:
    link = ground.place / "link"
    link.symlink_to(ground.root)
    before = snapshot(ground.root)
    tree = ground.tree(ground.isolation(link), "t0")
    ground.trial(tree, lambda: put(link / "new.txt"))
    assert written(tree) == ("new.txt",)
    assert snapshot(ground.root) == before


@pytest.mark.parametrize("place", ["/dev/shm", "/var/tmp"])  # noqa: S108 - other file systems
def test_a_tree_on_another_file_system_than_the_scratch_directory(
    place: str, tmp_path: Path
) -> None:
    if not os.access(place, os.W_OK):
        pytest.skip(f"no {place}")
    root = Path(place, f"test-overlay-{os.getpid()}")
    try:
        plant(root)
        before = snapshot(root)
        tree = Ground(tmp_path, root).isolation().tree("t0")
        trial(tree, lambda: put("data.txt"))
        assert written(tree) == ("data.txt",)
        assert snapshot(root) == before
    finally:
        copying.delete(root)


@pytest.mark.parametrize(
    "name", ["a:b", "a,b=c", "back\\slash", "new\nline", "spa ce", "é", "x" * 200]
)
def test_a_tree_of_any_name(name: str, tmp_path: Path) -> None:
    root = tmp_path / name / name
    plant(root)
    tree = Ground(tmp_path, root).isolation().tree("t0")
    trial(loads(Tree, dumps(tree)), lambda: put("new.txt"))
    assert written(tree) == ("new.txt",)
    assert not (root / "new.txt").exists()


def write_many(number: int) -> None:
    for index in range(number):
        Path(f"many-{index}").touch()


@pytest.mark.skipif(not sandbox.MEMORY.is_dir(), reason="no file system in memory")
@pytest.mark.parametrize("many", [False, True])
def test_where_a_trial_wrote_many_files_further_ones_write_to_memory(
    many: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "MANY_FILES", 20)
    root = tmp_path / "tree"
    plant(root)
    before = snapshot(root)
    isolation = Ground(tmp_path, root).isolation()
    trial(isolation.tree("t0"), lambda: write_many(30 if many else 3))
    assert isolation.move_to_memory(isolation.trees["t0"]) is many
    tree = isolation.tree("t1")
    assert tree.base.is_relative_to(sandbox.MEMORY) is many
    trial(tree, lambda: write_many(3))
    assert written(tree) == ("many-0", "many-1", "many-2")
    isolation.cleanup()
    assert not tree.base.exists()
    assert snapshot(root) == before
