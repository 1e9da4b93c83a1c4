"""Batches: the same for any number of workers, with unreadable files replaced."""

import csv
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from reference.problems import random
from reference.sources import Memory

from unmask.contracts import Batch, Sample, Size
from unmask.data.cpu_feed import CpuFeed
from unmask.data.loader import SetAside, Wanted, batches
from unmask.data.order import samples
from unmask.data.views import CenterCrop, RandomCrop
from unmask.errors import DataError, ResourceError

COUNT = 20
CPU = torch.device("cpu")
Stream = Callable[..., Iterator[Batch]]


def source(broken: set[int] = frozenset()) -> Memory:  # type: ignore[assignment]
    images = torch.randint(256, (COUNT, 3, 10, 12), generator=random(0), dtype=torch.uint8)
    return Memory(images, broken)


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    def make(
        images: Memory,
        *,
        workers: int = 0,
        first_step: int = 0,
        steps: int = 8,
        seed: int = 0,
        limit: float = 1.0,
    ) -> Iterator[Batch]:
        return batches(
            CpuFeed(images, RandomCrop(), Size(8, 8), seed),
            batch_size=6,
            first_step=first_step,
            steps=steps,
            workers=workers,
            device=CPU,
            set_aside=SetAside(tmp_path / "set_aside.csv", COUNT, limit),
        )

    return make


def assert_equal(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.annotations, other.annotations)
        assert torch.equal(one.index, other.index)
        assert one.epoch == other.epoch


def test_content_follows_order_and_views(stream: Stream) -> None:
    images = source()
    for step, batch in enumerate(stream(images, steps=4)):
        keys = samples(step, 6, COUNT, 0)
        assert batch.index.tolist() == batch.annotations.tolist() == [index for _, index in keys]
        assert batch.epoch == keys[0][0]
        for row, (epoch, index) in enumerate(keys):
            (view,) = RandomCrop()(images.images[index], Size(8, 8), 0, epoch, index)
            assert torch.equal(batch.images[row], view)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(stream: Stream, tmp_path: Path, workers: int) -> None:
    broken = {3, 11}
    alone = list(stream(source(broken)))
    listed = (tmp_path / "set_aside.csv").read_text()
    (tmp_path / "set_aside.csv").unlink()
    assert_equal(list(stream(source(broken), workers=workers)), alone)
    assert (tmp_path / "set_aside.csv").read_text() == listed


def test_starting_late_continues_exactly(stream: Stream) -> None:
    broken = {3, 11}
    assert_equal(list(stream(source(broken), first_step=5)), list(stream(source(broken)))[5:])


def test_seeds_give_other_orders_and_crops(stream: Stream) -> None:
    first, other = next(stream(source(), seed=0)), next(stream(source(), seed=1))
    assert first.index.tolist() != other.index.tolist()


def test_the_same_image_is_cropped_anew_every_epoch(stream: Stream) -> None:
    found = [batch for batch in stream(source(), steps=7)]
    crops = [batch.images[row] for batch in found for row in range(6) if batch.index[row] == 4]
    assert len(crops) >= 2
    assert not torch.equal(crops[0], crops[1])


def test_unreadable_images_are_replaced_purely(stream: Stream) -> None:
    """Readable places keep their image; the others get one that depends on the key alone."""
    broken = {0, 1, 2, 3, 4, 5, 6, 7}
    whole, holed = list(stream(source())), list(stream(source(broken)))
    for before, after in zip(whole, holed, strict=True):
        for row in range(6):
            wanted, found = int(before.index[row]), int(after.index[row])
            assert found not in broken
            if wanted in broken:
                assert int(after.annotations[row]) == found
            else:
                assert found == wanted
                assert torch.equal(before.images[row], after.images[row])
    assert_equal(list(stream(source(broken))), holed)
    drawn = {
        int(after.index[row])
        for before, after in zip(whole, holed, strict=True)
        for row in range(6)
        if int(before.index[row]) in broken
    }
    assert len(drawn) > 4  # not always the same substitute


