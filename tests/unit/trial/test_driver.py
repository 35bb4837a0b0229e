"""What `build()` may return, and the training that follows from it."""

from __future__ import annotations

import dataclasses
import queue
import subprocess
import sys
import threading
import types
from collections import namedtuple
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset

from repro_audit.errors import TargetError
from repro_audit.probe.digest.tensors import opaque_forms
from repro_audit.storage.trace import Phase
from repro_audit.trial.driver import loop
from repro_audit.trial.driver.losses import on_device
from repro_audit.trial.driver.notes import Notes
from repro_audit.trial.driver.training import train
from tests.probing import trained, watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def data(count: int = 12, **options: Any) -> DataLoader[Any]:
    x = torch.arange(3.0 * count).reshape(count, 3) / count
    return DataLoader(TensorDataset(x, torch.arange(count) % 2), **{"batch_size": 2, **options})


def batches(*batch: Any, count: int = 3) -> list[Any]:
    return [batch[0] if len(batch) == 1 else batch] * count


# What build() may return


def test_a_model_and_a_loader(tmp_path: Path) -> None:
    watched, notes = trained(tmp_path, lambda: (model(), data()))
    assert watched.probe.steps == 4
    assert len(watched.probe.losses) == 4
    assert notes.assumptions == [
        "optimizer: SGD, lr 0.01",
        "loss: cross-entropy (integer class targets)",
    ]
    assert not notes.accepts_seed
    assert notes.loaders == [
        {"num_workers": 0, "batch_size": 2, "persistent": False, "dataset": "TensorDataset"}
    ]
    assert watched.outcomes(step=3) == [
        *("batch.0", "batch.1", "output", "loss"),
        *(f"grad.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")),
        *(f"param.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")),
    ]


def as_namedtuple(**parts: Any) -> Any:
    return namedtuple("Parts", parts)(**parts)  # noqa: PYI024 - one that is made at run time


@pytest.mark.parametrize("form", [dict, types.SimpleNamespace, as_namedtuple])
@pytest.mark.parametrize("loader", ["loader", "train_loader", "dataloader"])
@pytest.mark.parametrize("loss", ["loss_fn", "criterion"])
def test_parts_by_name(tmp_path: Path, form: Callable[..., object], loader: str, loss: str) -> None:
    net = model()
    optimizer = torch.optim.Adam(net.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    parts = {"model": net, loader: data(), loss: nn.CrossEntropyLoss(), "optimizer": optimizer}
    _, notes = trained(tmp_path, lambda: form(**parts, scheduler=scheduler))
    assert notes.assumptions == []
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001 * 0.5**3)


def test_the_step_is_the_same_as_a_plain_loops(tmp_path: Path) -> None:
    def parts() -> tuple[Any, ...]:
        torch.manual_seed(0)
        net = model()
        return net, data(8), nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters())

    net, loader, loss_fn, optimizer = parts()
    for x, y in loader:
        optimizer.zero_grad()
        loss_fn(net(x), y).backward()
        optimizer.step()
    again: list[Any] = []

    def build() -> object:
        again.extend(parts())
        # The loader yields four batches twice where half of eight steps are an epoch.
        return tuple(again)

    trained(tmp_path, build, steps=4)
    first = [each.detach().clone() for each in net.parameters()]
    assert [torch.equal(*pair) for pair in zip(first, again[0].parameters(), strict=True)] == [
        False
    ] * 4
    net, loader, loss_fn, optimizer = parts()
    for x, y in [*list(loader)[:2], *list(loader)[:2]]:  # entered again half way
        optimizer.zero_grad()
        loss_fn(net(x), y).backward()
        optimizer.step()
    assert all(
        torch.equal(*pair) for pair in zip(net.parameters(), again[0].parameters(), strict=True)
    )


def test_a_procedure(tmp_path: Path) -> None:
    ended = []

    def build() -> Callable[[], None]:
        net = model()

        def fit() -> None:
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            try:
                for _ in range(100):
                    for x, y in data():
                        optimizer.zero_grad()
                        nn.functional.cross_entropy(net(x), y).backward()
                        optimizer.step()
            finally:
                ended.append(True)

        return fit

    watched, notes = trained(tmp_path, build)
    assert (watched.probe.steps, ended) == (4, [True])
    assert notes.loaders[0]["dataset"] == "TensorDataset"
    assert "output" in watched.outcomes()
    assert watched.outcomes(Phase.INIT) == [
        f"param.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")
    ]


