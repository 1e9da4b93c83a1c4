"""`unmask duplicates VECTORS`: near-duplicates, and pictures of a test split that also stand in training."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import Tensor

from unmask.console.arguments import parse
from unmask.console.bars import progress_on
from unmask.console.hardware import Threads, use_threads
from unmask.console.output import check_writable, console, notes, write_csv
from unmask.data.kinds import find_source
from unmask.errors import RunError, SettingsError, number_of
from unmask.own_output import is_marked
from unmask.pictures.drawing import drawn
from unmask.pictures.grid import Tile, grid
from unmask.pictures.sheet import save_sheet
from unmask.spec import within
from unmask.vectors.duplicates import Pair, groups, near_duplicates
from unmask.vectors.matrix import Searched, open_vectors
from unmask.vectors.sheets import Shelf, all_missing

_SHOWN = 12  # groups on the sheet and in the terminal
_MOST_COLUMNS = 6

_COLUMNS: tuple[str, ...] = (
    "group",
    "score",
    "same_file",
    "split_a",
    "name_a",
    "split_b",
    "name_b",
)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask duplicates`."""

    vectors: tyro.conf.Positional[str]
    """A folder that `unmask embed` made."""

    across_splits: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """List only pairs of different splits: test pictures that also stand in training."""

    threshold: float | None = None
    """Cosine similarity from which two pictures are near-duplicates; from the data if not given (docs/vectors.md)."""

    data: str | None = None
    """Where the pictures of VECTORS are now, for the sheet."""

    out: str | None = None
    """The list to write, with the sheet beside it; _duplicates.csv in the folder of VECTORS if not given."""

    threads: Threads = None
    """CPU threads of torch."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print pairs as JSON; files are written only with --out."""

    def __post_init__(self) -> None:
        within(self, "[-1, 1]", "threshold", usual="it is a cosine similarity")
        within(self, "[1, inf)", "threads")


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "duplicates")
    root = Path(args.vectors).expanduser()
    path = Path(args.out) if args.out else root / "_duplicates.csv"
    if args.out or not args.json:
        if path.suffix.lower() != ".csv":
            raise SettingsError(f"--out {path}: the list is a table; give it the ending .csv")
        check_writable(path)
        check_writable(path.with_suffix(".png"))
    use_threads(args.threads)
    with progress_on(notes):
        searched = open_vectors(root)
        if searched.warning:
            notes.warn(f"{root} {searched.warning}; run the same `unmask embed` again to finish it")
        found, words = _found(searched, args)
    if args.json:
        print(json.dumps(_as_json(searched, found, words), indent=1))
    else:
        _say(searched, found, words, args)
    if args.out or not args.json:
        for file in _written(searched, found, path, args):
            if not args.json:
                console.print(f"written: {file}")
    return 0


def _found(searched: Searched, args: Arguments) -> tuple[list[Pair], str]:
    """The pairs, and the threshold in words.

    Raises:
        RunError: if there are too few pictures to compare.
    """
    count = len(searched.matrix)
    if count < 3:
        raise RunError(f"{args.vectors} holds {number_of(count, 'vector')}; compare at least 3")
    hashes, splits = (searched.columns[name].to_pylist() for name in ("hash", "split"))
    found, threshold = near_duplicates(searched.matrix, hashes, splits, args.threshold)
    if args.across_splits:
        found = [pair for pair in found if splits[pair.first] != splits[pair.second]]
    return found, threshold.words


def _leaks(searched: Searched, found: Sequence[Pair]) -> int:
    """How many pictures outside of training are near-duplicates of training pictures."""
    splits = searched.columns["split"].to_pylist()
    return len(
        {
            row
            for pair in found
            for row, other in ((pair.first, pair.second), (pair.second, pair.first))
            if splits[row] != "train" and splits[other] == "train"
        }
    )


