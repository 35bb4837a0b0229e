"""Notebooks for tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MARKDOWN = "markdown: "


def document(*cells: str, language: str = "python") -> dict[str, Any]:
    """A notebook as Jupyter writes it; a cell that begins with `MARKDOWN` is one of text."""
    return {
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": [cell.removeprefix(MARKDOWN)]}
            if cell.startswith(MARKDOWN)
            else {
                "cell_type": "code",
                "execution_count": None,
                "metadata": {},
                "outputs": [],
                "source": cell.splitlines(keepends=True),
            }
            for cell in cells
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": language, "name": "python3"}
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def write_notebook(path: Path, *cells: str, language: str = "python") -> Path:
    """Write one of these cells."""
    path.write_text(json.dumps(document(*cells, language=language)))
    return path
