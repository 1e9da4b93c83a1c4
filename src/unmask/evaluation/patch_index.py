"""FAISS, and an index of it for the nearest remembered patch in memories of some hundred thousand."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unmask.errors import ResourceError, with_extra

_ROUNDS = 10  # of k-means; FAISS's 25 take longer and find the same
_TRAINED = 50_000  # patches that lists are learned from
_PROBED = 16  # lists that are searched
_LEAST = 39  # patches for each list; with fewer FAISS warns


def faiss_library(flag: str) -> Any:
    """The library, which is in the extra `search`, with as many threads as torch has.

    Raises:
        ResourceError: if it is not installed, with the command that installs it.
    """
    try:
        import faiss
    except ImportError:
        raise ResourceError(
            f"{flag} needs faiss, which is not installed: {with_extra('search')}; or leave out {flag}"
        ) from None
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


class PatchIndex(NamedTuple):
    """Lists of near patches (an inverted file), of which the nearest sixteen are searched.

    The distance of a patch is that to one that is remembered, so never too small; it is too large where the nearest lies in
    a list that was not searched.
    """

    index: Any

    @staticmethod
    def of(vectors: Float[Tensor, "m d"]) -> "PatchIndex":
        """The index of remembered patches.

        Raises:
            ResourceError: without FAISS.
        """
        faiss = faiss_library("--index ivf")
        count, width = vectors.shape
        lists = max(1, min(int(count**0.5), count // _LEAST))
        index = faiss.index_factory(width, f"IVF{lists},Flat")
        index.cp.niter = _ROUNDS
        index.cp.min_points_per_centroid = 1  # no warning for very small memories
        chosen = np.linspace(0, count - 1, min(count, _TRAINED)).astype(int)
        rows = np.ascontiguousarray(vectors.numpy())
        index.train(rows[chosen])
        index.add(rows)
        index.nprobe = _PROBED
        return PatchIndex(index)

    def distances(self, patches: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
        """The Euclidean distance of each patch to the nearest one that is found."""
        flat = np.ascontiguousarray(patches.flatten(0, 1).numpy())
        squares = torch.from_numpy(self.index.search(flat, 1)[0][:, 0])
        return squares.clamp(min=0).sqrt().view(patches.shape[:2])
