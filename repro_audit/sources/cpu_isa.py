"""The instruction set that the CPU offers decides how a kernel computes, and so the bits.

## What it does
The audit runs the program as this CPU runs it (pinned), with its kernels capped at AVX2 where the CPU has more, and
capped at the baseline that every x86 CPU has. Another result convicts it; then ATen (PyTorch's own kernels), oneDNN and
MKL are capped one by one, and the report names which of them moved the bits. Where the program's own code imports
NumPy, or a library that computes with it, NumPy's kernels and OpenBLAS' are capped too, in an interpreter of its own,
since they read their caps when they are loaded. The others' caps are in force before the target is loaded, so a program
that sets its own keeps them. It breaks the promise `portable`, and is emulated: a cap only ever lowers what this CPU
offers, and another CPU may differ in more. *Same*: all give the same. *Not tried* on CPUs other than x86, and,
NumPy apart, where the program uses `torch.compile`, which makes code for the CPU that it finds.

## Why it breaks reproducibility
The libraries hold several versions of each kernel and take the best for the CPU that they find. Wider registers add
more numbers side by side, so a sum has another order; a fused multiply-add rounds once where two instructions round
twice. Even initial weights depend on it: `nn.Linear` scales its uniform numbers with a fused multiply-add where the CPU
has one. And a sort that is not stable leaves equal elements in whatever order its kernel comes upon them, so what
`np.argsort` picks may be other samples altogether: `kind="stable"` is the same everywhere.

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
- NumPy, `NPY_DISABLE_CPU_FEATURES`: <https://numpy.org/doc/stable/reference/simd/build-options.html>
- NumPy: `argsort`, `kind`: <https://numpy.org/doc/stable/reference/generated/numpy.argsort.html>
- OpenBLAS, `OPENBLAS_CORETYPE`: <https://www.openmathlib.org/OpenBLAS/docs/runtime_variables/>
- MKL, `MKL_CBWR`:
  <https://www.intel.com/content/www/us/en/docs/onemkl/developer-guide-linux/2025-2/obtaining-numerically-reproducible-results.html>
"""

from __future__ import annotations

import functools
import importlib
import os
import platform
import re
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_audit import replacements
from repro_audit.isolation import compiled
from repro_audit.probe.files import program_modules
from repro_audit.source import Fix, Levels, RunPin, Scope, Source, Verdict, listed
from repro_audit.storage import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from repro_audit.context import TrialContext
    from repro_audit.experiment import Judgement
    from repro_audit.storage.facts import Facts, Json

PINNED = "as is"
LIBRARIES = {
    "ATen": ("ATEN_CPU_CAPABILITY", "default", "avx2"),
    "oneDNN": ("ONEDNN_MAX_CPU_ISA", "SSE41", "AVX2"),
    "MKL": ("MKL_CBWR", "COMPATIBLE", "AVX2"),
}
"""Each library's own variable, with its value for the baseline and for AVX2."""
BASELINE, AVX2 = "all capped at the baseline", "all capped at AVX2"
PARTS = {f"{library} alone capped at the baseline": library for library in LIBRARIES}

NUMPY = "NumPy and OpenBLAS capped at the baseline"
ALL = "all capped at the baseline, NumPy and OpenBLAS too"
"""Of a program that caps the others itself: one trial does for both."""
NUMPY_PARTS = {f"{name} alone capped at the baseline": name for name in ("NumPy", "OpenBLAS")}
FEATURES, CORE = "NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE"
LOWEST_CORE = "Nehalem"
"""What OpenBLAS takes a CPU for that has no AVX: the oldest that PyTorch runs on."""
COMPILED = (
    "torch.compile makes code for the CPU that it finds; under caps it makes such as no CPU would "
    "run, or none at all"
)
X86 = {"x86_64", "AMD64", "i686"}

_COMPUTES = re.compile(
    r"^\s*(?:from|import)\s+(numpy|pandas|polars|scipy|sklearn|skimage|albumentations|gymnasium)\b",
    re.MULTILINE,
)
"""An import, in a file of the program's own, of a library that computes in NumPy."""


def capped(level: str) -> dict[str, str]:
    """The variables of a level that are read at a library's first kernel."""
    if level in {PINNED, NUMPY, *NUMPY_PARTS}:
        return {}
    chosen = [PARTS[level]] if level in PARTS else LIBRARIES
    number = 2 if level == AVX2 else 1
    return {LIBRARIES[library][0]: LIBRARIES[library][number] for library in chosen}


def environment(level: str) -> dict[str, str]:
    """The variables of a level that are read when a library is loaded."""
    if level not in {NUMPY, ALL, *NUMPY_PARTS}:
        return {}
    chosen = NUMPY_PARTS.get(level, "")
    features = _dispatched()
    found = {}
    if chosen != "OpenBLAS" and features:
        # A list of the user's own goes on to hold.
        found[FEATURES] = " ".join(filter(None, (os.environ.get(FEATURES), *features)))
    if chosen != "NumPy" and CORE not in os.environ:
        found[CORE] = LOWEST_CORE
    return found


@functools.cache
def _dispatched() -> tuple[str, ...]:
    """What this NumPy dispatches on and has found in this CPU; names and the module's place differ by version."""
    for name in ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath"):
        with suppress(ImportError, AttributeError):
            module: Any = importlib.import_module(name)
            return tuple(each for each in module.__cpu_dispatch__ if module.__cpu_features__[each])
    return ()


