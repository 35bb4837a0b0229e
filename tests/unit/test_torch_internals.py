"""PyTorch's internals: the installed version has each name that is used, and no other package reaches one."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch.utils.data._utils import worker

from repro_audit import torch_internals
from repro_audit.errors import MissingInternalError
from repro_audit.torch_internals import Internal, loaders, operators, tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(torch_internals.__file__).parents[1]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What is missing is found out once."""
    Internal.lack.cache_clear()
    yield
    Internal.lack.cache_clear()


@cache
def table() -> dict[str, Internal]:
    """Every internal, by the module and the name that it has here."""
    modules = pkgutil.iter_modules(torch_internals.__path__, f"{torch_internals.__name__}.")
    return {
        f"{module.name}.{name}": value
        for module in modules
        for name, value in vars(importlib.import_module(module.name)).items()
        if isinstance(value, Internal)
    }


def lacking() -> list[str]:
    """What the installed PyTorch lacks of them, in words."""
    return [lack for each in table().values() if not each.optional and (lack := each.lack())]


def test_the_installed_pytorch_has_every_internal() -> None:
    assert len(table()) > 60
    assert lacking() == []


def test_each_internal_says_what_it_is_for_and_what_is_lost_without_it() -> None:
    assert all(each.purpose and each.lost for each in table().values())


def test_a_name_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_get_tracing_state")
    assert lacking() == [f"PyTorch {torch.__version__} has no torch._C._get_tracing_state"]
    with pytest.raises(MissingInternalError, match=r"torch\._C\._get_tracing_state") as caught:
        tensors.TRACING.get()
    assert caught.value.exit_code == 70
    assert caught.value.why.startswith(f"it serves to {tensors.TRACING.purpose}")


def test_another_signature_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def loop(dataset: object, index_queue: object, worker_id: int) -> None:
        raise NotImplementedError

    monkeypatch.setattr(worker, "_worker_loop", loop)
    (lack,) = lacking()
    assert lack.startswith("torch.utils.data._utils.worker._worker_loop of PyTorch")
    assert lack.endswith("takes no init_fn")


def test_an_attribute_that_no_code_of_the_class_names_is_gone() -> None:
    gone = Internal(place="torch.utils.data:DataLoader._gone", purpose="", lost="", in_objects=True)
    assert gone.lack() == f"PyTorch {torch.__version__} has no torch.utils.data.DataLoader._gone"


def test_a_module_that_is_gone_is_no_other_error() -> None:
    gone = Internal(place="torch._gone:name", purpose="", lost="")
    assert gone.lack() == f"PyTorch {torch.__version__} has no torch._gone.name"


def test_what_sources_need_is_told_with_its_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = (operators.MODES, loaders.WORKER_LOOP)
    assert torch_internals.lacking(needed) == ""
    Internal.lack.cache_clear()
    monkeypatch.delattr(worker, "_worker_loop")
    lack = torch_internals.lacking(needed)
    assert lack.endswith(f"_worker_loop, which serves to {loaders.WORKER_LOOP.purpose}")


def test_arguments_are_bound_by_name() -> None:
    def function(first: int, second: int) -> None:
        raise NotImplementedError

    bound = torch_internals.bind(function, 1, second=2)
    bound.arguments["first"] = 3
    assert (bound.args, bound.kwargs) == ((3, 2), {})


def is_private(dotted: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in dotted.split("."))


def reached(source: str) -> list[str]:
    """The private names of PyTorch's that a module reaches by itself."""
    tree = ast.parse(source)
    known = {each.name for each in table().values() if is_private(each.name)}
    imported = {"torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            imported.update(alias.asname or alias.name for alias in node.names)
    return [
        name for node in outside_of_type_checking(tree) for name in of_node(node, imported, known)
    ]


def outside_of_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            left += node.orelse
        else:
            left += ast.iter_child_nodes(node)


def of_node(node: ast.AST, imported: set[str], known: set[str]) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (n.name for n in names if n.name.startswith("torch.") and is_private(n.name))
        case ast.ImportFrom(module=str(module), names=names) if module.partition(".")[0] == "torch":
            yield from (n for n in (f"{module}.{name.name}" for name in names) if is_private(n))
        case ast.Attribute(value=value, attr=attr) if is_private(attr):
            root = value
            while isinstance(root, ast.Attribute):
                root = root.value
            is_torch = ast.unparse(root) in {*imported, "sys.modules['torch']"}
            is_ours = ast.unparse(value) in {"self", "cls"}
            if is_torch or (attr in known and not is_ours):
                yield ast.unparse(node)
        case ast.Constant(value=str(text)) if text in known:
            yield text
        case _:
            pass


def test_no_other_module_reaches_a_private_name() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "torch_internals"]
    assert len(files) > 150
    found = {path: names for path in files if (names := reached(path.read_text("utf-8")))}
    assert found == {}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import torch._dynamo", "torch._dynamo"),
        ("from torch._subclasses import fake_tensor", "torch._subclasses.fake_tensor"),
        ("from torch.utils.data import _DatasetKind", "torch.utils.data._DatasetKind"),
        ("import torch\ntorch._C._dispatch_keys(x)", "torch._C._dispatch_keys"),
        ("from torch import cuda\ncuda._queued_calls", "cuda._queued_calls"),
        ("sys.modules['torch'].nn._x", "sys.modules['torch'].nn._x"),
        ("iterator._send_idx", "iterator._send_idx"),
        ("getattr(iterator, '_send_idx')", "_send_idx"),
    ],
)
def test_a_module_that_does_is_told(source: str, name: str) -> None:
    assert name in reached(source)


def test_our_own_names_and_those_for_type_checkers_are_free() -> None:
    typed = "if TYPE_CHECKING:\n    from torch.utils._python_dispatch import TorchDispatchMode"
    assert reached(f"{typed}\nself._buffers = other._mine") == []
