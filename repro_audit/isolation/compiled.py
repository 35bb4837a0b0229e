"""What `torch.compile` made in one trial, for those that would make the same.

To compile takes far longer than to train a few steps, and PyTorch keeps what it made in a directory, which a user has
in common for all runs. Each trial has one of its own, so that no two write into one; it begins as a copy of what
earlier trials left that compiled under the same levels.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

DIRECTORY = "compiled"
"""In a trial's directory for temporary files."""
VARIABLES = {"TORCHINDUCTOR_CACHE_DIR": "", "TRITON_CACHE_DIR": "triton"}
"""Where PyTorch and Triton look for it, and the part of it that is theirs."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """The directories that trials left, by the levels under which they compiled."""

    place: Path
    deciding: tuple[str, ...]
    """Sources whose levels compiled code depends on; not every version of PyTorch tells all of them apart itself."""
    kept: dict[tuple[str, ...], Path] = field(default_factory=dict)

    def of(self, setting: Mapping[str, str]) -> Path | None:
        """What a trial under a setting begins with; None where nothing was compiled under such levels."""
        return self.kept.get(self._key(setting))

    def keep(self, setting: Mapping[str, str], temporary: Path) -> None:
        """Keep what a trial compiled that trained to its end, with what others did before under such levels."""
        made, key = temporary / DIRECTORY, self._key(setting)
        with suppress(OSError, shutil.Error):
            before = self.kept.get(key)
            if _files(made) <= (_files(before) if before else set()):
                return
            if before is not None:
                _complete(made, before)
            self.place.mkdir(exist_ok=True)
            # Another place each time: a trial that runs beside this one may be copying from the last.
            self.kept[key] = made.rename(self.place / str(len(list(self.place.iterdir()))))

    def _key(self, setting: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(setting.get(name, "") for name in self.deciding)


def _files(directory: Path) -> set[Path]:
    return {path.relative_to(directory) for path in directory.rglob("*") if path.is_file()}


def _complete(made: Path, before: Path) -> None:
    """Add what only an earlier trial compiled."""
    for file in _files(before) - _files(made):
        (made / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(before / file, made / file)


def begin(temporary: Path, kept: Path | None) -> None:
    """In a trial's process: have PyTorch keep what it compiles below `temporary`, from what is kept on."""
    directory = temporary / DIRECTORY
    if kept is not None:
        with suppress(OSError, shutil.Error):  # then it compiles anew
            shutil.copytree(kept, directory, symlinks=True)
    for name, part in VARIABLES.items():
        os.environ[name] = str(directory / part)


def used() -> bool:
    """Whether this process has compiled something, or found it compiled."""
    directory = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or os.devnull)
    return directory.is_dir() and any(directory.iterdir())
