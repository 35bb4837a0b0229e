"""Scripts as Python runs them: what they find there, how they end, and what an audit says of them."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from tests import scripts
from tests.auditing import check

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sharing import Interpreters

SCRIPTS = sorted(scripts.SCRIPTS.glob("*.py"))
QUICK = ("--only", "torch-rng")

TRAINING = """
import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)


def step():
    optimizer.zero_grad()
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
"""


@pytest.fixture
def audit(interpreters: Interpreters, tmp_path: Path) -> Any:
    """Writes a script beside a report, and audits it."""
    tree = tmp_path / "tree"
    tree.mkdir()

    def audited(
        text: str, *options: str, name: str = "train.py", args: tuple[str, ...] = ()
    ) -> Any:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
        return interpreters.check(
            *(options or QUICK), name, *args, cwd=tree, saved=tmp_path / "report.json"
        )

    return audited


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_the_cause_of_each_script(script: Path, interpreters: Interpreters, tmp_path: Path) -> None:
    scripts.assert_found(script, tmp_path, interpreters.check, lambda _: ("--scope", "rerun"))


def test_a_script_finds_what_python_gives_it(audit: Any) -> None:
    audited = audit(
        TRAINING
        + """
import os, pickle, sys

class Named:
    pass

assert __name__ == "__main__"
assert sys.modules["__main__"].__dict__ is globals()
assert sys.argv == ["sub/train.py", "--lr", "0.1"], sys.argv
assert sys.path[0] == os.path.join(os.getcwd(), "sub"), sys.path[0]
assert __file__ == os.path.join(os.getcwd(), "sub", "train.py")
assert __spec__ is None and __package__ is None
assert pickle.loads(pickle.dumps(Named())).__class__ is Named
for _ in range(20):
    step()
""",
        name="sub/train.py",
        args=("--lr", "0.1"),
    )
    assert audited.exit_code == 0, audited.terminal
    assert audited.report["target"] == {
        "spec": "sub/train.py",
        "mode": "script",
        "argv": ["--lr", "0.1"],
    }


def test_a_module_runs_in_its_package(
    audit: Any, interpreters: Interpreters, tmp_path: Path
) -> None:
    package = tmp_path / "tree" / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(TRAINING)
    (package / "train.py").write_text(
        "import os, sys\nfrom .parts import step\n"
        "assert __spec__.name == 'pkg.train' and __package__ == 'pkg'\n"
        "assert sys.argv == [__file__, '-x'] and sys.path[0] == os.getcwd()\n"
        "for _ in range(9): step()\n"
    )
    words = ("-m", "pkg.train", "-x")
    audited = interpreters.check(*QUICK, *words, cwd=tmp_path / "tree", saved=tmp_path / "r.json")
    assert audited.exit_code == 0, audited.terminal


@pytest.mark.parametrize(
    "rest",
    [
        "try:\n    while True: step()\nexcept BaseException:\n    raise SystemExit(7)",
        "import time\ntry:\n    while True: step()\nfinally:\n    1 / 0",
        "import os\ntry:\n    while True: step()\nfinally:\n    os._exit(5)",
        "import sys\nfor _ in range(3): step()\nsys.exit(0)",
    ],
    ids=["caught", "fails as it ends", "leaves at once", "ends itself"],
)
def test_a_training_counts_however_the_script_ends(audit: Any, rest: str) -> None:
    audited = audit(TRAINING + rest)
    assert audited.exit_code == 0, audited.terminal


WORKERS = """
from torch.utils.data import DataLoader


class Noisy(torch.utils.data.Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, index):
        return torch.randn(4)


if __name__ == "__main__":
    for x in DataLoader(Noisy(), batch_size=4, num_workers=WORKERS):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
"""


def test_the_number_of_workers_of_a_script_is_varied(audit: Any) -> None:
    audited = audit(TRAINING + WORKERS.replace("WORKERS", "2"), "--only", "num-workers")
    source = audited.source("num-workers")
    assert source["status"] == "broke"
    assert source["divergence"]["location"]["code"] == "return torch.randn(4)"


def test_a_script_that_goes_on_after_its_steps_is_ended(audit: Any) -> None:
    rest = "import time\ntry:\n    while True: step()\nexcept BaseException:\n    time.sleep(3600)"
    assert audit(TRAINING + rest).exit_code == 0


IN_A_THREAD = """
from threading import Thread
thread = Thread(target=step, name="trainer")
thread.start()
thread.join()
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys; sys.exit(3)", "the target called sys.exit(3)"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['-x'])", "an argument is missing"),
        ("input('name? ')", "the program asks for input"),
        (TRAINING, "the models that ran are: none"),
        ("import os, sys; os.execv(sys.executable, ['python'])", "replaces its own process"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("import nothing_there", "No module named 'nothing_there'"),
        (TRAINING + "while True: model(torch.ones(4)).sum().backward()", "513 losses were"),
        (TRAINING + IN_A_THREAD, "an optimizer stepped in the thread 'trainer'"),
    ],
    ids=["exits", "arguments", "input", "no step", "exec", "syntax", "import", "endless", "thread"],
)
def test_what_is_said_where_nothing_trains(audit: Any, text: str, said: str) -> None:
    audited = audit(text)
    assert audited.exit_code == 3
    assert said in " ".join(audited.terminal.split())


def test_variables_that_are_set_before_torch_is_imported_count(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import os\nos.environ['OMP_NUM_THREADS'] = '1'\n"
        + TRAINING
        + "assert torch.get_num_threads() == 1\nfor _ in range(9): step()\n"
    )
    audited = check(*QUICK, "--runs", "1", "train.py", cwd=tmp_path, saved=tmp_path / "report.json")
    assert audited.exit_code == 0, audited.terminal
    assert audited.report["settings"]["fresh"]
    assert "sets OMP_NUM_THREADS before it imports PyTorch" in " ".join(audited.terminal.split())


def test_until_epoch_goes_on_to_the_end_of_an_epoch(audit: Any) -> None:
    text = """
    import torch
    from torch.utils.data import DataLoader

    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        for x in DataLoader(torch.ones(40, 4), batch_size=4):
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()
    """
    audited = audit(text, *QUICK, "--until-epoch", "2")
    assert audited.report["settings"]["steps"] == 20, audited.terminal


def test_a_clean_script_takes_few_trials_for_one_promise(audit: Any) -> None:
    audited = audit(TRAINING + "for _ in range(9): step()", "--scope", "rerun")
    assert audited.exit_code == 0
    assert len(audited.report["trials"]) <= 5
