"""--resume-args: a script is ended after its own checkpoint, goes on from there, and what it lost is named."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from repro_audit.analysis import resumption
from repro_audit.sources import _resumed_script, checkpoint_resume
from tests.auditing import check, write_target
from tests.trials import Lab, lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from repro_audit.trial.oracle import Trial
    from tests.auditing import Audited
    from tests.sharing import Interpreters

pytestmark = pytest.mark.usefixtures("shared_interpreters")

ID = checkpoint_resume.SOURCE.id
ADAM = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps for each parameter."""
PROGRAM = """
import argparse
import random

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--resume")
parser.add_argument("--without", default="")
args = parser.parse_args()

random.seed(0)
torch.manual_seed(0)
x = torch.arange(48.0).view(16, 3).sin()
order = torch.Generator()
loader = DataLoader(TensorDataset(x, x[:, :1]), batch_size=4, shuffle=True, generator=order)
model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
stateful = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
first_epoch = taken = 0

if args.resume:
    saved = torch.load(args.resume, weights_only=False)
    for name in stateful.keys() - {args.without}:
        stateful[name].load_state_dict(saved[name])
    if args.without != "generators":
        random.setstate(saved["python"])
        torch.set_rng_state(saved["torch"])
    first_epoch, taken = saved["place"]
    if args.without == "position":
        taken = 0

for epoch in range(first_epoch, 9):
    order.manual_seed(epoch)
    for number, (rows, wanted) in enumerate(loader):
        if epoch == first_epoch and number < taken:
            continue
        optimizer.zero_grad()
        nn.functional.mse_loss(model(rows) + random.random(), wanted).backward()
        optimizer.step()
        scheduler.step()
        if number == 1:
            saved = {name: part.state_dict() for name, part in stateful.items()}
            saved |= {"python": random.getstate(), "torch": torch.get_rng_state()}
            torch.save({**saved, "place": (epoch, number + 1)}, "last.pt")
"""
SAVES = 'torch.save({**saved, "place": (epoch, number + 1)}, "last.pt")'


def audit(tmp_path: Path, *argv: str, resume: str = "--resume last.pt", steps: int = 6) -> Audited:
    """Audit the program for this source alone."""
    tree = write_target(tmp_path, PROGRAM).parent
    flags = ["--steps", str(steps), "--resume-args", resume]
    return check("--only", ID, *flags, "train.py", *argv, cwd=tree, saved=tmp_path / "report.json")


def shows(audited: Audited, code: str) -> bool:
    """Whether the report shows a line of the program."""
    return "".join(code.split()) in "".join(audited.terminal.split())


def test_a_program_that_saves_all(tmp_path: Path) -> None:
    source = audit(tmp_path).source(ID)
    assert source["status"] == "held", source["reason"]
    after = "resumed after step 2 in a new process"
    assert source["reason"] == f"{after}, the training goes on just the same"


def test_the_scheduler_is_lost(tmp_path: Path) -> None:
    audited = audit(tmp_path, "--without", "scheduler")
    source = audited.source(ID)
    assert (source["status"], source["confidence"]) == ("broke", "proven")
    # The first step has the learning rate that the optimizer saved.
    assert (source["divergence"]["step"], source["divergence"]["phase"]) == (3, "optimizer")
    assert source["reason"].endswith(
        "the training goes on without the scheduler's state "
        f"(SGD.lr: {0.1 / 2} instead of {0.1 / 4} in step 3)"
    )
    line = "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))"
    assert source["divergence"]["location"]["code"] == line
    assert shows(audited, SAVES)
    assert 'checkpoint["scheduler"] = scheduler.state_dict()' in source["fix"]["snippet"]


def test_the_generators_are_lost(tmp_path: Path) -> None:
    source = audit(tmp_path, "--without", "generators").source(ID)
    assert (source["status"], source["confidence"]) == ("broke", "proven")
    assert (source["divergence"]["step"], source["divergence"]["phase"]) == (2, "forward")
    assert source["reason"].endswith("without the states of the generators (Python, PyTorch)")
    assert source["divergence"]["location"]["code"] == SAVES
    assert 'torch.set_rng_state(checkpoint["torch"])' in source["fix"]["snippet"]


def test_the_samplers_position_is_lost(tmp_path: Path) -> None:
    audited = audit(tmp_path, "--without", "position")
    source = audited.source(ID)
    assert (source["status"], source["confidence"]) == ("broke", "proven")
    assert source["divergence"]["kind"] == "order"
    assert source["reason"].endswith("without the loader's position (other samples come next)")
    line = "for number, (rows, wanted) in enumerate(loader):"
    assert source["divergence"]["location"]["code"] == line
    assert shows(audited, SAVES)


