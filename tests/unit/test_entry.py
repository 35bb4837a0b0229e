"""What a script could be audited as, and what to write where its `main` needs a command line."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from repro_audit import entry
from repro_audit.errors import UsageError
from repro_audit.target import parse

if TYPE_CHECKING:
    from pathlib import Path

HYDRA = """
import hydra

@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg):
    pass
"""
ARGPARSE = """
import argparse

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-d", "--data", required=True)
    parser.add_argument("out")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.parse_args()
"""


def advice(text: str) -> str:
    return entry.advice(ast.parse(text), "train.py")


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("def helper(): 1\ndef seed_all(): 1\ndef main(epochs=3): 1", "train.py:main"),
        ("class EMA: 1\ndef main(): 1\ndef build(seed): 1", "train.py:main or train.py:build"),
        ("class EMA: 1\ndef load(path): 1\ndef train(): 1", "train.py:train"),
        ("import torch", ""),
    ],
)
def test_main_comes_first(text: str, step: str) -> None:
    assert advice(text) == step


def test_what_to_write_where_a_main_needs_something() -> None:
    written = advice(ARGPARSE)
    assert 'sys.argv = ["train.py", "--data", "...", "OUT"]' in written
    assert "train.py:audited" in written
    assert "return main(args=...)" in advice("def main(args): 1")
    hydras = advice(HYDRA)
    assert "with hydra.initialize(config_path='conf', version_base=None):" in hydras
    assert "main.__wrapped__(hydra.compose('config'))" in hydras
    for text in (written, hydras):
        compile(text[text.index("def audited") :], "train.py", "exec")


def test_hydras_function_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(HYDRA, encoding="utf-8")
    with pytest.raises(UsageError, match="called by hydra") as refused:
        parse(f"{path}:main")
    assert "hydra.compose" in refused.value.next_step
