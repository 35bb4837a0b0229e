"""Which files a program opens, where in its code, and which embeddings came out of a pickle."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from repro_audit.probe import files
from repro_audit.probe.files import Opening, read_openings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Tree:
    """A tree whose files are watched."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "tree"
        self.root.mkdir()
        (self.root / "data.txt").write_text("data")
        self.log = directory / "files.jsonl"

    @property
    def openings(self) -> list[Opening]:
        return read_openings(self.log)

    @property
    def seen(self) -> list[tuple[str, str]]:
        return [(opening.path, opening.mode) for opening in self.openings]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    made = Tree(tmp_path)
    monkeypatch.chdir(made.root)
    files.install(made.root, made.log)
    yield made
    files.uninstall()


def as_descriptor(name: str, flags: int) -> None:
    os.close(os.open(name, flags))


@pytest.mark.parametrize(
    ("access", "path", "mode"),
    [
        (lambda: Path("data.txt").read_text(), "data.txt", "r"),
        (lambda: Path("data.txt").read_bytes(), "data.txt", "r"),
        (lambda: Path("new.txt").write_text("x"), "new.txt", "w"),
        (lambda: Path("data.txt").open("a").close(), "data.txt", "w"),
        (lambda: Path("new.txt").open("x").close(), "new.txt", "w"),
        (lambda: Path("data.txt").open("r+").close(), "data.txt", "rw"),
        (lambda: as_descriptor("data.txt", os.O_RDONLY), "data.txt", "r"),
        (lambda: as_descriptor("new.txt", os.O_WRONLY | os.O_CREAT), "new.txt", "w"),
        (lambda: as_descriptor("data.txt", os.O_RDWR), "data.txt", "rw"),
        (lambda: Path("sub/../data.txt").resolve().read_text(), "data.txt", "r"),
        (lambda: np.save("a.npy", np.ones(2)), "a.npy", "w"),
        (lambda: np.savetxt("a.csv", np.ones(2)), "a.csv", "w"),
    ],
)
def test_each_way_to_open(tree: Tree, access: Callable[[], object], path: str, mode: str) -> None:
    access()
    assert (path, mode) in tree.seen


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_each_way_to_name(tree: Tree, kind: Callable[[Any], Any]) -> None:
    open(kind("data.txt")).close()  # noqa: PTH123 - the names are the subject
    open(kind(str(tree.root / "data.txt"))).close()  # noqa: PTH123
    assert set(tree.seen) == {("data.txt", "r")}


def test_the_place_in_the_users_code(tree: Tree) -> None:
    np.load(Path("missing.npy")) if Path("missing.npy").exists() else Path("data.txt").read_text()
    (opening,) = tree.openings
    assert opening.event == "open"
    assert opening.file == __file__
    assert opening.line is not None
    assert "data.txt" in Path(__file__).read_text().splitlines()[opening.line - 1]


def test_the_same_place_is_said_once(tree: Tree) -> None:
    for _ in range(100):
        Path("data.txt").read_text()
    assert len(tree.openings) == 1


def test_what_does_not_count(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("x")
    (tree.root / "__pycache__").mkdir()
    (tree.root / "__pycache__" / "a.pyc").write_bytes(b"")
    with pytest.raises(FileNotFoundError):
        Path("missing").read_text()
    open(os.dup(0)).close()  # noqa: PTH123 - a descriptor has no name
    with pytest.raises(ValueError, match="null"):
        Path("a\0b").read_text()
    assert tree.seen == [("missing", "r")]


def test_names_that_are_no_text(tree: Tree) -> None:
    Path(os.fsdecode(b"\xff.txt")).write_text("x")
    assert tree.seen == [(os.fsdecode(b"\xff.txt"), "w")]


def test_nothing_is_logged_once_uninstalled(tree: Tree) -> None:
    files.uninstall()
    Path("data.txt").read_text()
    assert (tree.openings, files.installed()) == ([], None)


def test_installing_again_goes_on_in_another_log(tree: Tree, tmp_path: Path) -> None:
    Path("data.txt").read_text()
    files.install(tree.root, tmp_path / "other.jsonl")
    Path("data.txt").read_text()
    assert len(tree.openings) == len(read_openings(tmp_path / "other.jsonl")) == 1


def test_a_tree_behind_a_link(tmp_path: Path, tree: Tree) -> None:
    link = tmp_path / "link"
    link.symlink_to(tree.root)
    files.install(link, tree.log)
    (link / "data.txt").read_text()
    (tree.root / "data.txt").read_bytes()
    assert set(tree.seen) == {("data.txt", "r")}


def test_forked_children_log_too(tree: Tree) -> None:
    child = os.fork()
    if child == 0:
        Path("data.txt").read_text()
        os._exit(0)
    os.waitpid(child, 0)
    assert tree.seen == [("data.txt", "r")]


def test_a_flood_of_files_is_cut_short(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MOST_LINES", 5)
    for number in range(20):
        Path(str(number)).write_text("x")
    assert len(tree.openings) == 5


def save_and_load(path: str, *, weights_only: bool = False, through_torch: bool = True) -> None:
    net = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 1))
    if through_torch:
        with Path(path).open("wb") as file:
            torch.save(net, file)
        torch.load(path, weights_only=weights_only)
    else:
        Path(path).write_bytes(pickle.dumps(net))
        with Path(path).open("rb") as file:
            pickle.load(file)  # noqa: S301 - our own


