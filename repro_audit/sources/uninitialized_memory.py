"""Memory that was never written decides the result.

## What it does
The audit has the C library fill what it hands out: with zeros (pinned), with the byte 0x3f (0.747 as a float), and with
0xff (NaN as a float, -1 as an integer). Another result convicts it. That reaches `torch.empty` and its relatives
(`empty_like`, `new_empty`, `empty_strided`, `resize_`, `torch.Tensor(n)`), `np.empty` and `np.empty_like` of every
size, `np.ndarray(shape)` from 1 KiB on, and extensions in C, in workers too. It does not reach CUDA memory. Apart from
it, deterministic mode fills such memory, and so hides the defect: the audit's own use of that mode does not fill.
*Same*: all fillings give the same. *Not tried* where the C library is not glibc.

## Why it breaks reproducibility
`torch.empty` takes memory as it comes, with whatever was in it: zeros where the system has just mapped it, remains of
earlier tensors where not. Which of the two depends on sizes, on what was freed before, and on the allocator, so a
buffer that is only partly written, or read before it is written, holds other numbers in another run, and often
plausible ones.

## Example
A running mean starts from memory that nothing has written.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.empty(64))
        self.layer = nn.Linear(64, 1)

    def forward(self, x):
        self.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
        return self.layer(x - self.mean)


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(64, 64)
    return Centred(), DataLoader(
        TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8
    )
```

## Use instead
Say what it starts from.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(64))
        self.layer = nn.Linear(64, 1)

    def forward(self, x):
        self.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
        return self.layer(x - self.mean)


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(64, 64)
    return Centred(), DataLoader(
        TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8
    )
```

## References
- `torch.empty`: <https://docs.pytorch.org/docs/stable/generated/torch.empty.html>
- `torch.utils.deterministic.fill_uninitialized_memory`:
  <https://docs.pytorch.org/docs/stable/deterministic.html#torch.utils.deterministic.fill_uninitialized_memory>
- `numpy.empty`: <https://numpy.org/doc/stable/reference/generated/numpy.empty.html>
- glibc: `M_PERTURB`: <https://man7.org/linux/man-pages/man3/mallopt.3.html>
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.fixes.remedies import Rename
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.storage.facts import Facts

PINNED = "zeros"
BYTES = {PINNED: 0x00, "0x3f": 0x3F, "0xff": 0xFF}
"""No small number: the remains of earlier tensors look like floats of ordinary size, or are NaN."""
M_PERTURB = -6
"""Of `mallopt`: each block handed out is filled with the complement of the byte given; 0 switches it off."""
NUMPY_CACHE = 1024
"""NumPy keeps smaller blocks for itself, and hands them out again as they are."""
TUNABLES, NO_CACHE = "GLIBC_TUNABLES", "glibc.malloc.tcache_count=0"
CACHED_ALIGNED = (2, 38)
"""From this version on, glibc's per-thread cache serves aligned blocks too, which are torch's, without filling them."""


def levels(_facts: Facts) -> Levels | str:
    """Two other fillings."""
    if _glibc() is None:
        return "the C library is not glibc, which alone can fill the memory that it hands out"
    return Levels(varied=tuple(level for level in BYTES if level != PINNED))


@functools.cache
def _glibc() -> tuple[int, ...] | None:
    """Its version; None for another C library, or on another system."""
    try:
        version: Any = ctypes.CDLL(None).gnu_get_libc_version
    except (AttributeError, OSError, TypeError):
        return None
    version.restype = ctypes.c_char_p
    return tuple(int(part) for part in version().decode().split(".")[:2])


def environment(_level: str) -> Mapping[str, str]:
    """The same for every level: no cache through which blocks would come back as they were left."""
    if (_glibc() or ()) < CACHED_ALIGNED:
        return {}
    return {TUNABLES: ":".join(filter(None, (os.environ.get(TUNABLES), NO_CACHE)))}


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Have malloc fill each block, and NumPy's small arrays filled as well."""
    if _glibc() is None:
        yield
        return
    mallopt = ctypes.CDLL(None).mallopt
    byte = BYTES[level]
    mallopt(M_PERTURB, 0x100 | (byte ^ 0xFF))
    try:
        with Replacements() as replacements:
            trial.when_imported("numpy", lambda: _fill_small_arrays(byte, replacements))
            yield
    finally:
        mallopt(M_PERTURB, 0)


def _fill_small_arrays(byte: int, replacements: Replacements) -> None:
    numpy: Any = sys.modules["numpy"]
    for name in ("empty", "empty_like"):
        replacements.attribute(numpy, name, _filled(getattr(numpy, name), byte))


def _filled(make: Callable[..., Any], byte: int) -> Callable[..., Any]:
    @functools.wraps(make)
    def filled(*args: Any, **keywords: Any) -> Any:
        array = make(*args, **keywords)
        if 0 < array.nbytes < NUMPY_CACHE and not array.dtype.hasobject:
            ctypes.memset(array.__array_interface__["data"][0], byte, array.nbytes)
        return array

    return filled


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Put the outcome in words; what CUDA's allocator hands out nobody fills."""
    device = "; the memory of CUDA devices was not filled" if facts.cuda else ""
    return Verdict.of(
        judgement,
        held=f"what uninitialised memory holds changes nothing{device}",
        broke="memory is read that was never written, and holds something else in each run",
    )


def fix(_facts: Facts) -> Fix:
    """Write it before it is read."""
    return Fix(
        summary="Write every element before it is read, or begin with zeros, or with NaN while you look for the one "
        "that is read too early. torch.use_deterministic_algorithms(True) fills such memory with NaN.",
        snippet="buffer = torch.zeros(size)  # not torch.empty(size)",
    )


REMEDIES = (
    Rename(
        calls=(
            *("torch.empty", "torch.empty_like", "numpy.empty", "numpy.empty_like"),
            *(".new_empty", "torch.Tensor.new_empty"),
        ),
        old="empty",
        new="zeros",
        summary="Begin with zeros: what {call} gives holds whatever the memory held before.",
    ),
)


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    environment=environment,
    judge=judge,
    fix=fix,
    remedies=REMEDIES,
)
