"""NumPy's global generator is not seeded.

## What it does
The audit starts NumPy's global generator from one state (A) and from another (B), and leaves all else as it is. A
result that follows the state convicts it where the program answers for its own seeding: `build` takes a `seed`, the
program itself calls `random.seed`, `np.random.seed` or `torch.manual_seed`, or it trains by itself (a procedure, a
trainer), so that nobody else could seed it. A `build` that does none of this, and returns the parts to train, leaves
the seeding to its caller, here the audit: then such a result is *delegated*, and the verdict holds only if the caller
seeds. *Same*: both states give the same.

## Why it breaks reproducibility
`np.random.rand`, `np.random.permutation` and the other functions of `numpy.random` itself draw from one `RandomState`
that the whole process shares. NumPy seeds it from the operating system, so each process begins elsewhere.
`torch.manual_seed` and `random.seed` do not reach it, and every library that draws from it (for augmentation, say)
moves it on.

## Example
`build` takes a seed and passes it to PyTorch alone; NumPy picks the samples to train on.

```python
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    train = torch.from_numpy(np.random.permutation(64)[:48])
    data = TensorDataset(x[train], x[train].sum(1, keepdim=True))
    return nn.Linear(8, 1), DataLoader(data, batch_size=8)
```

## Use instead
A generator of the program's own, which nobody else moves. Where a library draws from the global one, call
`np.random.seed(seed)`.

```python
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    train = torch.from_numpy(rng.permutation(64)[:48])
    data = TensorDataset(x[train], x[train].sum(1, keepdim=True))
    return nn.Linear(8, 1), DataLoader(data, batch_size=8)
```

## References
- NumPy: `numpy.random.seed`, and why not to use it:
  <https://numpy.org/doc/stable/reference/random/generated/numpy.random.seed.html>
- PyTorch: Reproducibility, other libraries:
  <https://docs.pytorch.org/docs/stable/notes/randomness.html#random-number-generators-in-other-libraries>
"""

from __future__ import annotations

from repro_audit.fixes.seeding import Argument, SeedBeside
from repro_audit.source import Fix
from repro_audit.sources import _ambient

_KEEPS = "Give {call} a random_state; without one it draws from NumPy's global generator."
REMEDIES = (
    Argument(
        calls=(
            *(
                "sklearn.model_selection.train_test_split",
                "sklearn.utils.shuffle",
                "sklearn.utils.resample",
            ),
            *(
                "sklearn.model_selection.ShuffleSplit",
                "sklearn.model_selection.StratifiedShuffleSplit",
            ),
            *("sklearn.model_selection.GroupShuffleSplit", "sklearn.datasets.make_classification"),
            *(
                "sklearn.datasets.make_regression",
                "sklearn.datasets.make_blobs",
                "sklearn.datasets.make_moons",
            ),
            *(
                "sklearn.datasets.make_circles",
                "sklearn.cluster.KMeans",
                "sklearn.cluster.MiniBatchKMeans",
            ),
            *(
                "sklearn.decomposition.PCA",
                "sklearn.decomposition.TruncatedSVD",
                "sklearn.manifold.TSNE",
            ),
            *("sklearn.mixture.GaussianMixture", "sklearn.ensemble.RandomForestClassifier"),
            *("sklearn.ensemble.RandomForestRegressor", "sklearn.ensemble.IsolationForest"),
            *("sklearn.random_projection.GaussianRandomProjection",),
        ),
        keyword="random_state",
        summary=_KEEPS,
    ),
    Argument(calls=(".sample",), keyword="random_state", summary=_KEEPS),
    SeedBeside(
        function="numpy.random.seed",
        summary="Seed NumPy's global generator too: no other seed reaches it.",
    ),
)

SOURCE = _ambient.source(
    __name__,
    __doc__,
    library="numpy",
    generator="NumPy's global generator",
    call="np.random.seed",
    seeded_by="numpy.random.seed",
    fix=Fix(
        summary="Seed it before anything draws from it, or better, draw from a numpy Generator of your own.",
        snippet="import numpy as np\n\nnp.random.seed(seed)",
    ),
    remedies=REMEDIES,
)
