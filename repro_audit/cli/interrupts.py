"""Signals that end an audit: each unwinds it, so that trials are ended and temporary files deleted."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


_came: list[int] = []
"""The signals, in order: the first one says why the audit ends."""


class Interrupted(BaseException):
    """A signal asks this process to end. It is no KeyboardInterrupt, which typer turns into an exit of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """What a shell says of a program that the signal ended."""
        return 128 + self.signal


def heed() -> None:
    """Raise `Interrupted` where one of the signals comes; what the caller has us ignore (`nohup`) stays ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)


def ignore() -> None:
    """Have no further signal disturb the end."""
    while True:
        try:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)
        except Interrupted:  # came before it was ignored
            continue
        return


def _raise(number: int, _frame: FrameType | None) -> NoReturn:
    _came.append(number)
    raise Interrupted(_came[0])
