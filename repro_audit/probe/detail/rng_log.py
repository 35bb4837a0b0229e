"""The ledger of random draws: which generator moved, and which line moved it.

No function that draws is hooked. States are compared whenever a line has ended, so `from random import random`, methods
that Cython wrote and extensions in C are seen like any other. A generator of the program's own is watched from the
moment when a line names it, or an object that holds it. At most `_MOST_AWAKE` of them are compared at every line, the
ones that were named last; another is compared when a line names it again.

Whether a movement was a draw or a seeding is told by the state where it can be: the words of a Mersenne Twister were
reached by going on (draw) or lie behind (seed), another kind has left its stream (seed). Elsewhere the names on the
line tell: `seed`, `manual_seed`, `set_state` and their like, and a line without them drew.

Not seen: the second of two normal deviates from NumPy's legacy generator, which it made with the first.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, final

import numpy as np
import torch

from repro_audit.probe.clock import Clock
from repro_audit.probe.digest import generators
from repro_audit.probe.digest.stored import inside, is_generator
from repro_audit.storage.events import NOTHING, DetailWriter, Kind

_DRAW = int(Kind.DRAW)
_MOST_AWAKE = 8
_MOST_KEPT = 512
_MOST_MEMBERS = 64
_SEARCH_DEPTH = 2
_LEAVES = (
    *(str, bytes, int, float, complex, type(None), type, ModuleType),
    *(torch.Tensor, np.ndarray, np.generic),
)


class _Watched:
    """A generator, and its state when it was last looked at; referred to weakly where it allows that."""

    __slots__ = ("_digest", "_kept", "_position", "_token", "_weak", "get", "name", "seen", "state")

    def __init__(
        self,
        generator: Any,
        name: int,
        digest: Callable[[Any], bytes] = generators.digest_of,
        token: Callable[[Any], object] | None = None,
    ) -> None:
        self.name = name
        self._digest = digest
        self._token = token or generators.token(generator)
        self._kept = self._weak = None
        self.get: Callable[[], Any]
        """The generator; None once it is gone."""
        try:
            self.get = self._weak = weakref.ref(generator)
        except TypeError:  # NumPy's
            self._kept = generator
            self.get = self._get_kept
        self.state = b""
        self.seen: object = None
        """What `token` said with that state."""
        self.restart()

    def _get_kept(self) -> Any:
        return self._kept

    def has_moved(self) -> bool:
        """Whether its state is another one."""
        generator = self.get()
        return generator is not None and self._token(generator) != self.seen

    def advance(self) -> tuple[bytes, bytes]:
        """The digests of the last state and of this one, which takes its place."""
        generator = self.get()
        before, self.state = self.state, self._digest(generator)
        self.seen = self._token(generator)
        return before, self.state

    def restart(self) -> None:
        """Take it as it is."""
        generator = self.get()
        self._position = generators.Position.of(generator)
        if generator is not None:
            self.advance()

    def is_dropped(self) -> bool:
        """Whether the program no longer has it: what is left is our own reference, and the argument of the call."""
        if self._weak is not None:
            return self._weak() is None
        return sys.getrefcount(self._kept) <= 2  # noqa: PLR2004 - as the docstring counts

    def drew(self) -> bool | None:
        """Whether it came here by drawing since this was last asked; None where that can't be told."""
        before, self._position = self._position, generators.Position.of(self.get())
        return self._position.follows(before)


