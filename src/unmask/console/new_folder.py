"""The folder of a new run: its name if none is given, and what a command has begun before torchrun restarted it."""

from collections import deque
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path

from unmask.runs.folder import RunFolder
from unmask.training.distributed import launched


def folder_names(recipe_name: str, data: str) -> Iterator[str]:
    """runs/RECIPE-DATA, then the same with a number."""
    name = Path(recipe_name.rpartition(":")[2]).name
    base = f"{Path('runs') / name}-{Path(data).resolve().name}"
    yield base
    yield from (f"{base}-{number}" for number in count(2))


def begun_before(out: str | Path | None, recipe_name: str, data: str) -> RunFolder | None:
    """The run that this command had started before torchrun restarted it, if there is one."""
    if launched().restarts == 0:
        return None
    taken = takewhile(lambda name: Path(name).exists(), folder_names(recipe_name, data))
    root = out or next(iter(deque(taken, maxlen=1)), None)
    folder = RunFolder(root) if root else None
    return folder if folder and folder.spec.exists() else None
