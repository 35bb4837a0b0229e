"""The instruction set that the CPU offers decides how a kernel computes, and so the bits.

## What it does
The audit runs the program as this CPU runs it (pinned), with its kernels capped at AVX2 where the CPU has more, and
capped at the baseline that every x86 CPU has. Another result convicts it; then ATen (PyTorch's own kernels), oneDNN and
MKL are capped one by one, and the report names which of them moved the bits. The caps are in force before the target is
loaded, so a program that sets its own keeps them. It breaks the promise `portable`, and is emulated: a cap only ever
lowers what this CPU offers, and another CPU may differ in more. *Held*: all give the same. *Not exercised* on CPUs
other than x86.

## Why it breaks reproducibility
The libraries hold several versions of each kernel and take the best for the CPU that they find. Wider registers add
more numbers side by side, so a sum has another order; a fused multiply-add rounds once where two instructions round
twice. Even initial weights depend on it: `nn.Linear` scales its uniform numbers with a fused multiply-add where the CPU
has one.

## Example
Every layer here is computed by kernels that differ between CPUs.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    return model, DataLoader(data, batch_size=8, shuffle=True)
```

## Use instead
All three libraries at the baseline, set before PyTorch is imported: slower, and alike on many CPUs. All three are
needed, since each decides for itself.

```python
import os

os.environ["ATEN_CPU_CAPABILITY"] = "default"
os.environ["ONEDNN_MAX_CPU_ISA"] = "SSE41"
os.environ["MKL_CBWR"] = "COMPATIBLE"

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    return model, DataLoader(data, batch_size=8, shuffle=True)
```

## References
- The same three caps made runs on several CPU models agree: <https://github.com/Deep-MI/FastSurfer/issues/892>
- PyTorch: Numerical accuracy: <https://docs.pytorch.org/docs/stable/notes/numerical_accuracy.html>
- oneDNN, `ONEDNN_MAX_CPU_ISA`: <https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html>
- MKL, `MKL_CBWR`:
  <https://www.intel.com/content/www/us/en/docs/onemkl/developer-guide-linux/2025-2/obtaining-numerically-reproducible-results.html>
"""

from __future__ import annotations

import os
import platform
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from repro_audit.source import Fix, Levels, Scope, Source, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from repro_audit.experiment import Judgement
    from repro_audit.facts import Facts, Json
    from repro_audit.trial.context import TrialContext

PINNED = "as is"
LIBRARIES = {
    "ATen": ("ATEN_CPU_CAPABILITY", "default", "avx2"),
    "oneDNN": ("ONEDNN_MAX_CPU_ISA", "SSE41", "AVX2"),
    "MKL": ("MKL_CBWR", "COMPATIBLE", "AVX2"),
}
"""Each library's own variable, with its value for the baseline and for AVX2."""
BASELINE, AVX2 = "all capped at the baseline", "all capped at AVX2"
PARTS = {f"{library} alone capped at the baseline": library for library in LIBRARIES}
X86 = {"x86_64", "AMD64", "i686"}


def capped(level: str) -> dict[str, str]:
    """The variables of a level."""
    if level == PINNED:
        return {}
    chosen = [PARTS[level]] if level in PARTS else LIBRARIES
    number = 2 if level == AVX2 else 1
    return {LIBRARIES[library][0]: LIBRARIES[library][number] for library in chosen}


def survey(_trial: TrialContext) -> Json:
    """What ATen takes this CPU for, which libraries are there, and whether the program caps them all itself."""
    backends: Any = sys.modules["torch"].backends
    here = {"oneDNN": backends.mkldnn.is_available(), "MKL": backends.mkl.is_available()}
    return {
        "machine": platform.machine(),
        "capability": backends.cpu.get_cpu_capability(),
        "libraries": [library for library in LIBRARIES if here.get(library, True)],
        "capped": _has(os.environ, capped(BASELINE)),
    }


def _has(environment: Mapping[str, str], variables: Mapping[str, str]) -> bool:
    return all(environment.get(name) == value for name, value in variables.items())


def levels(facts: Facts) -> Levels | str:
    """Lower instruction sets than this CPU's; few programs hold, so those without caps of their own are run alone."""
    found = facts.survey.get(SOURCE.id)
    if found is None or found["machine"] not in X86:
        return "the instruction sets that can be emulated are those of x86 CPUs"
    avx2 = (AVX2,) if found["capability"].startswith("AVX512") else ()
    return Levels(
        varied=(BASELINE, *avx2),
        parts=tuple(part for part, library in PARTS.items() if library in found["libraries"]),
        alone=not found["capped"],
    )


@contextmanager
def apply(level: str, _trial: TrialContext) -> Iterator[None]:
    """Set the variables, which the libraries read at their first kernel; no kernel has run yet."""
    variables = capped(level)
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def judge(judgement: Judgement, _facts: Facts) -> Verdict:
    """Name the libraries that moved the bits."""
    if judgement.status == "held":
        reason = judgement.note or "lower instruction sets, emulated on this CPU, change nothing"
        return Verdict(status="held", reason=reason)
    if judgement.status != "broke":
        return Verdict(status=judgement.status, reason=judgement.note or "")
    reason = "another CPU's instruction set, emulated by caps on this one, gives other bits"
    return Verdict(status="broke", reason=f"{reason}{_by_whom(judgement)}")


def _by_whom(judgement: Judgement) -> str:
    guilty = [
        PARTS[level.level] for level in judgement.levels if level.level in PARTS and level.diverged
    ]
    ran = [level for level in judgement.levels if level.level in PARTS]
    if guilty:
        names = " and ".join(filter(None, (", ".join(guilty[:-1]), guilty[-1])))
        return f"; {names} by {'itself' if len(guilty) == 1 else 'themselves'}"
    return "; no library by itself, only several together" if ran else ""


def fix(_facts: Facts) -> Fix:
    """Cap all three libraries in the program."""
    lines = [f'os.environ["{name}"] = "{value}"' for name, value in capped(BASELINE).items()]
    return Fix(
        summary="Cap all three libraries before PyTorch is imported, so that CPUs of several kinds compute alike; "
        "it costs speed. Initial weights can be kept alike without it: make them once and load them from a file.",
        snippet="\n".join(("import os\n", *lines, "\nimport torch")),
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.PORTABLE,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
    survey=survey,
)
