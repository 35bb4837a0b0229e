"""The detailed probe in a training: its window, phases, batches, and workers."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from repro_audit.probe.detail import session as detailed_module
from repro_audit.probe.detail.lines import Lines
from repro_audit.probe.detail.session import Detailed
from repro_audit.storage.events import MAIN, Event, Kind, processes, truncation
from repro_audit.storage.trace import Phase
from tests.detailing import Seen, line_of, load
from tests.probing import watching

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.probing import Watched

PROGRAM = """
import random
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

class Data(Dataset):
    def __init__(self):
        self.rng = np.random.default_rng(0)
    def __len__(self):
        return 4
    def __getitem__(self, index):
        noise = self.rng.standard_normal()
        return torch.tensor([float(index), noise + random.random()])

class Order(Sampler):
    def __iter__(self):
        order = torch.randperm(4).tolist()
        yield from order
    def __len__(self):
        return 4

def collate(samples):
    shift = float(np.random.rand())
    return torch.stack(samples) + shift

def train(steps=2, **options):
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(Data(), batch_size=2, sampler=Order(), collate_fn=collate, **options)
    for step, batch in enumerate(loader):
        loss = model(batch).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
"""
NOISE, SAMPLE, ORDER, COLLATE, STEP = 12, 13, 17, 23, 33


def detailed(
    directory: Path, run: Callable[[], object], *, steps: int = 2, **options: Any
) -> Watched:
    """Run a training with the detailed probe, as a trial does; its detail is in `directory / "detail"`."""
    given = {"from_step": 0, "to_step": 100, **options}
    probe = Detailed(directory / "detail", **given)
    probe.install()
    try:
        with watching(
            directory, detailed=probe, workers=directory / "workers.jsonl", max_steps=steps + 1
        ) as watched:
            run()
    finally:
        probe.uninstall()
    return watched


def seen_in(directory: Path) -> dict[str, Seen]:
    return {name: Seen(path) for name, path in processes(directory / "detail").items()}


def of_program(seen: Seen, line: int, kind: Kind = Kind.LINE) -> list[Event]:
    return [
        event
        for event in seen.of(kind)
        if event.site and event.site.file.endswith("program.py") and line_of(event) == line
        if event.name != "return"
    ]


def fetches(seen: Seen) -> list[tuple[str, str]]:
    return [(event.name, event.meta) for event in seen.of(Kind.FETCH)]


def draws_at(seen: Seen, line: int) -> list[tuple[str, str]]:
    return [(event.name, event.meta) for event in of_program(seen, line, Kind.DRAW)]


def test_without_workers(tmp_path: Path) -> None:
    program = load(tmp_path, PROGRAM)
    detailed(tmp_path, program["train"])
    seen = seen_in(tmp_path)[MAIN]
    assert len(of_program(seen, SAMPLE)) == 4
    assert draws_at(seen, NOISE)[-1] == ("self.rng", "draw")
    assert draws_at(seen, SAMPLE) == [("python", "draw")] * 4
    assert draws_at(seen, ORDER) == [("torch", "draw")]
    assert draws_at(seen, COLLATE) == [("numpy", "draw")] * 2
    kinds = [meta for _, meta in fetches(seen)]
    assert kinds == ["", "sample", "sample", "collate", "end"] * 2
    first, one, two, _ = fetches(seen)[:4]
    assert first[0] == f"0.0: {one[0]}, {two[0]}"


def test_rows_between_a_fetchs_rows_belong_to_it(tmp_path: Path) -> None:
    program = load(tmp_path, PROGRAM)
    detailed(tmp_path, program["train"])
    seen = seen_in(tmp_path)[MAIN]
    inside, places = "", []
    for event in seen.events:
        if event.kind is Kind.FETCH:
            inside = event.meta or "begin"
        elif event in of_program(seen, SAMPLE) or event in of_program(seen, COLLATE):
            places.append((line_of(event), inside))
    assert places == [(SAMPLE, "sample"), (SAMPLE, "sample"), (COLLATE, "collate")] * 2


def test_phases_and_steps(tmp_path: Path) -> None:
    program = load(tmp_path, PROGRAM)
    detailed(tmp_path, program["train"])
    seen = seen_in(tmp_path)[MAIN]
    phases = {
        line: [(event.step, event.phase) for event in of_program(seen, line)][:2]
        for line in (SAMPLE, STEP)
    }
    assert phases[SAMPLE] == [(0, Phase.DATA)] * 2
    assert phases[STEP] == [(0, Phase.FORWARD), (1, Phase.FORWARD)]
    assert of_program(seen, 27)[0].phase is Phase.INIT


@pytest.mark.parametrize(
    ("window", "steps"), [((0, 0), {0}), ((1, 1), {1}), ((1, 9), {1, 2}), ((5, 9), set())]
)
def test_only_the_window(tmp_path: Path, window: tuple[int, int], steps: set[int]) -> None:
    program = load(tmp_path, PROGRAM)
    detailed(tmp_path, program["train"], from_step=window[0], to_step=window[1])
    seen = seen_in(tmp_path)[MAIN]
    assert {event.step for event in seen.of(Kind.LINE)} == steps
    before = sys.gettrace()
    assert before is None or "Lines" not in repr(before)


def test_the_plain_trace_is_as_without(tmp_path: Path) -> None:
    digests = []
    for name in ("plain", "detailed"):
        directory = tmp_path / name
        directory.mkdir()
        np.random.seed(0)
        program = load(directory, PROGRAM)
        program["random"].seed(0)
        if name == "plain":
            with watching(directory) as watched:
                program["train"]()
        else:
            watched = detailed(directory, program["train"])
        digests.append([(row.step, row.phase, row.name, row.digest) for row in watched.rows])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.audit
def test_workers(tmp_path: Path, context: str) -> None:
    script = f"""