class Trainer:
    """As `transformers.Trainer` does it: `train` with optional arguments, errors caught on the way."""

    def __init__(self) -> None:
        self.model = model()
        self.caught: list[BaseException] = []

    def train(self, resume_from_checkpoint: str | None = None) -> None:
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        for x, y in list(data()) * 9:
            try:
                optimizer.zero_grad()
                nn.functional.cross_entropy(self.model(x), y).backward()
                optimizer.step()
            except Exception as error:  # noqa: PERF203 - what a careless trainer does
                self.caught.append(error)


def test_an_object_that_trains(tmp_path: Path) -> None:
    trainers: list[Trainer] = []

    def build() -> Trainer:
        trainers.append(Trainer())
        return trainers[0]

    models: list[Any] = []
    with watching(tmp_path, max_steps=3) as watched:
        train(build, probe=watched.probe, seed=0, steps=3, built=models.append, notes=Notes())
    assert watched.probe.steps == 3
    assert trainers[0].caught == []
    assert models == [trainers[0].model]


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
@pytest.mark.parametrize("with_data", [True, False])
def test_lightning_is_recognised_once_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, *, with_data: bool
) -> None:
    class Trainer:
        def fit(self, module: nn.Module, loader: Any = None) -> None:
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
            for x, _ in loader or data():
                optimizer.zero_grad()
                module(x).sum().backward()
                optimizer.step()

    def build() -> tuple[Any, ...]:
        return (Trainer(), model(), data()) if with_data else (Trainer(), model())

    with pytest.raises(TargetError):
        trained(tmp_path / "before", build)
    module = types.ModuleType(package)
    module.Trainer = Trainer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package, module)
    watched, _ = trained(tmp_path / "after", build)
    assert watched.probe.steps == 4


def test_build_may_train_by_itself(tmp_path: Path) -> None:
    def build() -> None:
        Trainer().train()

    watched, _ = trained(tmp_path, build)
    assert watched.probe.steps == 4


@pytest.mark.parametrize(
    ("returned", "what"),
    [
        (None, "returned None"),
        (3, "an int"),
        ("text", "a str"),
        (model(), "a model alone"),
        (nn.Linear, "the class Linear"),
        (lambda x: x, "a function that needs arguments"),
        ((), "a tuple of 0"),
        ((model(),), "a tuple of 1 (Sequential)"),
        ((data(), model()), "a tuple of 2 (DataLoader, Sequential)"),
        ((1, 2, 3, 4, 5), "a tuple of 5 (int, int, int, int, int)"),
        ((model(), None), "a tuple of 2"),
        ((model(), TensorDataset(torch.ones(2))), "a tuple of 2 (Sequential, TensorDataset)"),
        ((model(), data(), "mse"), "a tuple of 3"),
        ((model(), data(), None, torch.optim.SGD), "a tuple of 4"),
        ({"net": 1, "data": 2}, "a dict with the keys net, data"),
        (types.SimpleNamespace(model=model()), "a SimpleNamespace"),
    ],
)
def test_what_is_not_accepted_is_named(tmp_path: Path, returned: object, what: str) -> None:
    with pytest.raises(TargetError) as caught:
        trained(tmp_path, lambda: returned)
    assert what in caught.value.what
    assert "(model, loader[, loss_fn[, optimizer]])" in caught.value.next_step


def test_an_async_build(tmp_path: Path) -> None:
    async def build() -> object:
        return model(), data()

    with pytest.raises(TargetError, match="async"):
        trained(tmp_path, build)


# Calling build


def test_the_seed_is_passed_where_it_is_taken(tmp_path: Path) -> None:
    seeds = []

    def build(size: int = 3, *, seed: int) -> object:
        seeds.append(seed)
        return model(), data()

    _, notes = trained(tmp_path, build, seed=7)
    assert notes.accepts_seed
    assert seeds == [7]


def test_keywords_of_any_name_are_no_seed(tmp_path: Path) -> None:
    def build(**options: Any) -> object:
        assert not options
        return model(), data()

    _, notes = trained(tmp_path, build)
    assert not notes.accepts_seed


def test_a_build_with_other_arguments(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="missing a required argument: 'config'"):
        trained(tmp_path, lambda config: config)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_the_program_raises_passes_through(tmp_path: Path, error: type[BaseException]) -> None:
    def build() -> object:
        raise error

    with pytest.raises(error):
        trained(tmp_path, build)


# Batches and losses


