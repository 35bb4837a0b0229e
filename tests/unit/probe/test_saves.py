"""What may be a program's own checkpoint: which of its writes are heard of, and after which it is ended."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from repro_audit.context.checkpoint import Likeness, Write, chosen
from repro_audit.probe.saves import Saves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OPENED, SAVED, BELOW, NAMED = Likeness


def save(path: str) -> None:
    torch.save({}, path)


def save_to_file(path: str) -> None:
    with Path(path).open("wb") as file:
        torch.save({}, file)


def save_to_memory(_path: str) -> None:
    torch.save({}, io.BytesIO())


def dump(path: str) -> None:
    with Path(path).open("wb") as file:
        pickle.dump({}, file)


def rename(path: str) -> None:
    Path("new").touch()
    Path("new").replace(path)


def append(path: str) -> None:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("a line")


def read(path: str) -> None:
    Path(path).touch()
    Path(path).read_bytes()


def create(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Write]]:
    """What is heard of while a program would be resumed with `--from out/last.pt --ckpt-dir=kept`."""
    for name in ("tree/out", "tree/kept", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "tree")
    found: list[Write] = []
    arguments = ["--from", "out/last.pt", "--ckpt-dir=kept", "4", ""]
    saves = Saves(tmp_path / "tree", arguments, found.append)
    saves.install()
    saves.wrap()
    yield found
    saves.uninstall()


@pytest.mark.parametrize(
    ("write", "path", "likeness"),
    [
        (save, "out/last.pt", [NAMED]),
        (save, "kept/last.pt", [NAMED]),
        (save, "out/best.pt", [SAVED]),
        (save, "../elsewhere/last.pt", [SAVED]),
        (save_to_file, "out/last.pt", [NAMED, NAMED]),
        (save_to_file, "out/best.pt", [OPENED, SAVED]),
        (save_to_memory, "", [SAVED]),
        (dump, "out/last.pt", [NAMED]),
        (dump, "kept/last.pkl", [BELOW]),
        (dump, "out/last.pkl", [OPENED]),
        (dump, "../elsewhere/last.pkl", []),
        (create, "out/last.pt", [NAMED]),
        (rename, "out/last.pt", [NAMED]),
        (append, "out/log.txt", []),
        (read, "out/log.txt", []),
    ],
)
def test_writes(
    heard: list[Write], write: Callable[[str], None], path: str, likeness: list[Likeness]
) -> None:
    write(path)
    assert [each.likeness for each in heard] == likeness
    # This file is the program.
    assert {each.file for each in heard} <= {__file__}


def test_where_a_write_is(heard: list[Write]) -> None:
    save("out/last.pt")
    assert heard[0].code == "torch.save({}, path)"


def test_a_worker_tells_nothing(heard: list[Write]) -> None:
    child = os.fork()
    if not child:
        save("out/last.pt")
        os._exit(len(heard))
    assert os.waitpid(child, 0)[1] == 0


def test_nothing_is_left(tmp_path: Path) -> None:
    before, found = torch.save, list[Write]()
    saves = Saves(tmp_path, ["x"], found.append)
    saves.install()
    saves.wrap()
    assert torch.save is not before
    saves.uninstall()
    assert torch.save is before
    dump(str(tmp_path / "x"))
    assert not found


def writes(*made: tuple[int, Likeness]) -> list[Write]:
    return [
        Write(steps=steps, likeness=likeness, file="train.py", line=number, code="")
        for number, (steps, likeness) in enumerate(made)
    ]


@pytest.mark.parametrize(
    ("made", "steps", "count"),
    [
        ([(1, SAVED), (2, SAVED), (3, SAVED), (4, SAVED), (5, SAVED)], 4, 4),
        # The nearest to half, then the earlier one.
        ([(2, SAVED), (6, SAVED)], 2, 1),
        ([(1, SAVED), (7, SAVED)], 1, 1),
        # All that is written in one place counts, and what came before.
        ([(0, SAVED), (4, SAVED), (4, SAVED), (5, SAVED)], 4, 3),
        # What looks more like it, wherever.
        ([(4, OPENED), (7, SAVED)], 7, 1),
        ([(4, SAVED), (4, BELOW), (1, NAMED)], 1, 1),
        # Not what is only written before the first step, or after the last.
        ([(0, NAMED), (4, OPENED), (8, NAMED)], 4, 1),
    ],
)
def test_the_write_that_is_chosen(made: list[tuple[int, Likeness]], steps: int, count: int) -> None:
    cut = chosen(writes(*made), 8)
    assert cut is not None
    assert (cut.steps, cut.writes) == (steps, count)


@pytest.mark.parametrize("made", [[], [(0, NAMED)], [(8, SAVED)]])
def test_no_write_is_chosen(made: list[tuple[int, Likeness]]) -> None:
    assert chosen(writes(*made), 8) is None
