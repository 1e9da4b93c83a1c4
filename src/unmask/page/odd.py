"""The tab of a memory of normal images: where a picture differs from them, and whether it is odd."""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from unmask.data.views import SquashedImage
from unmask.errors import SettingsError, number_of
from unmask.evaluation.odd import Memory, compared, near
from unmask.evaluation.odd_file import Kept
from unmask.evaluation.vectors import tokens_at
from unmask.formats.onnx import StoredWeights
from unmask.formats.onnx_graphs import Graph
from unmask.page.samples import Reader
from unmask.page.shown import Shown, about_of
from unmask.runs.model import Model

MOST = 64 * 2**20
"""Bytes of remembered patches in a page, with the mask of --aligned: more would take a browser long to fetch and to search."""

MOST_PAIRS = 16 * 2**20
"""Patches of a picture times remembered patches: a browser holds a few tables of them in float32, 64 MiB each."""


class Distancing(nn.Module):
    """The distance of each patch of squashed images to the nearest one that is remembered, by an exact search."""

    outputs = ("distances",)
    means: Tensor
    vectors: Tensor
    far: Tensor | None

    def __init__(self, encoder: Any, memory: Memory) -> None:
        super().__init__()
        self.encoder, self.rule, self.grid = encoder, memory.rule, memory.grid
        self.register_buffer("means", memory.means)
        self.register_buffer("vectors", memory.vectors)
        far = None if memory.rule.aligned is None else ~near(memory, memory.rule.aligned)
        self.register_buffer("far", far)

    def forward(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b n"]:
        """As `Memory.distances` of the tokens."""
        tokens = tokens_at(self.encoder, images, self.rule.block)[1]
        tokens = compared(tokens, self.means, self.grid, self.rule)
        products = tokens @ self.vectors.T  # b n m
        squares = self.vectors.square().sum(1) - 2 * products
        if self.far is not None:
            squares = squares.masked_fill(self.far, torch.inf)
        # from the difference itself: that of large squares would round small distances away
        nearest = self.vectors[squares.argmin(2)]
        return (tokens - nearest).square().sum(2).sqrt()


def odd(name: str, kept: Kept, model: Model, stored: StoredWeights) -> Shown:
    """A memory and its encoder.

    Raises:
        SettingsError: if a page cannot hold the memory; see `check_size`.
    """
    memory, size, spec = kept.memory, kept.size, model.spec
    check_size(name, memory, stored)
    graph = Graph(
        "odd",
        Distancing(model.encoder, memory).eval(),
        Distancing.outputs,
        size,
        spec.encoder.patch_size,
        spec.statistics,
        {"origin": spec.origin, "weights_hash": kept.facts["weights"]},
        any_size=False,
    )
    reader = Reader(
        name,
        spec.statistics,
        model.bands,
        lambda pixels: SquashedImage()(pixels, size)[0],
        kept.looked_at,
    )
    limit = memory.threshold
    facts = {
        "view": {},
        "grid": list(memory.grid),
        "counted": memory.counted,
        "threshold": limit.score,
        "alarms": limit.alarms,
        "held_out": limit.images,
        "heat": [memory.low, memory.high],
    }
    patches = number_of(len(memory.vectors), "remembered patch", "es")
    return Shown("odd", name, about_of(spec.origin, graph, patches), graph, reader, facts)


def check_size(name: str, memory: Memory, stored: StoredWeights) -> None:
    """Refuse a memory that is too large to fetch or to search in a browser.

    Raises:
        SettingsError: if it takes more than `MOST`, or is compared in more than `MOST_PAIRS`.
    """
    pairs = memory.grid.height * memory.grid.width * len(memory.vectors)
    # the mask has one byte for each pair
    taken = memory.vectors.numel() * (2 if stored == "float16" else 4)
    taken += 0 if memory.rule.aligned is None else pairs
    fewer = "remember fewer patches with `unmask odd --memory`"
    if taken > MOST:
        raise SettingsError(
            f"the memory of {name} takes {taken / 2**20:.0f} MiB, and a page holds {MOST // 2**20}; "
            + ("use --dtype float16, or " if stored == "float32" else "")
            + fewer
        )
    if pairs > MOST_PAIRS:
        raise SettingsError(
            f"{name} compares {pairs:,} pairs of patches, and a page {MOST_PAIRS:,}; {fewer}, or make it for a smaller "
            "--image-size"
        )