class Takes(nn.Module):
    """A model whose `forward` is given."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.forward = forward.__get__(self)


def loss_of(tmp_path: Path, net: nn.Module, batch: Any, *loss_fn: Any) -> tuple[float, list[str]]:
    """The first loss, and what was assumed for it."""
    watched, notes = trained(tmp_path, lambda: (net, [batch] * 2, *loss_fn), steps=1)
    return watched.probe.losses[0], [
        each for each in notes.assumptions if not each.startswith("opt")
    ]


X, Y = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), torch.tensor([0, 2])
MSE = ["loss: mean squared error"]
OWN = ["loss: the model's own (a scalar output)"]


@pytest.mark.parametrize(
    ("forward", "batch", "assumed"),
    [
        (lambda s, x: x * s.weight, (X, Y), ["loss: cross-entropy (integer class targets)"]),
        (
            lambda s, x: x * s.weight,
            [X, Y[:, None]],
            ["loss: cross-entropy (integer class targets)"],
        ),
        (
            lambda s, x: (x * s.weight)[None],
            (X, Y[None]),
            ["loss: cross-entropy (integer class targets)"],
        ),
        (lambda s, x: x * s.weight, (X, X + 1), MSE),
        (lambda s, x: (x * s.weight)[:, :1], (X, torch.ones(2)), MSE),
        (lambda s, x: x * s.weight, (X, X.long()), MSE),
        (lambda s, x: x * s.weight, (X, X > 2), MSE),
        (lambda s, a, b: (a + b) * s.weight, (X, X, X), MSE),
        (
            lambda s, x: x * s.weight,
            (X, X, "name"),
            ["batch: 1 input, then the target; the rest is left out", *MSE],
        ),
        (lambda s, x: (x * s.weight).sum(), (X,), OWN),
        (lambda s, x: (x * s.weight).sum(), X, OWN),
        (
            lambda s, x: x * s.weight,
            X,
            ["loss: mean squared error against the input, as the batch has no target"],
        ),
        (lambda s, x, y: ((x - y) * s.weight).sum(), (X, X), OWN),
        (lambda s, x, targets=None: ((x - targets) * s.weight).sum(), (X, X), OWN),
        (
            lambda s, x: (x * s.weight, (x * s.weight).sum()),
            (X, Y),
            ["loss: the model's own (the scalar in its output)"],
        ),
        (
            lambda s, x: {"loss": (x * s.weight).sum()},
            (X, Y),
            ["loss: the model's own (output['loss'])"],
        ),
        (
            lambda s, x: types.SimpleNamespace(loss=(x * s.weight).sum()),
            (X, Y),
            ["loss: the model's own (output.loss)"],
        ),
        (lambda s, x: {"aux": 1, "logits": x * s.weight}, (X, X), MSE),
        (lambda s, x: (x * s.weight, None), (X, X), MSE),
        (
            lambda s, ids, labels=None: ((ids - labels) * s.weight).sum(),
            {"ids": X, "labels": X},
            OWN,
        ),
        (lambda s, **batch: (batch["ids"] * s.weight).sum(), {"ids": X, "labels": X}, OWN),
        (lambda s, ids: ids * s.weight, {"ids": X, "target": X}, MSE),
        (lambda s, x: x * s.weight, {"image": X, "label": X}, MSE),
        (
            lambda s, image: image * s.weight,
            {"image": X, "y": X, "name": ["a", "b"]},
            ["batch: the model is given image only", *MSE],
        ),
        (lambda s, batch: batch["a"] * s.weight, {"a": X, "b": X, "y": X}, MSE),
        (lambda s, a, b: (a + b) * s.weight, ({"a": X, "b": X}, X), MSE),
        (lambda s, a, b: (a + b) * s.weight, ((X, X), X), MSE),
        (lambda s, both: both[0] * s.weight, ((X, X), X), MSE),
        (lambda s, data: data.x * s.weight, types.SimpleNamespace(x=X, y=X), MSE),
    ],
)
def test_batches_and_default_losses(
    tmp_path: Path, forward: Callable[..., Any], batch: Any, assumed: list[str]
) -> None:
    assert loss_of(tmp_path, Takes(forward), batch)[1] == assumed


def test_default_losses_are_the_usual_ones(tmp_path: Path) -> None:
    net = Takes(lambda s, x: x * s.weight)
    value, _ = loss_of(tmp_path / "ce", net, (X, Y))
    assert value == pytest.approx(nn.functional.cross_entropy(X, Y).item())
    net = Takes(lambda s, x: (x * s.weight)[None])
    value, _ = loss_of(tmp_path / "sequence", net, (X, Y[None]))
    assert value == pytest.approx(nn.functional.cross_entropy(X, Y).item())
    net = Takes(lambda s, x: x * s.weight)
    value, _ = loss_of(tmp_path / "mse", net, (X, X + 2))
    assert value == pytest.approx(4)


@pytest.mark.parametrize(
    ("forward", "loss_fn", "batch"),
    [
        (lambda s, x: x * s.weight, lambda out, y: (out - y).abs().sum(), (X, X)),
        (lambda s, x: x * s.weight, nn.L1Loss(), (X, X + 1)),
        (lambda s, x: {"logits": x * s.weight}, nn.L1Loss(), (X, X + 1)),
        (lambda s, x: x * s.weight, lambda out: out.sum(), (X, X)),
        (lambda s, x: x * s.weight, lambda out: out.sum(), X),
        (lambda s, x: x * s.weight, lambda out, x: (out - x).sum(), X),
        (lambda s, x: x * s.weight, nn.functional.mse_loss, (X, X + 1)),
    ],
)
def test_the_programs_own_loss(
    tmp_path: Path, forward: Callable[..., Any], loss_fn: Any, batch: Any
) -> None:
    _, assumed = loss_of(tmp_path, Takes(forward), batch, loss_fn)
    assert not any("cross-entropy" in each or "squared" in each for each in assumed)


@pytest.mark.parametrize(
    ("forward", "batch", "what"),
    [
        (lambda s, x: x * s.weight, (X, torch.ones(7)), "has the shape (7,)"),
        (lambda s, x: (x * s.weight)[:1], X, "the batch has no target"),
        (lambda *_: "text", (X, X), "is a str"),
        (lambda s, x: x * s.weight, (X, "text"), "the target is a str"),
        (lambda _, x: x, (X, X), "has no gradient"),
        (lambda _, x: x, (), "an empty batch"),
    ],
)
def test_where_no_loss_follows(
    tmp_path: Path, forward: Callable[..., Any], batch: Any, what: str
) -> None:
    with pytest.raises(TargetError) as caught:
        loss_of(tmp_path, Takes(forward), batch)
    assert what in str(caught.value)


def test_a_loss_function_that_returns_no_scalar(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"a tensor of shape \(2, 3\)"):
        loss_of(tmp_path, Takes(lambda s, x: x * s.weight), (X, X), nn.MSELoss(reduction="none"))


def test_a_model_that_is_built_in_evaluation_mode(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).eval()
    _, notes = trained(tmp_path, lambda: (net, data()))
    assert net.training
    assert "model: built in evaluation mode, put in training mode" in notes.assumptions


def test_a_frozen_submodule_stays_frozen(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2).eval())
    trained(tmp_path, lambda: (net, data()))
    assert not net[1].training


@dataclasses.dataclass
class Item:
    x: torch.Tensor
    y: torch.Tensor


def test_batches_of_a_dataclass(tmp_path: Path) -> None:
    net = Takes(lambda s, item: item.x * s.weight)
    assert loss_of(tmp_path, net, Item(X, X))[1] == MSE


def test_batches_go_to_the_models_device() -> None:
    batch = {"x": X, "more": [(X, "text"), as_namedtuple(x=X, y=None)], "item": Item(X, Y)}
    moved = on_device(batch, torch.device("meta"))
    devices = [moved["x"], moved["more"][0][0], moved["more"][1].x, moved["item"].y]
    assert [each.device.type for each in devices] == ["meta"] * 4
    assert moved["more"][0][1] == "text"
    assert on_device(batch, torch.device("cpu")) is batch


# Loaders


def test_the_loader_is_entered_again_half_way(tmp_path: Path) -> None:
    watched, notes = trained(tmp_path, lambda: (model(), data(100)), steps=8)
    indices = [row.meta for row in watched.contexts("batch.indices")]
    assert indices == ["0, 1", "2, 3", "4, 5", "6, 7"] * 2
    assert (notes.epochs, notes.batches_seen, notes.batches_per_epoch) == (2, 8, 50)
    assert (notes.samples_seen, notes.samples_total) == (8, 100)


def test_a_short_loader_ends_by_itself(tmp_path: Path) -> None:
    watched, notes = trained(tmp_path, lambda: (model(), data(6)), steps=8)
    indices = [row.meta for row in watched.contexts("batch.indices")]
    assert indices == ["0, 1", "2, 3", "4, 5"] * 2 + ["0, 1", "2, 3"]
    assert notes.epochs == 3


def test_one_step(tmp_path: Path) -> None:
    watched, _ = trained(tmp_path, lambda: (model(), data()), steps=1)
    assert watched.probe.steps == 1


def generate(count: int) -> Iterator[Any]:
    for _ in range(count):
        yield torch.ones(2, 3), torch.tensor([0, 1])


@pytest.mark.parametrize(("count", "steps"), [(3, 3), (100, 8)])
def test_a_generator_is_read_once(tmp_path: Path, count: int, steps: int) -> None:
    watched, notes = trained(tmp_path, lambda: (model(), generate(count)), steps=8)
    assert watched.probe.steps == steps
    assert notes.epochs == 1
    assert "loader: an iterator, which can be read only once" in notes.assumptions
    assert set(watched.outcomes(Phase.DATA)) == {"batch.0", "batch.1"}


class Reentrant:
    """A loader that is no DataLoader."""

    def __iter__(self) -> Iterator[Any]:
        return generate(3)


class Indexed:
    """Iterated by the old protocol."""

    def __getitem__(self, index: int) -> Any:
        if index == 3:
            raise IndexError
        return torch.ones(2, 3), torch.tensor([0, 1])


@pytest.mark.parametrize(
    "make", [Reentrant, Indexed, lambda: list(generate(3)), lambda: tuple(generate(3))]
)
def test_loaders_of_other_kinds(tmp_path: Path, make: Callable[[], Any]) -> None:
    watched, notes = trained(tmp_path, lambda: (model(), make()), steps=8)
    assert watched.probe.steps == 8
    assert (notes.epochs, notes.loaders, notes.samples_seen) == (3, [], 6)
    assert set(watched.outcomes(Phase.DATA)) == {"batch.0", "batch.1"}


class Around:
    """A loader around a DataLoader, as a prefetcher is."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self.loader = data()
        self.change = change

    def __iter__(self) -> Iterator[Any]:
        return map(self.change, self.loader)


