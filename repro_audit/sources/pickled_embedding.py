"""An `nn.Embedding` out of a pickle is not the one that the seed would make.

## What it does
The audit takes every `nn.Embedding` and `nn.EmbeddingBag` of the model through pickle after `build`, while the
generators are in another state: it must come back equal, bit for bit, and train the same. And where the first run
leaves a pickled Embedding in its tree, the program runs on that tree (the level of `artifact-cache`), then again
without that file: if the run with it differs and the run without it agrees, the pickle is convicted. An Embedding
that comes out of a pickle or a checkpoint is named, with file, line and digest, and whether the seed reaches it.
*Same*: all runs give the same. *Not tried* where the model has no Embedding and none came out of a pickle.

## Why it breaks reproducibility
Unpickling restores an object without calling its `__init__`. So a run that loads the Embedding does not draw the
numbers that making it takes, and the weights of every layer after it come from another place in the stream. The
Embedding itself has the weights of whoever pickled it: another seed does not change them.

## Example
The first run makes and pickles the Embedding, the second loads it, and gets other weights in the linear layer.

```python
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CACHE = Path(__file__).with_name("embedding.pt")


def build(seed):
    torch.manual_seed(seed)
    if CACHE.exists():
        embedding = torch.load(CACHE, weights_only=False)
    else:
        embedding = nn.Embedding(16, 8)
        torch.save(embedding, CACHE)
    model = nn.Sequential(embedding, nn.Linear(8, 16))
    tokens = torch.arange(65) % 16
    return model, DataLoader(
        TensorDataset(tokens[:-1], tokens[1:]), batch_size=8
    )
```

## Use instead
Make the Embedding in every run, and keep its `state_dict`, not the module.

```python
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CACHE = Path(__file__).with_name("weights.pt")


def build(seed):
    torch.manual_seed(seed)
    # drawn in every run, so the generator moves alike
    embedding = nn.Embedding(16, 8)
    if CACHE.exists():
        embedding.load_state_dict(torch.load(CACHE))
    else:
        torch.save(embedding.state_dict(), CACHE)
    model = nn.Sequential(embedding, nn.Linear(8, 16))
    tokens = torch.arange(65) % 16
    return model, DataLoader(
        TensorDataset(tokens[:-1], tokens[1:]), batch_size=8
    )
```

## References
- PyTorch: Saving and loading modules:
  <https://docs.pytorch.org/docs/stable/notes/serialization.html#saving-and-loading-torch-nn-modules>
- Python: Pickling class instances: <https://docs.python.org/3/library/pickle.html#pickling-class-instances>
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from repro_audit import rng
from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.probe.files import place, read_openings
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources import artifact_cache, seed_effect
from repro_audit.sources._ambient import OTHER_SEED
from repro_audit.storage.facts import Facts, Json

PINNED, RELOADED, WITHOUT = "as built", "reloaded", "pickle removed"
ID = "pickled-embedding"


def levels(facts: Facts) -> Levels | str:
    """Reloaded through pickle; and carried by the tree that the first run left, where it holds a pickled Embedding."""
    found = facts.survey.get(ID) or {}
    judged_by = (artifact_cache.SOURCE.id, artifact_cache.WARM) if facts.written else None
    if not found.get("names") and judged_by is None:
        return facts.seen("no nn.Embedding was seen")
    if not found.get("names") and not found.get("pickles"):
        return facts.seen("no nn.Embedding was seen, and none came out of a pickle,")
    return Levels(
        varied=(RELOADED,) if found.get("names") else (),
        removal=WITHOUT if judged_by else None,
        judged_by=judged_by,
    )


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Reload every Embedding before it is trained; or take the first run's pickled ones out of the tree."""
    if level == WITHOUT:
        for name in trial.first_run_wrote:
            _remove_pickle(trial.root / name)
    names: list[str] = []
    trial.notes[ID] = names
    trial.on_met.append(lambda module: names.extend(name for name, _ in _embeddings(module)))
    if level == RELOADED:
        trial.on_built.append(_reload)
        trial.on_met.append(_reload)
    yield