def test_steps_must_reach_beyond_a_checkpoint(tmp_path: Path) -> None:
    source = audit(tmp_path, steps=2).source(ID)
    assert source["status"] == "not-exercised"
    assert (
        source["reason"]
        == "no checkpoint was written in the first 2 steps; --steps must reach beyond it"
    )


def test_arguments_that_fail(tmp_path: Path) -> None:
    source = audit(tmp_path, resume="--resume other.pt").source(ID)
    assert source["status"] == "error"
    assert "FileNotFoundError" in source["reason"]


def test_without_the_flag_the_report_says_how_to_ask(tmp_path: Path) -> None:
    tree = write_target(tmp_path, PROGRAM).parent
    saved = tmp_path / "report.json"
    audited = check("--only", ID, "--steps", "2", "train.py", cwd=tree, saved=saved)
    source = audited.source(ID)
    assert source["status"] == "not-exercised"
    assert "--resume-args '--resume out/last.pt'" in source["reason"]


def test_a_function_can_not_be_resumed_so(tmp_path: Path) -> None:
    tree = write_target(tmp_path, "def build():\n    pass\n").parent
    audited = check(
        "--resume-args", "--resume x", "train.py:build", cwd=tree, saved=tmp_path / "report.json"
    )
    assert audited.exit_code == 2
    assert "have the program run as a script" in audited.terminal


# What a resumed program does otherwise, and what it saves by other means

HEAD = """
    import pickle
    import sys
    import time
    from pathlib import Path

    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    x = torch.arange(48.0).view(16, 3).sin()
    model = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    resumes = len(sys.argv) > 1

    def loader(**options):
        return DataLoader(TensorDataset(x, x[:, :1]), batch_size=8, **options)

    def states():
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}

    def put_back(saved):
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"])

    def train(rows, wanted):
        optimizer.zero_grad()
        nn.functional.mse_loss(nn.functional.dropout(model(rows)), wanted).backward()
        optimizer.step()
"""
HELD = {
    "it evaluates after it has saved, and before it trains": """
        def evaluate():
            with torch.no_grad():
                return model(x).mean().item()

        if resumes:
            put_back(torch.load("last.pt"))
            evaluate()
            evaluate()
        batches = loader(shuffle=True)
        while True:
            for rows, wanted in batches:
                train(rows, wanted)
            torch.save(states(), "last.pt")
            evaluate()
    """,
    "it pickles, and renames what it has written": """
        if resumes:
            put_back(pickle.loads(Path("last.pkl").read_bytes()))
        batches = loader(shuffle=True)
        while True:
            for rows, wanted in batches:
                train(rows, wanted)
            with open("new.pkl", "wb") as file:
                pickle.dump(states(), file)
            Path("new.pkl").replace("last.pkl")
            with open("log.txt", "a") as log:
                log.write("an epoch")
    """,
    "it keeps a file for each step, and names one": """
        made = 0
        if resumes:
            put_back(torch.load(sys.argv[1]))
            made = 4
        while True:
            train(x, x[:, :1])
            made += 1
            torch.save(states(), f"step{made}.pt")
    """,
    "it has workers, and looks at the clock": """
        if resumes:
            put_back(torch.load("last.pt"))
        batches = loader(shuffle=True, num_workers=2)
        while True:
            for rows, wanted in batches:
                train(rows * time.time(), wanted)
            torch.save(states(), "last.pt")
    """,
    "it goes on by itself": """
        if Path("last.pt").exists():
            put_back(torch.load("last.pt"))
        while True:
            train(x, x[:, :1])
            torch.save(states(), "last.pt")
    """,
    "it makes its loaders anew, and evaluates first": """
        if resumes:
            put_back(torch.load("last.pt"))
        while True:
            with torch.no_grad():
                for rows, _ in loader(shuffle=True):
                    model(rows)
            for rows, wanted in loader(shuffle=True):
                train(rows, wanted)
            torch.save(states(), "last.pt")
    """,
    "it changes parameters by hand": """
        if resumes:
            model.load_state_dict(torch.load("last.pt"))
        while True:
            model.zero_grad()
            (model(x) - x[:, :1]).square().mean().backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.1 * parameter.grad
            torch.save(model.state_dict(), "last.pt")
    """,
    "it catches everything": """
        import atexit

        def spoil():
            torch.save({}, "last.pt")

        atexit.register(spoil)
        if resumes:
            put_back(torch.load("last.pt"))
        while True:
            try:
                train(x, x[:, :1])
                torch.save(states(), "last.pt")
            finally:
                print("a step")
    """,
    "its checkpoint lies in the directory for temporary files": """
        import tempfile

        place = Path(tempfile.gettempdir()) / "last.pt"
        if resumes:
            put_back(torch.load(place))
        while True:
            train(x, x[:, :1])
            torch.save(states(), place)
    """,
}
ARGUMENTS = {
    "it keeps a file for each step, and names one": ("step4.pt",),
    "it goes on by itself": (),
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, interpreters: Interpreters) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("tree"), interpreters) as opened:
        yield opened