@final
class RngLog:
    """Compares the states of generators and writes a row for each that moved.

    Args:
        writer: of the rows.
        clock: the step and the phase under way.
    """

    __slots__ = ("_ambient", "_awake", "_clock", "_cuda", "_intern", "_own", "_writer")

    def __init__(self, *, writer: DetailWriter, clock: Clock) -> None:
        self._writer = writer
        self._intern = writer.intern
        self._clock = clock
        self._ambient: list[_Watched] = []
        self._own: dict[int, _Watched] = {}
        """By address: a generator that `get` returns is the one that has it."""
        self._awake: list[_Watched] = []
        """Of the program's own, those that were named last, the latest at the end."""
        self._cuda = False
        self.start()

    def start(self) -> None:
        """Take all states as they are: what moved them until now is no one's."""
        names = {name: self._intern(name) for name in ("python", "numpy", "torch")}
        legacy = np.random.mtrand._rand
        self._ambient = [
            _Watched(generators.AMBIENT_PYTHON, names["python"]),
            _Watched(
                legacy,
                names["numpy"],
                lambda _: generators.ambient_numpy(),
                generators.ambient_numpy_token,
            ),
            _Watched(torch.default_generator, names["torch"]),
        ]
        self._cuda = False
        for watched in self._own.values():
            watched.restart()

    def poll(self, site: int, *, seeds: bool = False) -> None:
        """Write a row for each generator that moved since the last look.

        Args:
            site: the line that ran since then.
            seeds: a name on it speaks of seeding.
        """
        for watched in self._ambient:
            if watched.has_moved():
                self._moved(watched, site, seeds=seeds)
        for watched in self._awake:
            if watched.has_moved():
                self._moved(watched, site, seeds=seeds)
        if not self._cuda and torch.cuda.is_initialized():
            self._begin_cuda()

    def look(self, generator: Any, name: str, site: int, *, seeds: bool = False) -> bool:
        """Compare a generator that a line names; a new one is watched from now on, which is the answer."""
        watched = self._own.get(id(generator))
        if watched is not None and watched.get() is generator:
            if self._awake[-1:] != [watched]:
                self._wake(watched)
            if watched.has_moved():
                self._moved(watched, site, seeds=seeds)
            return False
        if any(ambient.get() is generator for ambient in self._ambient):
            return False
        self._forget()
        watched = _Watched(generator, self._intern(name))
        self._own[id(generator)] = watched
        self._wake(watched)
        self._write(watched, site, "made", NOTHING, watched.state)
        return True

    def search(self, value: Any, name: str, site: int) -> bool:
        """Watch the generators that an object holds, a level or two below it; whether there was a new one."""
        new = [self.look(inner, path, site) for path, inner in _held(value, name, _SEARCH_DEPTH)]
        return any(new)

    def search_module(self, module: dict[str, Any], site: int) -> None:
        """Watch the generators at the top level of a module."""
        prefix = module_name(module)
        for name, value in list(module.items()):
            if is_generator(value):
                self.look(value, f"{prefix}.{name}", site)

    def _wake(self, watched: _Watched) -> None:
        if watched in self._awake:
            self._awake.remove(watched)
        self._awake.append(watched)
        if len(self._awake) > _MOST_AWAKE:
            del self._awake[0]

    def _forget(self) -> None:
        """Let go of generators that the program has dropped, and of the oldest where there are too many."""
        dropped = [key for key, watched in self._own.items() if watched.is_dropped()]
        excess = len(self._own) - len(dropped) - _MOST_KEPT
        for key in (*dropped, *list(self._own)[: max(0, excess)]):
            watched = self._own.pop(key, None)
            if watched in self._awake:
                self._awake.remove(watched)

    def _begin_cuda(self) -> None:
        self._cuda = True
        for index, generator in enumerate(torch.cuda.default_generators):
            name = self._intern(f"cuda:{index}")
            self._ambient.append(_Watched(generator, name))

    def _moved(self, watched: _Watched, site: int, *, seeds: bool) -> None:
        before, state = watched.advance()
        drew = watched.drew()
        is_seed = seeds if drew is None else not drew
        self._write(watched, site, "seed" if is_seed else "draw", before, state)

    def _write(self, watched: _Watched, site: int, meta: str, before: bytes, after: bytes) -> None:
        clock, intern = self._clock, self._intern
        ids = (watched.name, site, intern(""), intern(meta))
        self._writer.add(_DRAW, clock.step, clock.phase, *ids, before, after)


def module_name(module: dict[str, Any]) -> str:
    """What a module is called in the names of its generators; a script by its file."""
    name = module.get("__name__")
    if name == "__main__" and isinstance(file := module.get("__file__"), str):
        return Path(file).stem
    return str(name)


def _held(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    """The generators inside an object, by where they are."""
    if issubclass(type(value), _LEAVES):
        return
    for key, inner in inside(value, _MOST_MEMBERS):
        path = f"{name}.{key}"
        if is_generator(inner):
            yield path, inner
        elif depth > 1:
            yield from _held(inner, path, depth - 1)
