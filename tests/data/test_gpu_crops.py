"""Images on a device are cropped there as the loading processes crop them."""

import math
import pickle

import torch

from unmask.contracts import Size
from unmask.data.cpu_feed import CpuFeed
from unmask.data.gpu_crops import GpuCrops, cut, cut_box, load_on_device
from unmask.data.in_memory import Digits
from unmask.data.loader import Feed, SetAside, Wanted, batches
from unmask.data.views import CenterCrop, RandomCrop
from unmask.randomness import generator


def smooth(count: int, size: Size) -> torch.Tensor:
    noise = torch.randint(0, 256, (count, 3, 9, 9), generator=generator("cpu", "smooth")).float()
    large = torch.nn.functional.interpolate(noise, size=tuple(size), mode="bicubic")
    return large.round().clamp(0, 255).byte()


def apart(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype == torch.uint8
    return (found.int() - wanted.int()).abs()


def test_cut_as_views_cut() -> None:
    whole = Size(40, 33)
    for views, size in (
        (RandomCrop(), Size(16, 24)),
        (RandomCrop(smallest_share=0.05), Size(40, 33)),
        (RandomCrop(smallest_share=1.0, flip_probability=1.0), Size(7, 7)),
    ):
        images = smooth(24, whole)
        wanted = torch.stack([views(image, size, 0, 1, i)[0] for i, image in enumerate(images)])
        placed = [views.geometry(whole, size, 0, 1, i) for i in range(len(images))]
        boxes = torch.tensor([cut_box(geometry) for geometry in placed])
        off = apart(cut(images, boxes, size), wanted)
        assert off.max() <= 2  # both directions round, and torch's weights are rounded as well
        assert (off > 1).double().mean() < 1e-4
        assert (off > 0).double().mean() < 0.01


def test_an_untouched_part_is_exact() -> None:
    images = torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8)
    boxes = torch.tensor([[2, 3, 16, 16, 0], [0, 4, 16, 16, 1]])
    found = cut(images, boxes, Size(16, 16))
    assert torch.equal(found[0], images[0, :, 2:18, 3:19])
    assert torch.equal(found[1], images[1, :, 0:16, 4:20].flip(-1))


def the_batches(images: Feed, set_aside: SetAside) -> list:
    settings = {"batch_size": 32, "first_step": 40, "steps": 48, "workers": 0}
    return list(batches(images, **settings, device=torch.device("cpu"), set_aside=set_aside))


class Broken:
    """Digits, of which some cannot be decoded."""

    def __init__(self) -> None:
        self.digits = Digits().open("train")

    def __getattr__(self, name: str):
        return getattr(self.digits, name)

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, position: int):
        from unmask.errors import DataError

        if position % 5 == 0:
            raise DataError(f"broken {position}")
        return self.digits[position]


def test_the_same_batches_as_a_loader_brings(tmp_path) -> None:
    """Of an epoch's end and the next one's beginning, with images that cannot be decoded and crops that grow."""

    def size(epoch: int) -> Size:
        return Size(8, 8) if epoch == 0 else Size(12, 12)

    source, views = Broken(), RandomCrop()
    lists = [SetAside(tmp_path / name, len(source), 1.0) for name in ("held", "loaded")]
    held = load_on_device(source, views, torch.device("cpu"), 0, room=math.inf)
    assert held is not None
    found = the_batches(GpuCrops(source, views, size, 3, held), lists[0])
    wanted = the_batches(CpuFeed(source, views, size, 3), lists[1])
    assert {batch.epoch for batch in found} == {0, 1}
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.index, other.index)
        assert torch.equal(one.annotations, other.annotations)
        assert one.epoch == other.epoch
        assert apart(one.images, other.images).max() <= 2
    assert (tmp_path / "held").read_text() == (tmp_path / "loaded").read_text() != ""


def test_what_cannot_live_on_a_device() -> None:
    digits = Digits().open("train")

    def held(source, views) -> bool:
        return load_on_device(source, views, torch.device("cpu"), 0, room=math.inf) is not None

    class Mixed(Broken):
        def __getitem__(self, position: int):
            sample = self.digits[position]
            return sample if position else sample._replace(image=sample.image[:, 1:])

    class Fractions(Broken):
        values = "float32"

        def __getitem__(self, position: int):
            sample = self.digits[position]
            return sample._replace(image=sample.image.float())

    assert held(digits, RandomCrop())
    assert not held(digits, CenterCrop())
    assert not held(Mixed(), RandomCrop())
    assert not held(Fractions(), RandomCrop())
    room = len(digits) * 64 - 1
    assert load_on_device(digits, RandomCrop(), torch.device("cpu"), 0, room) is None


def test_a_loading_process_gets_no_pixels() -> None:
    digits, views = Digits().open("train"), RandomCrop()
    held = load_on_device(digits, views, torch.device("cpu"), 0, room=math.inf)
    assert held is not None
    feed = GpuCrops(digits, views, Size(8, 8), 0, held)
    sent = pickle.loads(pickle.dumps(feed))
    assert sent.pixels is None
    assert feed.pixels is not None
    wanted = Wanted([(0, 3), (0, 7)], 0, Size(8, 8))
    one, other = sent.load(wanted, []), feed.load(wanted, [])
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.annotations, torch.from_numpy(digits.labels()[[3, 7]]))
