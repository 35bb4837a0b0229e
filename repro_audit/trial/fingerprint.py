"""What this process ran on, as `storage.fingerprint` names it: called in a trial, once its training is over."""

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from repro_audit.storage.fingerprint import CAPABILITY, PACKAGE, THREADS, VARIABLE, VARIABLES

_BUILDS = {
    "BLAS": r"BLAS_INFO=(\w+)",
    "MKL": r"(?:oneAPI Math Kernel|Math Kernel) Library Version ([^ ]+)",
    "oneDNN": r"(?:oneDNN|MKL-DNN) (v[^ ]+)",
}
"""By field: where `torch.__config__.show()` tells of it."""
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_DRIVER = Path("/proc/driver/nvidia/version")


def fingerprint() -> dict[str, str]:
    """Every field that can be known here."""
    import torch

    built = torch.__config__.show()
    found = {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        THREADS: str(torch.get_num_threads()),
        CAPABILITY: str(torch.backends.cpu.get_cpu_capability()),
        "CPU": cpu_model(),
        "CPU cores": str(os.cpu_count()),
        "CPU caches": _caches(),
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        **{name: match[1] for name, how in _BUILDS.items() if (match := re.search(how, built))},
    }
    if torch.cuda.is_initialized():
        devices = range(torch.cuda.device_count())
        found["GPU"] = ", ".join(torch.cuda.get_device_name(each) for each in devices)
        found["CUDA"] = str(torch.version.cuda)
        found["cuDNN"] = str(torch.backends.cudnn.version())
        found["driver"] = text_of(_DRIVER).partition("\n")[0]
    found |= {f"{PACKAGE} {name}": version for name, version in _packages().items()}
    variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    found |= {f"{VARIABLE} {name}": value for name, value in variables.items()}
    return {name: value for name, value in found.items() if value}


def _packages() -> dict[str, str]:
    """The versions of what was imported from site-packages, torch apart."""
    places = tuple(sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib"))
    imported = {
        name
        for name, module in list(sys.modules.items())
        if "." not in name
        and str(getattr(getattr(module, "__spec__", None), "origin", None)).startswith(places)
    }
    found = {}
    known = metadata.packages_distributions()  # in Python 3.10, of few packages
    for name in imported:
        for distribution in {*known.get(name, [name])} - {"torch"}:
            with suppress(metadata.PackageNotFoundError):
                found[distribution] = metadata.version(distribution)
    return dict(sorted(found.items()))


def cpu_model() -> str:
    """As the CPU calls itself."""
    lines = text_of(Path("/proc/cpuinfo")).splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _caches() -> str:
    """`L1 Data 32K, L2 Unified 1024K`."""
    levels = []
    for place in sorted(_CACHES.glob("index*")):
        level, kind, size = (text_of(place / name).strip() for name in ("level", "type", "size"))
        if level and kind != "Instruction":
            levels.append(f"L{level} {kind} {size}")
    return ", ".join(levels)


def text_of(path: Path) -> str:
    """What a file of the system says; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
