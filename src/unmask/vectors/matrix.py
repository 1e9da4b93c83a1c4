"""What is searched: all vectors of a folder, whitened and of length 1, in one file that is mapped into memory.

The file `_search-STATE.npy` is made when it is needed, and another one when parts have changed; nothing is lost if it is
deleted. Its name says which parts it was made of, so two processes that write at the same time cannot mix theirs.
Vectors in the parts are as the encoder gives them. The whitening is fitted to those of the training split (all of them, if there
is no such split), in the order of their names, so that it is the same for a folder that grew in several steps.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unmask.errors import DataError, RunError
from unmask.evaluation.vectors import Fitted, VectorRule, read_fitted
from unmask.files import write_whole
from unmask.progress import counted
from unmask.spec import digest
from unmask.tensors import hash_of_tensors
from unmask.vectors.folder import VectorsFolder, complete_words, state_of
from unmask.vectors.manifest import Manifest
from unmask.vectors.parts import Facts, read_columns, read_vectors

WHITENING = "_whitening.safetensors"
_MATRIX = "_search-{state}.npy"
_MOST_FITTED = 100_000  # vectors; more change the whitening by less than they cost
_LEAST_FITTED = 2


@dataclass(frozen=True)
class Searched:
    """A folder of vectors that is open for searching."""

    folder: VectorsFolder
    manifest: Manifest
    fitted: Fitted
    """How pooled vectors become those of the matrix, before they get length 1."""
    matrix: Float[Tensor, "n k"]
    """A vector of length 1 of each picture (zeros where there is no direction), mapped from the disk."""
    state: str
    """A hash of what the matrix was made of."""
    parts: str
    """A hash of the parts alone."""
    columns: pa.Table
    """`parts.COLUMNS` of each picture."""
    warning: str | None
    """What is missing in the folder."""

    def ready(self, vectors: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Vectors of the encoder, as those in the matrix are."""
        return unit(self.fitted, vectors)


def open_vectors(root: Path | str) -> Searched:
    """Open a folder of vectors; makes what is searched if it is not there yet.

    Raises:
        RunError: if it is not a folder of vectors, or holds none.
        DataError: if a part is damaged, or does not belong to the folder.
    """
    folder = VectorsFolder(root)
    manifest = folder.manifest
    parts = folder.facts(manifest)
    if not sum(part.rows for part in parts):
        raise RunError(
            f"{root} holds no vectors yet; run the same `unmask embed` again to finish it"
        )
    columns = read_columns(parts)
    fitted = whitening(folder, manifest, parts, columns)
    fit = {"mean": fitted.mean}
    if fitted.directions is not None:
        fit["directions"] = fitted.directions
    state = digest([state_of(parts), hash_of_tensors(fit)])
    matrix = _matrix(folder, parts, fitted, state)
    warning = complete_words(manifest, parts)
    return Searched(folder, manifest, fitted, matrix, state, state_of(parts), columns, warning)


def whitening(
    folder: VectorsFolder, manifest: Manifest, parts: list[Facts], columns: pa.Table | None = None
) -> Fitted:
    """The fitted whitening of a folder, from `_whitening.safetensors`, or fitted now and written there."""
    wanted = {"parts": state_of(parts), "whitened": manifest.whitened}
    path = folder.root / WHITENING
    if path.exists():
        with contextlib.suppress(DataError):
            fitted, facts = read_fitted(path)
            if {name: facts.get(name) for name in wanted} == wanted:
                return fitted
    fitted, rows = _fit(manifest, parts, columns or read_columns(parts, ("name", "split")))
    facts = {**wanted, "weights": manifest.encoding.weights, "fitted_on": rows}
    with contextlib.suppress(OSError):  # a folder that this user may only read
        fitted.save(path, facts)
    return fitted


def rule_of(manifest: Manifest, pictures: int) -> VectorRule:
    """The rule of a folder whose whitening is fitted to a number of pictures; one picture cannot be whitened."""
    pooling = manifest.encoding.pooling
    if manifest.whitened == 0 or pictures < _LEAST_FITTED:
        return VectorRule(pooling=pooling, centred="none", whitened=0)
    return VectorRule(pooling=pooling, centred="mean", whitened=manifest.whitened)


