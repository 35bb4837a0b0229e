"""The line that sets up what a checkpoint lost, and what the program itself calls it."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit.probe import files
from repro_audit.trial.driver import origins, state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = """\
import random

import torch
from torch import nn

history = []


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.configure()

    def configure(self):
        self.limit: int = 3


class Net(Base):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 2), Counting())
        self.register_buffer(
            name="mean", tensor=torch.zeros(2), persistent=False
        )
        setattr(self, "scale", 1.0)
        self.table = {"a.b": 0, "c": [1, 2]}


class Counting(nn.Module):
    calls = 0

    def forward(self, x):
        return x


def make(net):
    total = 0
    net.marked = True

    def step(model, batch, seen=[]):
        nonlocal total
        total += 1

    return step


class Loader:
    def __init__(self):
        self.random = random.Random(1)
"""


@pytest.fixture
def values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    monkeypatch.setattr(files, "is_users", lambda file: file == str(path))
    monkeypatch.setattr(origins, "is_users", lambda file: file == str(path))
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "program", program)
    spec.loader.exec_module(program)
    net = program.Net()
    roots = {"model": net, "loader": program.Loader(), "train_step": program.make(net)}
    yield state.values(roots)
    origins._parsed.cache_clear()


@pytest.mark.parametrize(
    ("name", "expression", "code"),
    [
        ("model.limit", "model.limit", "self.limit: int = 3"),
        ("model.mean", "model.mean", "self.register_buffer("),
        ("model.scale", "model.scale", 'setattr(self, "scale", 1.0)'),
        ("model.layers.1.calls", "model.layers[1].calls", "calls = 0"),
        ("model.table.a.b", "model.table['a.b']", 'self.table = {"a.b": 0, "c": [1, 2]}'),
        ("model.table.c.1", "model.table['c'][1]", 'self.table = {"a.b": 0, "c": [1, 2]}'),
        ("model.marked", "model.marked", "net.marked = True"),
        ("train_step.total", "total", "total = 0"),
        ("train_step.0", "train_step.__defaults__[0]", "def step(model, batch, seen=[]):"),
        ("program.history", "program.history", "history = []"),
        ("loader.random", "loader.random", "self.random = random.Random(1)"),
    ],
)
def test_a_line_and_a_name(values: dict[str, Any], name: str, expression: str, code: str) -> None:
    found = origins.find([name], values)[name]
    assert (found["expression"], found["code"]) == (expression, code)


def test_who_holds_it(values: dict[str, Any]) -> None:
    names = ["model.layers.1.calls", "model.table.c.1", "train_step.total", "loader.random"]
    found = origins.find(names, values)
    assert [found[name]["holder"] for name in names] == ["Counting", "", "", ""]
    assert found["loader.random"]["generator"] == "python"


def test_what_is_not_there_has_no_line(values: dict[str, Any]) -> None:
    found = origins.find(["nowhere.at.all"], values)["nowhere.at.all"]
    assert (found["file"], found["line"]) == ("", 0)
