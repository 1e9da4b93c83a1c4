"""The same files are read alike from a folder, from tar shards and from Parquet: pixels, channels, range, notes and refusals."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from PIL import Image

from unmask.data import AnySource, Folder, Parquet, Shards
from unmask.data.image_files import EncodedImages

RANDOM = np.random.default_rng(0)
FIXTURES = Path(__file__).parents[1] / "fixtures"


def encoded(pixels: Any, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def noise(*shape: int, high: int = 256, kind: Any = np.uint8) -> Any:
    return RANDOM.integers(0, high, shape).astype(kind)


def white_is_zero() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, noise(24, 20, high=4096, kind=np.uint16), photometric="miniswhite")
    return file.getvalue()


def rotated(way: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    options: dict[str, Any] = {"exif": exif} if way == "exif" else {"xmp": xmp}
    return encoded(noise(24, 20, 3), "JPEG", **options)


SETS: dict[str, list[bytes]] = {
    "colour and grey": [encoded(noise(24, 20, 3), "JPEG"), encoded(noise(24, 20), "PNG")],
    "16-bit grey": [
        encoded(noise(24, 20, high=4096, kind=np.uint16), kind) for kind in ("PNG", "TIFF")
    ],
    "16-bit and 8-bit": [
        encoded(noise(24, 20, high=900, kind=np.uint16), "PNG"),
        encoded(noise(24, 20), "PNG"),
    ],
    "MinIsWhite": [white_is_zero()],
    "a band in alpha": [encoded(noise(24, 20, 4, high=200), "PNG") for _ in range(3)],
    "transparency": [encoded(noise(24, 20, 4), "PNG"), encoded(noise(24, 20, 3), "PNG")],
    "rotated": [rotated("exif"), rotated("xmp")],
    "damaged": [encoded(noise(24, 20, 3), "JPEG"), b"", b"no image at all, but text"],
    "phone": [encoded(noise(64, 96, 3), "JPEG"), (FIXTURES / "ramp.heif").read_bytes()],
    "no package": [encoded(noise(24, 20, 3), "JPEG"), (FIXTURES / "ramp.jxl").read_bytes()],
    "animation": [
        encoded(
            noise(24, 20, 3),
            "GIF",
            save_all=True,
            append_images=[Image.fromarray(noise(24, 20, 3))],
        )
    ],
}


def in_folder(root: Path, files: list[bytes]) -> AnySource:
    for number, data in enumerate(files):
        (root / f"{number}.png").write_bytes(data)
    return Folder(path=str(root))


def in_tar(root: Path, files: list[bytes]) -> AnySource:
    with tarfile.open(root / "a.tar", "w") as tar:
        for number, data in enumerate(files):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return Shards(path=str(root))


def in_table(root: Path, files: list[bytes]) -> AnySource:
    names = [f"{number}.png" for number in range(len(files))]
    images = [{"bytes": data, "path": name} for data, name in zip(files, names, strict=True)]
    pq.write_table(pa.table({"image": images}), root / "a.parquet")
    return Parquet(path=str(root))


def facts(images: EncodedImages) -> Any:
    return (
        images.channels,
        images.values,
        images.levels,
        images.typical_size(),
        images.smallest_side,
        images.notes,
        sorted(reason for _, reason in images.refused),
    )


@pytest.mark.parametrize("name", SETS)
def test_every_reader_has_the_same_policy(name: str, tmp_path: Path) -> None:
    writers: dict[str, Callable[[Path, list[bytes]], AnySource]] = {
        "folder": in_folder,
        "tar": in_tar,
        "table": in_table,
    }
    opened: dict[str, EncodedImages] = {}
    for kind, write in writers.items():
        (tmp_path / kind).mkdir()
        source = write(tmp_path / kind, SETS[name]).open()
        assert isinstance(source, EncodedImages)
        opened[kind] = source
    first = opened["folder"]
    for other in opened.values():
        assert len(other) == len(first)
        assert facts(other) == facts(first)
        for position in range(len(first)):
            assert torch.equal(other[position].image, first[position].image)
