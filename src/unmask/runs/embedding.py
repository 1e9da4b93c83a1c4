"""Features of images, batch by batch, in chunks that make them independent of the batches."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unmask.encoders.chunks import chunk_for, in_chunks
from unmask.encoders.vit import VisionTransformer
from unmask.errors import ResourceError
from unmask.patches import size_of
from unmask.runs.batches import NamedBatch
from unmask.training.hardware import memory_available

_USABLE = 0.4
"""Share of the memory that patch tokens may fill; putting the batches together takes the same again."""


class Embedding(NamedTuple):
    """Features of images."""

    cls: Float[Tensor, "b d"]
    """The class token; the mean of several."""
    mean: Float[Tensor, "b d"]
    """The mean of the patch tokens."""
    patches: Float[Tensor, "b n d"]
    """A token for each patch, in row-major order; [b 0 d] if they were not asked for."""
    names: tuple[str, ...] = ()
    """The file of each image, or its number."""


def embeddings(
    encoder: VisionTransformer,
    batches: Iterable[NamedBatch],
    device: torch.device,
    *,
    patches: bool,
) -> Iterator[Embedding]:
    """The features of each batch of images, on the CPU; each image passes in the slot of its number (see `encoders.chunks`).

    Args:
        encoder: on the device.
        batches: names and images [b c h w], in order.
        device: where to compute.
        patches: whether to keep the token of every patch, too.
    """

    def forward(part: Tensor) -> tuple[Tensor, ...]:
        encoded = encoder.encode(part)
        tokens = encoded.patches if patches else encoded.patches[:, :0]
        return encoded.cls.mean(1), encoded.patches.mean(1), tokens

    done = 0
    for names, batch in batches:
        positions = range(done, done + len(batch))
        chunk = chunk_for(encoder, size_of(batch), device)
        cls, mean, tokens = in_chunks(forward, batch, positions, chunk, device)
        yield Embedding(cls.cpu(), mean.cpu(), tokens.cpu(), tuple(names))
        done += len(batch)


def together(batches: Iterable[Embedding]) -> Embedding:
    """The features of all batches.

    Raises:
        ResourceError: if the patch tokens do not fit in memory.
    """
    room = _USABLE * memory_available(torch.device("cpu"))
    parts: list[Embedding] = []
    taken = 0
    for part in batches:
        parts.append(part)
        taken += part.patches.nbytes
        if taken > room:
            raise ResourceError(
                f"the patch tokens of {sum(len(part.cls) for part in parts):,} images fill the memory; leave them out "
                "with patches=False, or take embed_batches(...), which gives them batch by batch"
            )
    return Embedding(
        torch.cat([part.cls for part in parts]),
        torch.cat([part.mean for part in parts]),
        torch.cat([part.patches for part in parts]),
        tuple(name for part in parts for name in part.names),
    )
