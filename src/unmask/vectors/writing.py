"""Embedding pictures into a folder of vectors: what is left to do, and the parts one by one.

A command embeds a generation: the pictures that the folder does not hold yet, in the order of their source, cut into parts
of equally many. Chunks of the encoder follow from the place in the generation (see `encoders.chunks`), so a part has the same
bits whichever process makes it, and a part that is there is never made again.
"""

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.data.loader import chunks, fetched
from unmask.encoders.chunks import in_chunks
from unmask.errors import DataError, RunError, SettingsError, number_of
from unmask.files import write_text
from unmask.progress import counted
from unmask.runs.model import Model
from unmask.spec import to_json
from unmask.vectors.folder import UNUSABLE, VectorsFolder
from unmask.vectors.manifest import Generation, Manifest, check_encoding, write_manifest
from unmask.vectors.parts import Facts, Part, part_path, read_columns, write_part
from unmask.vectors.pictures import (
    Loaded,
    Pictures,
    content_hashes,
    each_key,
    load,
    names_hash,
)

_LEAST_ROWS, _MOST_PARTS = 256, 256
_AT_ONCE = 64  # files that a process hashes at a time


class Plan(NamedTuple):
    """What a command has to do; the first process makes it for all."""

    manifest: Manifest
    numbers: NDArray[np.int64]
    """The pictures of the newest generation, in order."""
    pending: list[int]
    """The parts to make."""
    known: int
    """Pictures that the folder held before."""
    gone: int
    """Pictures that the folder holds and the source no longer has."""

    @property
    def generation(self) -> Generation:
        """The newest generation."""
        return self.manifest.generations[-1]

    def rows(self, part: int) -> range:
        """The places of a part's pictures in the generation."""
        start = (part - self.generation.first_part) * self.generation.rows
        return range(start, min(start + self.generation.rows, len(self.numbers)))

    @property
    def left(self) -> int:
        """Pictures that are left to embed."""
        return sum(len(self.rows(part)) for part in self.pending)


class Progress(NamedTuple):
    """How far a process is."""

    done: int
    total: int
    unusable: int
    rate: float
    """Pictures a second."""


def make_plan(folder: VectorsFolder, wanted: Manifest, pictures: Pictures, workers: int) -> Plan:
    """What is left to embed, and the manifest that the folder then has; nothing is written.

    Args:
        folder: new, unfinished or complete.
        wanted: the manifest of a new folder, without generations.
        pictures: all pictures of the source.
        workers: processes that compare the contents of known pictures, if files have changed.

    Raises:
        RunError: if the folder holds vectors of another encoder or other things, or if pictures have changed.
        DataError: if a part is damaged.
    """
    try:
        old = folder.manifest
    except RunError:
        if (folder.root / "_manifest.json").exists():
            raise
        folder.check_free()
        return _next(wanted, pictures, np.arange(len(pictures)), known=0, gone=0)
    check_encoding(folder.root, old.encoding, wanted.encoding, wanted.about)
    if old.whitened != wanted.whitened:
        old = replace(old, whitened=wanted.whitened)
    moved = replace(
        old, place=wanted.place, data=wanted.data, map_fingerprint=wanted.map_fingerprint
    )
    old = _without_lost_parts(folder, moved)
    parts = folder.facts(old)
    before = [part for part in parts if _number(part) < old.generations[-1].first_part]
    numbers = _unknown(pictures, before)
    last = old.generations[-1]
    if names_hash(pictures, numbers) == last.names and pictures.state == last.state:
        gone = _gone(pictures, before)
        return Plan(old, numbers, folder.missing(last), sum(part.rows for part in before), gone)
    _check_unchanged(folder, pictures, parts, workers)
    missing = folder.missing(last)
    if names_hash(pictures, numbers) == last.names and missing:
        manifest = replace(
            old, generations=(*old.generations[:-1], replace(last, state=pictures.state))
        )
        return Plan(
            manifest, numbers, missing, sum(p.rows for p in before), _gone(pictures, before)
        )
    numbers, known = _unknown(pictures, parts), sum(part.rows for part in parts)
    return _next(old, pictures, numbers, known, _gone(pictures, parts), missing)


