"""Programs with two or three causes, all of which an audit with the whole catalogue names, and no other.

Sources with an audit like this in their own test module are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.auditing import check, write_target

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("shared_interpreters")

PROGRAMS = {
    ("nondeterministic-op", "torch-rng"): """
        import numpy as np
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset

        class Histogram(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.rand(50))
                self.register_buffer("index", torch.arange(200_000) % 50)
                self.register_buffer("share", torch.linspace(0.1, 0.9, 200_000))

            def forward(self, x):
                values = x.flatten()[:1] * self.share
                counts = torch.zeros(50).index_put((self.index,), values, accumulate=True)
                return (counts * self.weight).mean().reshape(1, 1) * 1e-4

        def build(seed):
            torch.set_num_threads(2)
            np.random.seed(seed)
            x = torch.rand(16, 4) + np.random.rand()  # PyTorch's generator is not seeded
            return Histogram(), DataLoader(TensorDataset(x, x[:, :1]), batch_size=1)
    """,
    ("pickled-embedding", "thread-count"): """
        import pickle
        from pathlib import Path

        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset

        WORDS = Path("words.pkl")

        class Classifier(nn.Module):
            def __init__(self, words):
                super().__init__()
                self.words = words
                self.head = nn.Linear(8, 1)

            def forward(self, rows):
                return self.head(self.words(rows).mean(dim=1)) + (torch.rand(300_000) - 0.5).sum()

        def build(seed):
            torch.manual_seed(seed)
            if WORDS.exists():
                words = pickle.loads(WORDS.read_bytes())
            else:
                words = nn.Embedding(16, 8)
                WORDS.write_bytes(pickle.dumps(words))
            rows = torch.arange(48).view(16, 3) % 16
            return Classifier(words), DataLoader(
                TensorDataset(rows, rows[:, :1] / 16), batch_size=4
            )
    """,
    ("cudnn-benchmark", "cudnn-deterministic", "python-rng"): """
        import random

        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset

        def build(seed):
            torch.manual_seed(seed)
            torch.set_num_threads(1)
            cudnn = torch.backends.cudnn
            x = torch.rand(16, 4) + random.random() + cudnn.benchmark + 2 * cudnn.deterministic
            return nn.Linear(4, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
    """,
    ("numpy-rng", "seed-effect", "worker-start-method"): """
        import numpy as np
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, Dataset

        scale = 1.0

        class Scaled(Dataset):
            def __len__(self):
                return 16

            def __getitem__(self, index):
                x = torch.full((3,), index / 16)
                return x * scale, x[:1]

        def build(seed):
            global scale
            torch.manual_seed(7)
            torch.set_num_threads(1)
            scale = 2.0
            model = nn.Linear(3, 1)
            with torch.no_grad():
                model.bias += np.random.rand()
            return model, DataLoader(Scaled(), batch_size=8, num_workers=1)
    """,
}


DEEP = (
    ("pickled-embedding", "thread-count"),
    ("cudnn-benchmark", "cudnn-deterministic", "python-rng"),
    ("numpy-rng", "seed-effect", "worker-start-method"),
)


@pytest.mark.parametrize(
    "causes",
    [pytest.param(each, marks=[pytest.mark.deep] if each in DEEP else []) for each in PROGRAMS],
    ids=" ".join,
)
def test_all_are_named_and_no_other(causes: tuple[str, ...], tmp_path: Path) -> None:
    program = write_target(tmp_path, PROGRAMS[causes])
    saved = tmp_path / "report.json"
    options = ("--steps", "3", "--no-pinpoint")
    audited = check("train.py:build", *options, cwd=program.parent, saved=saved)
    assert audited.broke == set(causes), audited.terminal
    assert audited.report["unexplained"] is None
