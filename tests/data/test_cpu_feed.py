"""Any annotations on the way from a source to a batch, and who refuses which."""

from pathlib import Path

import pytest
import torch
from reference.problems import random
from reference.sources import Annotated, Memory
from torch import Tensor

from unmask.annotations import (
    ClassMaps,
    MultiLabels,
    ObjectLabels,
    Objects,
    Unlabelled,
)
from unmask.contracts import Batch, Size
from unmask.data.cpu_feed import CpuFeed, collate_pictures
from unmask.data.gpu_crops import GpuCrops, OnDevice, load_on_device
from unmask.data.gpu_decode import GpuDecode, check_decoding
from unmask.data.in_memory import Digits, noise_images
from unmask.data.loader import Feed, SetAside, Wanted, batches, example_of
from unmask.data.multi_views import MultiCrop
from unmask.data.scaled_views import WholeImage
from unmask.data.views import AugmentedCrop, RandomCrop
from unmask.errors import DataError, SettingsError
from unmask.runs.feeding import feed_for
from unmask.training.hardware import Hardware

CPU = torch.device("cpu")
HARDWARE = Hardware(device="cpu", precision="float32", workers=0, threads=1, micro_batch=4)
SIZES = [(12, 9), (8, 14), (10, 10), (9, 9), (14, 8), (12, 12)]


def pictures() -> list[Tensor]:
    return [
        torch.randint(256, (3, *size), generator=random(n), dtype=torch.uint8)
        for n, size in enumerate(SIZES)
    ]


def with_objects() -> Annotated:
    """One more object in each image than in the one before; the class is the image's number."""
    known = [
        Objects(torch.tensor([[1.0, 2, 7, 8]]).repeat(n, 1), torch.full((n,), n)) for n in range(6)
    ]
    return Annotated(pictures(), ObjectLabels(names=tuple("abcdef")), known)


def with_maps() -> Annotated:
    known = [torch.full(size, n) for n, size in enumerate(SIZES)]
    return Annotated(pictures(), ClassMaps(names=tuple("abcdef")), known)


def with_several() -> Annotated:
    labels = torch.randint(2, (6, 3), generator=random(9))
    kind = MultiLabels(names=tuple("abc"))
    return Annotated(pictures(), kind, list(labels.float()), labels.numpy())


def all_batches(feed: Feed, folder: Path, workers: int = 0, **of: int) -> list[Batch]:
    noted = SetAside(folder / "set_aside.csv", len(feed.source), 1.0)
    settings = {"batch_size": 4, "first_step": 0, "steps": 3, "workers": workers} | of
    return list(batches(feed, **settings, device=CPU, set_aside=noted))


@pytest.mark.parametrize("workers", [0, 1])
def test_every_kind_arrives_with_its_image(tmp_path: Path, workers: int) -> None:
    """In the order of the images, through loading processes too."""
    views, size = RandomCrop(smallest_share=0.9), Size(8, 8)
    several, maps, objects = with_several(), with_maps(), with_objects()
    for batch in all_batches(CpuFeed(several, views, size, 0), tmp_path, workers):
        assert torch.equal(batch.annotations, torch.stack(several.known)[batch.index])
    for batch in all_batches(CpuFeed(maps, views, size, 0), tmp_path, workers):
        assert batch.annotations.shape == (4, 8, 8)
        assert torch.equal(batch.annotations[:, 3, 3], batch.index)
    for batch in all_batches(CpuFeed(objects, views, size, 0), tmp_path, workers):
        assert isinstance(batch.annotations, tuple)
        assert [len(one.boxes) for one in batch.annotations] == batch.index.tolist()
        assert all((one.boxes >= 0).all() and (one.boxes <= 8).all() for one in batch.annotations)
    nothing = Annotated(pictures(), Unlabelled(), [None] * 6)
    assert all_batches(CpuFeed(nothing, views, size, 0), tmp_path, workers)[0].annotations is None


def test_whole_images_are_padded_and_measured(tmp_path: Path) -> None:
    source = with_maps()
    for batch in all_batches(CpuFeed(source, WholeImage(), Size(1, 1), 0), tmp_path):
        assert batch.sizes.tolist() == [list(SIZES[index]) for index in batch.index]
        for row, index in enumerate(batch.index.tolist()):
            height, width = SIZES[index]
            assert torch.equal(batch.images[row, :, :height, :width], source.images[index])
            assert not batch.images[row, :, height:].any()
            assert not batch.images[row, :, :, width:].any()
            assert batch.annotations[row, :height, :width].unique().tolist() == [index]
    alone = all_batches(CpuFeed(source, WholeImage(), Size(1, 1), 0), tmp_path, batch_size=1)
    assert all(batch.sizes is None for batch in alone)


