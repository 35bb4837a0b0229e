"""String hashes, and with them the order of sets, decide the result.

## What it does
The audit runs the program under `PYTHONHASHSEED` 0 (pinned), 1 and 2, each in an interpreter of its own. Another
result under 1 or 2 convicts it. *Same*: all three give the same.

## Why it breaks reproducibility
Python salts the hash of every `str` and `bytes` with a number that it draws anew for each process, unless
`PYTHONHASHSEED` fixes it. A set is iterated in an order that follows from the hashes, and so is what is made from it:
a vocabulary, a list of classes, a split. Code that calls `hash()` on a string, to split data or to derive a seed, is
hit too. A dict keeps the order of insertion and is not. Setting `os.environ["PYTHONHASHSEED"]` in the program does
nothing: the interpreter has read it by then.

## Example
The numbers of the words follow the order of a set.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

TEXT = "the cat sat on the mat and the dog lay on a rug by the old red door"


def build(seed):
    torch.manual_seed(seed)
    words = TEXT.split()
    numbers = {word: number for number, word in enumerate(set(words))}
    tokens = torch.tensor([numbers[word] for word in words])
    model = nn.Sequential(
        nn.Embedding(len(numbers), 8), nn.Linear(8, len(numbers))
    )
    return model, DataLoader(
        TensorDataset(tokens[:-1], tokens[1:]), batch_size=2
    )
```

## Use instead
Sort before the order decides anything.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

TEXT = "the cat sat on the mat and the dog lay on a rug by the old red door"


def build(seed):
    torch.manual_seed(seed)
    words = TEXT.split()
    numbers = {
        word: number for number, word in enumerate(sorted(set(words)))
    }
    tokens = torch.tensor([numbers[word] for word in words])
    model = nn.Sequential(
        nn.Embedding(len(numbers), 8), nn.Linear(8, len(numbers))
    )
    return model, DataLoader(
        TensorDataset(tokens[:-1], tokens[1:]), batch_size=2
    )
```

## References
- Python: `PYTHONHASHSEED`: <https://docs.python.org/3/using/cmdline.html#envvar-PYTHONHASHSEED>
- Python: `object.__hash__`: <https://docs.python.org/3/reference/datamodel.html#object.__hash__>
- Labels numbered by `list(set(targets))`: <https://github.com/JoakimEdin/explainable-medical-coding/issues/7>
- Splits of a dataset that were sets of strings: <https://github.com/Emmi-AI/noether/pull/180>
"""

from __future__ import annotations

from collections.abc import Mapping

from repro_audit.fixes.remedies import Instead, SetOrder
from repro_audit.option import Kind, Option
from repro_audit.source import Fix, Levels, RunPin, Scope, Source, in_words
from repro_audit.storage import reads
from repro_audit.storage.facts import Facts

PINNED = "0"
SEEDS = Option(
    name="seeds",
    kind=Kind.INTEGERS,
    default=(1, 2),
    minimum=1,
    maximum=2**32 - 1,
    help=f"Values of PYTHONHASHSEED to try beside {PINNED}.",
)


def levels(facts: Facts) -> Levels:
    """Other hash seeds, each in an interpreter of its own."""
    seeds = tuple(map(str, SEEDS.of(facts)))
    return Levels(varied=seeds, interpreters=seeds)


def environment(level: str) -> Mapping[str, str]:
    """The hash seed is read once, when an interpreter starts."""
    return {"PYTHONHASHSEED": level}


def fix(_facts: Facts) -> Fix:
    """Sort; or fix the hash seed from outside."""
    return Fix(
        summary="Sort what comes out of a set before it decides anything. Fixing the hash seed works only from "
        "outside: PYTHONHASHSEED=0 python train.py",
        snippet="vocabulary = sorted(set(words))  # not list(set(words))",
    )


REMEDIES = (
    Instead(
        calls=("hash",),
        template="zlib.crc32(str({0}).encode())",
        imports="zlib",
        summary="Take a digest that is the same in every process, such as zlib.crc32 or one of hashlib's; hash() of a "
        "string is not.",
    ),
    SetOrder(
        template="sorted({0})",
        summary="Sort the set before its order decides anything.",
    ),
)


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=PINNED,
    levels=levels,
    options=(SEEDS,),
    environment=environment,
    run_pin=RunPin(variables=environment(PINNED)),
    judge=in_words(
        held="other values of PYTHONHASHSEED change nothing",
        broke="another PYTHONHASHSEED gives another result; Python draws a new one for each process",
    ),
    reads=frozenset(
        (
            reads.HASH,
            reads.SET_ORDER,
        )
    ),
    fix=fix,
    remedies=REMEDIES,
)
