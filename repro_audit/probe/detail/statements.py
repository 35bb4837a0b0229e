"""Statements that take several lines of text, from a file's source."""

from __future__ import annotations

import ast
import functools
import linecache
from typing import TypeAlias

Extents: TypeAlias = "dict[int, int]"
"""Last lines by first lines, of statements that take more than one; of a compound one, as far as its colon."""


@functools.cache
def extents(file: str) -> Extents:
    """Those of a file; nothing where it can't be read as Python."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: Extents = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            last = _last(node)
            if last > node.lineno:
                found[node.lineno] = max(last, found.get(node.lineno, 0))
    return found


def _last(node: ast.stmt) -> int:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return node.lineno
    if isinstance(node, (ast.With, ast.AsyncWith)):
        heads = [item.optional_vars or item.context_expr for item in node.items]
    else:
        heads = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
    is_compound = hasattr(node, "body") or hasattr(node, "cases")
    last = (
        max((part.end_lineno or 0 for part in heads), default=0) if is_compound else node.end_lineno
    )
    return max(last or 0, node.lineno)