def _remove_pickle(path: Path) -> None:
    """Delete a file that holds a pickled Embedding; torch.save stores its pickle uncompressed."""
    if path.is_file():
        content = path.read_bytes()
        if b"torch.nn.modules.sparse" in content and b"Embedding" in content:
            path.unlink()


def _reload(model: Any) -> None:
    """Put every Embedding of the model through pickle while the generators are in another state."""
    for _, module in _embeddings(model):
        with rng.fork_rng():
            rng.seed_everything(OTHER_SEED, cudnn_flags=False)
            copy = _through_pickle(module)
        if copy is None:
            continue
        for name, parameter in module.named_parameters(recurse=False):
            parameter.data = dict(copy.named_parameters(recurse=False))[name].data
        for name, value in vars(copy).items():
            if not name.startswith("_"):
                setattr(module, name, value)


def _through_pickle(module: Any) -> Any:
    """A copy that was pickled; None of a module that can't be, which comes out of no file either."""
    try:
        return pickle.loads(pickle.dumps(module))  # noqa: S301 - bytes of our own
    except Exception:
        return None


def _embeddings(model: Any) -> Iterator[tuple[str, Any]]:
    """The Embeddings of a model, or of a dict or tuple of models, and the names of their weights."""
    nn = sys.modules["torch"].nn
    models = list(model.values()) if isinstance(model, dict) else model
    for one in models if isinstance(models, (list, tuple)) else [models]:
        if isinstance(one, nn.Module):
            for name, module in one.named_modules():
                if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                    yield f"{name}.weight".lstrip("."), module


def survey(trial: TrialContext) -> Json:
    """The model's Embeddings by name, and the files that an Embedding was unpickled from."""
    built = [name for model in trial.models for name, _ in _embeddings(model)]
    names = list(dict.fromkeys((*built, *trial.notes.get(ID, ()))))
    pickles = [
        {
            "path": opening.path,
            "file": opening.file,
            "line": opening.line,
            "digest": _digest(trial.root / opening.path),
        }
        for opening in read_openings(trial.directory / "files.jsonl")
        if opening.event == "embedding"
    ]
    return {"names": names, "pickles": pickles}


def _digest(path: Path) -> str:
    """xxh3-128 of a file's content; empty where it is gone."""
    return xxhash.xxh3_128_hexdigest(path.read_bytes()) if path.is_file() else ""


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Name the Embeddings that came out of a file, and whether the seed reaches them."""
    evidence = _from_files(facts)
    if judgement.status == "broke":
        carried = judgement.undone == "removal"
        reason = (
            "the first run pickles an nn.Embedding that the next run loads; without that file both agree"
            if carried
            else "an nn.Embedding that went through pickle is not the one that was built"
        )
        return Verdict(status="broke", reason=reason, evidence=evidence)
    held = "every nn.Embedding comes back from pickle as it was built, and trains the same"
    if evidence:
        held = f"{held}; {evidence[0]}"
    return Verdict(status=judgement.status, reason=judgement.note or held, evidence=evidence)


def _from_files(facts: Facts) -> tuple[str, ...]:
    """A line for each Embedding that came out of a file."""
    found = facts.survey.get(ID) or {}
    unmoved = set(facts.survey.get(seed_effect.SOURCE.id) or ())
    stuck = [name for name in found.get("names", ()) if any(row.endswith(name) for row in unmoved)]
    reach = (
        f"the seed does not reach {', '.join(stuck)}"
        if stuck
        else "the seed reaches every Embedding"
    )
    return tuple(
        f"an nn.Embedding came out of {record['path']} (xxh3 {record['digest']}), "
        f"loaded at {place(record['file'], record['line'])}; {reach}"
        for record in (*found.get("pickles", ()), *(facts.diverged or {}).get("pickles", ()))
    )


def fix(_facts: Facts) -> Fix:
    """Build it, then load its weights."""
    return Fix(
        summary="Build the Embedding in every run, and keep its weights in a state_dict: building draws the same "
        "random numbers whether the file is there or not.",
        snippet="embedding = nn.Embedding(words, width)  # drawn in every run\n"
        "if path.exists():\n"
        "    embedding.load_state_dict(torch.load(path))\n"
        "else:\n"
        "    torch.save(embedding.state_dict(), path)",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
    survey=survey,
)
