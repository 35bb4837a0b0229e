"""How the means to keep writes from the user's tree are chosen, and what an isolation promises whatever they are."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit.errors import UsageError
from repro_audit.isolation import copying, overlay, sandbox
from repro_audit.isolation.sandbox import Tree, plan_isolation, written
from repro_audit.storage.border import dumps, loads
from tests.trees import (
    ChildError,
    Ground,
    linux,
    names,
    plant,
    put,
    run,
    snapshot,
    trial,
    without_overlay,
)

if TYPE_CHECKING:
    from repro_audit.isolation.tree import Kind


def no_overlay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "probe", lambda *_: (None, "no such luck"))


def test_a_tree_here_is_kept_by_an_overlay_or_the_reason_is_said(tmp_path: Path) -> None:
    plant(tmp_path / "tree")
    isolation = plan_isolation(tmp_path / "tree", [tmp_path])
    if isolation.kind == "overlay":
        assert isolation.reason == ""
    else:
        assert "no overlay can be mounted here (" in isolation.reason
    assert isolation.scratch.parent == tmp_path
    assert isolation.scratch.name.startswith("repro-audit-")
    isolation.cleanup()
    isolation.cleanup()
    assert names(tmp_path) == ["tree"]


def test_a_small_tree_is_copied_where_no_overlay_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "tree")
    no_overlay(monkeypatch)
    isolation = plan_isolation(tmp_path / "tree", [tmp_path])
    assert isolation.kind == "copy"
    assert "absolute paths into the tree are not covered" in isolation.reason
    if sys.platform == "linux":
        assert "no such luck" in isolation.reason
    isolation.cleanup()


@pytest.mark.parametrize(("limit", "value"), [("FILES_LIMIT", 3), ("BYTES_LIMIT", 3)])
def test_a_large_tree_is_shared_where_no_overlay_can_be(
    limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "tree")
    no_overlay(monkeypatch)
    monkeypatch.setattr(copying, limit, value)
    isolation = plan_isolation(tmp_path / "tree", [tmp_path])
    assert isolation.kind == "shared"
    assert "trials write to the tree itself" in isolation.reason
    assert "too large" in isolation.reason
    isolation.cleanup()


def test_on_macos_a_tree_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path / "tree")
    monkeypatch.setattr(sys, "platform", "darwin")
    isolation = plan_isolation(tmp_path / "tree", [tmp_path])
    assert isolation.kind == "copy"
    assert "need Linux" in isolation.reason
    isolation.cleanup()


def test_the_scratch_directory_is_not_in_the_tree(tmp_path: Path) -> None:
    """As when an audit is started in /tmp."""
    root, other = tmp_path / "tree", tmp_path / "other"
    plant(root)
    other.mkdir()
    isolation = plan_isolation(root, [root, root / "package", tmp_path / "missing", other])
    assert isolation.scratch.parent == other
    isolation.cleanup()


def test_without_any_place_nothing_can_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="temporary files"):
        plan_isolation(tmp_path, [tmp_path])


@pytest.mark.parametrize("overlays", [True, False])
def test_a_cramped_place_is_taken_last(
    overlays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tree", "cramped", "roomy"):
        (tmp_path / name).mkdir()
    usage = shutil.disk_usage(tmp_path)

    def disk_usage(place: Path) -> Any:
        return usage._replace(free=1 << 20 if place.name == "cramped" else 1 << 40)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    if not overlays:
        no_overlay(monkeypatch)
    isolation = plan_isolation(tmp_path / "tree", [tmp_path / "cramped", tmp_path / "roomy"])
    assert isolation.scratch.parent.name == "roomy"
    isolation.cleanup()
    if overlays and isolation.kind == "overlay":
        isolation = plan_isolation(tmp_path / "tree", [tmp_path / "cramped"])
        assert isolation.kind == "overlay"
        isolation.cleanup()


@linux
def test_a_place_that_can_not_hold_an_overlay_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tree", "bad", "good"):
        (tmp_path / name).mkdir()

    def probe(trees: list[Tree], library: Path) -> tuple[int | None, str]:
        return (None, "bad") if trees[0].base.parts[-3] == "bad" else real(trees, library)

    real = overlay.probe
    monkeypatch.setattr(overlay, "probe", probe)
    isolation = plan_isolation(tmp_path / "tree", [tmp_path / "bad", tmp_path / "good"])
    assert isolation.scratch.parent.name == ("good" if isolation.kind == "overlay" else "bad")
    isolation.cleanup()
    assert names(tmp_path / "bad") == []


@linux
def test_an_overlay_that_does_not_work_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan believes what it finds on disk, not what it is told."""
    plant(tmp_path / "tree")
    monkeypatch.setattr(overlay, "probe", lambda *_: (0, ""))
    isolation = plan_isolation(tmp_path / "tree", [tmp_path])
    assert isolation.kind == "copy"
    isolation.cleanup()


