"""Indexes of FAISS for millions of vectors: approximate, with their recall against the exact search.

An index is made once, from the matrix that is searched, and lies in the folder as `_index-KIND-STATE.faiss`, where the state
says which vectors and settings it was made of. Where it finds fewer than k, the exact search answers.
"""

import contextlib
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unmask.errors import DataError, SettingsError
from unmask.evaluation.patch_index import faiss_library
from unmask.files import read_json, write_text, write_whole
from unmask.progress import counted
from unmask.spec import digest
from unmask.vectors.matrix import Searched, remove_others
from unmask.vectors.nearest import Neighbours, nearest

_PROBED = 200  # vectors whose neighbours measure the recall
_AT = 10  # neighbours of each
_AT_ONCE = 16384  # vectors that are added at a time
_TRAINED = 100_000  # vectors that lists and codes are learned from
_ROUNDS, _POINTS = 10, 64
"""Of k-means, and vectors for each of its centres of codes: FAISS's 25 and 256 take ten times as long, and candidates are
scored exactly anyway."""
_CANDIDATES = 20
"""For codes: candidates for each wanted neighbour, which are then scored exactly."""

Kind = Literal["hnsw", "ivf-pq"]


@dataclass(frozen=True, kw_only=True)
class Hnsw:
    """A graph of near neighbours (Malkov and Yashunin, 2018); the vectors are in the index too."""

    links: int = 32
    """Links of a vector."""

    built_with: int = 120
    """Candidates while the graph is built."""

    searched_with: int = 96
    """Candidates while it is searched."""

    def check(self) -> None:
        """Raises ResourceError without FAISS."""
        _faiss()

    def build(self, dimension: int, count: int) -> Any:
        """An empty index."""
        faiss = _faiss()
        index = faiss.IndexHNSWFlat(dimension, self.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.built_with
        return index

    def parameters(self, count: int) -> Any:
        """How the index is searched."""
        return _faiss().SearchParametersHNSW(efSearch=max(self.searched_with, 2 * count))

    def candidates(self, count: int) -> int:
        """How many neighbours to ask for."""
        return count


@dataclass(frozen=True, kw_only=True)
class IvfPq:
    """Lists of a coarse quantiser and codes of 8 bits (Jégou and others, 2011), whose best candidates are scored exactly."""

    probed: int = 128
    """Lists that are searched."""

    def check(self) -> None:
        """Raises ResourceError without FAISS."""
        _faiss()

    def build(self, dimension: int, count: int) -> Any:
        """An empty index."""
        faiss = _faiss()
        lists = max(1, min(4096, int(2 * count**0.5), count // 39))
        codes = next((m for m in (dimension // 4, dimension // 2) if m and dimension % m == 0), 1)
        bits = 8 if count >= 39 * 256 else max(1, int(np.log2(max(2, count // 39))))
        # np: without the annealing for polysemous codes, which nothing uses and which takes minutes
        name = f"IVF{lists},PQ{codes}x{bits}np"
        index = faiss.index_factory(dimension, name, faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = index.pq.cp.niter = _ROUNDS
        index.pq.cp.max_points_per_centroid = _POINTS
        return index

    def parameters(self, count: int) -> Any:
        """How the index is searched."""
        return _faiss().SearchParametersIVF(nprobe=self.probed)

    def candidates(self, count: int) -> int:
        """How many neighbours to ask for."""
        return _CANDIDATES * count


KINDS: dict[str, Hnsw | IvfPq] = {"hnsw": Hnsw(), "ivf-pq": IvfPq()}
"""The kinds of indexes, by their names."""


@dataclass(frozen=True)
class Approximate:
    """An index that is ready."""

    kind: Hnsw | IvfPq
    index: Any
    recall: float
    """Share of the ten nearest neighbours that it finds, over vectors of the folder."""

    @property
    def words(self) -> str:
        """The recall in words."""
        return f"recall@{_AT} {self.recall:.3f} against the exact search"

    def nearest(
        self,
        matrix: Float[Tensor, "n k"],
        query: Float[Tensor, " k"],
        count: int,
    ) -> Neighbours:
        """As `nearest.nearest` of all rows, from the index; scores are exact."""
        asked = min(self.kind.candidates(count), self.index.ntotal)
        parameters = self.kind.parameters(count)
        _, numbers = self.index.search(query[None].numpy(), asked, params=parameters)
        found = torch.from_numpy(np.sort(numbers[0][numbers[0] >= 0]))
        if len(found) < min(count, len(matrix)):
            return nearest(matrix, query, count)
        best = nearest(matrix[found], query, count)
        return Neighbours(found[best.rows], best.scores)


def open_index(searched: Searched, kind: Kind) -> Approximate:
    """The index of a folder; made now if it is not there, or if vectors have changed.

    Raises:
        ResourceError: without FAISS.
        SettingsError: if there are too few vectors.
    """
    faiss, settings = _faiss(), KINDS[kind]
    root = searched.folder.root
    state = digest([searched.state, faiss.__version__, vars(settings)])
    name = f"_index-{kind}-{{state}}"
    path = root / f"{name.format(state=state)}.faiss"
    with contextlib.suppress(OSError, DataError, KeyError, TypeError, RuntimeError):
        known = float(read_json(path.with_suffix(".json"))["recall"])
        return Approximate(settings, faiss.read_index(str(path)), known)
    matrix = searched.matrix
    if len(matrix) < 2 * 39:  # FAISS wants 39 vectors for each list, and warns of fewer
        raise SettingsError(
            f"{root} holds only {len(matrix):,} vectors; leave out --index, the exact search takes no time"
        )
    index = built(settings, matrix)
    ready = Approximate(settings, index, recall(settings, index, matrix))
    with contextlib.suppress(OSError):  # a folder that this user may only read
        write_whole(path, lambda temporary: faiss.write_index(index, str(temporary)))
        write_text(path.with_suffix(".json"), json.dumps({"recall": ready.recall}) + "\n")
        for ending in (".faiss", ".json"):
            remove_others(path.with_suffix(ending), name + ending, searched.folder, searched.parts)
    return ready


def built(kind: Hnsw | IvfPq, matrix: Float[Tensor, "n k"]) -> Any:
    """An index of the rows of a matrix."""
    index = kind.build(matrix.shape[1], len(matrix))
    if not index.is_trained:
        chosen = np.linspace(0, len(matrix) - 1, min(len(matrix), _TRAINED)).astype(int)
        index.train(matrix[torch.from_numpy(chosen)].numpy())
    parts = matrix.split(_AT_ONCE)
    for part in counted(parts, len(matrix), "building the index", len):
        index.add(part.contiguous().numpy())
    return index


def recall(kind: Hnsw | IvfPq, index: Any, matrix: Float[Tensor, "n k"]) -> float:
    """The share of the ten nearest neighbours of some vectors, without themselves, that an index finds."""
    ready = Approximate(kind, index, 0.0)
    rows = np.unique(np.linspace(0, len(matrix) - 1, _PROBED).astype(int)).tolist()
    hits = 0
    for row in counted(rows, len(rows), "measuring the recall"):
        query = matrix[row]
        exact = nearest(matrix, query, _AT + 1).rows
        found = ready.nearest(matrix, query, _AT + 1).rows
        without = (
            [other for other in rows.tolist() if other != row][:_AT] for rows in (exact, found)
        )
        hits += len(set.intersection(*map(set, without)))
    return hits / (len(rows) * min(_AT, len(matrix) - 1))


def _faiss() -> Any:
    return faiss_library("--index")
