"""Training, bench and plan are fed alike: by loading processes, from a GPU's memory, or by its decoder."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import tiny

from unmask.annotations import ClassMaps
from unmask.contracts import ImageSource, Size
from unmask.data import Digits, Folder
from unmask.data.cpu_feed import CpuFeed
from unmask.data.gpu_crops import GpuCrops
from unmask.data.gpu_decode import GpuDecode
from unmask.data.loader import Wanted
from unmask.data.views import AugmentedCrop, CenterCrop, RandomCrop
from unmask.errors import SettingsError
from unmask.runs import feeding
from unmask.runs.feeding import feed_for
from unmask.training.hardware import Hardware

HARDWARE = Hardware(device="cpu", precision="float32", workers=0, threads=1, micro_batch=4)
ON_GPU = replace(HARDWARE, device="cuda")
SIZE = Size(8, 8)


@pytest.fixture(autouse=True)
def _a_gpu_that_is_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for everything; what is put on it lies in the CPU's memory."""
    load, cpu = feeding.load_on_device, torch.device("cpu")
    monkeypatch.setattr(feeding, "memory_available", lambda device: 2**40)
    monkeypatch.setattr(
        feeding,
        "load_on_device",
        lambda source, views, _, workers, room: load(source, views, cpu, workers, room),
    )


def feed_of(hardware: Hardware, views: RandomCrop | CenterCrop, source: ImageSource) -> object:
    return feed_for(source, views, SIZE, 0, hardware)


def test_the_feed_is_chosen_by_device_images_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = Digits().open("train")
    assert isinstance(feed_of(HARDWARE, RandomCrop(), digits), CpuFeed)
    assert isinstance(feed_of(ON_GPU, RandomCrop(), digits), GpuCrops)
    assert isinstance(feed_of(ON_GPU, CenterCrop(), digits), CpuFeed)
    few = 10 * len(digits) * 64 - 1  # a tenth of it is one byte short
    monkeypatch.setattr(feeding, "memory_available", lambda device: few)
    assert isinstance(feed_of(ON_GPU, RandomCrop(), Digits().open("train")), CpuFeed)


def test_jpegs_are_decoded_by_a_gpu_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = Folder(path=str(tiny.write_images(tmp_path / "images"))).open()
    hardware = replace(ON_GPU, decode="gpu")
    assert isinstance(feed_of(hardware, RandomCrop(), folder), GpuDecode)


def test_images_are_held_once_for_plan_and_training(monkeypatch: pytest.MonkeyPatch) -> None:
    digits, load, count = Digits().open("train"), feeding.load_on_device, []
    monkeypatch.setattr(
        feeding, "load_on_device", lambda *parts, **room: count.append(1) or load(*parts, **room)
    )
    first, second = (feed_of(ON_GPU, RandomCrop(), digits) for _ in range(2))
    assert len(count) == 1
    wanted = Wanted([(0, 3), (0, 5)], 0, SIZE)
    crops = [
        feed.arrive(feed.load(wanted, []), torch.device("cpu"), [])  # type: ignore[attr-defined]
        for feed in (first, second)
    ]
    assert crops[0].images.equal(crops[1].images)


def test_views_that_cannot_move_annotations_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = Digits().open("train")
    monkeypatch.setattr(digits, "annotations", ClassMaps(names=("road", "sky")), raising=False)
    with pytest.raises(SettingsError, match="random-crop"):
        feed_for(digits, AugmentedCrop(), SIZE, 0, HARDWARE)
