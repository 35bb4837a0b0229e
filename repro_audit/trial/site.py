"""Where trials run: the trees that they find, what they have in common, and what is cleared away after each."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.isolation.compiled import Compiled
from repro_audit.isolation.sandbox import Isolation, Tree, written
from repro_audit.trial.request import FIRST, TEMPORARY, TrialRequest

if TYPE_CHECKING:
    from repro_audit.trial.runner import Ended


class Site:
    """The trials' directories and trees on one machine.

    Args:
        isolation: keeps what they write from the user's tree.
        deciding: ids of the sources whose levels compiled code depends on.
        common: below which are the paths by which all trials find their temporary files; its own directory by default.
    """

    def __init__(
        self, isolation: Isolation, deciding: Sequence[str], *, common: Path | None = None
    ) -> None:
        self.isolation = isolation
        self._trials = isolation.scratch / "trials"
        self._compiled = Compiled(isolation.scratch / "compiled", tuple(deciding))
        # Two directories that are empty for us, in place of which each trial finds its own.
        common = common or self._trials
        self._temporary = (common / "common" / TEMPORARY, common / "other" / TEMPORARY)
        for place in self._temporary:
            place.mkdir(parents=True, exist_ok=True)
        self._first: TrialRequest | None = None
        """The audit's first trial, once it has ended, whose tree is the warm tree of others."""

    def place(self, request: TrialRequest) -> TrialRequest:
        """Give a trial, whose directory is only its name so far, what it needs here."""
        name = request.directory.name
        directory = self._trials / name
        directory.mkdir(parents=True)
        first_tree = None
        if request.half == "second":
            first_tree = self._tree(f"{name}-{FIRST}", request)
        if first_tree is not None and request.cut is not None:
            tree = self._left_by(first_tree, name)
        else:
            tree = self._tree(name, request)
        return replace(
            request,
            directory=directory,
            tree=tree,
            first_tree=first_tree,
            temporary=self._temporary,
            compiled=self._compiled.of(request.setting),
        )

    def clear(self, request: TrialRequest, ended: Ended, *, kept: bool = False) -> Ended:
        """Delete what a trial has no use for after its end; how it ended, with what it wrote into its tree.

        Args:
            request: of the trial, as it was placed.
            ended: how it ended.
            kept: it is one of another audit, whose files are in its place.
        """
        if ended.status == "ok" and not kept:
            self._compiled.keep(request.setting, request.directory / TEMPORARY)
        for directory in (request.directory, request.first_half):
            shutil.rmtree(directory / TEMPORARY, ignore_errors=True)
        if request.first_tree is not None:
            self.isolation.discard(request.first_tree)
        if not request.first:
            self.isolation.discard(request.tree)
            return ended
        self.begin_again()
        self._first = request
        if ended.facts is None or kept or not request.tree.parts:
            return ended
        return replace(ended, facts=replace(ended.facts, written=written(request.tree)))

    def discard(self, request: TrialRequest) -> None:
        """Delete what was made ready for a trial that was not made."""
        for tree in filter(None, (request.first_tree, request.tree)):
            self.isolation.discard(tree)
        shutil.rmtree(request.directory, ignore_errors=True)

    def begin_again(self) -> None:
        """Forget the first trial, which is to be made anew."""
        if self._first is not None:
            self.isolation.discard(self._first.tree)
        self._first = None

    def move_to_memory(self) -> bool:
        """Have the trees of trials in memory, where the first trial wrote many files; it is then to be made anew."""
        return self._first is not None and self.isolation.move_to_memory(self._first.tree)

    def _tree(self, name: str, request: TrialRequest) -> Tree:
        """A tree as the user has it, or as the first trial left it."""
        after = self._first.directory.name if request.warm and self._first else None
        return self.isolation.tree(name, after=after)

    def _left_by(self, first: Tree, name: str) -> Tree:
        """The tree that a script finds when it is run again: as its first process leaves it."""
        if self.isolation.kind == "overlay":
            return self.isolation.tree(name, after=f"{name}-{FIRST}")
        return first  # a copy of it would be made before that process has begun
