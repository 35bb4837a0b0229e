"""The rows of `python -m tests.gpu` as tests, where there is a CUDA device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tests.gpu.rows import Place, Row

if TYPE_CHECKING:
    from pathlib import Path


def _rows() -> list[Row]:
    if not torch.cuda.is_available():
        return []
    from tests.gpu import checks, programs

    return [*checks.ROWS, *programs.ROWS]


@pytest.mark.parametrize("row", _rows(), ids=lambda row: row.name)
def test_row(row: Row, tmp_path: Path) -> None:
    place = Place(tmp_path)
    try:
        assert row.run(place)
    finally:
        place.close()