@pytest.mark.parametrize("through_torch", [True, False])
def test_an_embedding_out_of_a_file(tree: Tree, *, through_torch: bool) -> None:
    save_and_load("model.pt", through_torch=through_torch)
    found = [opening for opening in tree.openings if opening.event == "embedding"]
    assert [(opening.path, opening.file) for opening in found] == [("model.pt", __file__)]
    assert found[0].line is not None
    assert "load(" in Path(__file__).read_text().splitlines()[found[0].line - 1]


def test_an_embedding_out_of_a_file_elsewhere(tree: Tree, tmp_path: Path) -> None:
    save_and_load(str(tmp_path / "model.pt"))
    (found,) = tree.openings
    assert (found.event, found.path) == ("embedding", str(tmp_path / "model.pt"))


def test_weights_alone_hold_no_embedding(tree: Tree) -> None:
    with Path("model.pt").open("wb") as file:
        torch.save(nn.Embedding(3, 2).state_dict(), file)
    torch.load("model.pt", weights_only=True)
    assert {opening.event for opening in tree.openings} == {"open"}


def test_reading_leaves_out_what_is_torn(tmp_path: Path) -> None:
    log = tmp_path / "files.jsonl"
    assert read_openings(log) == []
    good = {"event": "open", "path": "a", "mode": "r", "file": None, "line": None}
    log.write_text(json.dumps(good) + '\n{"event": 3}\n7\n{"ev')
    assert read_openings(log) == [Opening(event="open", path="a", mode="r", file=None, line=None)]


def test_the_program_reads_its_module(tmp_path: Path) -> None:
    """In an interpreter of its own: importing a neighbour is reading it, and its cache does not count."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "neighbour.py").write_text("import json, collections\n")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'tree')!r})\n"
        "from pathlib import Path\n"
        "from repro_audit.probe import files\n"
        f"files.install(Path({str(tmp_path / 'tree')!r}), Path({str(tmp_path / 'log')!r}))\n"
        "import neighbour\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert {opening.path for opening in read_openings(tmp_path / "log")} == {"neighbour.py"}


@pytest.mark.parametrize(
    ("name", "users"),
    [
        (__file__, True),
        (torch.__file__, False),
        (json.__file__, False),
        (files.__file__, False),
        ("<frozen importlib._bootstrap>", False),
        ("<string>", False),
        ("/home/someone/venv/lib/python3.11/site-packages/a/b.py", False),
    ],
)
def test_whose_code(name: str, *, users: bool) -> None:
    assert files.is_users(name) is users


def test_libraries_are_looked_at_once_and_the_programs_modules_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> None:
        module = ModuleType(name)
        module.__file__ = str(tmp_path / f"{name}.py")
        monkeypatch.setitem(sys.modules, name, module)

    def found() -> set[str]:
        return {name for name, file, _ in files.program_modules() if file.startswith(str(tmp_path))}

    monkeypatch.setattr(files, "_looked_at", files._looked_at)
    load("early")
    files.know_libraries()
    looked_at: set[str] = set()

    def is_users(file: str) -> bool:
        looked_at.add(file)
        return file.startswith(str(tmp_path))

    monkeypatch.setattr(files, "is_users", is_users)
    load("late")
    assert found() == {"early", "late"}
    assert torch.__file__ not in looked_at
    monkeypatch.setattr(files, "_looked_at", ("", ()))
    assert found() == {"early", "late"}
    assert torch.__file__ in looked_at