def _say(searched: Searched, found: list[Pair], words: str, args: Arguments) -> None:
    """Print what was found."""
    names, splits = (searched.columns[name].to_pylist() for name in ("name", "split"))
    console.print(f"compared  {number_of(len(names), 'picture')}, each with all others")
    console.print(f"threshold {words}")
    linked = groups(found)
    same = sum(pair.same_file for pair in found)
    where = " of different splits" if args.across_splits else ""
    console.result(
        f"found     {number_of(len(found), 'pair')} of near-duplicates{where} in {number_of(len(linked), 'group')}; "
        f"{number_of(same, 'pair')} of equal files"
    )
    if leaks := _leaks(searched, found):
        console.warn(
            f"{number_of(leaks, 'picture')} outside of the training split also stand in it, so scores on them are too high; remove "
            "them from one of the two"
        )
    for pair in found[:_SHOWN]:
        equal = "  equal files" if pair.same_file else ""
        console.result(
            f"  {pair.score:.4f}  {names[pair.first]} ({splits[pair.first]})  {names[pair.second]} "
            f"({splits[pair.second]}){equal}"
        )
    if len(found) > _SHOWN:
        console.print(f"  ... and {len(found) - _SHOWN:,} more in the list")


def _rows(searched: Searched, found: Sequence[Pair]) -> list[dict[str, Any]]:
    columns = {name: searched.columns[name].to_pylist() for name in ("name", "split")}
    numbers = {row: number for number, rows in enumerate(groups(found), 1) for row in rows}
    return [
        {
            "group": numbers[pair.first],
            "score": round(pair.score, 6),
            "same_file": pair.same_file,
            "split_a": columns["split"][pair.first],
            "name_a": columns["name"][pair.first],
            "split_b": columns["split"][pair.second],
            "name_b": columns["name"][pair.second],
        }
        for pair in found
    ]


def _as_json(searched: Searched, found: list[Pair], words: str) -> dict[str, Any]:
    return {
        "pictures": len(searched.columns),
        "threshold": words,
        "in_training_and_test": _leaks(searched, found),
        "pairs": _rows(searched, found),
    }


def _written(searched: Searched, found: list[Pair], path: Path, args: Arguments) -> list[Path]:
    """Write the list, and the sheet beside it."""
    write_csv(path, _COLUMNS, _rows(searched, found))
    sheet = path.with_suffix(".png")
    if not found:
        if is_marked(sheet):  # of an earlier call
            sheet.unlink()
        return [path]
    if note := _draw(searched, found, sheet, args.data):
        notes.note(note)
        return [path]
    return [path, sheet]


def _draw(searched: Searched, found: list[Pair], path: Path, data: str | None) -> str:
    """Write the sheet of the first groups; returns a note if there is none."""
    encoding = searched.manifest.encoding
    source = searched.manifest.data if data is None else find_source(data, like=encoding.bands)
    shelf = Shelf(source, encoding.statistics, encoding.image_size)
    columns = {name: searched.columns[name].to_pylist() for name in ("name", "split")}
    best: dict[int, float] = {}
    for pair in found:
        for row in (pair.first, pair.second):
            best[row] = max(best.get(row, -1.0), pair.score)
    linked = sorted(groups(found), key=lambda rows: -max(best[row] for row in rows))[:_SHOWN]
    pictures: list[list[Tensor | None]] = []
    tiles: list[list[Tile]] = []
    with progress_on(notes):
        for rows in linked:
            shown = [
                shelf.picture(columns["split"][row], columns["name"][row])
                for row in rows[:_MOST_COLUMNS]
            ]
            pictures.append(shown)
            tiles.append(
                [
                    Tile(
                        shelf.blank() if picture is None else picture,
                        (columns["name"][row], f"{columns['split'][row]}, {best[row]:.4f}"),
                        columns["split"][row] != columns["split"][rows[0]],
                    )
                    for row, picture in zip(rows, shown, strict=False)
                ]
            )
    if all_missing(pictures):
        return "no sheet is drawn, because the pictures of VECTORS are no longer where they were; say where with --data"
    heading = f"near-duplicates: {number_of(len(groups(found)), 'group')}; framed: of another split than the first"
    return drawn(path, lambda file: save_sheet(grid(tiles, heading), file))
