"""Reaches a Python below `repro-audit exec`, and gives way to the user's own sitecustomize."""


def _reach() -> None:
    import sys
    from pathlib import Path

    here = Path(__file__).resolve()
    sys.path[:] = [entry for entry in sys.path if entry != str(here.parent)]
    ours = sys.modules.pop(__name__, None)
    try:
        import sitecustomize  # type: ignore[import-not-found] # noqa: F401 - the user's
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        if ours is not None:
            sys.modules[__name__] = ours
    if not any(finder.find_spec("torch", None) for finder in sys.meta_path):
        return
    parent = here.parents[4]
    # Of an installed package the parent would bring all of its neighbours along.
    if parent.name not in {"site-packages", "dist-packages"} and str(parent) not in sys.path:
        sys.path.append(str(parent))
    try:
        from repro_audit.trial.launched.pinned import begin
    except ImportError as error:
        sys.stderr.write(
            f"repro-audit exec: {sys.executable} is pinned by variables only: {error}\n"
        )
        return
    begin()


_reach()
del _reach