@pytest.mark.parametrize("workers", [0, 1])
def test_list_of_what_was_set_aside(stream: Stream, tmp_path: Path, workers: int) -> None:
    list(stream(source({3, 11}), workers=workers))
    with (tmp_path / "set_aside.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["file"], row["reason"]) for row in rows) == [
        ("11.png", "image 11 is damaged"),
        ("3.png", "image 3 is damaged"),
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_stop_the_run_with_the_list_written(
    stream: Stream, tmp_path: Path, workers: int
) -> None:
    with pytest.raises(DataError, match="of 20 images cannot be used, more than the allowed 10%"):
        list(stream(source({1, 3, 5, 7, 9, 11}), workers=workers, limit=0.1))
    assert len((tmp_path / "set_aside.csv").read_text().splitlines()) >= 4


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_readable_ends_with_a_message(stream: Stream, workers: int) -> None:
    with pytest.raises(DataError, match="100 images in a row cannot be decoded; the last"):
        list(stream(source(set(range(COUNT))), workers=workers))


def test_other_errors_are_not_swallowed(stream: Stream) -> None:
    class Faulty(Memory):
        def __getitem__(self, position: int) -> Sample:
            raise ZeroDivisionError("a mistake of ours")

    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        next(stream(Faulty(torch.zeros(COUNT, 3, 4, 4, dtype=torch.uint8))))


def test_a_worker_that_is_killed_is_reported(stream: Stream) -> None:
    class Killed(Memory):
        def __getitem__(self, position: int) -> Sample:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    with pytest.raises(ResourceError, match=r"loading process died.*memory.*use fewer --workers"):
        next(stream(Killed(source().images), workers=1))


def test_images_stay_bytes(stream: Stream) -> None:
    assert next(stream(source())).images.dtype == torch.uint8


def test_center_crop_batches_ignore_the_seed(tmp_path: Path) -> None:
    size, failures = Size(10, 12), []
    batch = CpuFeed(source(), CenterCrop(), size, 0).load(
        Wanted([(0, 4), (1, 9)], 0, size), failures
    )
    assert failures == []
    assert torch.equal(batch.images, source().images[[4, 9]])


# The list on its own


def aside(path: Path, total: int = 100, limit: float = 0.05) -> SetAside:
    return SetAside(path / "set_aside.csv", total, limit)


def test_a_file_is_listed_once_even_after_reading_the_list_again(tmp_path: Path) -> None:
    first = aside(tmp_path)
    first.add([("a.png", "damaged"), ('b, "c"\n.png', "cut off"), ("a.png", "again")])
    first.add([("a.png", "later")])
    second = aside(tmp_path)
    assert second.names == {"a.png", 'b, "c"\n.png'}
    second.add([("a.png", "damaged"), ("ü 你.png", "odd")])
    with (tmp_path / "set_aside.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "reason"]
    assert [row[0] for row in rows[1:]] == ["a.png", 'b, "c"\n.png', "ü 你.png"]


def test_nothing_set_aside_leaves_no_file(tmp_path: Path) -> None:
    aside(tmp_path).add([])
    assert not (tmp_path / "set_aside.csv").exists()


def test_limit_counts_those_of_earlier_parts_of_the_run(tmp_path: Path) -> None:
    first = aside(tmp_path)
    first.add([(f"{number}.png", "damaged") for number in range(5)])  # 5 % is still allowed
    with pytest.raises(
        DataError,
        match=r"6 of 100 images cannot be used, more than the allowed 5%.*"
        r"x\.png.*bad.*set_aside\.csv lists them all.*--max-set-aside",
    ):
        aside(tmp_path).add([("x.png", "bad")])
    assert "x.png,bad" in (tmp_path / "set_aside.csv").read_text()


def test_names_that_are_no_text_can_be_listed(tmp_path: Path) -> None:
    aside(tmp_path).add([("bad\udcff.png", "damaged")])
    assert "bad\\udcff.png" in (tmp_path / "set_aside.csv").read_text(encoding="utf-8")


def test_names_that_are_no_text_are_listed_once(tmp_path: Path) -> None:
    for _ in range(2):
        aside(tmp_path).add([("bad\udcff.png", "damaged")])
    assert len((tmp_path / "set_aside.csv").read_text(encoding="utf-8").splitlines()) == 2