@linux
@pytest.mark.parametrize("executable", ["/bin/false", "/missing"])
def test_a_probe_that_can_not_run_is_no_overlay(
    executable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    works, why = overlay.probe([], tmp_path)
    assert works is None
    assert executable in why


# Whatever the means


def test_a_trial_has_one_tree_and_a_plain_name(tmp_path: Path) -> None:
    isolation = without_overlay(tmp_path)
    isolation.tree("t0")
    with pytest.raises(FileExistsError):
        isolation.tree("t0")
    with pytest.raises(ValueError, match=r"'\.\./t0'"):
        isolation.tree("../t0")
    with pytest.raises(KeyError):
        isolation.tree("t1", after="t9")


def test_what_is_discarded_can_be_made_again(tmp_path: Path) -> None:
    isolation = without_overlay(tmp_path)
    isolation.discard(isolation.tree("t0"))
    with pytest.raises(KeyError):
        isolation.tree("t1", after="t0")
    assert written(isolation.tree("t0")) == ()


@pytest.mark.parametrize("kind", ["copy", "shared"])
def test_a_tree_survives_json(kind: Kind, tmp_path: Path) -> None:
    tree = without_overlay(tmp_path, kind).tree("t0")
    assert loads(Tree, dumps(tree)) == tree


def test_paths_into_a_copied_tree_are_mapped(tmp_path: Path) -> None:
    isolation = without_overlay(tmp_path)
    tree = isolation.tree("t0")
    copy = tree.parts[0].upper
    link = tmp_path / "link"
    link.symlink_to(isolation.root)
    assert tree.map(isolation.root / "data.txt") == copy / "data.txt"
    assert tree.map(link / "data.txt") == copy / "data.txt"
    assert tree.map(Path("package")) == copy / "package"
    assert tree.map(tmp_path / "x") == tmp_path / "x"
    shared = without_overlay(tmp_path / "other", "shared")
    assert shared.tree("t0").map(shared.root) == shared.root


def test_a_shared_tree_is_the_tree(tmp_path: Path) -> None:
    isolation = without_overlay(tmp_path, "shared")
    tree = isolation.tree("t0")
    trial(tree, lambda: put("new.txt"))
    assert written(tree) == ()
    isolation.discard(tree)
    isolation.cleanup()
    assert (isolation.root / "new.txt").read_text() == "new"


@pytest.mark.parametrize("kind", ["overlay", "copy", "shared"])
def test_imports_leave_no_bytecode(kind: Kind, tmp_path: Path) -> None:
    if kind == "overlay":
        plant(tmp_path / "tree")
        isolation = Ground(tmp_path, tmp_path / "tree").isolation()
    else:
        isolation = without_overlay(tmp_path, kind)
    tree = isolation.tree("t0")
    program = "from package.module import ANSWER; assert ANSWER == 42"

    def import_module() -> None:
        subprocess.run([sys.executable, "-c", program], check=True)
        sys.path.insert(0, str(tree.map(isolation.root)))
        exec(program, {})  # noqa: S102 - an import as the target's

    trial(tree, import_module)
    assert list(tmp_path.rglob("__pycache__")) == []
    assert written(tree) == ()


def test_the_same_import_outside_a_trial_leaves_some(tmp_path: Path) -> None:
    plant(tmp_path / "tree")
    program = [sys.executable, "-c", "import package.module"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run(program, check=True, cwd=tmp_path / "tree", env=environment)
    assert list(tmp_path.rglob("__pycache__")) != []


def test_what_a_killed_audit_left_is_swept(tmp_path: Path) -> None:
    root, place = tmp_path / "tree", tmp_path / "place"
    plant(root)
    (place / "repro-audit-unlocked").mkdir(parents=True)
    before = snapshot(root)
    alive = plan_isolation(root, [place])

    def die() -> None:
        trial(plan_isolation(root, [place]).tree("t0"), lambda: put(root / "new.txt"))
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ChildError, match="died"):
        run(die)
    assert len(names(place)) == 3
    isolation = plan_isolation(root, [place])
    left = {alive.scratch.name, isolation.scratch.name, "repro-audit-unlocked"}
    assert set(names(place)) == left
    if isolation.kind != "shared":
        assert snapshot(root) == before
    alive.cleanup()
    isolation.cleanup()


def test_the_parent_needs_neither_torch_nor_numpy() -> None:
    program = (
        "import sys; import repro_audit.isolation.sandbox, repro_audit.isolation.processes; "
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=sandbox.LIBRARY)