def _fit(manifest: Manifest, parts: list[Facts], columns: pa.Table) -> tuple[Fitted, int]:
    """The whitening of the training pictures, and how many were used."""
    splits = np.array(columns["split"].to_pylist())
    names = np.array(columns["name"].to_pylist())
    rows = np.flatnonzero(splits == "train") if "train" in splits else np.arange(len(splits))
    rows = rows[np.lexsort((splits[rows], names[rows]))]
    if len(rows) > _MOST_FITTED:
        rows = rows[np.linspace(0, len(rows) - 1, _MOST_FITTED).astype(int)]
    rule = rule_of(manifest, len(rows))
    width = manifest.encoding.encoder.embed_dim
    if not rule.whitened:
        return Fitted(rule, torch.zeros(width), None, None), len(rows)
    chosen = torch.empty(len(rows), width)
    place = np.full(len(splits), -1)
    place[rows] = np.arange(len(rows))
    start = 0
    for part in counted(parts, len(parts), "reading vectors"):
        places = place[start : start + part.rows]
        inside = places >= 0
        if inside.any():
            read = np.asarray(read_vectors(part)[inside], dtype=np.float32)
            chosen[torch.from_numpy(places[inside])] = torch.from_numpy(read)
        start += part.rows
    return rule.fit(chosen), len(rows)


def _matrix(
    folder: VectorsFolder, parts: list[Facts], fitted: Fitted, state: str
) -> Float[Tensor, "n k"]:
    """The matrix of a folder: mapped from its file, which is written first if it is not there; those of other parts go."""
    path = folder.root / _MATRIX.format(state=state)
    with contextlib.suppress(OSError, ValueError, EOFError):  # a file that was cut off, or is empty
        return _mapped(path)
    rows = sum(part.rows for part in parts)
    width = len(fitted.mean) if fitted.directions is None else fitted.directions.shape[1]
    try:
        write_whole(path, lambda temporary: _fill(_new(temporary, (rows, width)), parts, fitted))
        matrix = _mapped(path)
    except OSError:  # a folder that this user may only read, or a full disk
        return torch.from_numpy(_fill(np.empty((rows, width), dtype=np.float32), parts, fitted))
    remove_others(path, _MATRIX, folder, state_of(parts))
    return matrix


def remove_others(path: Path, pattern: str, folder: VectorsFolder, parts: str) -> None:
    """Delete the files beside one that were made for searching other vectors; `pattern` has {state} in its name.

    Nothing is deleted if the folder has other parts than `parts` by now: another process may have made files for those.
    """
    try:
        if state_of(folder.facts(folder.manifest)) != parts:
            return
    except (OSError, DataError, RunError):
        return
    for other in path.parent.glob(pattern.format(state="*")):
        if other.name != path.name:
            with contextlib.suppress(OSError):
                other.unlink()


def _new(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.lib.format.open_memmap(path, "w+", np.float32, shape)


def _mapped(path: Path) -> Float[Tensor, "n k"]:
    # copy on write: torch warns of arrays that cannot be written
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _fill(matrix: NDArray[Any], parts: list[Facts], fitted: Fitted) -> NDArray[Any]:
    """Write the vectors of all parts into the matrix, part by part."""
    start = 0
    for part in counted(parts, len(parts), "preparing the search"):
        matrix[start : start + part.rows] = unit(fitted, _floats(read_vectors(part))).numpy()
        start += part.rows
    if isinstance(matrix, np.memmap):
        matrix.flush()
    return matrix


def _floats(vectors: NDArray[Any]) -> Float[Tensor, "n d"]:
    return torch.from_numpy(np.array(vectors, dtype=np.float32))


def unit(fitted: Fitted, vectors: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
    """Vectors of the encoder, whitened and of length 1."""
    return F.normalize(fitted.of(vectors), dim=1)