def resumed(workshop: Lab, what: str, body: str) -> list[Trial]:
    program = textwrap.dedent(HEAD) + textwrap.dedent(body)
    arguments = ARGUMENTS.get(what, ("again",))
    return workshop.resumed(what.replace(" ", "_"), program, resume_args=arguments)


@pytest.mark.parametrize("what", HELD)
def test_what_a_resumed_program_may_do(workshop: Lab, what: str) -> None:
    straight, second = resumed(workshop, what, HELD[what])
    assert straight.ended.status == second.ended.status == "ok", second.ended
    assert second.digest == straight.digest
    assert second.facts.losses == straight.facts.losses


def test_both_processes_find_one_copy_of_the_tree(
    workshop: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repro_audit.isolation.overlay.mechanisms", lambda: ())
    body = HELD["it pickles, and renames what it has written"]
    straight, second = resumed(workshop, "a copy", body)
    assert second.ended.status == "ok", second.ended
    assert second.digest == straight.digest


LOST = {
    "generators that are put back too early": (
        """
        if resumes:
            put_back(torch.load("last.pt"))
            nn.Linear(3, 1)
        while True:
            train(x, x[:, :1])
            torch.save(states(), "last.pt")
        """,
        [("generator", ["rng.torch"])],
    ),
    "the optimizer": (
        """
        if resumes:
            saved = torch.load("last.pt")
            put_back({**saved, "optimizer": optimizer.state_dict()})
        while True:
            train(x, x[:, :1])
            optimizer.param_groups[0]["lr"] /= 2
            torch.save(states(), "last.pt")
        """,
        [
            ("state", [f"state.{name}.{key}" for name in ("weight", "bias") for key in ADAM]),
            ("group", ["Adam.lr: 0.1 instead of 0.0125 in step 3"]),
        ],
    ),
    "the model": (
        """
        if resumes:
            saved = torch.load("last.pt")
            put_back({**saved, "model": model.state_dict()})
        while True:
            train(x, x[:, :1])
            torch.save(states(), "last.pt")
        """,
        [("parameter", ["param.weight", "param.bias"])],
    ),
    "what the dataset draws from": (
        """
        class Noisy(TensorDataset):
            drawn = torch.Generator()

            def __getitem__(self, index):
                rows, wanted = super().__getitem__(index)
                return rows + torch.rand(3, generator=self.drawn), wanted

        if resumes:
            put_back(torch.load("last.pt"))
        while True:
            for rows, wanted in DataLoader(Noisy(x, x[:, :1]), batch_size=16):
                train(rows, wanted)
            torch.save(states(), "last.pt")
        """,
        [("dataset", [])],
    ),
    "an average of its own": (
        """
        average = 0.0
        if resumes:
            put_back(torch.load("last.pt"))
        while True:
            average = average + 1
            train(x * average, x[:, :1])
            torch.save(states(), "last.pt")
        """,
        [],
    ),
}


@pytest.mark.parametrize("what", LOST)
def test_what_a_resumed_program_lacks(workshop: Lab, what: str) -> None:
    body, found = LOST[what]
    straight, second = resumed(workshop, what, body)
    assert second.ended.status == "ok", second.ended
    # Up to the checkpoint, the trace is that of the straight run.
    before = [row for row in straight.trace if row.step < 3]
    assert [row for row in second.trace if row.step < 3] == before
    pair = resumption.lost(straight.trace, second.trace)
    assert pair["phase"]
    assert _resumed_script.lost(pair, second.facts.survey[ID]) == found


def test_a_resumed_program_that_trains_no_more_is_an_error(workshop: Lab) -> None:
    body = """
        if resumes:
            sys.exit()
        while True:
            train(x, x[:, :1])
            torch.save(states(), "last.pt")
    """
    straight, second = resumed(workshop, "over", body)
    assert straight.ended.status == "ok"
    assert second.ended.status == "crashed"
    assert second.facts.failure is not None
    assert second.facts.failure.what == "The program made no step when it was resumed with again."