def test_a_loader_around_a_data_loader(tmp_path: Path) -> None:
    watched, notes = trained(tmp_path, lambda: (model(), Around(lambda batch: batch)))
    assert watched.outcomes(Phase.DATA, 0) == ["loader1.batch.0", "loader1.batch.1"]
    assert notes.loaders[0]["dataset"] == "TensorDataset"
    assert notes.samples_seen == 8 - 4
    changing = Around(lambda batch: (batch[0] + 1, batch[1]))
    watched, _ = trained(tmp_path / "changing", lambda: (model(), changing))
    assert watched.outcomes(Phase.DATA, 0) == [
        *("loader1.batch.0", "loader1.batch.1", "batch.0", "batch.1")
    ]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.ones(3), torch.tensor(1))] * 6)


def test_an_iterable_dataset(tmp_path: Path) -> None:
    watched, notes = trained(
        tmp_path, lambda: (model(), DataLoader(Stream(), batch_size=2)), steps=8
    )
    assert (notes.samples_seen, notes.samples_total, notes.batches_per_epoch) == (6, None, None)
    assert not watched.contexts("batch.indices")


@pytest.mark.parametrize("make", [lambda: data(1, drop_last=True), list, lambda: iter(())])
def test_an_empty_loader(tmp_path: Path, make: Callable[[], Any]) -> None:
    with pytest.raises(TargetError, match="The loader is empty"):
        trained(tmp_path, lambda: (model(), make()))


