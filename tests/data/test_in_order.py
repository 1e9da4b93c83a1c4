"""Images in order for testing: for any number of workers, and what ends the reading."""

import os
import signal

import pytest
import torch
from reference.problems import random
from reference.sources import Annotated, Memory

from unmask.annotations import ClassMaps
from unmask.contracts import ImageSource, Sample, Size
from unmask.data.in_order import Ordered, Unreadable, in_order
from unmask.data.scaled_views import FittedImage, WholeImage
from unmask.data.statistics import IMAGENET
from unmask.data.views import AugmentedCrop, CenterCrop
from unmask.errors import DataError, ResourceError, RunError, SettingsError

COUNT = 7


def source(broken: set[int] = frozenset()) -> Memory:  # type: ignore[assignment]
    images = torch.randint(256, (COUNT, 3, 4, 4), generator=random(0), dtype=torch.uint8)
    return Memory(images, broken)


def read(images: ImageSource, workers: int = 0) -> tuple[list[Ordered], Unreadable]:
    unreadable: Unreadable = []
    stream = in_order(
        images, CenterCrop(), Size(4, 4), IMAGENET, unreadable, batch_size=3, workers=workers
    )
    return list(stream), unreadable


@pytest.mark.parametrize("workers", [0, 1])
def test_every_readable_image_comes_once(workers: int) -> None:
    found, unreadable = read(source({1, 3, 4, 5}), workers)
    assert [batch.positions for batch in found] == [[0, 2], [6]]
    assert [batch.annotations.tolist() for batch in found] == [[0, 2], [6]]
    assert torch.equal(torch.cat([b.images for b in found]), source().images[[0, 2, 6]])
    assert unreadable == [(f"{n}.png", f"image {n} is damaged") for n in (1, 3, 4, 5)]


@pytest.mark.parametrize("workers", [0, 1])
def test_whole_images_come_padded_with_their_maps(workers: int) -> None:
    sizes = [(4, 6), (5, 3), (4, 6), (4, 6)]
    maps = [torch.randint(9, size, generator=random(n)) for n, size in enumerate(sizes)]
    images = [classes.to(torch.uint8).expand(3, -1, -1) for classes in maps]
    kind = ClassMaps(names=tuple("abcdefghi"), ignored=99)
    stream = in_order(
        Annotated(images, kind, maps),
        WholeImage(),
        Size(8, 8),
        IMAGENET,
        [],
        batch_size=2,
        workers=workers,
    )
    first, second = stream
    assert first.sizes.tolist() == [[4, 6], [5, 3]]
    assert first.images.shape == (2, 3, 5, 6)
    assert first.annotations.shape == (2, 5, 6)
    for row, (height, width) in enumerate(sizes[:2]):
        assert torch.equal(first.images[row, 0, :height, :width], maps[row].byte())
        assert torch.equal(first.annotations[row, :height, :width], maps[row])
    assert first.annotations[0, 4:].unique().tolist() == [99]
    assert first.annotations[1, :, 3:].unique().tolist() == [99]
    assert not first.images[0, :, 4:].any()
    assert not first.images[1, :, :, 3:].any()
    assert second.sizes is None


def test_annotations_as_found_stay_with_the_picture() -> None:
    maps = [torch.randint(9, size, generator=random(n)) for n, size in enumerate([(4, 6), (5, 3)])]
    images = [classes.to(torch.uint8).expand(3, -1, -1) for classes in maps]
    kind = ClassMaps(names=tuple("abcdefghi"))
    source = Annotated(images, kind, maps)
    (batch,) = in_order(source, FittedImage(), Size(12, 12), IMAGENET, [], as_found=True)
    assert batch.sizes is not None
    assert batch.sizes.tolist() == [[8, 12], [12, 7]]
    assert batch.wholes.tolist() == [[4, 6], [5, 3]]
    assert all(map(torch.equal, batch.annotations, maps))


def test_views_that_maps_cannot_follow_are_refused() -> None:
    kind = ClassMaps(names=("a",))
    images = Annotated([torch.zeros(3, 8, 8)], kind, [torch.zeros(8, 8, dtype=torch.long)])
    with pytest.raises(SettingsError, match="class maps cannot follow views:augmented-crop"):
        list(in_order(images, AugmentedCrop(), Size(4, 4), IMAGENET, []))


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_readable_ends_with_a_message(workers: int) -> None:
    with pytest.raises(DataError, match="none of the images can be decoded; the first"):
        read(source(set(range(COUNT))), workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_change_meanwhile_end_with_the_message_alone(workers: int) -> None:
    class Changed(Memory):
        def __getitem__(self, position: int) -> Sample:
            raise RunError("a.tar has changed")

    with pytest.raises(RunError, match=r"^a\.tar has changed$"):
        read(Changed(source().images), workers)


def test_a_worker_that_is_killed_is_reported() -> None:
    class Killed(Memory):
        def __getitem__(self, position: int) -> Sample:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    with pytest.raises(ResourceError, match=r"loading process died.*memory"):
        read(Killed(source().images), workers=1)
