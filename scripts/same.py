"""Does a refactor change anything? Runs the same command lines on two versions of the code and compares them bit for bit.

    python scripts/same.py OLD NEW                            # two working trees
    python scripts/same.py OLD --out old.json                 # keep the outcome of one
    python scripts/same.py NEW --old-from old.json            # and compare with it later
    python scripts/same.py NEW --losses tests/rules/losses.json

The rows are those of `tests/rules/loss_rows.py` beside this script. Every tree runs them all in a process of its own, on one
thread of the CPU. Compared are all exact fields of the old log, and the name, type, shape and bytes of every tensor
of the last checkpoint (never the bytes of a file, which also holds settings); of rows that read a run, the figures. Ends with
status 1 if a row differs that is not in the table MEANT_TO_CHANGE of the rows.
"""

import argparse
import fnmatch
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
ROWS_FILE = HERE.parent / "tests" / "rules" / "loss_rows.py"

WIDTH = 150
"""Columns of the table in a file."""

MESSAGE = 400
"""Most characters of an error that are shown: its end, which says more than the command before it."""

Outcome = dict[str, Any]
"""What a row gave: `log`, `tensors` and `figures`, or `failed`."""

TIMED = ("second", "memory")
"""What the names of figures contain that differ from run to run."""


def main() -> int:
    """Run, compare, write what was asked for."""
    args = _arguments()
    rows = _rows()
    names = [name for name in rows.ROWS if fnmatch.fnmatch(name, args.only)]
    outcomes = [_run(tree, args.only) for tree in args.trees]
    if args.out:
        args.out.write_text(json.dumps(outcomes[0], indent=1) + "\n")
    if args.losses:
        args.losses.write_text(_losses(outcomes[-1]))
    if args.old_from:
        outcomes.insert(0, json.loads(args.old_from.read_text()))
    if len(outcomes) == 1:
        return _say_failed(outcomes[0])
    return _compare(*outcomes, names, rows.MEANT_TO_CHANGE)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trees", nargs="+", type=Path, help="working trees: OLD NEW, or one")
    parser.add_argument("--only", default="*", help="rows to run, such as 'mae/*'")
    parser.add_argument("--old-from", type=Path, help="outcome of the old tree, from --out")
    parser.add_argument("--out", type=Path, help="where to keep the outcome of the first tree")
    parser.add_argument("--losses", type=Path, help="where to write the losses of the last tree")
    args = parser.parse_args()
    if len(args.trees) + bool(args.old_from) > 2:
        parser.error("two versions are compared: OLD NEW, or NEW --old-from FILE")
    for tree in args.trees:
        if not (tree / "src" / "unmask").is_dir():
            parser.error(f"{tree} has no src/unmask; give the root of a working tree")
    return args


