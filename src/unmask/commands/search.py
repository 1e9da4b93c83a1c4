"""`unmask search VECTORS IMAGE...`: the pictures that are most like others."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
import tyro
from torch import Tensor

from unmask.console.arguments import parse
from unmask.console.bars import progress_on
from unmask.console.hardware import Threads, use_threads
from unmask.console.output import check_writable, console, notes, writing
from unmask.data import AnySource
from unmask.data.kinds import find_source
from unmask.errors import DataError, SettingsError, number_of
from unmask.pictures.drawing import drawn
from unmask.pictures.grid import Tile, grid
from unmask.pictures.sheet import save_sheet
from unmask.runs.model import Model
from unmask.spec import within
from unmask.training.hardware import find_device
from unmask.vectors.approximate import KINDS, Approximate, open_index
from unmask.vectors.encoder import encoder_of
from unmask.vectors.filters import Condition, matching, parse_condition
from unmask.vectors.matrix import Searched, open_vectors
from unmask.vectors.nearest import Neighbours, nearest
from unmask.vectors.sheets import Shelf, all_missing

_FEW = 16
"""Queries for which it is not worth to find out how many cores are free, which takes a third of a second."""

_MOST_ROWS = 12  # queries on a sheet
_MOST_COLUMNS = 10
_SHEET = "neighbours.png"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask search`."""

    vectors: tyro.conf.Positional[str]
    """A folder that `unmask embed` made."""

    images: tyro.conf.Positional[tuple[str, ...]] = ()
    """Pictures whose neighbours are wanted."""

    queries: str | None = None
    """A text file with a path of a picture on each line, in place of IMAGES or beside them."""

    k: int = 10
    """How many neighbours of each picture."""

    where: tuple[str, ...] = ()
    """A condition on name, split, label, width, height or hash, such as label=wheat or 'width>500'; several must all hold."""

    index: Literal["none", "hnsw", "ivf-pq"] = "none"
    """Exact (none), or an index of FAISS, which is made once: for millions of vectors. Its recall is printed."""

    encoder: str | None = None
    """Where the encoder is now, if it is not where it was."""

    data: str | None = None
    """Where the pictures of VECTORS are now, for the sheet."""

    out: str | None = None
    """The sheet to write; neighbours.png if not given."""

    device: str = "cpu"
    """Where the pictures are encoded: cpu, cuda (or gpu), cuda:1, mps, or auto."""

    threads: Threads = None
    """CPU threads of torch."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print neighbours as JSON; a sheet is written only with --out."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "k", "threads")


class Found(NamedTuple):
    """The neighbours of a picture."""

    image: str
    neighbours: Neighbours


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "search")
    images = _images(args)
    conditions = [parse_condition(text) for text in args.where]
    sheet = Path(args.out or _SHEET) if args.out or not args.json else None
    if sheet is not None:
        check_writable(sheet)
    if args.index != "none":
        KINDS[args.index].check()
    is_small = args.index == "none" and len(images) <= _FEW
    if args.threads is None and is_small and any(Path(args.vectors).expanduser().glob("_search-*")):
        torch.set_num_threads(1)
    else:
        use_threads(args.threads)
    with progress_on(notes):
        searched = open_vectors(Path(args.vectors).expanduser())
        if searched.warning:
            notes.warn(
                f"{args.vectors} {searched.warning}; run the same `unmask embed` again to finish it"
            )
        rows = matching(searched.columns, conditions)
        device = str(find_device(args.device))
        model = encoder_of(searched.folder.root, searched.manifest, args.encoder, device)
        queries = vectors_of(model, searched, images)
        # under conditions the nearest may all lie far from the query, where an index does not look
        index = (
            None if args.index == "none" or rows is not None else open_index(searched, args.index)
        )
    chosen = None if rows is None else torch.from_numpy(rows)
    found = [
        Found(image, _neighbours(searched, query, args.k, chosen, index))
        for image, query in zip(images, queries, strict=True)
    ]
    if args.json:
        print(json.dumps(_as_json(args, found, searched, index), indent=1))
    else:
        _say(found, searched, conditions, args, index)
    if sheet is not None:
        data = (
            searched.manifest.data
            if args.data is None
            else find_source(args.data, like=searched.manifest.encoding.bands)
        )
        _draw(found, searched, model, data, sheet, args.json)
    return 0


def _images(args: Arguments) -> list[str]:
    """The paths of all queries.

    Raises:
        SettingsError: if there are none.
        DataError: if the file of queries cannot be read.
    """
    images = list(args.images)
    if args.queries is not None:
        try:
            lines = Path(args.queries).expanduser().read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"--queries {args.queries} cannot be read as text ({error})") from None
        images += [line.strip() for line in lines if line.strip()]
    if not images:
        raise SettingsError(
            "which pictures? `unmask search VECTORS a.jpg b.jpg`, or --queries with a file that has a path on each line"
        )
    folder = next((image for image in images if Path(image).expanduser().is_dir()), None)
    if folder is not None:
        raise SettingsError(f"{folder} is a folder; give pictures, such as {folder}/*.jpg")
    return images


def vectors_of(model: Model, searched: Searched, images: list[str]) -> Tensor:
    """The vectors of pictures, as those that are searched; float32 [b k]."""
    features = model.embed(images, patches=False, progress=False)
    pooling = searched.manifest.encoding.pooling
    vectors = features.cls if pooling == "class" else features.mean
    if searched.manifest.encoding.stored == "float16":
        vectors = vectors.half().float()  # as those in the parts
    return searched.ready(vectors)


def _neighbours(
    searched: Searched,
    query: Tensor,
    count: int,
    rows: Tensor | None,
    index: Approximate | None,
) -> Neighbours:
    if index is None:
        return nearest(searched.matrix, query, count, rows)
    return index.nearest(searched.matrix, query, count)


def _named(searched: Searched, row: int) -> dict[str, Any]:
    return {name: searched.columns[name][row].as_py() for name in ("name", "split", "label")}


def _label(label: Any) -> str:
    return ";".join(label) if isinstance(label, list) else str(label or "")


def _say(
    found: list[Found],
    searched: Searched,
    conditions: list[Condition],
    args: Arguments,
    index: Approximate | None,
) -> None:
    """Print the neighbours, a line each."""
    where = f" where {' and '.join(map(str, conditions))}" if conditions else ""
    how = f"{args.index}, {index.words}" if index else "exact"
    if index is None and args.index != "none":
        how += ", because of --where"
    console.print(f"searching {number_of(len(searched.columns), 'vector')}{where}, {how}")
    for one in found:
        console.print(f"{one.image}:")
        for row, score in zip(
            one.neighbours.rows.tolist(), one.neighbours.scores.tolist(), strict=True
        ):
            about = _named(searched, row)
            label = f"  {_label(about['label'])}" if about["label"] else ""
            console.result(f"  {score:.3f}  {about['name']}  {about['split']}{label}")
    fewest = min(len(one.neighbours.rows) for one in found)
    if fewest < args.k:
        notes.note(f"there are only {fewest:,} pictures{where}, fewer than --k {args.k}")


def _as_json(
    args: Arguments, found: list[Found], searched: Searched, index: Approximate | None
) -> dict[str, Any]:
    return {
        "vectors": args.vectors,
        "searched": len(searched.columns),
        "where": list(args.where),
        "index": "none" if index is None else args.index,
        **({} if index is None else {"recall": index.recall}),
        "queries": [
            {
                "image": one.image,
                "neighbours": [
                    {**_named(searched, row), "score": round(score, 6)}
                    for row, score in zip(
                        one.neighbours.rows.tolist(), one.neighbours.scores.tolist(), strict=True
                    )
                ],
            }
            for one in found
        ],
    }


def _draw(
    found: list[Found],
    searched: Searched,
    model: Model,
    data: AnySource,
    path: Path,
    quiet: bool,
) -> None:
    """Write the sheet: a row for each query, the query first."""
    encoding = searched.manifest.encoding
    shelf = Shelf(data, encoding.statistics, encoding.image_size)
    pictures: list[list[Tensor | None]] = []
    rows: list[list[Tile]] = []
    with progress_on(notes):
        for one in found[:_MOST_ROWS]:
            tiles = [
                Tile(shelf.shown(model.read(one.image)), (Path(one.image).name, "query"), True)
            ]
            shown: list[Tensor | None] = []
            pairs = zip(one.neighbours.rows.tolist(), one.neighbours.scores.tolist(), strict=True)
            for row, score in list(pairs)[:_MOST_COLUMNS]:
                about = _named(searched, row)
                picture = shelf.picture(about["split"], about["name"])
                shown.append(picture)
                label = _label(about["label"])
                words = (about["name"], f"{score:.3f} {label}".rstrip())
                tiles.append(Tile(shelf.blank() if picture is None else picture, words))
            pictures.append(shown)
            rows.append(tiles)
    if all_missing(pictures):
        notes.note(
            "no sheet is drawn, because the pictures of VECTORS are no longer where they were; say where with --data"
        )
        return
    heading = f"neighbours of {number_of(len(found), 'picture')}"
    with writing(path):
        note = drawn(path, lambda file: save_sheet(grid(rows, heading), file))
    if note:
        notes.note(note)
    elif not quiet:
        console.print(f"written: {path}")
