"""Notebooks under audit: the cell that is to blame, its twin without the cause, and what a second run finds."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from tests.notebooks import MARKDOWN, write_notebook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.auditing import Audited
    from tests.sharing import Interpreters

HEAD = "import numpy as np\nimport torch\nfrom torch import nn"
MODEL = """torch.manual_seed(0)
model = nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)"""
DATA = """x = torch.randn(64, 8)

noise = np.random.rand(64, 1)
y = x.sum(1, keepdim=True) + torch.from_numpy(noise).float()"""
TRAINING = """for epoch in range(4):
    for batch in range(0, 64, 16):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x[batch : batch + 16]), y[batch : batch + 16])
        loss.backward()
        optimizer.step()"""
CELLS = (f"{MARKDOWN}# A regression", HEAD, MODEL, "", f"{MARKDOWN}Its data", DATA, TRAINING)
NUMPY = ("--only", "numpy-rng")


@pytest.fixture
def audit(interpreters: Interpreters, tmp_path: Path) -> Any:
    """Writes a notebook beside a report, and audits it."""
    tree = tmp_path / "tree"
    tree.mkdir()

    def audited(*cells: str, options: tuple[str, ...] = NUMPY, name: str = "train.ipynb") -> Any:
        (tree / name).parent.mkdir(exist_ok=True)
        write_notebook(tree / name, *cells)
        return interpreters.check(*options, name, cwd=tree, saved=tmp_path / "report.json")

    return audited


def assert_blamed(audited: Audited, *, cell: int, line: int, file: str = "train.ipynb") -> None:
    assert audited.broke == {"numpy-rng"}, audited.terminal
    found = audited.source("numpy-rng")
    location = found["divergence"]["location"]
    assert (location["file"], location["cell"], location["line"]) == (file, cell, line)
    assert location["code"] == "noise = np.random.rand(64, 1)"
    assert f"{file}, cell {cell}, line {line}\n" in audited.terminal
    assert found["fix"]["verified"]
    assert found["fix"]["snippet"].splitlines() == [
        f"--- {file}, cell 2",
        f"+++ {file}, cell 2",
        "@@ -1,0 +2 @@",
        "+np.random.seed(0)",
    ]


def test_the_cell_and_the_line_to_blame(audit: Any) -> None:
    assert_blamed(audit(*CELLS), cell=3, line=3)


def test_its_clean_twin_holds_also_where_its_cells_run_again(audit: Any) -> None:
    cells = (HEAD, f"{MODEL}\nnp.random.seed(0)", DATA, TRAINING)
    options = (*NUMPY, "--only", "process-reuse", "--require", "settings")
    audited = audit(*cells, options=options)
    assert audited.exit_code == 0, audited.terminal
    for source in ("numpy-rng", "process-reuse"):
        assert audited.source(source)["status"] == "held"


def test_what_a_second_run_of_the_cells_finds(audit: Any) -> None:
    kept = "seen = globals().setdefault('seen', [])\nseen.append(1)"
    cells = (HEAD, MODEL, kept, "x = torch.ones(64, 8)\ny = x[:, :1] * len(seen)", TRAINING)
    audited = audit(*cells, options=("--only", "process-reuse", "--require", "settings"))
    assert audited.broke == {"process-reuse"}, audited.terminal


@pytest.mark.skipif(find_spec("IPython") is None, reason="IPython is not installed")
def test_magics_are_run_and_move_no_line(audit: Any) -> None:
    """In the notebook's own directory, where a kernel works."""
    command = "!test \\\n  -f train.ipynb && touch seen"
    check = "import os\nassert os.path.exists('seen')"
    cells = (HEAD, MODEL, f"%%time\n{DATA}", f"{command}\n{check}", f"%%capture\n{TRAINING}")
    audited = audit(*cells, name="notes/train.ipynb")
    assert_blamed(audited, cell=3, line=4, file="notes/train.ipynb")


def test_an_error_is_shown_in_its_cell(audit: Any) -> None:
    audited = audit(HEAD, MODEL, "def fails():\n    return 1 / 0", "fails()")
    assert audited.exit_code == 3
    shown = "".join(audited.terminal.split())
    assert 'train.ipynb,cell4",line1,in<module>fails()' in shown
    assert 'train.ipynb,cell3",line2,infailsreturn1/0' in shown


def test_a_notebook_that_never_trains_is_told_so(audit: Any) -> None:
    audited = audit(HEAD, MODEL)
    assert audited.exit_code == 3
    assert "train.ipynb ended without a step of an optimizer" in " ".join(audited.terminal.split())
