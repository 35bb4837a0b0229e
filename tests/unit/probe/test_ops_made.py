"""Where no line of the program's own runs, the op-level probe names the line that made what runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from repro_audit.probe.detail.session import Detailed
from repro_audit.storage.trace import Phase
from tests.op_traces import line_of, recording
from tests.probing import watching

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from repro_audit.storage.events import Event


def at(mark: str) -> int:
    return line_of(mark, __file__)


def as_a_library(source: str) -> Callable[..., Any]:
    """A function `run` that is not the program's own, as the audit's own loop is not."""
    names: dict[str, Any] = {"torch": torch}
    exec(compile(source, "<library>", "exec"), names)  # noqa: S102 - a file name of our choice
    run: Callable[..., Any] = names["run"]
    return run


TRAIN = """
def run(recording, build, phases, rows):
    with recording as made:
        model, batches, loss, optimizer = build()
        skipped = len(made.rows)
        data, forward, step = phases
        made.clock.phase = data
        batches = iter(batches)
        inputs, targets = next(batches)
        made.clock.phase = forward
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        made.clock.phase = step
        optimizer.step()
    rows += made.rows[skipped:]
"""


def alone(run: Callable[..., Any], *args: Any) -> None:
    """Call a library's function on a stack that holds no frame of these tests."""
    thread = threading.Thread(target=run, args=args)
    thread.start()
    thread.join()


def trained(tmp_path: Path, build: Callable[[], tuple[Any, ...]]) -> list[Event]:
    """The rows of a training step of what `build` makes."""
    rows: list[Event] = []
    phases = tuple(map(int, (Phase.DATA, Phase.FORWARD, Phase.OPTIMIZER)))
    alone(as_a_library(TRAIN), recording(tmp_path), build, phases, rows)
    assert rows
    return rows


def build() -> tuple[Any, ...]:
    model = nn.Sequential(
        nn.Linear(2, 3),  # made: first
        nn.ReLU(),
        nn.Linear(3, 2),  # made: second
    )
    data = TensorDataset(torch.randn(8, 2), torch.randint(2, (8,)))
    loader = DataLoader(data, batch_size=4, shuffle=True)  # made: loader
    loss = nn.CrossEntropyLoss()  # made: loss
    optimizer = torch.optim.Adam(model.parameters())  # made: optimizer
    return model, loader, loss, optimizer


def sites(rows: list[Event], phase: Phase) -> dict[str, set[int]]:
    """The made lines at which each op ran in a phase."""
    found: dict[str, set[int]] = {}
    for row in rows:
        if row.phase is phase and row.site is not None:
            assert (row.site.file, row.site.made) == (__file__, True), row
            found.setdefault(row.name, set()).add(row.site.line)
    return found


def test_modules_losses_optimizers_and_loaders(tmp_path: Path) -> None:
    rows = trained(tmp_path, build)
    forward = sites(rows, Phase.FORWARD)
    assert forward["aten::addmm"] == {at("made: first"), at("made: second")}
    assert forward["aten::nll_loss_forward"] == {at("made: loss")}
    backward = sites(rows, Phase.BACKWARD)
    assert backward["aten::mm"] == {at("made: first"), at("made: second")}
    assert backward["aten::nll_loss_backward"] == {at("made: loss")}
    assert set().union(*sites(rows, Phase.OPTIMIZER).values()) == {at("made: optimizer")}
    data = sites(rows, Phase.DATA)
    assert data["aten::randperm"] == {at("made: loader")}
    assert data["aten::stack"] == {at("made: loader")}
    assert data["aten::random_"] == {at("made: loader")}


def test_a_sampler_is_named_where_the_program_made_it(tmp_path: Path) -> None:
    def sampled() -> tuple[Any, ...]:
        model, loader, loss, optimizer = build()
        sampler = RandomSampler(loader.dataset)  # made: sampler
        batches = BatchSampler(sampler, 4, drop_last=False)
        loader = DataLoader(loader.dataset, batch_sampler=batches)  # made: another loader
        return model, loader, loss, optimizer

    data = sites(trained(tmp_path, sampled), Phase.DATA)
    assert data["aten::randperm"] == {at("made: sampler")}
    assert data["aten::stack"] == {at("made: another loader")}


def test_a_line_that_runs_comes_before_one_that_made_it(tmp_path: Path) -> None:
    with recording(tmp_path) as made:
        model, loader, loss, optimizer = build()
        for inputs, targets in loader:  # run: loop
            optimizer.zero_grad()
            loss(model(inputs), targets).backward()  # run: forward
            optimizer.step()  # run: step
    rows = [row for row in made.rows if row.site is not None]
    assert not any(row.site.made for row in rows if row.site)
    found = {row.name: row.site.line for row in rows if row.site is not None}
    assert found["aten::stack"] == at("run: loop")
    assert found["aten::addmm"] == at("run: forward")
    assert found["aten::addcdiv_"] == at("run: step")


def test_a_module_that_nobody_saw_made_takes_the_line_of_what_runs_it(tmp_path: Path) -> None:
    unseen = nn.Linear(3, 2)

    def build_around() -> tuple[Any, ...]:
        _, loader, loss, _ = build()
        model = nn.Sequential(nn.Linear(2, 3), unseen)  # made: around
        return model, loader, loss, torch.optim.SGD(model.parameters())

    forward = sites(trained(tmp_path, build_around), Phase.FORWARD)
    assert forward["aten::addmm"] == {at("made: around")}


def test_nothing_is_named_where_nothing_is_known(tmp_path: Path) -> None:
    rows: list[Event] = []
    source = """
def run(recording, rows):
    with recording as made:
        torch.ones(1)
    rows += made.rows
"""
    alone(as_a_library(source), recording(tmp_path), rows)
    assert [row.site for row in rows] == [None]


def test_the_hooks_of_a_trial_tell_of_modules(tmp_path: Path) -> None:
    with recording(tmp_path / "ops", tell=False) as made:
        made.ops.active = True
        detailed = Detailed(tmp_path / "rest", ops=lambda **_: made.ops, from_step=100, to_step=200)
        with watching(tmp_path, detailed=detailed):
            model, loader, loss, optimizer = build()
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss(model(inputs), targets).backward()
                optimizer.step()
    assert [row.module for row in made.named("aten::addmm")] == ["0", "2"] * 2
    assert {row.module for row in made.named("aten::mm")} == {"0", "2"}
