"""A program that works in a directory of its own for each run, and caches what it computed."""
# expect broke = ["artifact-cache"], line = 49

import argparse
import os
import random
from pathlib import Path

import torch
from torch import nn

DEFAULTS = {"lr": 0.05, "seed": 7, "epochs": 50, "width": 12}


def compose(overrides):
    config = dict(DEFAULTS)
    for override in overrides:
        key, _, value = override.partition("=")
        if key not in config:
            raise SystemExit(f"unknown key {key}")
        config[key] = type(config[key])(value)
    return config


def in_run_directory(task):
    """Call the task in outputs/NAME, as experiment frameworks do."""

    def main():
        parser = argparse.ArgumentParser()
        parser.add_argument("overrides", nargs="*")
        config = compose(parser.parse_args().overrides)
        original = Path.cwd()
        run = original / "outputs" / "-".join(f"{k}={v}" for k, v in config.items())
        run.mkdir(parents=True, exist_ok=True)
        os.chdir(run)
        try:
            return task(config, original)
        finally:
            os.chdir(original)

    return main


def features(original):
    """The training data, whitened; it is slow to compute, so it is kept."""
    cache = original / "cache" / "features.pt"
    if cache.exists():
        return torch.load(cache)
    x = torch.randn(64, 8)
    x = (x - x.mean(0)) / x.std(0)
    cache.parent.mkdir(exist_ok=True)
    torch.save(x, cache)
    return x


@in_run_directory
def main(config, original):
    random.seed(config["seed"])
    torch.manual_seed(config["seed"])
    x = features(original)
    y = x[:, :1].sin()
    model = nn.Sequential(nn.Linear(8, config["width"]), nn.Tanh(), nn.Linear(config["width"], 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"])
    for epoch in range(config["epochs"]):
        for index in torch.randperm(64).split(16):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x[index]), y[index])
            loss.backward()
            optimizer.step()
        Path("log.txt").open("a").write(f"{epoch} {loss.item()}\n")


if __name__ == "__main__":
    main()
