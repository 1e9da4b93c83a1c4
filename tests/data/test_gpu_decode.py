"""JPEGs decoded where they are computed on show what the loading processes would show; here on a CPU, which torchcodec decodes on as well."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unmask.contracts import Batch, Size
from unmask.data import gpu_decode as nvjpeg
from unmask.data.cpu_feed import CpuFeed
from unmask.data.folder import Folder
from unmask.data.gpu_decode import GpuDecode, check_decoding
from unmask.data.in_memory import Digits
from unmask.data.loader import Feed, SetAside, batches
from unmask.data.views import CenterCrop, RandomCrop
from unmask.errors import ResourceError, SettingsError
from unmask.randomness import generator

CPU = torch.device("cpu")


def picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    noise = torch.rand(1, 3, 6, 6, generator=generator("cpu", "picture", height, width))
    smooth = torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic")
    pixels = (255 * smooth[0].clamp(0, 1)).byte().permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels)).convert(mode)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs of several shapes and kinds, one that is no JPEG, one turned by its EXIF, one cut off and one broken within."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(8):
        picture(40 + 7 * index, 90 - 5 * index).save(folder / f"{index}.jpg", quality=90)
    picture(50, 60, "L").save(folder / "grey.jpg")
    picture(64, 48).save(folder / "progressive.jpg", progressive=True)
    picture(33, 70).save(folder / "plain.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(30, 80).save(folder / "turned.jpg", exif=turned)
    whole = io.BytesIO()
    picture(80, 80).save(whole, "JPEG")
    data = whole.getvalue()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "hollow.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    return folder


def loaded(images: Feed, set_aside: Path) -> list[Batch]:
    settings = {"batch_size": 7, "first_step": 1, "steps": 7, "workers": 0}
    noted = SetAside(set_aside, len(images.source), 1.0)
    return list(batches(images, **settings, device=CPU, set_aside=noted))


@pytest.mark.parametrize("channels", [3, 1])
def test_the_same_batches_as_loading_processes_bring(
    photos: Path, tmp_path: Path, channels: int
) -> None:
    """Of every kind of file, over two epochs of which the second has larger crops; damage is noted and replaced alike."""

    def size(epoch: int) -> Size:
        return Size(16, 24) if epoch == 0 else Size(24, 24)

    source = Folder(path=str(photos)).open("train").decoded_to(channels)
    found = loaded(GpuDecode(source, RandomCrop(), size, 5), tmp_path / "there.csv")
    wanted = loaded(CpuFeed(source, RandomCrop(), size, 5), tmp_path / "here.csv")
    assert {batch.epoch for batch in found} >= {0, 1, 2}
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.index, other.index)
        assert one.annotations is other.annotations is None
        assert one.images.shape == other.images.shape
        assert one.images.dtype == torch.uint8
        off = (one.images.int() - other.images.int()).abs()
        assert off.max() <= 2  # both directions round
        assert (off > 0).double().mean() < 0.01
    notes = [
        sorted((tmp_path / name).read_text().splitlines()) for name in ("there.csv", "here.csv")
    ]
    assert notes[0] == notes[1]
    assert "cut.jpg" in {line.split(",")[0] for line in notes[0]}


def test_what_the_gpu_refuses_the_cpu_decides(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file spoils a call for all in it: they are decoded one by one, and it is left to the CPU."""
    source = Folder(path=str(photos)).open("train")
    refused = (photos / "3.jpg").stat().st_size
    asked: list[int] = []

    def fussy(files: list[torch.Tensor], channels: int, device: torch.device) -> object:
        asked.append(len(files))
        if refused in map(len, files):
            raise RuntimeError("nvJPEG does not like it")
        return decoded(files, channels, device)

    decoded = nvjpeg.decode_jpegs
    monkeypatch.setattr(nvjpeg, "decode_jpegs", fussy)
    size = Size(16, 16)
    found = loaded(GpuDecode(source, RandomCrop(), size, 5), tmp_path / "there.csv")
    wanted = loaded(CpuFeed(source, RandomCrop(), size, 5), tmp_path / "here.csv")
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.index, other.index)
        assert (one.images.int() - other.images.int()).abs().max() <= 2
    assert 1 in asked


def test_only_whole_upright_jpegs_travel_as_they_are(photos: Path) -> None:
    source = Folder(path=str(photos)).open("train")
    feed = GpuDecode(source, RandomCrop(), Size(8, 8), 0)
    names = [source.name(position) for position in range(len(source))]
    kept = {"plain.png", "turned.jpg", "cut.jpg"}
    for position, name in enumerate(names):
        if name == "cut.jpg":
            continue  # refused by the CPU
        assert (feed.read(position).ndim == 1) == (name not in kept), name


def test_what_cannot_be_decoded_there(photos: Path) -> None:
    source = Folder(path=str(photos)).open("train")
    cuda = torch.device("cuda")
    with pytest.raises(SettingsError, match="views are CenterCrop"):
        check_decoding(source, CenterCrop(), cuda)
    with pytest.raises(SettingsError, match="needs a whole set of image files"):
        check_decoding(Digits().open("train"), RandomCrop(), cuda)
    with pytest.raises(ResourceError, match="needs a CUDA GPU, but the device is cpu"):
        check_decoding(source, RandomCrop(), CPU)
