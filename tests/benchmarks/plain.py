"""What a user would run without the tool: one fresh process that trains a `(model, loader, loss, optimizer)` target.

Usage: python plain.py FILE FUNCTION STEPS
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any


def main(path: str, function: str, steps: int) -> None:
    """Train for `steps` steps."""
    spec = importlib.util.spec_from_file_location("target", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["target"] = module
    spec.loader.exec_module(module)
    model, loader, loss_function, optimizer = getattr(module, function)()
    done = 0
    while done < steps:
        for batch in loader:
            train(model, loss_function, optimizer, batch)
            done += 1
            if done in {steps, steps // 2}:
                break


def train(model: Any, loss_function: Any, optimizer: Any, batch: Any) -> None:
    """One step."""
    inputs, targets = batch
    optimizer.zero_grad()
    loss = loss_function(model(inputs), targets)
    loss.backward()
    optimizer.step()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
