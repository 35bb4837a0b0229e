"""Strings and numbers, some from the program under audit, made safe and short for a reader."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable

LINE_LIMIT = 1000
"""Characters of a name, a reason or a line of code."""
BLOCK_LIMIT = 20_000
"""Characters of a traceback, of captured output or of a snippet."""

_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_TYPOGRAPHY = str.maketrans(
    {
        "\N{HORIZONTAL ELLIPSIS}": "...",
        "\N{BULLET}": "-",
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{RIGHTWARDS ARROW}": "->",
        "\N{LESS-THAN OR EQUAL TO}": "<=",
        "\N{GREATER-THAN OR EQUAL TO}": ">=",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    }
)


def line(text: str, limit: int = LINE_LIMIT) -> str:
    """One line, bounded, with control, direction and surrogate characters shown as escapes."""
    return "".join(map(_visible, bounded(text, limit)))


def block(text: str, limit: int = BLOCK_LIMIT, *, tabs: bool = False) -> str:
    """As `line`, but with line breaks, and with `tabs` or expanded ones; of what is too long, the end stays."""
    omitted = len(text) - limit
    kept = f"[{omitted} characters left out]\n{text[-limit:]}" if omitted > 0 else text
    shown = kept.replace("\r\n", "\n").rstrip()
    allowed = "\n\t" if tabs else "\n"
    return "".join(
        each if each in allowed else _visible(each)
        for each in (shown if tabs else shown.expandtabs(4))
    )


def last_lines(output: str, count: int) -> str:
    """The end of captured output, with progress bars that redraw one line shown as they ended."""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in output[-BLOCK_LIMIT:].split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return block("\n".join(lines[-count:]))


def bounded(text: str, limit: int) -> str:
    """The beginning, and how much was left out."""
    mark = f" [{len(text) - limit} characters left out]"
    return text if len(text) <= limit + len(mark) else f"{text[:limit]}{mark}"


def shortened(text: str, limit: int) -> str:
    """The beginning, where there is no room to say how much was left out."""
    return text if len(text) <= limit else f"{text[: max(limit - 3, 0)]}..."


def first_sentence(text: str) -> str:
    """What stands before the first full stop that ends a sentence, without it."""
    return re.split(r"\.(?:\s|$)", text, maxsplit=1)[0]


def ascii_typography(text: str) -> str:
    """Typographic signs in plain ASCII; anything else as it is."""
    return text.translate(_TYPOGRAPHY)


def _visible(character: str) -> str:
    if character < "\x7f" and character >= " ":
        return character
    if unicodedata.category(character) in _UNSAFE_CATEGORIES:
        return character.encode("unicode_escape").decode("ascii")
    return character


def listed(items: Iterable[str]) -> str:
    """Items with commas between them."""
    return ", ".join(items)


def plural(count: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def number(value: float) -> str:
    """Three significant digits: the size of a difference, not its identity."""
    return f"{value:.3g}"


def loss(value: float, digits: int) -> str:
    """So many significant digits, trailing zeros too, so that numbers below one another line up."""
    return f"{value:#.{digits}g}"


def share(part: int, whole: int) -> str:
    """A percentage that is 0% or 100% only where it is exactly that."""
    if whole <= 0:
        return "0%"
    if not 0 < part < whole:
        return "0%" if part <= 0 else "100%"
    percent = 100 * part / whole
    return "<0.1%" if percent < 0.1 else ">99.9%" if percent > 99.9 else f"{percent:.1f}%"  # noqa: PLR2004


def seconds(value: float) -> str:
    """`0.4 s`, `12.3 s`, `3 min 20 s`."""
    if not 60 <= value < math.inf:  # noqa: PLR2004 - a NaN too, which a saved report may have
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def same_number(a: float, b: float) -> bool:
    """Equal, where a NaN equals a NaN and -0.0 does not equal 0.0."""
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b and math.copysign(1.0, a) == math.copysign(1.0, b)


def telling_digits(pairs: Iterable[tuple[float, float]]) -> int:
    """Significant digits, from 6 to 17, at which all unequal pairs look unequal."""
    digits = 6
    for a, b in pairs:
        while digits < 17 and loss(a, digits) == loss(b, digits) and not same_number(a, b):  # noqa: PLR2004
            digits += 1
    return digits