class Broken(Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        raise FileNotFoundError(index)


def test_what_a_dataset_raises_passes_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        trained(tmp_path, lambda: (model(), DataLoader(Broken())))


# Optimizers


def test_lbfgs_gets_a_closure(tmp_path: Path) -> None:
    def build() -> object:
        net = model()
        return net, data(), None, torch.optim.LBFGS(net.parameters(), max_iter=3)

    watched, _ = trained(tmp_path, build)
    assert watched.probe.steps == 4
    assert watched.probe.backwards > 4
    assert "state.0.weight.old_dirs.0" in watched.outcomes(Phase.OPTIMIZER)


def test_several_optimizers(tmp_path: Path) -> None:
    def build() -> object:
        net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in net]
        return {"model": net, "loader": data(), "optimizer": optimizers}

    watched, _ = trained(tmp_path, build)
    assert watched.probe.steps == 4
    assert watched.outcomes(Phase.BACKWARD, 0) == ["grad.0.weight", "grad.0.bias"]
    assert watched.outcomes(Phase.BACKWARD, 1) == ["grad.1.weight", "grad.1.bias"]


def test_a_scheduler_that_wants_the_loss(tmp_path: Path) -> None:
    def build() -> object:
        net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"model": net, "loader": data(), "optimizer": optimizer, "scheduler": scheduler}

    watched, _ = trained(tmp_path, build)
    assert watched.probe.steps == 4


