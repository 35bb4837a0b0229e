"""Whose question a function answers: the program's own, or a library's that asks on the program's behalf.

A library that reads a clock to stop a training, or seeds a generator with the id of the process, does so for the line
of the program that called it. One that waits for a reply, or writes a log, does not: it needs the real answer, and
nothing of it reaches the result.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

from repro_audit.probe.files import is_users
from repro_audit.sources._program import Lines, behind, direct_caller

_SOURCES = str(Path(__file__).resolve().parents[1]) + os.sep
"""Whose functions stand in for others; what the audit asks for itself, such as the names of files, is its own."""
_STANDARD = tuple(
    {
        str(place).rstrip(os.sep) + os.sep
        for name in ("stdlib", "platstdlib")
        for place in (sysconfig.get_path(name), os.path.realpath(sysconfig.get_path(name)))
    }
)
_FROZEN = "<frozen "
"""What Python calls the files of those that its interpreter has built in."""
_INSTALLED = "site-packages" + os.sep, "dist-packages" + os.sep

APART = frozenset(
    (
        # The audit itself, where it is installed.
        "repro_audit",
        # PyTorch's own: time-outs of its workers, its profiler, the names of its shared memory.
        *("torch", "torchgen", "functorch", "triton"),
        # Show and log.
        *("tqdm", "rich", "loguru", "structlog", "absl", "tensorboard", "tensorboardX", "wandb"),
        *("mlflow", "comet_ml", "neptune", "clearml", "aim", "sentry_sdk", "colorlog", "git"),
        # Wait for others: processes, files, networks.
        *("filelock", "portalocker", "urllib3", "requests", "httpx", "httpcore", "aiohttp"),
        *("anyio", "botocore", "boto3", "s3fs", "fsspec", "gcsfs", "google", "grpc", "zmq"),
        *("tornado", "ray", "dask", "distributed", "joblib", "loky", "sqlalchemy", "psutil"),
        *("huggingface_hub", "IPython", "ipykernel", "jupyter_client", "traitlets", "debugpy"),
        *("numba", "pytest", "_pytest", "execnet", "xdist", "hypothesis", "coverage"),
    )
)
"""Installed packages that ask on their own account, by the name of their directory or module."""


def asker(frame: FrameType | None, through: tuple[str, ...] = ()) -> FrameType | None:
    """The frame of the program's own code that asks, or for which a library does; None where nobody asks for it.

    Args:
        frame: of the caller of the function that answers.
        through: modules of the standard library that hand on what they are told, by `standard_module`.
    """
    frame = asks(frame, through)
    own = direct_caller(frame)
    if own is not None or frame is None or not may_ask(frame.f_code.co_filename):
        return own
    users, importing = behind(frame)
    return None if importing else users


def noting(
    original: Callable[..., Any],
    lines: Lines,
    through: tuple[str, ...] = (),
    shown: Callable[[Any], Any] | None = None,
) -> Callable[..., Any]:
    """What stands in for a function: it notes the line that asks, which is told what `shown` makes of the answer."""

    def function(*args: Any, **kwargs: Any) -> Any:
        answer = original(*args, **kwargs)
        users = asker(sys._getframe(1), through)
        if users is None:
            return answer
        lines.note(users)
        return answer if shown is None else shown(answer)

    return function


def asks(frame: FrameType | None, through: tuple[str, ...] = ()) -> FrameType | None:
    """The first frame that is neither a source's own nor one that hands on what it is told."""
    while frame is not None and _hands_on(frame.f_code.co_filename, through):
        frame = frame.f_back
    return frame


@lru_cache(maxsize=4096)
def _hands_on(filename: str, through: tuple[str, ...]) -> bool:
    if filename.startswith(_SOURCES):
        return True
    return standard_module(filename) in through


@lru_cache(maxsize=4096)
def standard_module(filename: str) -> str:
    """`zipfile` for a file of that module or package of the standard library; empty for any other file."""
    if filename.startswith(_FROZEN):
        return filename[len(_FROZEN) : -1]
    for place in _STANDARD:
        if filename.startswith(place) and not filename.startswith(f"{place}site-packages"):
            parts = Path(filename[len(place) :].removesuffix(".py")).parts
            return parts[0] if parts[0] != "multiprocessing" else ".".join(parts)
    return ""


@lru_cache(maxsize=4096)
def may_ask(filename: str) -> bool:
    """Whether what code of a file asks for may reach the program's results: its own, or an installed package's."""
    if is_users(filename):
        return True
    package = installed_package(filename)
    return bool(package) and package not in APART


@lru_cache(maxsize=4096)
def installed_package(filename: str) -> str:
    """The directory or module of an installed package that a file is of; empty for any other file."""
    for place in _INSTALLED:
        _, found, rest = filename.rpartition(place)
        if found:
            return Path(rest).parts[0].removesuffix(".py")
    return ""
