"""What a run ran on, as texts by the name of a field, and what of that two runs do not share. Pure.

A name is a kind and, of what there may be several of, which one: `threads`, `package numpy`, `variable TZ`,
`file data/train.npy`, `code train.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

CODE, FILE, VARIABLE, PACKAGE = "code", "file", "variable", "package"
THREADS, CAPABILITY = "threads", "CPU capability"
TARGET, COMMIT, CLEAN = "target", "git commit", "uncommitted changes"

VARIABLES = (
    *(
        "OMP_NUM_THREADS",
        "OMP_DYNAMIC",
        "OMP_SCHEDULE",
        "OMP_THREAD_LIMIT",
        "KMP_DETERMINISTIC_REDUCTION",
    ),
    *("MKL_NUM_THREADS", "MKL_DYNAMIC", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
    *("OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"),
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"),
    *("CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE", "NVIDIA_TF32_OVERRIDE"),
    *("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_CUDNN_V8_API_DISABLED", "CUDNN_DETERMINISTIC"),
    *(
        "CUDA_VISIBLE_DEVICES",
        "PYTORCH_JIT",
        "TORCHDYNAMO_DISABLE",
        "PYTORCH_NO_CUDA_MEMORY_CACHING",
    ),
    *("TZ", "LANG", "LC_ALL", "LC_COLLATE", "LC_NUMERIC"),
)
"""The environment variables that decide how numbers come out. No other is kept, and none that loads code."""

_LIKELIEST = (
    *(TARGET, CODE, FILE, VARIABLE, THREADS, CAPABILITY, "CPU", "torch"),
    *("BLAS", "MKL", "oneDNN", "cuDNN", "CUDA", "GPU", "driver"),
    *(PACKAGE, "Python", "CPU cores", "CPU caches", "system", COMMIT, CLEAN),
)
"""Kinds of fields, the likeliest cause of other numbers first."""
_OF_KERNELS = (
    VARIABLE,
    THREADS,
    CAPABILITY,
    "CPU",
    "torch",
    "BLAS",
    "MKL",
    "oneDNN",
    "cuDNN",
    "CUDA",
    "GPU",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A field that two runs do not share."""

    field: str
    before: str | None
    """None where the first run has no such field. Likewise the next one."""
    after: str | None

    @property
    def kind(self) -> str:
        """The field's, without which one it is."""
        first, _, rest = self.field.partition(" ")
        return first if rest and first in {CODE, FILE, VARIABLE, PACKAGE} else self.field

    @property
    def which(self) -> str:
        """Of several of a kind: which one."""
        return self.field.removeprefix(self.kind).strip()

    def in_words(self, here: str, there: str) -> str:
        """`threads: 2 → 4`; of what only one run has, which one that is: `here` or `there`."""
        if self.kind in {CODE, FILE}:
            if self.before is not None and self.after is not None:
                return f"{self.field}: other content"
            run = there if self.before is None else here
            return f"{self.field}: {'read' if self.kind == FILE else 'loaded'} by {run} alone"
        before, after = ("none" if each is None else each for each in (self.before, self.after))
        return f"{self.field}: {before} → {after}"


def changes(
    before: Mapping[str, str],
    after: Mapping[str, str],
    *,
    op: bool = False,
    files: Collection[str] = (),
) -> list[Change]:
    """What two runs do not share, the likeliest cause of other numbers first.

    Args:
        before: of the first run.
        after: of the second run.
        op: an op is where they part, so that what decides about kernels is likelier than the program.
        files: what the place where they part is in, or read.
    """
    names = dict.fromkeys((*before, *after))
    found = [
        Change(field=name, before=before.get(name), after=after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]

    def place(change: Change) -> tuple[bool, bool, int, str]:
        kind = change.kind
        order = _LIKELIEST.index(kind) if kind in _LIKELIEST else len(_LIKELIEST)
        return (change.which not in files, op and kind not in _OF_KERNELS, order, change.field)

    return sorted(found, key=place)