class Hand:
    """An optimizer that is none of torch's."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters

    def step(self) -> None:
        for parameter in self.parameters:
            assert parameter.grad is not None
            parameter.data -= 0.1 * parameter.grad


def test_an_optimizer_of_the_programs_own(tmp_path: Path) -> None:
    def build() -> object:
        net = model()
        return net, data(), None, Hand(list(net.parameters()))

    watched, _ = trained(tmp_path, build)
    assert watched.probe.steps == 4
    assert len(set(watched.digests("param.0.weight"))) == 5


def test_frozen_and_unused_parameters(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)
            self.frozen = nn.Linear(3, 3).requires_grad_(False)

        def forward(self, x: torch.Tensor) -> Any:
            return self.used(self.frozen(x))

    watched, _ = trained(tmp_path, lambda: (Net(), data()))
    assert watched.outcomes(Phase.BACKWARD, 0) == ["grad.used.weight", "grad.used.bias"]


@pytest.mark.parametrize("net", [nn.ReLU(), nn.Linear(3, 2).requires_grad_(False)])
def test_nothing_to_train(tmp_path: Path, net: nn.Module) -> None:
    with pytest.raises(TargetError, match="no parameter that can be trained"):
        trained(tmp_path, lambda: (net, data()))


def test_tied_weights_and_lazy_modules(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.lazy = nn.Linear(3, 3), nn.LazyLinear(2)
            self.second = nn.Linear(3, 3)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> Any:
            return self.lazy(self.second(self.first(x)))

    watched, _ = trained(tmp_path, lambda: (Net(), data()))
    assert "param.second.weight" not in watched.outcomes()
    assert watched.outcomes(Phase.INIT)[-2:] == ["param.lazy.weight", "param.lazy.bias"]
    assert len(watched.digests("param.lazy.weight")) == 5


def test_sparse_gradients(tmp_path: Path) -> None:
    def build() -> object:
        net = nn.EmbeddingBag(4, 2, sparse=True)
        loader = batches(torch.tensor([[0, 1], [2, 3]]), torch.tensor([0, 1]))
        return net, loader, None, torch.optim.SparseAdam(net.parameters())

    watched, _ = trained(tmp_path, build)
    assert watched.probe.steps == 4
    assert "grad.weight" in watched.outcomes(Phase.BACKWARD)


# train_step


def bundle(step: Callable[..., Any], optimizer: Any = None) -> Callable[[], object]:
    def build() -> object:
        net = model()
        own = torch.optim.SGD(net.parameters(), lr=0.1)
        return {
            "model": net,
            "loader": data(),
            "optimizer": optimizer,
            "train_step": lambda net, batch: step(net, batch, own),
        }

    return build


def just_loss(net: nn.Module, batch: Any, _own: Any) -> Any:
    return nn.functional.cross_entropy(net(batch[0]), batch[1])


def loss_and_backward(net: nn.Module, batch: Any, _own: Any) -> None:
    just_loss(net, batch, None).backward()


def all_of_it(net: nn.Module, batch: Any, own: Any) -> float:
    own.zero_grad()
    loss = just_loss(net, batch, None)
    loss.backward()
    own.step()
    return float(loss.item())


def by_hand(net: nn.Module, batch: Any, _own: Any) -> Any:
    loss = just_loss(net, batch, None)
    loss.backward()
    for parameter in net.parameters():
        assert parameter.grad is not None
        parameter.data.sub_(parameter.grad, alpha=0.1)
        parameter.grad = None
    return loss


def by_hand_without_backward(net: nn.Module, batch: Any, _own: Any) -> None:
    parameters = list(net.parameters())
    grads = torch.autograd.grad(just_loss(net, batch, None), parameters)
    with torch.no_grad():
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.sub_(grad, alpha=0.1)


@pytest.mark.parametrize(
    "step", [just_loss, loss_and_backward, all_of_it, by_hand, by_hand_without_backward]
)
def test_a_train_step_may_leave_any_part_to_the_driver(
    tmp_path: Path, step: Callable[..., Any]
) -> None:
    watched, notes = trained(tmp_path, bundle(step))
    assert watched.probe.steps == 4
    assert len(set(watched.digests("param.0.weight"))) == 5
    assert len(watched.contexts("batch.indices")) == 4
    assert ("optimizer: SGD, lr 0.01" in notes.assumptions) == (
        step in {just_loss, loss_and_backward}
    )


class Accumulates:
    """Steps at every third batch."""

    def __init__(self, net: nn.Module) -> None:
        self.optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        self.taken = 0

    def __call__(self, net: nn.Module, batch: Any) -> None:
        just_loss(net, batch, None).backward()
        self.taken += 1
        if self.taken % 3 == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()


@pytest.mark.parametrize("form", [lambda step: step, partial, lambda step: step.__call__])
def test_a_train_step_that_accumulates(
    tmp_path: Path, form: Callable[[Accumulates], Callable[..., Any]]
) -> None:
    net = model()
    step = Accumulates(net)
    parts = {"model": net, "loader": data(), "train_step": form(step)}
    watched, _ = trained(tmp_path, lambda: parts)
    assert (watched.probe.steps, step.taken) == (4, 12)


def test_a_train_step_that_only_speaks_of_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_MOST_IDLE", 16)

    def train_step(net: Any, batch: Any) -> None:
        just_loss(net, batch, None).backward()
        if batch is None:
            net.step()

    parts = {"model": model(), "loader": data(), "train_step": train_step}
    with pytest.raises(TargetError, match="never trained: train_step ended"):
        trained(tmp_path, lambda: parts)


def test_a_train_step_over_several_models(tmp_path: Path) -> None:
    def build() -> object:
        nets = {"a": nn.Linear(3, 2), "b": nn.Linear(3, 2)}
        optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in nets.values()]

        def train_step(nets: dict[str, nn.Module], batch: Any) -> None:
            for net, optimizer in zip(nets.values(), optimizers, strict=True):
                all_of_it(net, batch, optimizer)

        return {"model": nets, "loader": data(), "train_step": train_step}

    watched, _ = trained(tmp_path, build)
    assert watched.probe.steps == 4
    assert watched.outcomes(Phase.INIT) == [
        *("param.weight", "param.bias", "param.Linear.weight", "param.Linear.bias")
    ]
    assert "Linear.output" in watched.outcomes(Phase.FORWARD)


def test_a_train_step_that_does_nothing(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="made no step and returned None"):
        trained(tmp_path, bundle(lambda *_: None))


# Ends


def test_a_procedure_that_never_steps(tmp_path: Path) -> None:
    def build() -> Callable[[], object]:
        return lambda: [just_loss(model(), batch, None).backward() for batch in data()]

    with pytest.raises(TargetError) as caught:
        trained(tmp_path, build)
    assert "never trained: <lambda>() ended" in caught.value.what
    assert "6 batches were read, 6 losses were backpropagated" in caught.value.why


def test_training_twice_in_one_process(tmp_path: Path) -> None:
    def build() -> object:
        torch.manual_seed(0)
        return model(), data(shuffle=True)

    notes = Notes()
    digests = []
    for run in ("first", "second"):
        with watching(tmp_path / run, max_steps=4) as watched:
            train(build, probe=watched.probe, seed=0, steps=4, built=lambda _: None, notes=notes)
        digests.append([(row.name, row.digest) for row in watched.rows])
        assert (notes.batches_seen, len(notes.loaders), len(notes.assumptions)) == (4, 1, 2)
    assert digests[0] == digests[1]


def test_the_driver_needs_no_torch() -> None:
    script = "import sys, repro_audit.trial.driver.training, repro_audit.trial.driver.loading, repro_audit.probe; "
    script += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


class Read(DataLoader[Any]):
    """A DataLoader whose own `__iter__` has a thread read ahead."""

    def __iter__(self) -> Any:
        ready: queue.Queue[Any] = queue.Queue(1)
        batches = super().__iter__()

        def fill() -> None:
            for batch in batches:
                ready.put(batch)
            ready.put(None)

        threading.Thread(target=fill, daemon=True).start()
        return iter(ready.get, None)


class Doubled(DataLoader[Any]):
    """One whose `__iter__` changes batches and counts them."""

    def __iter__(self) -> Any:
        batches = super().__iter__()
        for _ in range(len(self)):
            x, y = next(batches)
            yield 2 * x, y


@pytest.mark.parametrize("kind", [Read, Doubled])
def test_batches_of_a_data_loader_with_a_way_of_its_own(tmp_path: Path, kind: Any) -> None:
    loader = kind(data(100).dataset, batch_size=2)
    watched, notes = trained(tmp_path, lambda: (model(), loader), steps=8)
    assert (notes.epochs, notes.batches_seen, notes.left_early) == (2, 8, 4)
    assert set(watched.outcomes(Phase.DATA)) == {"batch.0", "batch.1"}


# The end of an epoch


class Counted:
    """A loader that has something to do at the end of its epochs."""

    def __init__(self, count: int) -> None:
        self.count, self.ends = count, 0

    def __iter__(self) -> Iterator[Any]:
        yield from generate(self.count)
        self.ends += 1


@pytest.mark.parametrize(("count", "ends", "left"), [(4, 1, None), (12, 1, None), (13, 0, 4)])
def test_an_epoch_is_taken_to_its_end_where_that_is_near(
    tmp_path: Path, count: int, ends: int, left: int | None
) -> None:
    loader = Counted(count)
    _, notes = trained(tmp_path, lambda: (model(), loader), steps=8)
    assert (loader.ends, notes.left_early) == (ends, left)


def test_whole_epochs_end(tmp_path: Path) -> None:
    loader = Counted(400)
    _, notes = trained(tmp_path, lambda: (model(), loader), steps=8, whole_epochs=True)
    assert (loader.ends, notes.left_early) == (1, None)


class Ending(Sampler[int]):
    """A sampler that says how often it came to its end."""

    def __init__(self, size: float = 100) -> None:
        self.size, self.ends = size, 0

    def __iter__(self) -> Iterator[int]:
        number = 0
        while number < self.size:
            yield number % 100
            number += 1
        self.ends += 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sampler_comes_to_its_end(tmp_path: Path, workers: int) -> None:
    sampler = Ending()
    loader = data(100, sampler=sampler, num_workers=workers)
    _, notes = trained(tmp_path, lambda: (model(), loader), steps=8)
    assert (sampler.ends, notes.left_early, notes.batches_seen) == (1, None, 8)


def test_a_sampler_without_an_end(tmp_path: Path) -> None:
    loader = data(100, sampler=Ending(float("inf")))
    watched, notes = trained(tmp_path, lambda: (model(), loader), steps=8)
    assert (watched.probe.steps, notes.epochs, notes.left_early) == (8, 2, None)


def test_gradients_accumulated_over_short_epochs(tmp_path: Path) -> None:
    """Epochs are short until half of the steps are made."""
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    seen: list[int] = []

    def train_step(model: nn.Module, batch: Any) -> None:
        model(batch[0]).sum().backward()
        seen.append(1)
        if len(seen) % 3 == 0:
            optimizer.step()

    parts = {"model": net, "loader": data(100), "optimizer": optimizer, "train_step": train_step}
    _, notes = trained(tmp_path, lambda: parts, steps=8)
    assert (len(seen), notes.left_early) == (24, None)
    assert notes.epochs == 4


# What can not be read


class Nameless(nn.Linear):
    def named_parameters(self, *_args: Any, **_options: Any) -> Any:
        msg = "no names"
        raise RuntimeError(msg)


def nameless() -> Any:
    net = Nameless(3, 2)
    return net, data(), nn.CrossEntropyLoss(), torch.optim.SGD([net.weight, net.bias], 0.1)


def transformed() -> Any:
    """The model runs inside of transforms only, and is changed by hand."""
    net = model()

    def loss(parameters: Any, x: Any, y: Any) -> torch.Tensor:
        out = torch.func.functional_call(net, parameters, (x[None],))
        return nn.functional.cross_entropy(out, y[None])

    def train_step(_model: nn.Module, batch: Any) -> None:
        own = {name: each.detach() for name, each in net.named_parameters()}
        slopes = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(own, *batch)
        with torch.no_grad():
            for name, each in net.named_parameters():
                each.sub_(slopes[name].mean(0), alpha=0.1)

    return {"model": net, "loader": data(), "train_step": train_step}


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (nameless, "what a module holds (RuntimeError)"),
        (transformed, "outputs of modules inside of transforms of torch.func"),
    ],
)
def test_what_can_not_be_read_is_passed_over(
    tmp_path: Path, make: Callable[[], Any], form: str
) -> None:
    watched, _ = trained(tmp_path, make)
    assert watched.probe.steps == 4
    assert form in opaque_forms()
