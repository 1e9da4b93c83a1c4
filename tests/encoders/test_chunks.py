"""Chunks of a fixed shape: the same bits for any batch, any positions before, and any number of threads."""

import pytest
import torch
from torch import Tensor

from unmask.channels import IMAGENET
from unmask.contracts import Size
from unmask.encoders.chunks import chunk_for, in_chunks
from unmask.encoders.vit import VisionTransformer, ViT
from unmask.randomness import seeded

SIZE, CPU = Size(16, 16), torch.device("cpu")


@pytest.fixture(scope="module")
def encoder() -> VisionTransformer:
    spec = ViT(embed_dim=16, depth=2, num_heads=2, patch_size=4)
    with seeded("test", 0):
        return spec.build(SIZE, 3, IMAGENET.tensors()).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(256, (23, 3, *SIZE), generator=random, dtype=torch.uint8)


class Recorder:
    """A forward pass that notes what it sees."""

    def __init__(self, encoder: VisionTransformer) -> None:
        self.encoder, self.seen = encoder, list[Tensor]()

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        self.seen.append(images)
        encoded = self.encoder.encode(images)
        return encoded.cls[:, 0], encoded.patches


def by_hand(encoder: VisionTransformer, images: Tensor, chunk: int) -> Tensor:
    """The definition: zeros at the end, and one chunk after another."""
    padded = torch.cat([images, images.new_zeros(-len(images) % chunk, *images.shape[1:])])
    with torch.no_grad():
        parts = [encoder.encode(part).patches for part in padded.split(chunk)]
    return torch.cat(parts)[: len(images)]


def test_every_pass_has_one_shape_and_each_image_its_slot(
    encoder: VisionTransformer, images: Tensor
) -> None:
    recorder = Recorder(encoder)
    positions = [1, 2, 5, 8, 9]
    in_chunks(recorder, images[:5], positions, 4, CPU)
    assert [len(seen) for seen in recorder.seen] == [4, 4, 4]
    for image, position in zip(images, positions, strict=False):
        assert recorder.seen[position // 4][position % 4].equal(image)
    assert not recorder.seen[0][[0, 3]].any()


@pytest.mark.parametrize("batch", [1, 3, 8, 23])
def test_no_batch_size_changes_a_bit(
    encoder: VisionTransformer, images: Tensor, batch: int
) -> None:
    expected = by_hand(encoder, images, 8)
    forward = Recorder(encoder)
    parts = [
        in_chunks(forward, images[start : start + batch], range(start, start + batch), 8, CPU)[1]
        for start in range(0, 23, batch)
    ]
    assert torch.cat(parts).equal(expected)


def test_threads_compute_chunks_and_not_parts_of_them(
    encoder: VisionTransformer, images: Tensor
) -> None:
    inside: list[int] = []

    def forward(part: Tensor) -> tuple[Tensor, ...]:
        inside.append(torch.get_num_threads())
        return (encoder.encode(part).patches,)

    expected = by_hand(encoder, images, 4)  # on one thread; three add in another order
    torch.set_num_threads(3)
    try:
        (several,) = in_chunks(forward, images, range(23), 4, CPU)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert set(inside) == {1}
    assert several.equal(expected)


def test_a_chunk_follows_from_the_image_size(encoder: VisionTransformer) -> None:
    assert chunk_for(encoder, SIZE, CPU) == 64
    assert chunk_for(encoder, Size(64, 64), CPU) == 4
    assert chunk_for(encoder, Size(256, 256), CPU) == 1
    assert chunk_for(encoder, Size(64, 64), torch.device("cuda")) == 64
