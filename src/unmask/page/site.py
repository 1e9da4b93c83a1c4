"""Write the folder of a page: its own files, the runtime, models and samples."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import unmask
from unmask.errors import RunError, SettingsError
from unmask.files import read_object
from unmask.formats.destination import put, writing_beside
from unmask.formats.onnx import StoredWeights, description, open_onnx, write_onnx
from unmask.formats.onnx_graphs import largest_difference
from unmask.page.runtime import VERSION, copy_runtime
from unmask.page.samples import Sample, stored
from unmask.page.shown import Shown
from unmask.runs.onnx_export import BATCHES, TOLERANCE

ASSETS = Path(__file__).parent / "assets"

INDEX = "page.json"
"""What a page holds, and a list of its files."""

FORMAT = "unmask page 1"
"""How `INDEX` names itself."""


class Written(NamedTuple):
    """A model on a written page."""

    name: str
    size: int
    """Of its file, in bytes."""
    difference: float
    """The largest difference of onnxruntime to unmask."""
    largest: float
    """The largest value that was compared."""
    exact: bool
    """Whether that is rounding."""


def check_folder(folder: Path, writing: Path | None = None) -> set[str]:
    """The names in a folder that make up an earlier page.

    Args:
        folder: where a page should be written.
        writing: may lie in the folder too.

    Raises:
        RunError: for a place that holds something other than an earlier page.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; give a folder")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
    if writing is not None and writing.parent == folder.resolve():
        names.discard(writing.name)
    if not names:
        return names
    own = _files_of_page(folder / INDEX)
    known = {folder / name for name in own}
    known |= {above for file in known for above in file.parents}
    inside = (one for name in sorted(names) for one in (folder / name, *(folder / name).rglob("*")))
    foreign = next((one for one in inside if one not in known), None)
    if not own or foreign is not None:
        what = "" if foreign is None else f", such as {foreign.relative_to(folder)}"
        raise RunError(
            f"{folder} holds other files{what}; give a new folder, or that of an earlier page"
        )
    return names


def _files_of_page(index: Path) -> list[str]:
    """The files that a page consists of, relative to its folder; none if it is no page."""
    read = read_object(index)
    if read.get("format") != FORMAT or not isinstance(read.get("files"), list):
        return []
    return [INDEX, *map(str, read["files"])]


def names_of(runs: Sequence[str]) -> list[str]:
    """A short name for each run, no two the same.

    >>> names_of(["runs/a", "b", "old/a"])
    ['a', 'b', 'a (2)']
    """
    names: list[str] = []
    for run in runs:
        short = Path(run).resolve().name
        again = sum(name == short or name.startswith(f"{short} (") for name in names)
        names.append(f"{short} ({again + 1})" if again else short)
    return names


def write_page(
    shown: Sequence[Shown],
    samples: Sequence[Sample],
    folder: Path,
    runtime: Path,
    stored_weights: StoredWeights,
    done: Callable[[Written], None] = lambda _: None,
) -> list[Written]:
    """Write a page; an earlier one in its place is replaced once the new one is complete.

    Args:
        shown: the models, in their order on the page.
        samples: pictures, with views of these models.
        folder: new, empty, or an earlier page.
        runtime: a folder with onnxruntime-web.
        stored_weights: type of the weights in the models' files.
        done: is called after each model.

    Raises:
        ResourceError: if the folder cannot be written.
    """
    check_folder(folder)
    with writing_beside(folder) as new:
        shutil.copytree(ASSETS, new, dirs_exist_ok=True)
        copy_runtime(runtime, new / "runtime")
        written = [_write_model(new, one, stored_weights, done) for one in shown]
        pictures = [_write_sample(new, one) for one in samples]
        files = sorted(
            file.relative_to(new).as_posix() for file in new.rglob("*") if file.is_file()
        )
        index = {
            "format": FORMAT,
            "version": unmask.__version__,
            "runtime": VERSION,
            "models": [entry for entry, _ in written],
            "samples": pictures,
            "files": files,
        }
        (new / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
        put(new, folder, check_folder(folder, new))  # again, because writing takes minutes
    return [one for _, one in written]


def _write_model(
    page: Path, shown: Shown, stored_weights: StoredWeights, done: Callable[[Written], None]
) -> tuple[dict[str, Any], Written]:
    """A model and what else its tab needs; what page.json says of them."""
    folder = page / "models"
    folder.mkdir(exist_ok=True)
    file = folder / "new.onnx"
    write_onnx(shown.graph, file, stored_weights)
    # browsers keep files by name, so another content has another one
    file = file.rename(file.with_name(f"{_named(file.read_bytes())}.onnx"))
    worst = largest_difference(shown.graph, open_onnx(file), BATCHES)
    exact = worst.relative <= TOLERANCE[stored_weights]
    files: dict[str, str] = {}
    for name, content in shown.files.items():
        files[name] = f"models/{_named(content)}{Path(name).suffix}"
        (page / files[name]).write_bytes(content)
    entry = {
        "tab": shown.tab,
        "name": shown.name,
        "about": shown.about,
        "file": f"models/{file.name}",
        "bytes": file.stat().st_size,
        "description": description(shown.graph, stored_weights),
        **shown.facts,
        "files": files,
    }
    written = Written(shown.name, file.stat().st_size, worst.difference, worst.largest, exact)
    done(written)
    return entry, written


def _write_sample(page: Path, sample: Sample) -> dict[str, Any]:
    """A picture for each model; what page.json says of it."""
    folder = page / "samples"
    folder.mkdir(exist_ok=True)
    views: dict[str, Any] = {}
    for model, pixels in sample.views.items():
        content = stored(pixels)
        place = f"samples/{_named(content)}.bin"
        (page / place).write_bytes(content)
        _, height, width = pixels.shape
        whole = list(sample.wholes[model])
        views[str(model)] = {"file": place, "height": height, "width": width, "whole": whole}
    return {"name": sample.name, "views": views}


def _named(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def check_runs(runs: Sequence[str]) -> None:
    """Raises SettingsError unless there is a run."""
    if not runs:
        raise SettingsError(
            "which run? `unmask page runs/NAME --out page`, or several to compare them"
        )
