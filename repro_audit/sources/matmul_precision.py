"""The precision that float32 matrix products are computed at is a setting of the process.

## What it does
The audit runs the program at the highest precision, without TF32 (pinned); then as it is written, and with a lower
precision set around it: `torch.set_float32_matmul_precision("high")`, which also allows TF32, and `"medium"`, which
also allows bfloat16. Another result convicts it where the program as written computes otherwise than at the highest
precision, or where it behaves otherwise once TF32 is allowed. Where only a lower precision moves the bits, on a CUDA
device, or `"medium"` on a CPU whose oneDNN obeys it, the program leaves the matter to its caller, and is *delegated*.
The lower precisions are set before
the target is loaded, so a program that sets its own keeps it. *Same*: all give the same. *Not tried* where no
kernel obeys the setting and the program does not branch on it.

## Why it breaks reproducibility
TF32 keeps 10 bits of a factor's 23, and bfloat16 keeps 7. Which devices obey the setting differs: GPUs since Ampere,
and CPUs with bfloat16 instructions, through oneDNN. The setting holds for the whole process, so any library, notebook
cell or test that was there first may have changed it. Convolutions on CUDA use TF32 unless they are told not to.

## Example
The program looks at the setting, which whoever started it may have changed.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    model = nn.Linear(8, 1)
    rounded = torch.get_float32_matmul_precision() != "highest"
    optimizer = torch.optim.Adam(
        model.parameters(), eps=1e-4 if rounded else 1e-8
    )
    return (
        model,
        DataLoader(data, batch_size=8, shuffle=True),
        nn.MSELoss(),
        optimizer,
    )
```

## Use instead
The program sets the precision itself, before it looks and before it computes.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.set_float32_matmul_precision("highest")
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    model = nn.Linear(8, 1)
    rounded = torch.get_float32_matmul_precision() != "highest"
    optimizer = torch.optim.Adam(
        model.parameters(), eps=1e-4 if rounded else 1e-8
    )
    return (
        model,
        DataLoader(data, batch_size=8, shuffle=True),
        nn.MSELoss(),
        optimizer,
    )
```

## References
- `torch.set_float32_matmul_precision`:
  <https://docs.pytorch.org/docs/stable/generated/torch.set_float32_matmul_precision.html>
- PyTorch: TensorFloat-32 on CUDA: <https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices>
- PyTorch: oneDNN's precision of float32: <https://docs.pytorch.org/docs/stable/notes/mkldnn.html>
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.errors import MissingInternalError
from repro_audit.experiment import Judgement
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.storage.facts import Facts, Json
from repro_audit.torch_internals.generators import HAS_BFLOAT16

PINNED, AS_WRITTEN, HIGH, MEDIUM = "highest", "as written", "high", "medium"


def levels(_facts: Facts) -> Levels:
    """The program's own precision, and both lower ones; a program may branch on them on any machine."""
    return Levels(varied=(AS_WRITTEN, HIGH, MEDIUM))


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Pin against the program's own wish, after build() too; set a lower precision only as a caller would."""
    with Replacements() as replacements:
        if level != AS_WRITTEN:
            trial.when_imported("torch", lambda: _restore_from(replacements))
        if level == PINNED:
            trial.when_imported("torch", _pin)
            trial.on_built.append(lambda _model: _pin())
        elif level != AS_WRITTEN:
            trial.when_imported("torch", lambda: _lower(level))
        yield


def _pin(*, tf32: bool = False) -> None:
    """The highest precision, and otherwise the state that PyTorch starts in."""
    torch: Any = sys.modules["torch"]
    if _precision(torch) != PINNED:
        torch.set_float32_matmul_precision(PINNED)
        with suppress(AttributeError):  # older than PyTorch 2.9
            torch.backends.mkldnn.matmul.fp32_precision = "none"
    torch.backends.cudnn.allow_tf32 = tf32


def _restore_from(replacements: Replacements) -> None:
    """Have the state that PyTorch starts in, which is in force now, back at the end."""
    tf32 = sys.modules["torch"].backends.cudnn.allow_tf32

    def restore() -> None:
        with suppress(RuntimeError):  # where the program froze the flags
            _pin(tf32=tf32)

    replacements.callback(restore)


def _precision(torch: Any) -> str:
    """What is set; PyTorch refuses to say where it was set in the old way and in the new one."""
    try:
        return str(torch.get_float32_matmul_precision())
    except RuntimeError:
        return "mixed"


def _lower(level: str) -> None:
    torch: Any = sys.modules["torch"]
    torch.set_float32_matmul_precision(level)
    torch.backends.cudnn.allow_tf32 = True


def survey(_trial: TrialContext) -> Json:
    """Whether oneDNN has bfloat16 on this CPU, and so may obey `medium`."""
    with suppress(MissingInternalError, RuntimeError):
        return bool(HAS_BFLOAT16.get()())
    return False


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Blame the program for a precision of its own, or for looking at the caller's; not for a caller's."""
    obeys = bool(facts.survey.get(SOURCE.id))
    diverged = {level.level for level in judgement.levels if level.diverged}
    if judgement.status == "held" and not facts.cuda and not obeys:
        return Verdict(
            status="not-exercised",
            reason=f"no kernel obeys the setting: {facts.no_cuda}, and no bfloat16 in oneDNN on this CPU; "
            "the program does not branch on it either",
        )
    if (
        judgement.status == "broke"
        and AS_WRITTEN not in diverged
        and (facts.cuda or (diverged == {MEDIUM} and obeys))
    ):
        kernels = "the CUDA device's kernels obey" if facts.cuda else "oneDNN obeys"
        lower = " and ".join(f'"{level}"' for level in (HIGH, MEDIUM) if level in diverged)
        here = "" if facts.cuda else " on this CPU"
        return Verdict(
            status="delegated",
            reason=f"the program leaves the precision at PyTorch's default; {kernels} {lower}{here}",
        )
    return Verdict.of(
        judgement,
        held="lower precisions of products change nothing",
        broke="as written, the program does not compute at the highest precision"
        if AS_WRITTEN in diverged
        else "a lower precision that is set around the program gives another result",
    )


def fix(_facts: Facts) -> Fix:
    """Set all of it in the program."""
    return Fix(
        summary="Set the precision in the program, before anything is computed.",
        snippet='import torch\n\ntorch.set_float32_matmul_precision("highest")\n'
        "torch.backends.cudnn.allow_tf32 = False",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.SETTINGS,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
    pinned_by_fix=True,
    survey=survey,
    decides_code=True,
)
