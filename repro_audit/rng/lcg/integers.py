"""Integers as a user types them: `12345`, `0xff`, `2**64`, `2**61-1`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable

from repro_audit.errors import UsageError
from repro_audit.rng.lcg.generator import MODULUS_BITS

_LIMIT_BITS = 2 * MODULUS_BITS
"""No number on the way to the result has more bits."""
_TEXT_LIMIT = 2000
_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def parse_integer(name: str, text: str) -> int:
    """The integer that a Python expression of integers, + - * // % ** and parentheses stands for.

    Args:
        name: what it is, for the error.
        text: the expression.

    Raises:
        UsageError: it is no such expression, or too large.
    """
    try:
        return _value(_parsed(text).body)
    except _TooLargeError:
        why = f"numbers may have at most {_LIMIT_BITS} bits"
    except ZeroDivisionError:
        why = "it divides by zero"
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        why = "it is no integer, nor an expression of integers"
    raise UsageError(
        f"{name} can not be read: {text[:60]}",
        where=name,
        why=why,
        next_step="give an integer such as 12345, 0xff, 2**64 or 2**61-1",
    )


def _parsed(text: str) -> ast.Expression:
    if len(text) > _TEXT_LIMIT:
        raise _TooLargeError
    return ast.parse(text.strip(), mode="eval")


class _TooLargeError(Exception):
    """A number has too many bits."""


def _value(node: ast.expr) -> int:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return _bounded(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            first, second = _value(left), _value(right)
            if isinstance(op, ast.Pow):
                _check_power(first, second)
            return _bounded(_BINARY[type(op)](first, second))
        case _:
            raise ValueError(ast.dump(node))


def _check_power(base: int, exponent: int) -> None:
    if exponent < 0:
        raise ValueError("a negative power is no integer")
    if abs(base) > 1 and (abs(base).bit_length() - 1) * exponent > _LIMIT_BITS:
        raise _TooLargeError


def _bounded(value: int) -> int:
    if value.bit_length() > _LIMIT_BITS:
        raise _TooLargeError
    return value
