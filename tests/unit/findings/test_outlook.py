"""Files that the program's text says it writes and reads: what is hinted at, and what is not."""

from __future__ import annotations

import textwrap

import pytest

from repro_audit.findings.outlook import unreached


def hints(text: str, **seen: bool) -> tuple[str, ...]:
    """For a program whose function under audit is `main`, where the files of `seen` were written."""
    return unreached({"train.py": textwrap.dedent(text)}, "main", written=seen, opened=())


@pytest.mark.parametrize(
    "program",
    [
        "import torch\ndef main():\n    torch.load('a.pt')\n    torch.save(1, 'a.pt')",
        "from torch import save as s, load\ndef main():\n    load('a.pt')\n    s(1, f='a.pt')",
        "from pathlib import Path\nP = Path('a') / 'b'\ndef main():\n    P.exists()\n    P.write_text('')",
        "import numpy as np\ndef main():\n    np.load(x)\n    np.save(x, 1)",
        "def main():\n    open(x)\n    with open(x, mode='ab') as f: f.write(1)",
        "def main():\n    step()\ndef step():\n    x.open('w')\n    x.read_text()",
        "class A:\n    def keep(self): x.write_bytes(1); x.is_file()\ndef main():\n    A()",
        "import glob, torch\ndef main():\n    torch.load(max(glob.glob('*.pt')))\n    torch.save(1, f'{e}.pt')",
    ],
)
def test_hint(program: str) -> None:
    (hint,) = hints(program)
    assert hint.startswith("train.py:")
    assert "may write" in hint


@pytest.mark.parametrize(
    "program",
    [
        # Written, and never read.
        "import torch\ndef main():\n    torch.save(1, 'a.pt')",
        # Another file.
        "import torch\ndef main():\n    torch.load('data.pt')\n    torch.save(1, 'a.pt')",
        "import os, torch\ndef main():\n    os.path.exists('d'); torch.load('d')\n    torch.save(1, 'a.pt')",
        # Nothing that the function names.
        "import torch\ndef main(): pass\ndef other():\n    torch.load('a'); torch.save(1, 'a')",
        "import torch\ndef main(): pass\nif __name__ == '__main__':\n    torch.load('a'); torch.save(1, 'a')",
        "def main(",
    ],
)
def test_no_hint(program: str) -> None:
    assert hints(program) == ()


def test_what_was_written_is_no_hint() -> None:
    known = "import torch\ndef main():\n    torch.load('a')\n    torch.save(1, 'a')"
    assert hints(known, a=False) == ()
    assert len(hints(known, b=False)) == 1
    unknown = "import torch\ndef main():\n    torch.load(x)\n    torch.save(1, x)"
    assert hints(unknown, b=False) == ()
    assert len(hints(unknown, b=True)) == 1
    opened = "def main():\n    open(x)\n    open(x, 'w')"
    assert unreached({"t.py": opened}, "main", written={}, opened={("t.py", 3)}) == ()
