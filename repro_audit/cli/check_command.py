"""How `check` reads its words: flags of ours stand before the target, and what follows a program is the program's."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from repro_audit.target import COMMAND, MODULE, is_call


class CheckCommand(TyperCommand):
    """`check`, which takes no word after a script for a flag of its own."""

    leading = 0
    """Words that stand before the target, with flags before or behind them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Split the words before Click sees them; where a function is called, flags may follow it."""
        flags, target = self._split(ctx, args)
        leading: list[str] = []
        while len(leading) < self.leading and target:
            more, rest = self._split(ctx, target[1:])
            leading, flags, target = [*leading, target[0]], [*flags, *more], rest
        if target and not is_call(target[0]):
            args = [*flags, "--", *leading, *target]
        return super().parse_args(ctx, args)

    def _split(self, ctx: Any, args: list[str]) -> tuple[list[str], list[str]]:
        """The flags with their values, and the target with all that follows it."""
        takes_value = {
            spelt: not getattr(flag, "is_flag", False)
            for flag in self.get_params(ctx)
            for spelt in (*flag.opts, *flag.secondary_opts)
            if spelt.startswith("-")
        }
        at = 0
        while at < len(args) and args[at].startswith("-") and args[at] not in {MODULE, COMMAND}:
            at += 2 if takes_value.get(args[at], False) else 1
        return args[:at], args[at:]