def survey(trial: TrialContext) -> Json:
    """What ATen takes this CPU for, which libraries are there, and whether the program caps them all itself."""
    backends: Any = sys.modules["torch"].backends
    here = {"oneDNN": backends.mkldnn.is_available(), "MKL": backends.mkl.is_available()}
    return {
        "machine": platform.machine(),
        "capability": backends.cpu.get_cpu_capability(),
        "libraries": [library for library in LIBRARIES if here.get(library, True)],
        "capped": _has(os.environ, capped(BASELINE)),
        "numpy": bool(environment(NUMPY)) and _computes_in_numpy(),
        "compiled": compiled.used(),
        "level": trial.setting.get(SOURCE.id),
    }


def _has(environment: Mapping[str, str], variables: Mapping[str, str]) -> bool:
    return all(environment.get(name) == value for name, value in variables.items())


def _computes_in_numpy() -> bool:
    """Whether the program's own files import NumPy, or what computes in it; torch imports it for itself."""
    if "numpy" not in sys.modules:
        return False
    for file in sorted({file for _, file, _ in program_modules()}):
        with suppress(OSError):
            if _COMPUTES.search(Path(file).read_text("utf-8", "replace")):
                return True
    return False


def levels(facts: Facts) -> Levels | str:
    """Lower instruction sets than this CPU's; few programs hold, so those without caps of their own are run alone."""
    found = facts.survey.get(SOURCE.id)
    if found is None or found["machine"] not in X86:
        return "the instruction sets that can be emulated are those of x86 CPUs"
    if found["compiled"] and not found["numpy"]:
        return COMPILED
    if found["compiled"]:
        return Levels(varied=(NUMPY,), interpreters=(NUMPY,), parts={NUMPY: tuple(NUMPY_PARTS)})
    lower = (AVX2,) if found["capability"].startswith("AVX512") else ()
    parts = {BASELINE: tuple(part for part, name in PARTS.items() if name in found["libraries"])}
    if found["numpy"]:
        parts[NUMPY] = tuple(NUMPY_PARTS)
        parts[ALL] = (*parts[NUMPY], *parts[BASELINE])
    varied: tuple[str, ...] = (BASELINE, *lower)
    if found["numpy"]:
        # First: where it makes other samples, that tells more than how a kernel rounds.
        varied = (ALL, *lower) if found["capped"] else (NUMPY, *varied)
    interpreters = tuple(level for level in varied if environment(level))
    alone = not found["capped"]
    return Levels(varied=varied, interpreters=interpreters, parts=parts, alone=alone)


@contextmanager
def apply(level: str, _trial: TrialContext) -> Iterator[None]:
    """Set the variables, which the libraries read at their first kernel; no kernel has run yet."""
    with replacements.environment(capped(level)):
        yield


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Name the libraries that moved the bits."""
    if judgement.status == "held" and (facts.survey.get(SOURCE.id) or {}).get("compiled"):
        reason = f"{COMPILED}; NumPy's and OpenBLAS' kernels, capped, change nothing"
        return Verdict(status="not-exercised", reason=reason)
    return Verdict.of(
        judgement,
        held="lower instruction sets, emulated on this CPU, change nothing",
        broke="another CPU's instruction set, emulated by caps on this one, gives other bits"
        f"{_by_whom(judgement)}",
    )


def _by_whom(judgement: Judgement) -> str:
    parts = {**NUMPY_PARTS, **PARTS}
    ran = [level for level in judgement.levels if level.level in parts]
    guilty = [parts[level.level] for level in ran if level.diverged]
    if guilty:
        return f"; {listed(guilty)} by {'itself' if len(guilty) == 1 else 'themselves'}"
    return "; no library by itself, only several together" if ran else ""


def fix(facts: Facts) -> Fix:
    """Cap all three libraries in the program; of what NumPy sorts, have ties stay in order."""
    if (facts.diverged or {}).get("level") in {NUMPY, ALL, *NUMPY_PARTS}:
        return Fix(
            summary='Sort with kind="stable" wherever the order of equal elements decides what is taken: other sorts '
            "of NumPy leave ties in the order in which this CPU's kernels come upon them. Products and sums come out "
            f"alike under NumPy's and OpenBLAS' own caps, {FEATURES} and {CORE}, set before Python starts.",
            snippet='order = np.argsort(values, kind="stable")  # not np.argsort(values)',
        )
    lines = [f'os.environ["{name}"] = "{value}"' for name, value in capped(BASELINE).items()]
    return Fix(
        summary="Cap all three libraries before PyTorch is imported, so that CPUs of several kinds compute alike; "
        "it costs speed. Initial weights can be kept alike without it: make them once and load them from a file.",
        snippet="\n".join(("import os\n", *lines, "\nimport torch")),
    )


def as_recorded(field: str, value: str) -> str | None:
    """The cap at what the other CPU had, as PyTorch calls it."""
    lower = {"AVX2": AVX2, "DEFAULT": BASELINE, "NO AVX": BASELINE}
    return lower.get(value) if field == fingerprint.CAPABILITY else None


def for_run(cap: str) -> dict[str, str]:
    """The variables that cap a run at `avx2` or at the `baseline`."""
    level = AVX2 if cap == "avx2" else ALL
    return {**capped(level), **environment(level)}


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.PORTABLE,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    environment=environment,
    judge=judge,
    fix=fix,
    survey=survey,
    at_first_kernel=True,
    decides_code=True,
    run_pin=RunPin(flag="cpu", asked=for_run),
    as_recorded=as_recorded,
)
