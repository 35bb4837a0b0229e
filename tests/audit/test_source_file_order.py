"""`file-order`: which listings it orders and which it leaves, and what an audit says of programs that list."""

# ruff: noqa: PLW0108, PTH207, PTH208 - functions that list, in every way, and looked up when they are called

from __future__ import annotations

import glob
import os
import shutil
import sysconfig
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit.sources.file_order import PINNED, REVERSED, SHUFFLED, SOURCE, ordered
from tests.auditing import check, write_target
from tests.sourcing import context, in_force

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("shared_interpreters")

NAMES = [f"{number}.txt" for number in range(9)]
SORTED = {PINNED: NAMES, REVERSED: NAMES[::-1], SHUFFLED: ordered(NAMES, SHUFFLED)}


def scanned(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def scanned_by_descriptor(folder: Path) -> list[str]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return [entry.name for entry in os.scandir(descriptor)]
    finally:
        os.close(descriptor)


def base(paths: Any) -> list[str]:
    return [os.path.basename(path) for path in paths]  # noqa: PTH119 - of any kind


LISTINGS: dict[str, Callable[[Path], list[str]]] = {
    "os.listdir": lambda folder: os.listdir(folder),
    "os.listdir of bytes": lambda folder: [os.fsdecode(n) for n in os.listdir(os.fsencode(folder))],
    "os.scandir": scanned,
    "os.scandir of a descriptor": scanned_by_descriptor,
    "os.walk": lambda folder: next(iter(os.walk(folder)))[2],
    "os.fwalk": lambda folder: next(iter(os.fwalk(folder)))[2],
    "glob.glob": lambda folder: base(glob.glob(f"{folder}/*.txt")),
    "glob.iglob": lambda folder: base(glob.iglob(f"{folder}/**", recursive=True))[1:],
    "Path.iterdir": lambda folder: base(folder.iterdir()),
    "Path.glob": lambda folder: base(folder.glob("*.txt")),
    "Path.rglob": lambda folder: base(folder.rglob("*.txt")),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ordered(NAMES, SHUFFLED):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("level", SORTED)
@pytest.mark.parametrize("name", LISTINGS)
def test_a_level_decides_the_order(name: str, level: str, folder: Path) -> None:
    with in_force(SOURCE, level, context(folder.parent, SOURCE, level)):
        assert LISTINGS[name](folder) == SORTED[level]


def test_the_orders_differ() -> None:
    assert len({tuple(names) for names in SORTED.values()}) == len(SORTED)


def test_directories_of_python_and_of_the_system_are_left_alone(tmp_path: Path) -> None:
    places = [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "/proc/self"]
    before = [os.listdir(place) for place in places]
    with in_force(SOURCE, REVERSED, context(tmp_path, SOURCE, REVERSED)) as trial:
        assert [os.listdir(place) for place in places] == before
        assert SOURCE.survey is not None
        assert SOURCE.survey(trial) == []


def test_errors_pass_through_and_trees_can_be_removed(folder: Path) -> None:
    with in_force(SOURCE, SHUFFLED, context(folder.parent, SOURCE, SHUFFLED)):
        for missing in (os.listdir, os.scandir):
            with pytest.raises(FileNotFoundError):
                missing(folder / "missing")
        with pytest.raises(TypeError):
            os.listdir(1.5)  # type: ignore[call-overload]
        shutil.copytree(folder, folder.with_name("copy"))
        shutil.rmtree(folder)
        assert os.listdir(folder.parent / "copy") == SORTED[SHUFFLED]
        assert os.scandir in os.supports_fd


def test_the_lines_that_list_are_named(folder: Path) -> None:
    with in_force(SOURCE, PINNED, context(folder, SOURCE, PINNED)) as trial:
        LISTINGS["Path.glob"](folder)
        assert SOURCE.survey is not None
        (found,) = SOURCE.survey(trial)
    assert found[1] in {
        base.__code__.co_firstlineno + 1,
        LISTINGS["Path.glob"].__code__.co_firstlineno,
    }


def test_nothing_is_left_replaced(tmp_path: Path) -> None:
    before = (os.listdir, os.scandir, set(os.supports_fd))
    with in_force(SOURCE, PINNED, context(tmp_path, SOURCE, PINNED)):
        assert os.listdir is not before[0]
    assert (os.listdir, os.scandir, set(os.supports_fd)) == before


# Audits

HEAD = """
    import os
    import random
    from pathlib import Path
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    def read(names):
        data = Path("data")
        data.mkdir(exist_ok=True)
        for number in range(12):
            (data / f"{number:02}.txt").write_text(str(number / 12))
        x = torch.tensor([[float((data / name).read_text())] for name in names(data)])
        return nn.Linear(1, 1), x
"""


def audit(tmp_path: Path, body: str, *options: str) -> Any:
    program = write_target(tmp_path, HEAD + body)
    saved = tmp_path / "report.json"
    return check("train.py:build", "--steps", "4", *options, cwd=program.parent, saved=saved)


def test_alone(tmp_path: Path) -> None:
    body = """
    def build(seed=0):
        torch.manual_seed(seed)
        model, x = read(os.listdir)
        return model, DataLoader(TensorDataset(x, 2 * x), batch_size=3)
    """
    audited = audit(tmp_path, body)
    assert (audited.broke, audited.exit_code) == ({"file-order"}, 0)
    assert audited.source("file-order")["confidence"] == "proven"
    assert not audited.source("file-order")["fix"]["verified"], "no call that a fix is known of"
    assert "train.py:14 lists a directory" in audited.terminal


def test_among_several_causes(tmp_path: Path) -> None:
    body = """
    def build(seed=0):
        torch.manual_seed(seed)
        model, x = read(lambda data: [path.name for path in data.iterdir()])
        x = x + random.random() + len(os.getcwd())
        return model, DataLoader(TensorDataset(x, 2 * x), batch_size=3)
    """
    only = ("file-order", "python-rng", "hash-seed", "environment")
    audited = audit(tmp_path, body, *(f"--only={name}" for name in only))
    assert audited.broke == {"file-order", "python-rng", "environment"}


def test_a_program_that_sorts(tmp_path: Path) -> None:
    body = """
    def build(seed=0):
        torch.manual_seed(seed)
        model, x = read(lambda data: sorted(os.listdir(data)))
        return model, DataLoader(TensorDataset(x, 2 * x), batch_size=3)
    """
    audited = audit(tmp_path, body, "--only", "file-order", "--require", "portable")
    assert audited.exit_code == 0
    assert audited.source("file-order")["status"] == "held"
