"""Where a difference goes: which later rows can have it from a given one. Pure.

Values are not followed one by one: a row tells whether what it started from differs, and a line the names that it
mentions. So the rule is *may*: a row has the difference if it started from something else and shares with a row that
has it a name (in the same call, or as an argument), or ran as part of the same line, or, where no line explains an
op's inputs, is an op after an op. A line that starts from equal things clears the names that it mentions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from repro_audit.analysis.pinpoint.items import NOWHERE, Item, Items
from repro_audit.storage.events import Kind

_CONSTRUCTOR = "__init__"
_GATHERING = frozenset(("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"))
"""Functions that keep what they gather under no name. From Python 3.12 on, most are part of the line that has them."""


class Flow:
    """The difference that begins with some items, and the items that may have it.

    Args:
        items: all.
        begin: the first of those where it begins.
        own_reason: whether a line drew or read something else itself, so that its difference needs no other.
    """

    def __init__(self, items: Items, begin: int, own_reason: Callable[[Item], bool]) -> None:
        self.came_from: dict[int, int] = {}
        """By item that has the difference: the one that it has it from; -1 where it begins."""
        self._items = items.all
        self._own_reason = own_reason
        self._named: dict[tuple[int, str], int] = {}
        """By frame and name: the last line that left it different."""
        self._resumed: dict[tuple[tuple[str, str, int], str], int] = {}
        """By function and name: a generator goes on with the names of the call before."""
        self._shared: dict[tuple[str, str], int] = {}
        """By file and dotted name (`self.rate`), which functions share."""
        self._others: set[tuple[int, str]] = set()
        """By frame and name: a line that has not got the difference left it different."""
        self._weak: set[tuple[int, str]] = set()
        """By frame and name: a line that has the difference mentions it, and may have changed what it stands for."""
        self._seen: set[tuple[int, str]] = set()
        self._inside: dict[int, int] = {}
        """By line: an op of its own or the end of a call of its own that has the difference."""
        self._deep: dict[int, int] = {}
        """By line: an op, or an assignment in a constructor, anywhere in what it called."""
        self._hidden: dict[int, int] = {}
        """By line: anything in what it called."""
        self._gathered: dict[int, tuple[str, int]] = {}
        """By frame: the site of a line that goes round again and again, and the last item there that has the
        difference. What a comprehension has chosen shows only at its end."""
        self._gaps: dict[int, int] = {}
        self._lines: dict[tuple[int, str], int] = {}
        """By frame and site: the last line there, which a `return` row belongs to."""
        self._last_op = NOWHERE
        self._latest: dict[str, int] = {}
        """By site: the last op there that left something else."""
        self._rounds = {(item.gap, item.site) for item in items.all if item.gap >= 0}
        self._follow(begin, items.stop)

    def _follow(self, begin: int, stop: int) -> None:
        """Go once through the items, and note of each that may have the difference where it has it from.

        `y = noise(x)` in line 12 calls `return x + rand(2)` in line 21, then line 13 returns `y.sum()`:

            op rand, line 21    equal -> other    here it begins
            op add, line 21     other -> other    from rand, the last op of its line
            return, line 21     equal -> other    from add, which its line ran
            line 12             equal -> other    from the end of the call that it made
            op sum, line 13     other -> other    from line 12, as line 13 names `y`
        """
        first = self._items[begin]
        last_line = NOWHERE
        for number in range(begin, stop):
            item = self._items[number]
            origin: int | None = None
            if number == begin or (first.gap >= 0 and item.gap == first.gap):
                origin = NOWHERE
            elif item.before or item.after:
                origin = self._origin(item, last_line)
            if origin is not None:
                self._take(number, item, origin)
            if item.kind is Kind.OP and item.after:
                self._latest[item.site] = number
            if item.kind is Kind.LINE:
                equal = not item.after or (not item.before and origin is None)
                self._see(number, item, clean=equal)
                if item.after and origin is None and item.changes:
                    self._others.update((item.frame, name) for name in item.sets)
                if item.paired:
                    last_line = number

    def _see(self, number: int, item: Item, *, clean: bool) -> None:
        self._seen.update((item.frame, name) for name in item.names)
        if clean:
            for name in item.names:
                self._named.pop((item.frame, name), None)
                self._others.discard((item.frame, name))
                self._resumed.pop((item.function, name), None)
                self._shared.pop((item.file, name), None)
        if not item.returned:
            self._lines[item.frame, item.site] = number
            if item.function[1] not in _GATHERING and self._of_rounds(item) is None:
                self._gathered.pop(item.frame, None)

    def _take(self, number: int, item: Item, origin: int) -> None:
        """Note that an item has the difference, and what else it passes it on by."""
        self.came_from[number] = origin
        if item.gap >= 0:
            self._gaps.setdefault(item.gap, number)
        if not item.after:
            return
        self._name(number, item)
        self._gather(number, item)
        if item.kind is Kind.OP:
            self._last_op = number
        made = item.kind is Kind.OP or item.function[1] == _CONSTRUCTOR
        if item.parent >= 0 and (item.kind is Kind.OP or item.returned):
            self._inside[item.parent] = number
        elif item.returned:
            self._last_op = number
        line = item.parent
        while line >= 0:
            self._hidden[line] = number
            if made:
                self._deep[line] = number
            line = self._items[line].parent

    def _gather(self, number: int, item: Item) -> None:
        """Note that the line which runs in a frame has the difference, or what it ran has."""
        line = item if item.kind is Kind.LINE and not item.returned else None
        if line is None and item.parent >= 0:
            line = self._items[item.parent]
        if line is not None:
            self._gathered[line.frame] = line.site, number

    def _of_rounds(self, line: Item) -> int | None:
        """Through what earlier rounds of the same line have gathered, with no other line between."""
        site, number = self._gathered.get(line.frame, ("", NOWHERE))
        same = site == line.site or line.function[1] in _GATHERING
        return number if number >= 0 and same else None

    def _name(self, number: int, item: Item) -> None:
        """Note the names by which a line passes the difference on."""
        for name in item.names if item.changes else ():
            # What another line has left different, and this one does not assign to, has it from there.
            if name in item.sets or (item.frame, name) not in self._others:
                self._named[item.frame, name] = self._resumed[item.function, name] = number
                self._others.discard((item.frame, name))
                (self._weak.discard if name in item.sets else self._weak.add)((item.frame, name))
                if "." in name:
                    self._shared[item.file, name] = number

    def _origin(self, item: Item, last_line: int) -> int | None:
        """The item that one has the difference from, if it can have it."""
        if item.gap >= 0 and not item.paired:
            return self._of_gap(item, last_line)
        if item.kind is Kind.OP:
            return self._of_op(item) if item.before else None
        if item.returned:
            return self._of_return(item)
        if item.before:
            return _first(self._by_names(item), self._by_parts(item))
        return self._by_parts(item)

    def _of_gap(self, item: Item, last_line: int) -> int | None:
        """A row that one run has alone: by the line that decided about it."""
        decided = last_line if last_line in self.came_from else None
        if decided is not None and self._items[decided].changes:
            # No `if` or `while`: at most a `for`, which comes again in each round that one run has more.
            site = self._items[decided].site
            if (item.gap, site) not in self._rounds:
                decided = None
        line = self._items[item.parent] if item.kind is Kind.OP and item.parent >= 0 else None
        return _first(self._gaps.get(item.gap), decided, self._by_names(line) if line else None)

    def _of_op(self, item: Item) -> int | None:
        line = self._items[item.parent] if item.parent >= 0 else None
        unnamed = self._last_op if self._last_op >= 0 else None
        beside = self._latest.get(item.site, NOWHERE)
        if beside not in self.came_from and beside > self._last_op:
            unnamed = None  # the op before it at the same line has another difference to pass on
        if line is None:
            return unnamed
        found = self._inside.get(item.parent)
        if line.before:
            return _first(found, self._by_names(line))
        return _first(found, None if unnamed is None or self._own_reason(line) else unnamed)

    def _of_return(self, item: Item) -> int | None:
        line = self._lines.get((item.frame, item.site), NOWHERE)
        if line >= 0 and self._items[line].kind is Kind.LINE:
            found = _first(
                line if line in self.came_from else None,
                self._inside.get(line),
                self._of_rounds(item),
            )
            if found is not None:
                return found
        return self._by_names(item) if item.before else None

    def _by_names(self, line: Item) -> int | None:
        """Through the names that a line mentions, or the arguments of its call.

        Behind `y = noise(x)`, which left `y` with the difference, `return y.sum()` has it through `y`. A line of
        `noise` that is the first to mention `x` has it if its caller has: through what that line ran, or its names.
        A row digests all names of a line together. So where another cause left one of them different, a name that a
        line with the difference only mentioned, as `scale` in `y = noise(x, scale)`, does not count.
        """
        others = any((line.frame, name) in self._others for name in line.names)
        for name in line.names:
            if others and (line.frame, name) in self._weak:
                continue
            unseen = (line.frame, name) not in self._seen
            found = _first(
                self._named.get((line.frame, name)),
                self._resumed.get((line.function, name)) if unseen else None,
                self._shared.get((line.file, name)) if "." in name else None,
            )
            if found is not None:
                return found
        if line.parent < 0 or all((line.frame, name) in self._seen for name in line.names):
            return None
        caller = self._items[line.parent]
        by_part = self._inside.get(line.parent)
        return by_part if by_part is not None else self._by_names(caller)

    def _by_parts(self, line: Item) -> int | None:
        """Through what a line ran."""
        number = line.number
        found = _first(self._inside.get(number), self._deep.get(number))
        if found is None and not (line.ran or self._own_reason(line)):
            return _first(self._hidden.get(number), self._of_rounds(line))
        return found

    def path(self, to: int) -> list[int]:
        """The items from where the difference begins to one that has it."""
        result = []
        while to >= 0:
            result.append(to)
            to = self.came_from[to]
        return result[::-1]


def _first(*found: int | None) -> int | None:
    return next((each for each in found if each is not None), None)


def last(items: Items, numbers: Iterable[int], *, returned: bool) -> int:
    """The last op, or the last end of a call, that left something else."""
    result = NOWHERE
    for number in numbers:
        item = items.all[number]
        if item.paired and item.after and (item.returned if returned else item.kind is Kind.OP):
            result = number
    return result
