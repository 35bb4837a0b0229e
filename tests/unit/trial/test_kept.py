"""Trials that are kept on disk: found again only where nothing has changed, and never where something is damaged."""

from __future__ import annotations

import dataclasses
import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro_audit.isolation.tree import Part, Tree
from repro_audit.probe import inputs
from repro_audit.storage.facts import Facts
from repro_audit.target import Target
from repro_audit.trial import kept as kept_module
from repro_audit.trial.kept import Kept
from repro_audit.trial.program import fingerprint
from repro_audit.trial.request import TrialRequest
from repro_audit.trial.runner import Ended, Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from repro_audit.experiment import RunStatus


class Audit:
    """An audit that makes trials, or takes those that are kept."""

    words = ("--data=../named", "--lr", "0.1")

    def __init__(
        self, tree: Path, cache: Path, name: str = "audit", *, goes_on: bool = True
    ) -> None:
        self.tree, self.scratch = tree, cache.parent / "scratch" / name
        shutil.rmtree(self.scratch, ignore_errors=True)
        look = partial(fingerprint, tree, self.words, {tree / "report.json"})
        self.kept = Kept(cache, "latest", look, goes_on=goes_on)
        self.number = 0

    def request(self, **words: object) -> TrialRequest:
        directory = self.scratch / f"t{self.number:02}"
        directory.mkdir(parents=True, exist_ok=True)
        self.number += 1
        upper = self.scratch.parent / f"upper-{self.scratch.name}-{directory.name}"
        upper.mkdir(exist_ok=True)
        part = Part(place=Path(), upper=upper, work=upper, lowers=(self.tree,))
        request = TrialRequest(
            directory=directory,
            target=Target(spec="train.py", mode="script"),
            tree=Tree(kind="overlay", root=self.tree, cwd=self.tree, parts=(part,)),
            seed=0,
            steps=8,
        )
        return dataclasses.replace(request, **words)  # type: ignore[arg-type]

    def trial(
        self,
        *,
        first: bool = False,
        reads: Path | None = None,
        status: RunStatus = "ok",
        facts: Facts | None = None,
        **words: object,
    ) -> bool:
        """Whether a trial was taken; it is made otherwise."""
        request = self.request(**words)
        key = self.kept.key(Job(request=request), first=first)
        taken = self.kept.take(key, request, first=first) if self.kept.goes_on else None
        if taken is not None:
            assert (request.directory / "trace" / "rows").read_text("utf-8") == "what it computed"
            return True
        (request.directory / "trace").mkdir()
        (request.directory / "trace" / "rows").write_text("what it computed", encoding="utf-8")
        if reads is not None:
            inputs.add(request.directory, str(reads))
        facts = facts or Facts(steps=8)
        for name in facts.written:
            (request.tree.parts[0].upper / name).write_text("written", encoding="utf-8")
        facts.save(request.directory / "facts.json")
        ended = Ended(status=status, seconds=3.0, output="hello", facts=facts, exit="exited")
        self.kept.put(key, request, ended, first=first)
        return False


@pytest.fixture
def again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Audit]:
    """Begins an audit of the program in a tree."""
    tree = tmp_path / "tree"
    (tree / ".git" / "objects").mkdir(parents=True)
    (tree / ".git" / "HEAD").write_text("ref: refs/heads/main", encoding="utf-8")
    (tree / "train.py").write_text("import torch", encoding="utf-8")
    (tree / "link").symlink_to("train.py")
    for name in ("named", "linked"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "data.bin").write_bytes(b"1234")
    (tree / "data").symlink_to(tmp_path / "linked")
    (tmp_path / "linked" / "back").symlink_to(tree)
    outside = tmp_path / "data.bin"
    outside.write_bytes(b"1234")
    monkeypatch.chdir(tree)
    monkeypatch.setattr(kept_module, "MARGIN_SECONDS", -60.0)  # what was just written is old

    def begin(**words: object) -> Audit:
        return Audit(tree, tmp_path / "cache", **words)  # type: ignore[arg-type]

    return begin


def test_an_unchanged_program_is_answered(again: Callable[..., Audit]) -> None:
    audit = again()
    outside = audit.tree.parent / "data.bin"
    assert not audit.trial(first=True, reads=outside)
    assert not audit.trial(setting={"clock": "later"})
    assert not audit.trial(setting={"clock": "later"}), "a repeat is a trial of its own"
    audit = again()
    assert audit.trial(first=True)
    assert [audit.trial(setting={"clock": "later"}) for _ in range(3)] == [True, True, False]
    assert audit.kept.taken == 3