def test_missing_values_fill_up_floating_point() -> None:
    padded, sizes = collate_pictures([torch.ones(1, 2, 3), torch.ones(1, 1, 4)])
    nan = float("nan")
    expected = torch.tensor([[[[1, 1, 1, nan], [1, 1, 1, nan]]], [[[1, 1, 1, 1], [nan] * 4]]])
    torch.testing.assert_close(padded, expected, equal_nan=True, rtol=0, atol=0)
    assert sizes.tolist() == [[2, 3], [1, 4]]
    same, sizes = collate_pictures([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    assert sizes is None
    assert same.flatten(1).tolist() == [[0] * 4, [1] * 4]


@pytest.mark.parametrize("views", [AugmentedCrop(), MultiCrop()])
def test_views_that_annotations_cannot_follow_are_refused_before_loading(
    views: AugmentedCrop,
) -> None:
    for source in (with_maps(), with_objects()):
        with pytest.raises(SettingsError, match="cannot follow views"):
            feed_for(source, views, Size(8, 8), 0, HARDWARE)


class TestOnTheGpu:
    """Feeds of a GPU, here on a CPU: they carry labels of whole images, and refuse anything else."""

    size, views = Size(8, 8), RandomCrop()

    def held(self, source: Annotated) -> OnDevice:
        pixels = torch.stack([image[:, :8, :8] for image in source.images])
        return OnDevice(pixels, {2: "broken"})

    def test_held_images_carry_several_classes(self, tmp_path: Path) -> None:
        source = with_several()
        source.images = [image[:, :8, :8] for image in source.images]
        held = load_on_device(source, self.views, CPU, 0, room=1e9)
        assert held is not None
        found = all_batches(GpuCrops(source, self.views, self.size, 3, held), tmp_path)
        wanted = all_batches(CpuFeed(source, self.views, self.size, 3), tmp_path)
        for one, other in zip(found, wanted, strict=True):
            assert torch.equal(one.annotations, other.annotations)
            assert torch.equal(one.index, other.index)

    def test_replaced_images_bring_their_labels(self, tmp_path: Path) -> None:
        source = with_several()
        feed = GpuCrops(source, self.views, self.size, 3, self.held(source))
        for batch in all_batches(feed, tmp_path):
            assert 2 not in batch.index
            assert torch.equal(batch.annotations, torch.stack(source.known)[batch.index])

    @pytest.mark.parametrize("source", [with_maps(), with_objects()])
    def test_annotations_of_pixels_are_refused(self, source: Annotated) -> None:
        source.images = [image[:, :8, :8] for image in source.images]
        words = "class maps" if isinstance(source.annotations, ClassMaps) else "boxes"
        with pytest.raises(
            SettingsError, match=f"held and cropped on the GPU cannot carry {words}"
        ):
            GpuCrops(source, self.views, self.size, 0, self.held(source))
        with pytest.raises(SettingsError, match=f"--decode gpu cannot carry {words}"):
            GpuDecode(source, self.views, self.size, 0)
        assert load_on_device(source, self.views, CPU, 0, room=1e9) is None
        assert isinstance(feed_for(source, self.views, self.size, 0, HARDWARE), CpuFeed)

    def test_the_check_before_a_run_refuses_them_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("unmask.data.gpu_decode.EncodedImages", Annotated)
        with pytest.raises(SettingsError, match="--decode gpu cannot carry class maps yet; remove"):
            check_decoding(with_maps(), self.views, CPU)


class TestExamples:
    def test_few_images_are_read_once_and_repeated(self) -> None:
        class Counted(Memory):
            read: list[int] = []  # noqa: RUF012

            def __getitem__(self, position: int):
                self.read.append(position)
                return super().__getitem__(position)

        images = torch.randint(256, (100, 3, 8, 8), generator=random(0), dtype=torch.uint8)
        example = example_of(CpuFeed(Counted(images), RandomCrop(), Size(4, 4), 0), Size(6, 6), CPU)
        batch = example(19)
        assert Counted.read == [0, 12, 25, 37, 50, 62, 75, 87]
        assert batch.images.shape == (19, 3, 6, 6)
        assert batch.annotations.tolist() == [*Counted.read, *Counted.read, 0, 12, 25]
        assert batch.part is None
        assert torch.equal(batch.images[:8], batch.images[8:16])
        assert torch.equal(example(3).images, batch.images[:3])
        assert len(Counted.read) == 8

    def test_annotations_are_as_many_as_in_training(self) -> None:
        source = with_objects()
        batch = example_of(CpuFeed(source, WholeImage(), Size(1, 1), 0), Size(1, 1), CPU)(8)
        assert isinstance(batch.annotations, tuple)
        assert [len(one.boxes) for one in batch.annotations] == [0, 1, 2, 3, 4, 5, 0, 1]
        assert batch.sizes.tolist() == [list(size) for size in [*SIZES, *SIZES[:2]]]

    def test_all_views_and_fewer_images_than_eight(self) -> None:
        images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
        views = MultiCrop(small_count=2, small_size=Size(4, 4))
        example = example_of(CpuFeed(Memory(images), views, Size(8, 8), 0), Size(8, 8), CPU)
        assert [tuple(view.shape) for view in example(5).views] == [(5, 3, 8, 8)] * 2 + [
            (5, 3, 4, 4)
        ] * 2

    def test_nothing_readable(self) -> None:
        source = Memory(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), {0, 1, 2, 3})
        with pytest.raises(DataError, match="100 images in a row cannot be decoded"):
            example_of(CpuFeed(source, RandomCrop(), Size(8, 8), 0), Size(8, 8), CPU)


def test_the_feed_of_a_run(tmp_path: Path) -> None:
    digits, views, size = Digits().open("train"), RandomCrop(), Size(8, 8)
    assert isinstance(feed_for(digits, views, size, 0, HARDWARE), CpuFeed)
    for made in (CpuFeed(digits, views, size, 0), feed_for(digits, views, size, 0, HARDWARE)):
        assert isinstance(made, Feed)
        assert made.load(Wanted([(0, 1)], 0, size), []).annotations.tolist() == [digits.labels()[1]]


def test_noise_is_the_same_for_the_same_size() -> None:
    one, other, larger = (
        noise_images(Size(8, 4), 2),
        noise_images(Size(8, 4), 2),
        noise_images(Size(8, 8), 2),
    )
    assert torch.equal(one.pixels, other.pixels)
    assert one.pixels.shape == (8, 2, 8, 4)
    assert not torch.equal(one.pixels, larger.pixels[..., :4])
    assert one.fingerprint == other.fingerprint != larger.fingerprint
    assert one.labels().tolist() == [-1] * 8
