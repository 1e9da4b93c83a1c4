"""Images in order for testing: for any number of workers, and what ends the reading."""

import os
import signal

import pytest
import torch
from reference.problems import random
from reference.sources import Memory

from unmask.contracts import ImageSource, Sample, Size
from unmask.data.in_order import Ordered, Unreadable, in_order
from unmask.data.statistics import IMAGENET
from unmask.data.views import CenterCrop
from unmask.errors import DataError, ResourceError, RunError

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
