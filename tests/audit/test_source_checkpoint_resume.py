"""checkpoint-resume: what a checkpoint holds makes no difference, and what it does not is named."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from repro_audit.experiment import Judgement
from repro_audit.source import Levels
from repro_audit.sources import checkpoint_resume
from repro_audit.storage.facts import Facts
from tests.auditing import check, write_target
from tests.trials import Lab, lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.sharing import Interpreters

pytestmark = pytest.mark.usefixtures("shared_interpreters")

HEAD = """
    import random
    import time

    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

    x = torch.arange(48.0).view(16, 3).sin()
    data = TensorDataset(x, x[:, :1])

    def loader(dataset=data, **options):
        return DataLoader(dataset, batch_size=4, **{"shuffle": True, **options})
"""
RESUMED = {checkpoint_resume.SOURCE.id: checkpoint_resume.RESUMED}

HELD = {
    "a stream without a length": """
        class Stream(IterableDataset):
            def __iter__(self):
                yield from zip(x, x[:, :1])

        def build(seed):
            torch.manual_seed(seed)
            return nn.Linear(3, 1), DataLoader(Stream(), batch_size=6)
    """,
    "a model that says it is empty": """
        class Bag(nn.Linear):
            def __len__(self):
                return 0

        def build(seed):
            torch.manual_seed(seed)
            return Bag(3, 1), loader()
    """,
    "the clock and the numbers of the operating system": """
        class Noisy(Dataset):
            def __len__(self):
                return 12

            def __getitem__(self, index):
                return x[index] + random.SystemRandom().random() + time.time(), x[index, :1]

        def build(seed):
            torch.manual_seed(seed)
            order = random.SystemRandom().sample(range(12), 12)
            batches = DataLoader(Noisy(), batch_size=4, sampler=order)

            def train_step(model, batch):
                return (model(batch[0]) - batch[1]).square().mean() * time.time()

            return {"model": nn.Linear(3, 1), "loader": batches, "train_step": train_step}
    """,
    "the numbers of the operating system in workers": """
        class Noisy(Dataset):
            def __len__(self):
                return 12

            def __getitem__(self, index):
                return x[index] + random.SystemRandom().random(), x[index, :1]

        def build(seed):
            torch.manual_seed(seed)
            return nn.Linear(3, 1), DataLoader(Noisy(), batch_size=4, num_workers=2)
    """,
    "momentum, a schedule and batch norm": """
        def build(seed):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1))
            optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
            return {
                "model": model, "loader": loader(), "optimizer": optimizer,
                "scheduler": torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=8),
            }
    """,
    "a loader with a generator of its own": """
        def build(seed):
            torch.manual_seed(seed)
            return nn.Linear(3, 1), loader(generator=torch.Generator().manual_seed(seed))
    """,
    "every ambient generator": """
        class Noisy(nn.Linear):
            def forward(self, rows):
                return super().forward(rows) + np.random.randn() + random.random()

        def build(seed):
            torch.manual_seed(seed)
            return Noisy(3, 1), loader()
    """,
    "workers": """
        class Noisy(Dataset):
            def __len__(self):
                return 16

            def __getitem__(self, index):
                return x[index] + torch.rand(3), x[index, :1] + random.random()

        def build(seed):
            torch.manual_seed(seed)
            return nn.Linear(3, 1), loader(Noisy(), num_workers=2)
    """,
    "epochs shorter than half": """
        def build(seed):
            torch.manual_seed(seed)
            return nn.Linear(3, 1), loader(TensorDataset(x[:8], x[:8, :1]))
    """,
    "a loss with parameters and frozen layers": """
        class Scaled(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.tensor(2.0))

            def forward(self, found, wanted):
                return ((found - wanted) * self.scale).square().mean()

        def build(seed):
            torch.manual_seed(seed)
            model, loss = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), Scaled()
            model[0].requires_grad_(False)
            optimizer = torch.optim.SGD([*model[1].parameters(), *loss.parameters()], lr=0.01)
            return model, loader(), loss, optimizer
    """,
    "parameters changed by hand": """
        def build(seed):
            torch.manual_seed(seed)

            def train_step(model, batch):
                model.zero_grad()
                (model(batch[0]) - batch[1]).square().mean().backward()
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter -= 0.1 * parameter.grad

            return {"model": nn.Linear(3, 1), "loader": loader(), "train_step": train_step}
    """,
    "lazy layers and L-BFGS": """
        def build(seed):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 1))
            model(x)
            return model, loader(), nn.MSELoss(), torch.optim.LBFGS(model.parameters(), max_iter=2)
    """,
    "an average kept by the step, with a state_dict": """
        class Average:
            def __init__(self):
                self.value = 0.0

            def state_dict(self):
                return {"value": self.value}

            def load_state_dict(self, state):
                self.value = state["value"]

        def build(seed):
            torch.manual_seed(seed)
            average = Average()

            def train_step(model, batch):
                loss = (model(batch[0]) - batch[1]).square().mean()
                average.value = 0.9 * average.value + loss.item()
                return loss * average.value

            return {"model": nn.Linear(3, 1), "loader": loader(), "train_step": train_step}
    """,
    "gradients accumulated over batches": """
        def build(seed):
            torch.manual_seed(seed)
            model, seen = nn.Linear(3, 1), []
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

            def train_step(model, batch):
                (model(batch[0]) - batch[1]).square().mean().backward()
                seen.append(1)
                if len(seen) % 2 == 0:
                    optimizer.step()
                    optimizer.zero_grad()

            return {
                "model": model, "loader": loader(), "optimizer": optimizer, "train_step": train_step
            }
    """,
}

LOST = {
    "a plain attribute": (
        """
        class Gated(nn.Linear):
            calls = 0

            def forward(self, rows):
                self.calls += 1
                return super().forward(rows) * self.calls

        def build(seed):
            torch.manual_seed(seed)
            return Gated(3, 1), loader()
        """,
        [["model.calls", "attribute"]],
    ),
    "a buffer": (
        """
        class Centred(nn.Linear):
            def __init__(self):
                super().__init__(3, 1)
                self.register_buffer("mean", torch.zeros(3), persistent=False)

            def forward(self, rows):
                self.mean = 0.9 * self.mean + 0.1 * rows.mean(0)
                return super().forward(rows - self.mean)

        def build(seed):
            torch.manual_seed(seed)
            return Centred(), loader()
        """,
        [["model.mean", "buffer"]],
    ),
    "a generator": (
        """
        class Noisy(Dataset):
            def __init__(self, seed):
                self.rng = np.random.default_rng(seed)

            def __len__(self):
                return 16

            def __getitem__(self, index):
                return x[index] + self.rng.random(dtype=np.float32), x[index, :1]

        def build(seed):
            torch.manual_seed(seed)
            return nn.Linear(3, 1), loader(Noisy(seed))
        """,
        [["loader.dataset.rng", "generator"]],
    ),
    "a scheduler": (
        """
        class Warmup:
            def __init__(self, optimizer):
                self.optimizer, self.made = optimizer, 0

            def step(self):
                self.made += 1
                self.optimizer.param_groups[0]["lr"] = 0.01 * self.made

        def build(seed):
            torch.manual_seed(seed)
            model = nn.Linear(3, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            return {
                "model": model, "loader": loader(), "optimizer": optimizer,
                "scheduler": Warmup(optimizer),
            }
        """,
        [["scheduler.made", "scheduler"]],
    ),
    "the place of a loader that is read once": (
        """
        def batches():
            while True:
                yield from zip(x.split(3), x[:, :1].split(3))

        def build(seed):
            torch.manual_seed(seed)
            return nn.Linear(3, 1), batches()
        """,
        [["loader", "position"]],
    ),
    "the place that a loader keeps": (
        """
        class Cursor:
            def __init__(self):
                self.at = 0

            def __iter__(self):
                while True:
                    self.at += 1
                    yield x[self.at % 16 :][:1], x[self.at % 16 :, :1][:1]

        def build(seed):
            torch.manual_seed(seed)
            return nn.Linear(3, 1), Cursor()
        """,
        [["loader.at", "position"]],
    ),
    "a counter of the module": (
        """
        count = 0

        class Counted(nn.Linear):
            def forward(self, rows):
                global count
                count += 1
                return super().forward(rows) * count

        def build(seed):
            torch.manual_seed(seed)
            return Counted(3, 1), loader()
        """,
        [["NAME.count", "attribute"]],
    ),
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, interpreters: Interpreters) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("tree"), interpreters) as opened:
        yield opened


def program(body: str) -> str:
    return textwrap.dedent(HEAD) + textwrap.dedent(body)


@pytest.mark.parametrize("what", HELD)
def test_what_a_checkpoint_holds(workshop: Lab, what: str) -> None:
    name = f"held{list(HELD).index(what)}"
    straight, resumed = workshop.trials(name, program(HELD[what]), RESUMED)
    assert straight.ended.status == resumed.ended.status == "ok", resumed.ended
    assert resumed.digest == straight.digest
    assert resumed.facts.losses == straight.facts.losses
    survey = resumed.facts.survey[checkpoint_resume.SOURCE.id]
    assert survey["steps"] == straight.facts.survey[checkpoint_resume.SOURCE.id]["steps"]


@pytest.mark.parametrize("what", LOST)
def test_what_a_checkpoint_does_not_hold(workshop: Lab, what: str) -> None:
    name = f"lost{list(LOST).index(what)}"
    body, lost = LOST[what]
    straight, resumed = workshop.trials(name, program(body), RESUMED)
    assert resumed.ended.status == "ok", resumed.ended
    assert resumed.digest != straight.digest
    found = resumed.facts.survey[checkpoint_resume.SOURCE.id]["lost"]
    assert found == [[path.replace("NAME", name), kind] for path, kind in lost]
    origin = resumed.facts.survey[checkpoint_resume.SOURCE.id]["origins"][found[0][0]]
    expression, code = ORIGINS[what]
    assert (origin["expression"], origin["code"]) == (expression.replace("NAME", name), code)
    assert origin["file"] == f"{name}.py"
    # Up to the checkpoint, the trace is that of the straight run.
    before = [row for row in straight.trace if row.step < 3]
    assert [row for row in resumed.trace if row.step < 3] == before


def test_a_first_half_that_fails_is_an_error(workshop: Lab) -> None:
    body = """
        class Stubborn(nn.Linear):
            def state_dict(self, *args, **options):
                raise RuntimeError("not me")

        def build(seed):
            return Stubborn(3, 1), loader()
    """
    straight, resumed = workshop.trials("stubborn", program(body), RESUMED)
    assert straight.ended.status == "ok"
    assert resumed.ended.status == "crashed"
    assert resumed.facts.failure is not None
    assert resumed.facts.failure.what == "RuntimeError: not me"


def test_files_of_the_first_half_are_not_the_second_ones(workshop: Lab) -> None:
    body = """
        from pathlib import Path

        def build(seed):
            torch.manual_seed(seed)
            path = Path("kept.txt")
            scale = 2.0 if path.exists() else 1.0
            path.write_text("here")
            return nn.Linear(3, 1), loader(TensorDataset(scale * x, x[:, :1]))
    """
    straight, resumed = workshop.trials("kept", program(body), RESUMED)
    assert resumed.digest == straight.digest


def test_the_second_of_two_runs_in_a_process_is_resumed_too(workshop: Lab) -> None:
    body = """
        def build(seed):
            torch.manual_seed(seed)
            return nn.Linear(3, 1), loader()
    """
    setting = {**RESUMED, "process-reuse": "second run"}
    straight, resumed = workshop.trials("twice", program(body), setting)
    assert resumed.digest == straight.digest


def test_alone(tmp_path: Path) -> None:
    body = program(LOST["a plain attribute"][0])
    tree = write_target(tmp_path, body).parent
    saved = tmp_path / "report.json"
    audited = check("train.py:build", "--steps", "6", cwd=tree, saved=saved)
    assert audited.broke == {"checkpoint-resume"}
    assert audited.exit_code == 0
    source = audited.source("checkpoint-resume")
    assert source["confidence"] == "proven"
    assert source["divergence"]["step"] == 3
    assert "model.calls (a plain attribute)" in source["reason"]
    assert source["divergence"]["location"]["code"] == "calls = 0"
    assert 'return {"calls": self.calls}' in source["fix"]["snippet"]


def test_beside_another_cause(tmp_path: Path) -> None:
    body = program(
        """
        from pathlib import Path

        class Gated(nn.Linear):
            calls = 0

            def forward(self, rows):
                self.calls += 1
                return super().forward(rows) * self.calls

        def build(seed):
            torch.manual_seed(seed)
            path = Path("cache.txt")
            scale = 2.0 if path.exists() else 1.0
            path.write_text("here")
            return Gated(3, 1), loader(TensorDataset(scale * x, x[:, :1]))
        """
    )
    tree = write_target(tmp_path, body).parent
    options = ("--steps", "6", "--only", "checkpoint-resume", "--only", "artifact-cache")
    audited = check("train.py:build", *options, cwd=tree, saved=tmp_path / "report.json")
    assert audited.broke == {"checkpoint-resume", "artifact-cache"}


# The source by itself


def facts(**survey: object) -> Facts:
    found = {"steps": 4, "procedure": False, "script": False, "lost": [], **survey}
    return Facts(survey={checkpoint_resume.SOURCE.id: found})


def test_levels() -> None:
    assert checkpoint_resume.levels(facts()) == Levels(varied=(checkpoint_resume.RESUMED,))
    assert "by itself" in str(checkpoint_resume.levels(facts(procedure=True)))
    assert "no epoch ended" in str(checkpoint_resume.levels(facts(steps=None)))
    assert isinstance(checkpoint_resume.levels(Facts()), str)


def test_what_is_lost_unseen_is_said() -> None:
    broke = Judgement(id="checkpoint-resume", status="broke")
    assert "can not be seen" in checkpoint_resume.judge(broke, facts()).reason


ORIGINS = {
    "a plain attribute": ("model.calls", "calls = 0"),
    "a buffer": ("model.mean", 'self.register_buffer("mean", torch.zeros(3), persistent=False)'),
    "a generator": ("loader.dataset.rng", "self.rng = np.random.default_rng(seed)"),
    "a scheduler": ("scheduler.made", "self.optimizer, self.made = optimizer, 0"),
    "the place of a loader that is read once": ("loader", "def batches():"),
    "the place that a loader keeps": ("loader.at", "self.at = 0"),
    "a counter of the module": ("NAME.count", "count = 0"),
}
"""How the program itself calls what was lost, and the line that sets it up."""


def origin(**known: object) -> dict[str, object]:
    unknown = {"file": "", "line": 0, "function": None, "code": ""}
    return {"expression": "", "holder": "", "attribute": "", "generator": "", **unknown, **known}


def test_the_mend_fits_what_was_lost() -> None:
    def snippet(**lost: tuple[str, dict[str, object]]) -> str:
        diverged = {
            "lost": [[name, kind] for name, (kind, _) in lost.items()],
            "origins": {name: found for name, (_, found) in lost.items()},
        }
        return checkpoint_resume.fix(Facts(diverged=diverged)).snippet

    assert "get_extra_state" in snippet()
    line = 'self.register_buffer("mean", torch.zeros(3), persistent=False)'
    assert snippet(mean=("buffer", origin(attribute="mean", code=line))) == (
        f'- {line}\n+ self.register_buffer("mean", torch.zeros(3))'
    )
    assert "# without" in snippet(mean=("buffer", origin(attribute="mean", code="register(")))
    held = origin(expression="model.calls", holder="Gated", attribute="calls")
    assert 'return {"calls": self.calls}' in snippet(calls=("attribute", held))
    long = "a." + "b" * 90
    assert f'{long} = checkpoint["{long}"]' in snippet(b=("attribute", origin(expression=long)))
    drawn = origin(expression="data.rng", generator="numpy")
    assert 'checkpoint["data.rng"] = data.rng.bit_generator.state' in snippet(
        rng=("generator", drawn)
    )
    assert "get_extra_state" in snippet(loader=("position", origin(expression="loader")))
