"""Where objects lie in memory decides the order of sets, and of what is sorted by `id()`.

## What it does
The audit gives objects numbers in place of addresses, as `id()` and as the default hash: in the order of their first
use (pinned), in reverse, and scattered. Another result convicts it, and the report lists the lines where objects are
hashed or their ids taken. That reaches instances of the program's own classes, modules and tensors. For functions,
classes, and objects of libraries, the free blocks of the real heap are shuffled as well. Where that alone changes the
result, nothing pins it, and no other source is blamed for any difference, since every change moves the heap. *Same*:
all give the same.

## Why it breaks reproducibility
An object without a `__hash__` of its own hashes by its address, and a set is iterated in the order of hashes. The
operating system loads each process at random addresses, and what was allocated and freed before decides which block
an object gets: another import, another path, another length of an environment variable moves it. So a set of
parameters, of modules or of nodes, a list sorted by `id`, and a seed made of a hash differ from run to run. A dict
keeps the order of insertion and is not concerned.

## Example
The order of the training set follows a set of objects.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Recording:
    def __init__(self, signal):
        self.signal = signal


def build(seed):
    torch.manual_seed(seed)
    recordings = {Recording(torch.randn(8)) for _ in range(32)}
    x = torch.stack([recording.signal for recording in recordings])
    return nn.Linear(8, 1), DataLoader(
        TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4
    )
```

## Use instead
A dict has no duplicates either, and keeps the order of insertion.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Recording:
    def __init__(self, signal):
        self.signal = signal


def build(seed):
    torch.manual_seed(seed)
    recordings = dict.fromkeys(Recording(torch.randn(8)) for _ in range(32))
    x = torch.stack([recording.signal for recording in recordings])
    return nn.Linear(8, 1), DataLoader(
        TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4
    )
```

## References
- Python: `object.__hash__`: <https://docs.python.org/3/reference/datamodel.html#object.__hash__>
- Python: `id`: <https://docs.python.org/3/library/functions.html#id>
- PyTorch: a tensor hashes by its id: <https://github.com/pytorch/pytorch/blob/main/torch/_tensor.py>
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from repro_audit import notebook
from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.fixes.remedies import SetOrder
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources.emulation.addresses import (
    Numbers,
    ascending,
    classes_of_the_program,
    descending,
    numbered,
    scattered,
    shuffle_heap,
    supported,
)
from repro_audit.storage import reads
from repro_audit.storage.facts import Facts, Json

ID = "object-address"
PINNED, REVERSED = "in order of use", "in reverse"
SCATTERED, HEAP = "scattered, other heap", "in order of use, other heap"
ORDERS = {PINNED: ascending, REVERSED: descending, SCATTERED: scattered, HEAP: ascending}
HEAPS = {SCATTERED: 1, HEAP: 2}
MOST_CLASSES = 20
"""The heap is shuffled once more for each of the program's first classes: what it imports straightens it again."""


def levels(_facts: Facts) -> Levels:
    """Other numbers, and another heap, which nothing pins."""
    return Levels(varied=(REVERSED, SCATTERED, HEAP), unpinnable=HEAP)


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Number the objects as the level says, and shuffle the heap under them."""
    with ExitStack() as stack:
        if supported():
            numbers = Numbers(ORDERS[level])
            trial.notes[ID] = numbers.places
            stack.enter_context(numbered(numbers, trial.when_imported))
        if level in HEAPS:
            _shuffle_again(HEAPS[level], stack)
        yield


def _shuffle_again(seed: int, stack: ExitStack) -> None:
    seeds = iter(range(seed, seed + 10 * MOST_CLASSES, 10))

    def shuffle(_cls: type | None = None) -> None:
        chosen = next(seeds, None)
        if chosen is not None:
            shuffle_heap(chosen)

    shuffle()
    stack.enter_context(classes_of_the_program(shuffle))


def survey(trial: TrialContext) -> Json:
    """The lines where objects were first hashed, with the names of their classes."""
    return [(*line, name) for line, name in trial.notes.get(ID, {}).items()]


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Name the lines that hash objects."""
    by_heap = [level.level for level in judgement.levels if level.diverged] == [HEAP]
    return Verdict.of(
        judgement,
        held="other addresses of objects, and another layout of the heap, change nothing",
        broke="the place of objects in memory decides the result, and it differs from run to run",
        evidence=() if by_heap else _lines(facts.survey.get(ID)),
    )


def hashed(found: Json) -> Iterator[tuple[str, int]]:
    """The lines of the program where objects were first hashed."""
    for file, line, _ in found or ():
        yield file, line


def _lines(found: Json) -> tuple[str, ...]:
    return tuple(
        f"objects of {name} are hashed, or their ids taken, at {notebook.place(file, line)}"
        for file, line, name in found or ()
    )


def fix(_facts: Facts) -> Fix:
    """Keep the order of insertion, or sort by what the objects say."""
    return Fix(
        summary="Keep such objects in a list, or as the keys of a dict, which keeps the order of insertion; or sort "
        "them by something that they hold, never by id() or hash().",
        snippet="unique = dict.fromkeys(objects)  # not set(objects)\n"
        "ordered = sorted(unique, key=lambda each: each.name)",
    )


REMEDIES = (
    SetOrder(
        template="dict.fromkeys({0})",
        of_items=True,
        summary="Keep such objects as the keys of a dict, which keeps the order in which they came; the order of a set "
        "of them follows their addresses.",
    ),
)


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    reads=frozenset(
        (
            reads.ADDRESS,
            reads.HASH,
            reads.SET_ORDER,
        )
    ),
    lines=hashed,
    hidden_order=True,
    fix=fix,
    remedies=REMEDIES,
    survey=survey,
)
