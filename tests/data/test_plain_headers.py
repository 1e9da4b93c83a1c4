"""What is known of a file without Pillow is what Pillow says; in doubt, nothing is known."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from unmask.data.plain_headers import plain_file

HEIGHT, WIDTH = 18, 25


def encoded(mode: str, kind: str, **options: Any) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def several_pictures() -> bytes:
    buffer = io.BytesIO()
    first, second = (Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue"))
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    return buffer.getvalue()


def animated() -> bytes:
    buffer = io.BytesIO()
    first, second = (Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue"))
    first.save(buffer, "PNG", save_all=True, append_images=[second])
    return buffer.getvalue()


def with_words() -> bytes:
    words = PngImagePlugin.PngInfo()
    words.add_text("title", "a picture")
    return encoded("RGB", "PNG", pnginfo=words, dpi=(72, 72))


EXIF = Image.Exif()
EXIF[0x0112] = 6

PLAIN = {
    "jpeg": encoded("RGB", "JPEG"),
    "grey jpeg": encoded("L", "JPEG"),
    "progressive jpeg": encoded("RGB", "JPEG", progressive=True),
    "turned jpeg": encoded("RGB", "JPEG", exif=EXIF),
    "jpeg with a profile and words": encoded(
        "RGB", "JPEG", icc_profile=bytes(90_000), comment=b"x"
    ),
    "jpeg with restarts": encoded("RGB", "JPEG", restart_marker_rows=1),
    "png": encoded("RGB", "PNG"),
    "grey png": encoded("L", "PNG"),
    "png with words": with_words(),
}
DOUBTFUL = {
    "cmyk jpeg": encoded("CMYK", "JPEG"),
    "two pictures": several_pictures(),
    "animated png": animated(),
    "palette": encoded("P", "PNG"),
    "bits": encoded("1", "PNG"),
    "16 bits": encoded("I;16", "PNG") if "I;16" in Image.MODES else encoded("I", "PNG"),
    "alpha": encoded("RGBA", "PNG"),
    "a transparent colour": encoded("RGB", "PNG", transparency=(1, 2, 3)),
    "gif": encoded("RGB", "GIF"),
    "nothing": b"",
    "jpeg's first bytes": encoded("RGB", "JPEG")[:30],
    "png's first bytes": encoded("RGB", "PNG")[:20],
    "png without pixels": encoded("RGB", "PNG")[:33],
    "noise in place of markers": b"\xff\xd8\xff" + bytes(range(256)),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files(name: str) -> None:
    found = plain_file(PLAIN[name])
    assert found is not None
    with Image.open(io.BytesIO(PLAIN[name])) as image:
        assert (found.format, *found.size) == (image.format, image.height, image.width)
        assert image.mode in ("L", "RGB")
        assert "transparency" not in image.info


@pytest.mark.parametrize("name", DOUBTFUL)
def test_doubtful_files(name: str) -> None:
    assert plain_file(DOUBTFUL[name]) is None


@pytest.mark.parametrize("name", PLAIN)
def test_a_cut_or_scrambled_file_raises_nothing(name: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(PLAIN[name][:2000])
        for place in random.integers(0, len(data), 3):
            data[place] = random.integers(256)
        plain_file(bytes(data[: random.integers(len(data))]))
