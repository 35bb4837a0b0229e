"""Copies of trees take a trial's writes, and everything that a trial leaves can be deleted."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path

import pytest

from repro_audit.isolation import copying
from repro_audit.isolation.copying import measure
from repro_audit.isolation.sandbox import written
from tests.trees import (
    WRITES,
    names,
    new_ground,
    plant,
    put,
    run,
    snapshot,
    trial,
    users,
    without_overlay,
)


@pytest.mark.parametrize("name", sorted(WRITES.keys() - {"utime", "bar"}))
def test_a_copy_takes_a_trials_writes(name: str, tmp_path: Path) -> None:
    isolation = without_overlay(tmp_path)
    before = snapshot(isolation.root)
    write, expected = WRITES[name]
    tree = isolation.tree("t0")
    trial(tree, lambda: write() and None)
    assert set(written(tree)) == expected
    assert snapshot(isolation.root) == before
    isolation.cleanup()
    assert names(tmp_path) == ["tree"]


def test_a_copy_is_like_its_original(tmp_path: Path) -> None:
    isolation = without_overlay(tmp_path)
    (isolation.root / "package").chmod(0o555)
    os.mkfifo(isolation.root / "pipe")
    tree = isolation.tree("t0")
    original = snapshot(isolation.root)
    del original["pipe"]
    copy = snapshot(tree.map(isolation.root))
    assert copy.keys() == original.keys()
    for path in copy:
        content, mode, *_ = original[path]
        assert copy[path][:2] == (content, mode)
        if not (isolation.root / path).is_symlink():
            assert copy[path][5] == original[path][5]
    assert written(tree) == ("pipe",)


def test_links_in_a_copy_lead_into_it_or_where_they_led(tmp_path: Path) -> None:
    isolation = without_overlay(tmp_path)
    outside = tmp_path / "outside.txt"
    outside.touch()
    (isolation.root / "absolute").symlink_to(isolation.root / "data.txt")
    (isolation.root / "package" / "climbing").symlink_to("../../outside.txt")
    (isolation.root / "package" / "sideways").symlink_to("../data.txt")
    for tree in (isolation.tree("t0"), isolation.tree("t1", after="t0")):
        copy = tree.map(isolation.root)
        assert (copy / "absolute").resolve() == copy / "data.txt"
        assert (copy / "package/climbing").resolve() == outside
        assert (copy / "package/sideways").resolve() == copy / "data.txt"
        assert written(tree) == ()


def test_a_copy_goes_on_from_an_earlier_one(tmp_path: Path) -> None:
    isolation = without_overlay(tmp_path)
    trial(isolation.tree("t0"), lambda: put("new.txt"))
    trial(isolation.tree("t1", after="t0"), lambda: put("new.txt", mode="a"))
    assert written(isolation.trees["t0"]) == written(isolation.trees["t1"]) == ("new.txt",)


def test_mounts_below_a_copied_tree_are_linked(tmp_path: Path) -> None:
    isolation = without_overlay(tmp_path)
    mounted = isolation.root / "package"
    isolation = dataclasses.replace(isolation, mounts=(mounted,))
    tree = isolation.tree("t0")
    trial(tree, lambda: put("package/shared.txt"))
    assert (mounted / "shared.txt").exists()
    assert written(tree) == ()
    assert written(isolation.tree("t1", after="t0")) == ()


def test_what_is_in_a_tree_is_counted_but_not_its_mounts(tmp_path: Path) -> None:
    plant(tmp_path / "tree")
    everything = measure(tmp_path / "tree")
    assert (everything.files, everything.bytes) == (7, len("datadeepANSWER = 42\n"))
    assert everything.is_small
    assert measure(tmp_path / "tree", [tmp_path / "tree" / "package"]).files == 4


@pytest.mark.parametrize(("limit", "value"), [("FILES_LIMIT", 3), ("BYTES_LIMIT", 3)])
def test_counting_ends_where_it_is_too_much(
    limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "tree")
    monkeypatch.setattr(copying, limit, value)
    size = measure(tmp_path / "tree")
    assert not size.is_small
    assert size.files < 7


# Deletion


def test_deleting_does_not_follow_links(tmp_path: Path) -> None:
    isolation = without_overlay(tmp_path)
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
    assert names(isolation.scratch / "trees") == []
    isolation.cleanup()
    assert snapshot(outside) == before
    assert not isolation.scratch.exists()


@users
def test_deleting_gets_past_barriers_and_depths(who: str) -> None:
    def make_and_delete() -> bool:
        scratch = ground.root / "scratch"
        barred = scratch / "a" / "b"
        barred.mkdir(parents=True)
        put(barred / "file")
        barred.chmod(0)
        barred.parent.chmod(0)
        os.chdir(scratch)
        for _ in range(1500):  # deeper than recursion goes, and a longer path than PATH_MAX
            Path("deep").mkdir()
            os.chdir("deep")
        os.chdir("/")
        scratch.chmod(0)
        copying.delete(scratch)
        copying.delete(scratch)  # gone already
        return scratch.exists()

    with new_ground(who) as ground:
        assert run(make_and_delete, ground.user) is False


@pytest.mark.parametrize("stubborn", [False, True])
def test_deleting_is_patient_with_a_last_write(
    stubborn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "tree")
    empty = copying._empty
    late = itertools.repeat("late") if stubborn else iter(["late"])

    def empty_and_write(directory: int, base: int) -> list[str]:
        moved = empty(directory, base)
        if directory != base and (name := next(late, None)):
            os.close(os.open(name, os.O_CREAT, dir_fd=directory))
        return moved

    monkeypatch.setattr(copying, "_empty", empty_and_write)
    if stubborn:
        with pytest.raises(OSError, match="not empty"):
            copying.delete(tmp_path / "tree")
    else:
        copying.delete(tmp_path / "tree")
        assert names(tmp_path) == []