def _write(name: str) -> Callable[[Path], object]:
    return lambda tree: (tree / name).write_text("import torch ", encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        _write("train.py"),
        _write("new.txt"),
        _write("../data.bin"),
        _write(".git/HEAD"),
        _write("../named/inner/data.bin"),
        _write("../named/inner/new.bin"),
        _write("data/inner/data.bin"),
        _write("data/inner/new.bin"),
        lambda tree: (tree / "train.py").unlink(),
        lambda tree: ((tree / "link").unlink(), (tree / "link").symlink_to("nowhere")),
        lambda _: os.environ.update(REPRO_AUDIT_TEST="1"),
        lambda _: os.environ.update(PYTHONPATH="/elsewhere"),
    ],
)
def test_a_changed_program_is_not(
    again: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    monkeypatch.setenv("REPRO_AUDIT_TEST", "0")
    monkeypatch.setenv("PYTHONPATH", "/here")
    audit = again()
    audit.trial(first=True, reads=audit.tree.parent / "data.bin")
    audit.trial(setting={"clock": "later"})
    change(audit.tree)
    audit = again()
    assert not audit.trial(first=True)
    assert not audit.trial(setting={"clock": "later"}), "it was made beside another first trial"


@pytest.mark.parametrize(
    "name", ["__pycache__/train.pyc", ".git/index", ".git/objects/ab", "report.json"]
)
def test_what_is_no_part_of_the_program_may_change(again: Callable[..., Audit], name: str) -> None:
    audit = again()
    audit.trial(first=True)
    (audit.tree / name).parent.mkdir(exist_ok=True)
    (audit.tree / name).write_text("other", encoding="utf-8")
    os.environ["SSH_CLIENT"] = "elsewhere"
    try:
        assert again().trial(first=True)
    finally:
        del os.environ["SSH_CLIENT"]


def test_a_directory_that_was_listed_must_list_the_same(again: Callable[..., Audit]) -> None:
    audit = again()
    listed = audit.tree.parent / "listed"
    listed.mkdir()
    audit.trial(first=True, reads=listed)
    assert again().trial(first=True)
    (listed / "new").touch()
    assert not again().trial(first=True)


def test_what_can_be_imported_must_be_the_same(
    again: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = again().tree.parent / "packages"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    again().trial(first=True)
    (place / ".coverage").touch()
    assert again().trial(first=True)
    (place / "apex-0.2.dist-info").mkdir()
    assert not again().trial(first=True)


def test_other_requests_and_places_are_other_trials(again: Callable[..., Audit]) -> None:
    audit = again()
    audit.trial(first=True)
    assert not again().trial(first=True, steps=9)
    assert not again().trial(first=True, seed=1)
    assert not again(name="another").trial(first=True), "TMPDIR is elsewhere"
    assert again().trial(first=True, instant=77), "it goes on with the day of the one before"


@pytest.mark.parametrize("status", ["timeout", "untested"])
def test_what_came_to_no_end_is_not_kept(again: Callable[..., Audit], status: RunStatus) -> None:
    again().trial(first=True, status=status)
    assert not again().trial(first=True)


def test_a_program_that_changes_while_it_is_audited_is_not_kept(
    again: Callable[..., Audit],
) -> None:
    audit = again()
    (audit.tree / "train.py").write_text("changed", encoding="utf-8")
    audit.trial(first=True)
    (audit.tree / "train.py").write_text("import torch", encoding="utf-8")
    assert not again().trial(first=True)


def test_an_input_that_changes_meanwhile_is_not_trusted(
    again: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_module, "MARGIN_SECONDS", 60.0)
    audit = again()
    audit.trial(first=True, reads=audit.tree.parent / "data.bin")
    assert not again().trial(first=True)
    audit = again()
    audit.trial(first=True, reads=audit.tree / "train.py")
    assert again().trial(first=True), "that is known by its content"


def test_what_the_first_trial_wrote_is_there_again(again: Callable[..., Audit]) -> None:
    facts = Facts(steps=8, written=("cache.pt",))
    again().trial(first=True, facts=facts)
    audit = again(name="audit")
    request = audit.request()
    (request.tree.parts[0].upper / "cache.pt").unlink()
    taken = audit.kept.take(audit.kept.key(Job(request=request), first=True), request, first=True)
    assert taken is not None
    assert taken[0].facts == facts
    assert (taken[0].status, taken[0].output, taken[1]) == ("ok", "hello", request.instant)
    assert (request.tree.parts[0].upper / "cache.pt").read_text("utf-8") == "written"


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "delete"])
def test_a_damaged_entry_is_as_if_it_were_not_there(again: Callable[..., Audit], how: str) -> None:
    again().trial(first=True)
    cache = again().tree.parent / "cache"
    paths = sorted(path for path in cache.glob("*/**/*") if path.is_file())
    assert {path.name for path in paths} == {"entry.json", "facts.json", "rows"}
    for path in paths:
        content = path.read_bytes()
        middle = len(content) // 2
        damaged = {
            "flip": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "cut": content[:middle],
            "empty": b"",
        }
        if how == "delete":
            path.unlink()
        else:
            path.write_bytes(damaged[how])
        assert not again().trial(first=True), path
        assert again().trial(first=True), "it was made anew"


def test_the_room_is_bounded(again: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch) -> None:
    audit = again()
    audit.trial(first=True)
    cache = audit.tree.parent / "cache"
    (entry,) = (place for place in cache.iterdir() if place.is_dir())
    one = sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())
    monkeypatch.setattr(kept_module, "MOST_BYTES", 7 * one // 2)
    for number in range(6):
        audit.trial(setting={"clock": str(number)})
    assert len([place for place in cache.iterdir() if place.is_dir()]) == 3


@pytest.mark.parametrize(("margin", "kept"), [(60.0, False), (-60.0, True)])
def test_without_going_on_a_program_is_kept_that_was_at_rest_before(
    again: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch, margin: float, *, kept: bool
) -> None:
    monkeypatch.setattr(kept_module, "MARGIN_SECONDS", margin)
    assert not again(goes_on=False).trial(first=True)
    assert not again(goes_on=False).trial(first=True), "nothing is taken without being asked for"
    monkeypatch.setattr(kept_module, "MARGIN_SECONDS", -60.0)
    assert again().trial(first=True) is kept


def test_what_has_changed_is_named(again: Callable[..., Audit]) -> None:
    audit = again()
    assert audit.kept.changed_before == []
    audit.trial(first=True)
    (audit.tree / "train.py").write_text("other", encoding="utf-8")
    assert again().kept.changed_before == ["link", "train.py"]