def _rows() -> ModuleType:
    """The module of the rows, found by its path."""
    spec = importlib.util.spec_from_file_location("loss_rows", ROWS_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# Running: a process for each tree, in a folder that is thrown away


def _run(tree: Path, only: str) -> dict[str, Outcome]:
    """What the rows give with the code of a tree."""
    started, root = time.perf_counter(), tree.resolve()
    with tempfile.TemporaryDirectory() as folder:
        one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment = os.environ | one_thread | {
            "PYTHONPATH": str(root / "src"),
            "XDG_CACHE_HOME": f"{folder}/cache",
            "COLUMNS": "100",
        }  # fmt: skip
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", str(root), only]
        subprocess.run(command, cwd=folder, env=environment, check=True)
        outcome = json.loads(Path(folder, "outcome.json").read_text())
    seconds = time.perf_counter() - started
    print(f"{tree}: {len(outcome)} rows in {seconds:.0f} s", file=sys.stderr)
    return outcome


def worker(tree: Path, only: str) -> None:
    """Run the rows in this folder and write `outcome.json`; the process of one tree."""
    import torch

    import unmask

    source = Path(unmask.__file__)
    assert source.is_relative_to(tree / "src"), f"{source} is not of {tree}"
    torch.set_num_threads(1)
    rows = _rows()
    Path("data").mkdir()
    rows.write_data(Path("data"))
    outcomes: dict[str, Outcome] = {}
    wanted = _with_needed(rows, only)
    for number, name in enumerate(wanted, 1):
        _show(f"{tree}: {number} of {len(wanted)}, {name}")
        try:
            outcomes[name] = _outcome(rows, name)
        except Exception as error:  # whatever the code of this tree does wrong
            outcomes[name] = {"failed": _failure(error)}
    _show("")
    Path("outcome.json").write_text(json.dumps(outcomes))


def _failure(error: Exception) -> str:
    """What went wrong, where, in a line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(f"{type(error).__name__}: {error}".split())
    said = said if len(said) < MESSAGE else f"... {said[-MESSAGE:]}"
    return f"{said} ({Path(frame.filename).name}, line {frame.lineno})"


def _show(progress: str) -> None:
    """On a terminal, say where it stands, in one line that is written over."""
    if sys.stderr.isatty():
        print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)


def _with_needed(rows: ModuleType, only: str) -> list[str]:
    """The rows that match, and those that they read, in order."""
    matching = {name for name in rows.ROWS if fnmatch.fnmatch(name, only)}
    needed = {rows.ROWS[name].after for name in matching}
    return [name for name in rows.ROWS if name in matching | needed]


def _outcome(rows: ModuleType, name: str) -> Outcome:
    row = rows.ROWS[name]
    printed = rows.call(row.words(name, "data", "runs"))
    if row.reads_only:
        return {"figures": _exact(json.loads(printed))}
    folder = rows.folder_of(name, "runs")
    results = folder / "results.json"
    return {
        "log": rows.log_of(folder),
        "tensors": _tensors(max((folder / "checkpoints").iterdir())),
        "figures": _exact(json.loads(results.read_text())) if results.exists() else {},
    }


def _exact(figures: Any) -> Any:
    """Figures without those that are measured times or sizes, and without words, which may be put better."""
    if isinstance(figures, dict):
        return {key: _exact(value) for key, value in figures.items() if _is_exact(key, value)}
    return [_exact(value) for value in figures] if isinstance(figures, list) else figures


def _is_exact(name: str, value: Any) -> bool:
    return not isinstance(value, str) and not any(word in name for word in TIMED)


def _tensors(checkpoint: Path) -> dict[str, dict[str, Any]]:
    """The hash of each file's tensors, and of each tensor, of all safetensors files of a checkpoint."""
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(checkpoint.rglob("*.safetensors")):
        tensors = _tensor_hashes(path)
        named = "".join(f"{name} {digest}\n" for name, digest in tensors.items())
        name = str(path.relative_to(checkpoint).with_suffix(""))
        files[name] = {"sha256": hashlib.sha256(named.encode()).hexdigest(), "tensors": tensors}
    return files


def _tensor_hashes(path: Path) -> dict[str, str]:
    """SHA-256 of type, shape and bytes of each tensor, by name. The layout: a length, a JSON header, bytes."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    hashes: dict[str, str] = {}
    for name in sorted(header.keys() - {"__metadata__"}):
        about = header[name]
        first, end = about["data_offsets"]
        kind = f"{about['dtype']} {about['shape']}\n".encode()
        hashes[name] = hashlib.sha256(kind + content[start + first : start + end]).hexdigest()
    return hashes


# Comparing


def _compare(
    old: dict[str, Outcome], new: dict[str, Outcome], names: list[str], meant: dict[str, str]
) -> int:
    """Print a line for each row; 1 if one differs that is not meant to."""
    table = Table("row", "outcome", "first difference", box=None)
    wrong = 0
    for name in names:
        difference = _difference(old.get(name), new.get(name))
        if difference is None:
            table.add_row(name, "same", "")
        elif name in meant:
            table.add_row(name, "meant to change", f"{difference} ({meant[name]})")
        else:
            wrong += 1
            table.add_row(name, "DIFFERENT", difference)
    width = None if sys.stdout.isatty() else WIDTH
    Console(highlight=False, markup=False, width=width).print(table)
    print(
        f"{len(names) - wrong} of {len(names)} rows are the same or meant to change, {wrong} differ"
    )
    return 1 if wrong else 0


def _difference(old: Outcome | None, new: Outcome | None) -> str | None:
    """The first difference in words, or None."""
    for version, outcome in (("old", old), ("new", new)):
        if outcome is None:
            return f"not run on the {version} tree"
        if "failed" in outcome:
            return f"failed on the {version} tree: {outcome['failed']}"
    assert old is not None
    assert new is not None
    return (
        _log_difference(old.get("log", []), new.get("log", []))
        or _tensor_difference(old.get("tensors", {}), new.get("tensors", {}))
        or _figure_difference(old["figures"], new["figures"])
    )


def _log_difference(old: list[dict[str, float]], new: list[dict[str, float]]) -> str | None:
    if len(old) != len(new):
        return f"{len(old)} steps, now {len(new)}"
    for before, after in zip(old, new, strict=True):
        for name, one in before.items():  # fields that only the new tree logs tell nothing
            other = after.get(name)
            if one != other:
                return f"{name} of step {before['step']:.0f}: {one}, now {other}"
    return None


def _tensor_difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    if old.keys() != new.keys():
        return f"files {', '.join(sorted(old))}, now {', '.join(sorted(new))}"
    for file, before in old.items():
        after = new[file]
        if before["sha256"] == after["sha256"]:
            continue
        ours, theirs = before["tensors"], after["tensors"]
        name = min(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
        if sorted(ours.values()) == sorted(theirs.values()):
            return f"{file}: names only, first {name}"
        return f"{file}: {name}" + _absent(name, ours, theirs)
    return None


def _absent(name: str, old: dict[str, str], new: dict[str, str]) -> str:
    if name in old and name in new:
        return ""
    return " is gone" if name in old else " is new"


def _figure_difference(old: Any, new: Any, where: str = "") -> str | None:
    """The first place where two JSON values differ; new fields beside the old ones are no difference."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys: list[Any] = sorted(old)
        pairs = [(key, old.get(key), new.get(key)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(place, *both) for place, both in enumerate(zip(old, new, strict=True))]
    else:
        return None if old == new else f"{where.lstrip('.')}: {old}, now {new}"
    found = (_figure_difference(a, b, f"{where}.{key}") for key, a, b in pairs)
    return next((difference for difference in found if difference), None)


def _losses(outcomes: dict[str, Outcome]) -> str:
    """JSON with a line for each row."""
    lines = [
        f'"{name}": {json.dumps([line["loss"] for line in outcome["log"]])}'
        for name, outcome in outcomes.items()
        if "log" in outcome
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _say_failed(outcomes: dict[str, Outcome]) -> int:
    failed = {name: outcome["failed"] for name, outcome in outcomes.items() if "failed" in outcome}
    for name, reason in failed.items():
        print(f"{name} failed: {reason}")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(Path(sys.argv[2]), sys.argv[3])
    else:
        sys.exit(main())
