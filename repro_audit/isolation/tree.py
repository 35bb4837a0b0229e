"""The user's tree as one trial sees it: plain data that crosses the process border as JSON."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from repro_audit.errors import InternalError

Kind = Literal["overlay", "copy", "shared"]
"""How a trial's writes are kept from the user's tree: by a copy-on-write mount, by a copy, or not at all."""

ELSEWHERE = ("/boot", "/var/spool", "/media")
"""Directories that no training needs: in the first there is, an overlay is mounted a second time, for its trial only.

Its path is then the same in all trials and audits.
"""


class SandboxUnavailable(InternalError):  # noqa: N818 - a state of the machine, that a plan meets
    """This process can not get the view of the tree that it was told to take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """What an overlay needs on this machine, found by trying."""

    user_namespace: bool
    """Mount in a user namespace of its own, which ordinary users may; else this process may mount as it is."""
    options: str
    """Mount options of the overlay beside its layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A directory of the tree, and what takes a trial's writes there."""

    place: Path
    """Relative to the tree's root."""
    upper: Path
    """The upper layer of the overlay, or the copy."""
    work: Path
    """The overlay's own work directory, beside `upper`."""
    lowers: tuple[Path, ...]
    """What the trial found there, topmost layer first; of a copy, its original."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The tree, for one trial."""

    kind: Kind
    root: Path
    """The real path of the tree, symbolic links resolved."""
    cwd: Path
    """Where the trial works, as a path of the real tree."""
    parts: tuple[Part, ...] = ()
    """The first is all of the tree but for the others, which are inside it; none for a shared tree."""
    mechanism: Mechanism | None = None

    @property
    def base(self) -> Path:
        """The directory that holds everything of this trial's tree."""
        return self.parts[0].upper.parent

    def elsewhere(self) -> Path | None:
        """Where this trial, in its process, finds the tree by another path; None without an overlay."""
        if self.kind != "overlay":
            return None
        places = (Path(place) for place in ELSEWHERE)
        return next((p for p in places if p.is_dir() and p.samefile(self.root)), None)

    def map(self, path: Path) -> Path:
        """Where this trial finds `path`: elsewhere only for a path inside a tree that is a copy."""
        if self.kind != "copy" or not self.parts:
            return path
        absolute = os.path.normpath(self.cwd / path)
        for candidate in (Path(absolute), Path(os.path.realpath(absolute))):
            if candidate.is_relative_to(self.root):
                return self.parts[0].upper / candidate.relative_to(self.root)
        return path
