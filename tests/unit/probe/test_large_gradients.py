"""Whether a gradient is zero is found out by parts, so that a large one takes no memory of its size."""

from __future__ import annotations

import pytest
import torch

from repro_audit.probe.steps import stakes


@pytest.mark.parametrize("shape", [(5, 7), (1, 40), (40, 1), (40,), (2, 3, 9)])
def test_one_element_that_is_not_zero_is_found_wherever_it_is(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(stakes, "BLOCK_ELEMENTS", 8)
    gradient = torch.zeros(shape)
    strided = gradient.transpose(0, -1)
    assert not stakes._is_not_zero(gradient)
    assert not stakes._is_not_zero(strided)
    for place in range(gradient.numel()):
        gradient.view(-1)[place] = float("nan")
        assert stakes._is_not_zero(gradient)
        assert stakes._is_not_zero(strided)
        gradient.view(-1)[place] = 0


def test_no_part_is_larger_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stakes, "BLOCK_ELEMENTS", 8)
    for tensor in (torch.zeros(1, 100), torch.zeros(100, 3).t().contiguous()):
        parts = stakes._parts(tensor)
        assert max(part.numel() for part in parts) <= 8
        assert sum(part.numel() for part in parts) == tensor.numel()