def _next(
    manifest: Manifest,
    pictures: Pictures,
    numbers: NDArray[np.int64],
    known: int,
    gone: int,
    missing: Sequence[int] = (),
) -> Plan:
    """The plan of a new generation; unchanged if there is nothing for it."""
    generations = manifest.generations
    if missing:  # the source has changed since: what is there of the old generation is all of it
        generations = (*generations[:-1], *_shortened(generations[-1], missing))
    if not len(numbers):
        if generations:
            generations = (*generations[:-1], replace(generations[-1], state=pictures.state))
        return Plan(replace(manifest, generations=generations), numbers, [], known, gone)
    rows = _LEAST_ROWS
    while -(-len(numbers) // rows) > _MOST_PARTS:
        rows *= 2
    first = max((one.first_part + one.parts for one in manifest.generations), default=0)
    generation = Generation(
        first_part=first,
        parts=-(-len(numbers) // rows),
        rows=rows,
        pictures=len(numbers),
        names=names_hash(pictures, numbers),
        state=pictures.state,
    )
    pending = list(range(first, first + generation.parts))
    new = replace(manifest, generations=(*generations, generation))
    return Plan(new, numbers, pending, known, gone)


def _without_lost_parts(folder: VectorsFolder, manifest: Manifest) -> Manifest:
    """The manifest without parts of older generations that were removed, such as damaged ones.

    Which pictures they held is not known, so those that the source still has come into a new generation.
    """
    *older, last = manifest.generations
    there: list[Generation] = []
    for generation in older:
        missing = folder.missing(generation)
        there += _shortened(generation, missing) if missing else [generation]
    return replace(manifest, generations=(*there, last))


def _shortened(generation: Generation, missing: Sequence[int]) -> Iterator[Generation]:
    """A generation of each part that is there, of one that was given up."""
    first = generation.first_part
    for number in (n for n in range(first, first + generation.parts) if n not in missing):
        rows = range(generation.pictures)[(number - first) * generation.rows :][: generation.rows]
        yield replace(generation, first_part=number, parts=1, pictures=len(rows))


def _number(part: Facts) -> int:
    return int(part.path.stem.rpartition("-")[2])


def _unknown(pictures: Pictures, parts: Sequence[Facts]) -> NDArray[np.int64]:
    """The numbers of the pictures that no part holds."""
    if not parts:
        return np.arange(len(pictures))
    known = _keys(parts)
    return np.array([n for n, key in each_key(pictures) if key not in known], dtype=np.int64)


def _gone(pictures: Pictures, parts: Sequence[Facts]) -> int:
    """How many rows belong to pictures that the source no longer has."""
    return len(_keys(parts) - {key for _, key in each_key(pictures)}) if parts else 0


def _keys(parts: Sequence[Facts]) -> set[tuple[str, str]]:
    table = read_columns(parts, ("split", "name"))
    return set(zip(table["split"].to_pylist(), table["name"].to_pylist(), strict=True))


def _check_unchanged(
    folder: VectorsFolder, pictures: Pictures, parts: Sequence[Facts], workers: int
) -> None:
    """Refuse pictures that have another content than when they were embedded; files are read, not decoded.

    Raises:
        RunError: with the first one.
    """
    if not parts:
        return
    table = read_columns(parts, ("split", "name", "hash"))
    known = {
        (split, name): content
        for split, name, content in zip(
            *(table[column].to_pylist() for column in table.column_names), strict=True
        )
    }
    both = [number for number, key in each_key(pictures) if key in known]
    groups = [np.array(both[part.start : part.stop]) for part in chunks(range(len(both)), _AT_ONCE)]
    compared = fetched(partial(content_hashes, pictures), groups, workers)
    changed = [
        number
        for group in counted(compared, len(both), "comparing known pictures", len)
        for number, content in group
        if content != known[pictures.key(number)]
    ]
    if changed:
        split, name = pictures.key(changed[0])
        raise RunError(
            f"{number_of(len(changed), 'picture')} changed since {folder.root} was made, the first is {name} "
            f"({split}); embed into another folder with --out"
        )


def embed(
    folder: VectorsFolder,
    plan: Plan,
    model: Model,
    pictures: Pictures,
    *,
    own: Sequence[int],
    workers: int,
    batch_size: int,
) -> Iterator[Progress]:
    """Make the parts of the plan that are this process's `own`; yields progress after each batch.

    Raises:
        DataError: if vectors are not finite.
        SettingsError: if they do not fit into float16.
    """
    encoding = plan.manifest.encoding
    step = -(-batch_size // encoding.chunk) * encoding.chunk  # whole chunks
    batches = [(part, rows) for part in own for rows in _cut(plan.rows(part), step)]
    loader = partial(load, pictures, encoding.image_size, encoding.statistics)
    loaded = fetched(loader, [plan.numbers[rows.start : rows.stop] for _, rows in batches], workers)
    total, done, unusable = sum(len(rows) for _, rows in batches), 0, 0
    building, started = _Building(plan, pictures), time.perf_counter()
    for (part, rows), batch in zip(batches, loaded, strict=True):
        building.add(rows, batch, _vectors(model, encoding, rows, batch))
        done += len(rows)
        unusable += len(batch.failures)
        if rows.stop == plan.rows(part).stop:
            building.write(folder, part)
            building = _Building(plan, pictures)
        yield Progress(done, total, unusable, done / (time.perf_counter() - started))


def _cut(rows: range, step: int) -> list[range]:
    return [rows[start : start + step] for start in range(0, len(rows), step)]


def _vectors(model: Model, encoding: Any, rows: range, batch: Loaded) -> Tensor | None:
    """The vectors of a batch, on the CPU."""
    if batch.images is None:
        return None

    def forward(images: Tensor) -> tuple[Tensor, ...]:
        encoded = model.encoder.encode(images)
        tokens = encoded.cls if encoding.pooling == "class" else encoded.patches
        return (tokens.mean(1),)

    positions = [rows[row] for row in batch.rows]
    images = model.checked(batch.images)
    (vectors,) = in_chunks(forward, images, positions, encoding.chunk, model.device)
    return vectors.cpu()


class _Building:
    """The rows of a part so far."""

    def __init__(self, plan: Plan, pictures: Pictures) -> None:
        self._plan, self._pictures = plan, pictures
        self._numbers: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._hashes: list[str] = []
        self._vectors: list[Tensor] = []
        self._unusable: list[tuple[str, str, str]] = []

    def add(self, rows: range, batch: Loaded, vectors: Tensor | None) -> None:
        numbers = self._plan.numbers[rows.start : rows.stop]
        self._numbers += [int(numbers[row]) for row in batch.rows]
        self._sizes += batch.sizes
        self._hashes += batch.hashes
        self._unusable += [
            (*self._pictures.key(int(number)), reason) for number, reason in batch.failures
        ]
        if vectors is not None:
            self._vectors.append(vectors)

    def write(self, folder: VectorsFolder, number: int) -> None:
        manifest = self._plan.manifest
        keys = [self._pictures.key(number) for number in self._numbers]
        part = Part(
            names=[name for _, name in keys],
            splits=[split for split, _ in keys],
            labels=[self._pictures.label(number) for number in self._numbers],  # pyright: ignore[reportArgumentType]
            sizes=self._sizes,
            hashes=self._hashes,
            vectors=self._stored(keys, manifest),
            places=self._pictures.places(self._numbers),
            unusable=self._unusable,
        )
        write_part(part_path(folder.root, number), part, facts_of(manifest), self._pictures.several)

    def _stored(self, keys: list[tuple[str, str]], manifest: Manifest) -> NDArray[Any]:
        """The vectors in the type of the folder."""
        width = manifest.encoding.encoder.embed_dim
        vectors = torch.cat(self._vectors) if self._vectors else torch.empty(0, width)
        stored = vectors.half() if manifest.encoding.stored == "float16" else vectors
        bad = (~stored.isfinite()).any(1).nonzero().flatten().tolist()
        if not bad:
            return stored.numpy()
        name = keys[bad[0]][1]
        if bool(vectors.isfinite().all()):
            raise SettingsError(
                f"the vector of {name} is too large for float16; use --dtype float32"
            )
        raise DataError(
            f"the vector of {name} is not finite; check the weights ({manifest.about}) with `unmask doctor`"
        )


def facts_of(manifest: Manifest) -> dict[str, Any]:
    """What every part says of how it was made, so that it explains itself without its folder."""
    return {
        "encoding_hash": manifest.encoding.hash,
        "encoder": manifest.about,
        "place": manifest.place,
        "layer": "last, after the final norm",
        "whitened": manifest.whitened,
        "encoding": to_json(manifest.encoding),
        "unmask_version": manifest.unmask_version,
    }


def begin(folder: VectorsFolder, plan: Plan) -> None:
    """Write the manifest of the plan."""
    write_manifest(folder.root, plan.manifest)


def finish(
    folder: VectorsFolder, parts: Sequence[Facts], refused: Sequence[tuple[str, str, str]]
) -> list[tuple[str, str, str]]:
    """Write the list of unusable pictures, those that the source `refused` among them; they are (split, name, reason).

    Raises:
        DataError: if no picture could be used.
    """
    held = _keys(parts) if parts else set()
    found = [*refused, *(row for part in parts for row in part.unusable)]
    unusable = {(split, name): why for split, name, why in found if (split, name) not in held}
    rows = [(split, name, reason) for (split, name), reason in unusable.items()]
    path = folder.root / UNUSABLE
    if rows:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("split", "name", "reason"), *rows])
        write_text(path, text.getvalue())
    else:
        path.unlink(missing_ok=True)
    if not sum(part.rows for part in parts):
        split, name, reason = rows[0]
        raise DataError(
            f"none of the pictures can be used; the first is {name} ({split}): {reason}"
        )
    return rows
