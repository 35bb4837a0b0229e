"""Workers start by other methods for one epoch; what a program can't run under is no difference."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement, LevelOutcome
from repro_audit.probe.steps.workers import WorkerLoop
from repro_audit.sources import worker_start_method
from repro_audit.sources.worker_start_method import ID, PINNED
from repro_audit.storage.facts import Facts
from tests.trials import lab

if TYPE_CHECKING:
    from pathlib import Path

    from repro_audit.experiment.design import LevelStatus, Status
    from tests.sharing import Interpreters


WORKERS = Facts(loaders=({"num_workers": 1},))


def judged(status: Status, facts: Facts = WORKERS, **levels: LevelStatus) -> Any:
    outcomes = [
        LevelOutcome(level=name, diverged=False if how == "ok" else None, trial="t01", status=how)
        for name, how in levels.items()
    ]
    judgement = Judgement(id=ID, status=status, levels=tuple(outcomes))
    return worker_start_method.judge(judgement, facts)


def test_a_method_that_the_program_can_not_run_under_convicts_nothing() -> None:
    some = judged("error", spawn="crashed", forkserver="ok")
    assert some.status == "held"
    assert "does not run with spawn" in some.reason
    assert judged("error", spawn="crashed", forkserver="crashed").status == "error"
    assert "does not run" not in judged("held", spawn="ok", forkserver="ok").reason


def test_what_a_notebook_defines_is_not_exercised_where_workers_do_not_find_it() -> None:
    notebook = replace(WORKERS, notebook=True)
    alone = judged("error", notebook, spawn="crashed", forkserver="crashed")
    assert alone.status == "not-exercised"
    assert judged("error", notebook, spawn="crashed", forkserver="ok").status == "held"


def test_the_programs_own_method_is_not_tried_again() -> None:
    answers = [
        worker_start_method.levels(Facts(loaders=WORKERS.loaders, survey={ID: own}))
        for own in (["spawn"], ["fork", "spawn"])
    ]
    assert [getattr(each, "varied", None) for each in answers] == [
        ("fork", "forkserver"),
        ("fork", "spawn", "forkserver"),
    ]
    assert "no DataLoader" in str(worker_start_method.levels(Facts(loaders=({"num_workers": 0},))))


@pytest.mark.parametrize("level", [PINNED, "fork"])
def test_the_method_is_noted_and_the_loader_left_as_it_was(tmp_path: Path, level: str) -> None:
    trial = TrialContext(seed=0, setting={}, directory=tmp_path, root=tmp_path)
    loader = DataLoader(
        TensorDataset(torch.arange(4)), num_workers=1, multiprocessing_context="fork"
    )
    before = dict(vars(loader))
    with worker_start_method.apply(level, trial):
        for _ in range(2):
            assert [int(item) for (item,) in loader] == [0, 1, 2, 3]
    assert worker_start_method.survey(trial) == ["fork"]
    assert vars(loader) == before


prepared: list[str] = []


def prepare() -> None:
    prepared.append("once")


def test_a_worker_that_begins_anew_is_prepared_before_its_dataset_comes() -> None:
    loop = WorkerLoop(
        path="",
        loader=0,
        epoch=0,
        training=True,
        seeded=False,
        files=None,
        prepare=prepare,
        original=print,
    )
    prepared.clear()
    data = pickle.dumps(loop)
    assert prepared == []
    assert pickle.loads(data).original is None  # noqa: S301 - our own
    assert prepared == ["once"]


def test_what_the_trial_pins_is_pinned_in_spawned_workers_too(
    tmp_path: Path, interpreters: Interpreters
) -> None:
    """The global makes the difference; memory that nothing has written does not, though it is read."""
    body = """
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, Dataset

    scale = SCALE

    class Partly(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            x = torch.empty(400)
            x[1:] = index
            return x * scale

    def build(seed):
        global scale
        torch.manual_seed(seed)
        scale = 1.0
        step = lambda model, batch: model(batch / 8).sum()
        loader = DataLoader(Partly(), batch_size=4, num_workers=1)
        return {"model": nn.Linear(400, 1), "loader": loader, "train_step": step}
    """
    spawned = {ID: "spawn"}
    with lab(tmp_path, interpreters) as opened:
        for name, value, differs in (("same", "1.0", False), ("other", "2.0", True)):
            pinned, varied = opened.trials(name, body.replace("SCALE", value), spawned, steps=2)
            assert varied.ended.status == "ok", varied.ended
            assert (pinned.digest != varied.digest) is differs
