"""What a script lost that was resumed from its own checkpoint, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from repro_audit.source import Fix, Place, listed
from repro_audit.storage.facts import Cut, Json

MOST_NAMED = 2
_GENERATORS = {
    "rng.python": ("Python", "random.getstate()", "random.setstate({})"),
    "rng.numpy": ("NumPy", "np.random.get_state()", "np.random.set_state({})"),
    "rng.torch": ("PyTorch", "torch.get_rng_state()", "torch.set_rng_state({})"),
    "rng.cuda": ("CUDA", "torch.cuda.get_rng_state_all()", "torch.cuda.set_rng_state_all({})"),
}
"""How a generator is called, saved and put back."""
_KINDS = {
    "parameter": "the model's parameters",
    "buffer": "the model's buffers",
    "state": "the optimizer's state",
    "setting": "the scheduler's state",
    "group": "the optimizer's settings",
    "generator": "the states of the generators",
    "position": "the loader's position",
    "dataset": "the state of the dataset",
}
_ORIGINS = {"state": "optimizer", "group": "optimizer", "setting": "scheduler"}
"""Where what was lost is made, by kind; the line that begins to read the loader for its position."""

Lost = list[tuple[str, list[str]]]
"""Kinds of what was lost, the names of each."""


def lost(pair: Json, resumed: Json) -> Lost:
    """What was lost.

    Args:
        pair: what the traces show, as `analysis.resumption.lost` has it.
        resumed: the survey of the resumed run.
    """
    kinds: dict[str, list[str]] = {}
    for name, kind in pair["lost"]:
        kinds.setdefault(kind, []).append(name)
    if "state" in kinds and "setting" in kinds:
        kinds["group"] = kinds.pop(
            "setting"
        )  # an optimizer that was not put back has them as it was made
    generators = [name for name in pair["generators"] if name in resumed["generators"]]
    data, held = pair["phase"] == "data", {"parameter", "buffer"} & kinds.keys()
    drawn: Lost = []
    if generators and (data or (pair["phase"] in {"forward", "backward"} and not held)):
        drawn = [("generator", generators)]
    elif data:
        drawn = [("position" if pair["other_samples"] else "dataset", [])]
    return [*drawn, *kinds.items()]  # what the two runs part by comes first


def in_words(found: Lost) -> str:
    """What a training goes on without."""
    return listed([_KINDS[kind] + _details(kind, names) for kind, names in found])


def _details(kind: str, names: Sequence[str]) -> str:
    if kind == "position":
        return " (other samples come next)"
    if kind == "dataset":
        return " (the same samples come with other contents)"
    if kind == "generator":
        names = list(dict.fromkeys(_GENERATORS[_library(name)][0] for name in names))
    shown = [re.sub("^(state|param|buffer)[.]", "", name) for name in names[:MOST_NAMED]]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f" ({', '.join(shown)}{more})"


def _library(name: str) -> str:
    return name.partition(":")[0]


def places(found: Lost, resumed: Json, cut: Cut) -> Iterator[Place]:
    """Where what was lost is made or read, and where the checkpoint is written that lacks it."""
    made: dict[str, list[str]] = {}
    for kind, _ in found:
        maker = _ORIGINS.get(kind, kind)
        made.setdefault(maker if maker in resumed["origins"] else "", []).append(_KINDS[kind])
    made.setdefault("", [])
    for maker, lacking in made.items():
        if maker:
            origin = resumed["origins"][maker]
            yield Place(
                what=f"the resumed training begins here without {listed(lacking)}",
                file=origin["file"],
                line=origin["line"],
                function=origin["function"],
                code=origin["code"],
            )
        elif cut.file:
            missing = listed([_KINDS[kind] for kind, _ in found]) or "something"
            yield Place(
                what=f"the checkpoint that is written here lacks {missing}, or it is not put back",
                file=cut.file,
                line=cut.line,
                code=cut.code,
            )


def fix(found: Lost) -> Fix:
    """Lines that save what was lost, and lines that put it back."""
    kinds = dict(found)
    saved, back = [], []
    stateful = {
        "model": {"parameter", "buffer"},
        "optimizer": {"state", "group"},
        "scheduler": {"setting"},
    }
    for name, meant in stateful.items():
        if meant & kinds.keys():
            saved.append(f'checkpoint["{name}"] = {name}.state_dict()')
            back.append(f'{name}.load_state_dict(checkpoint["{name}"])')
    for library in dict.fromkeys(map(_library, kinds.get("generator", ()))):
        key = library.removeprefix("rng.")
        _, save, put_back = _GENERATORS[library]
        saved.append(f'checkpoint["{key}"] = {save}')
        back.append(put_back.format(f'checkpoint["{key}"]'))
    summary = "Save what was lost in the checkpoint, and put it back after loading."
    if "position" in kinds:
        summary = (
            "Save how far the loader was, and go on from there: a loader that saves its place, such as torchdata's "
            "StatefulDataLoader, or batches that are read over in the order of that epoch."
        )
        saved.append('checkpoint["loader"] = loader.state_dict()  # of a StatefulDataLoader')
        back.append('loader.load_state_dict(checkpoint["loader"])')
    if not saved:
        saved.append(
            'checkpoint["average"] = average  # and whatever else changes from step to step'
        )
        back.append('average = checkpoint["average"]')
    return Fix(summary=summary, snippet="\n".join((*saved, "# after loading:", *back)))