import sys
from pathlib import Path
from tests.unit.probe.test_probe_detailed import detailed
import program

if __name__ == "__main__":
    where = Path({str(tmp_path)!r})
    run = lambda: program.train(num_workers=2, multiprocessing_context={context!r})
    watched = detailed(where, run)
    print([(row.name, row.meta) for row in watched.rows if row.name.endswith("worker")])
"""
    (tmp_path / "program.py").write_text(PROGRAM.lstrip("\n"))
    (tmp_path / "main.py").write_text(script)
    ran = subprocess.run(
        [sys.executable, str(tmp_path / "main.py")],
        env={"PYTHONPATH": ":".join((str(tmp_path), *sys.path)), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[('batch.worker', '0'), ('batch.worker', '1')]"
    found = seen_in(tmp_path)
    assert list(found) == [MAIN, "worker-0-0-0", "worker-0-0-1"]
    for name in ("worker-0-0-0", "worker-0-0-1"):
        seen = found[name]
        assert [meta for _, meta in fetches(seen)] == ["", "sample", "sample", "collate", "end"]
        assert len(of_program(seen, SAMPLE)) == 2
        assert draws_at(seen, SAMPLE) == [("python", "draw")] * 2
        assert draws_at(seen, COLLATE) == [("numpy", "draw")]
        assert draws_at(seen, NOISE)[-1] == ("self.rng", "draw")
        assert ("python", "seed", 0) in seen.draws()  # torch's own, at no line of the program's
    assert not of_program(found[MAIN], SAMPLE)
    assert draws_at(found[MAIN], ORDER) == [("torch", "draw")]


class Plain(Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index


class Many(Plain):
    def __getitems__(self, indices: list[int]) -> list[int]:
        return indices


class Streaming(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield from range(3)


@pytest.mark.parametrize(
    ("dataset", "options", "expected"),
    [
        (Plain(), {"batch_size": 4}, ["0.0: 0, 1, 2, 3", "0", "1", "2", "3"]),
        (Plain(), {"batch_size": None}, ["0.0: 0", "0", "0.0: 1", "1"]),
        (Subset(Plain(), [2, 3]), {"batch_size": 2}, ["0.0: 0, 1", "0", "1"]),
        (Subset(Many(), [2, 3]), {"batch_size": 2}, ["0.0: 0, 1"]),
        (Many(), {"batch_size": 4}, ["0.0: 0, 1, 2, 3"]),
        (Streaming(), {"batch_size": 2}, ["0.0: worker 0, batch 0", "0", "1"]),
    ],
)
def test_names_of_fetches(
    tmp_path: Path, dataset: Any, options: dict[str, Any], expected: list[str]
) -> None:
    batches: list[Any] = []
    detailed(tmp_path, lambda: batches.extend(DataLoader(dataset, **options)))
    assert torch.equal(
        torch.cat([torch.atleast_1d(torch.as_tensor(batch)) for batch in batches]),
        torch.cat([torch.atleast_1d(torch.as_tensor(b)) for b in DataLoader(dataset, **options)]),
    )
    names = [name for name, meta in fetches(seen_in(tmp_path)[MAIN]) if meta in {"", "sample"}]
    assert names[: len(expected)] == expected


def test_a_failing_dataset_fails_as_it_would(tmp_path: Path) -> None:
    class Failing(Plain):
        def __getitem__(self, index: int) -> int:
            raise KeyError(index)

    with pytest.raises(KeyError):
        detailed(tmp_path, lambda: list(DataLoader(Failing())))
    assert [meta for _, meta in fetches(seen_in(tmp_path)[MAIN])] == ["", "sample", "end"]


def test_a_truncated_probe_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detailed_module, "Lines", partial(Lines, most_events=20))
    program = load(tmp_path, PROGRAM)
    detailed(tmp_path, program["train"])
    assert "stopped" in truncation(tmp_path / "detail" / MAIN)


def test_an_untruncated_one_does_not(tmp_path: Path) -> None:
    detailed(tmp_path, lambda: None)
    assert truncation(tmp_path / "detail" / MAIN) == ""


class Recorded:
    """Stands where the op-level probe does."""

    def __init__(self, **given: Any) -> None:
        self.given = given
        self.steps: list[tuple[int, bool]] = []
        self.active = False

    def install(self) -> None:
        self.steps.append((self.given["clock"].step, self.active))

    uninstall = install

    def step_ended(self) -> None:
        self.install()

    begin_again = step_ended

    def telling(self, call: Any) -> Any:
        return call


def test_ops_are_active_in_the_window_alone(tmp_path: Path) -> None:
    made: list[Recorded] = []

    def make(**given: Any) -> Recorded:
        made.append(Recorded(**given))
        return made[-1]

    probe = Detailed(tmp_path, ops=make, from_step=1, to_step=1, capture=frozenset())
    probe.install()
    active = []
    for step in range(3):
        probe.step_ended(step)
        active.append((made[0].active, probe.window_open))
    probe.uninstall()
    assert active == [(True, True), (False, False), (False, False)]
    assert [step for step, _ in made[0].steps] == [0, 1, 2, 3, 3]
    assert made[0].given.keys() == {"writer", "sites", "clock", "drew", "capture"}
