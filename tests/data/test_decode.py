"""One policy for every odd kind of file, the same with and without torchcodec."""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from unmask.contracts import Size
from unmask.data import decode as module
from unmask.data.decode import Header, alpha_of, decode, raw_pixels, read_header
from unmask.errors import DataError

HEIGHT, WIDTH = 24, 36
FIXTURES = Path(__file__).parents[1] / "fixtures"
WHITE = 255


@pytest.fixture(params=["torchcodec", "pillow"], autouse=True)
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs with both decoders."""
    if request.param == "pillow":
        monkeypatch.setattr(module, "_torchcodec", lambda: None)
    else:
        pytest.importorskip("torchcodec", exc_type=ImportError)
    return request.param


def ramp(channels: int = 3) -> NDArray[np.uint8]:
    """A picture in which every row, column and channel differs, and which JPEG keeps well."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [rows * 5 + 20, columns * 5 + 30, (rows + columns) * 3 + 10][:channels]
    return np.stack(planes, -1).astype(np.uint8)


def grey_ramp() -> NDArray[np.uint8]:
    return ramp(1)[:, :, 0]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def assert_pixels(found: Tensor, truth: NDArray[Any], tolerance: int = 0) -> None:
    """Equal to [h w] or [h w c], up to a tolerance in levels of 255."""
    assert found.dtype == torch.uint8
    truth = truth[:, :, None] if truth.ndim == 2 else truth
    expected = torch.from_numpy(np.array(truth)).permute(2, 0, 1)
    torch.testing.assert_close(found.int(), expected.int(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_exact_formats_return_what_went_in(kind: str) -> None:
    data = encoded(Image.fromarray(ramp()), kind)
    assert_pixels(decode(data, 3), ramp())
    assert read_header(io.BytesIO(data)) == Header(Size(HEIGHT, WIDTH), grey=False)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 98, "subsampling": 0}),
        ("WEBP", {"quality": 100}),
        ("WEBP", {"lossless": True}),
    ],
    ids=str,
)
def test_lossy_formats_return_nearly_that(kind: str, options: dict[str, Any]) -> None:
    tolerance = 0 if options.get("lossless") else 8
    data = encoded(Image.fromarray(ramp()), kind, **options)
    assert_pixels(decode(data, 3), ramp(), tolerance)


def test_both_decoders_agree_on_a_usual_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(ramp()), "JPEG", quality=85)
    first = decode(data, 3)
    monkeypatch.setattr(module, "_torchcodec", lambda: None)
    torch.testing.assert_close(
        first.int(), decode(data, 3).int(), atol=3, rtol=0
    )  # rounding of libjpeg


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_grey_among_colour_is_repeated(kind: str) -> None:
    data = encoded(Image.fromarray(grey_ramp()), kind)
    pixels = decode(data, 3)
    assert pixels.shape == (3, HEIGHT, WIDTH)
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], pixels[2])
    assert_pixels(pixels[:1], grey_ramp(), 6 if kind == "JPEG" else 0)
    assert read_header(io.BytesIO(data)).grey


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_stays_grey(kind: str) -> None:
    data = encoded(Image.fromarray(grey_ramp()), kind)
    assert_pixels(decode(data, 1), grey_ramp(), 6 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_colour_among_grey_becomes_luma(kind: str) -> None:
    data = encoded(Image.fromarray(ramp()), kind, **({"quality": 98} if kind == "JPEG" else {}))
    red, green, blue = (ramp()[:, :, channel].astype(float) for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601
    assert_pixels(decode(data, 1), np.round(luma).astype(np.uint8), 4 if kind == "JPEG" else 1)


TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = encoded(Image.fromarray(ramp()), kind, exif=exif, **options)
    assert_pixels(decode(data, 3), TURNS[orientation](ramp()), 8 if kind == "JPEG" else 0)


def test_palette_is_looked_up() -> None:
    indexed = Image.fromarray(np.tile(np.arange(4, dtype=np.uint8), (3, 1)))
    indexed = Image.frombytes("P", indexed.size, indexed.tobytes())
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 8, 7)]
    indexed.putpalette([level for colour in colours for level in colour])
    data = encoded(indexed, "PNG")
    assert_pixels(decode(data, 3), np.tile(np.array(colours, dtype=np.uint8), (3, 1, 1)))
    assert not read_header(io.BytesIO(data)).grey


def test_transparent_palette_entry_becomes_white() -> None:
    indexed = Image.frombytes("P", (2, 1), bytes([0, 1]))
    indexed.putpalette([255, 0, 0, 0, 255, 0])
    data = encoded(indexed, "PNG", transparency=1)
    assert_pixels(decode(data, 3), np.array([[[255, 0, 0], [WHITE] * 3]]))


def test_palette_with_graded_transparency_is_laid_on_white() -> None:
    indexed = Image.frombytes("P", (2, 1), bytes([0, 1]))
    indexed.putpalette([255, 0, 0, 0, 0, 0])
    data = encoded(indexed, "PNG", transparency=bytes([255, 128]))
    assert_pixels(decode(data, 3), np.array([[[255, 0, 0], [127] * 3]]), 1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_on_white(kind: str) -> None:
    alpha = np.linspace(0, 255, WIDTH).astype(np.uint8)
    pixels = np.dstack([ramp(), np.tile(alpha, (HEIGHT, 1))])
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(pixels), kind, **options)
    share = alpha[None, :, None] / 255
    assert_pixels(
        decode(data, 3), np.round(ramp() * share + WHITE * (1 - share)).astype(np.uint8), 1
    )


def test_grey_with_alpha_is_laid_on_white() -> None:
    pixels = np.dstack([grey_ramp(), np.where(grey_ramp() % 2 == 0, 0, 255).astype(np.uint8)])
    data = encoded(Image.fromarray(pixels), "PNG")
    truth = np.where(pixels[:, :, 1] == 0, WHITE, pixels[:, :, 0])
    assert_pixels(decode(data, 1), truth)
    assert_pixels(decode(data, 3), np.repeat(truth[:, :, None], 3, 2))


def test_transparent_colour_of_an_rgb_png_becomes_white() -> None:
    pixels = np.array([[[10, 20, 30], [40, 50, 60]]], dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), "PNG", transparency=(40, 50, 60))
    assert_pixels(decode(data, 3), np.array([[[10, 20, 30], [WHITE] * 3]]))


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand, for depths that Pillow does not write; rows begin with a filter of 0."""

    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


FULL = (0.0, 65535.0)


def test_16_bit_grey_is_scaled_from_a_range() -> None:
    levels = np.array([[0, 128, 257, 1000, 32768, 65535]], dtype=np.uint16)
    for low, high in (FULL, (128, 1000)):
        truth = np.round((levels.astype(float).clip(low, high) - low) / (high - low) * 255)
        for data in (
            png(6, 1, 16, 0, b"\0" + levels.astype(">u2").tobytes()),
            encoded(Image.fromarray(levels), "TIFF"),
            encoded(Image.fromarray(levels), "JPEG2000"),
            b"P5 6 1 65535\n" + levels.astype(">u2").tobytes(),
        ):
            assert_pixels(decode(data, 1, (low, high)), truth.astype(np.uint8))
            assert_pixels(
                decode(data, 3, (low, high)), np.repeat(truth[:, :, None], 3, 2).astype(np.uint8)
            )
            header = read_header(io.BytesIO(data))
            assert header.grey
            assert header.deep


def test_16_bit_grey_is_scaled_from_its_own_range_if_none_is_given() -> None:
    """12 bits of a camera in a file of 16 would be nearly black."""
    levels = np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)
    pixels = decode(encoded(Image.fromarray(levels), "PNG"), 1)
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert len(pixels.unique()) == 256


def test_16_bit_colour_keeps_its_balance() -> None:
    """One range for all colours, and all 16 bits of each, which Pillow cuts to 8."""
    levels = np.array([[0, 257, 2000, 4095, 514, 3000]], dtype=">u2")
    data = png(2, 1, 16, 2, b"\0" + levels.tobytes())
    for low, high in (FULL, (0, 4095)):
        truth = np.round(levels.astype(float) / high * 255).astype(np.uint8).reshape(1, 2, 3)
        assert_pixels(decode(data, 3, (low, high)), truth)
    header = read_header(io.BytesIO(data))
    assert header.deep
    assert not header.grey


def test_16_bit_alpha_is_laid_on_white_whatever_the_range_of_colours() -> None:
    values = np.array([[[1000, 65535], [1000, 0]]], dtype=">u2")
    data = png(2, 1, 16, 4, b"\0" + values.tobytes())
    assert_pixels(decode(data, 1, (0, 2000)), np.array([[128, WHITE]]))


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    deep = Image.fromarray(grey_ramp().astype(np.uint16) * 257)
    data = encoded(deep, kind, exif=exif)
    assert_pixels(decode(data, 1, FULL), TURNS[orientation](grey_ramp()))


@pytest.mark.parametrize("bits", [8, 16])
def test_white_may_be_zero(bits: int, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = grey_ramp().astype(np.uint16) * (257 if bits == 16 else 1)
    path = tmp_path / "a.tif"
    dtype = np.uint16 if bits == 16 else np.uint8
    tifffile.imwrite(path, (2**bits - 1 - values).astype(dtype), photometric="miniswhite")
    assert_pixels(decode(path.read_bytes(), 1, FULL), grey_ramp())


def test_16_bit_colour_tiff_is_refused_with_the_way_to_read_it(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp().astype(np.uint16), photometric="rgb")
    with pytest.raises(DataError, match=r"16 bits per colour.*--data-kind tiff"):
        decode(path.read_bytes(), 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_an_orientation_in_xmp_is_applied(kind: str, orientation: int) -> None:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'
    ) % orientation
    options: dict[str, Any] = {"xmp": xmp}
    if kind == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options = {"pnginfo": info}
    options |= {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = encoded(Image.fromarray(ramp()), kind, **options)
    assert_pixels(decode(data, 3), TURNS[orientation](ramp()), 8 if kind == "JPEG" else 0)


def test_an_orientation_in_text_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes()
    info = PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(content):8}\n{content.hex()}\n")
    data = encoded(Image.fromarray(ramp()), "PNG", pnginfo=info)
    assert_pixels(decode(data, 3), TURNS[6](ramp()))


def test_exif_comes_before_xmp() -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    data = encoded(Image.fromarray(ramp()), "JPEG", quality=98, subsampling=0, exif=exif, xmp=xmp)
    assert_pixels(decode(data, 3), ramp(), 8)


def test_alpha_may_be_a_channel() -> None:
    pixels = np.dstack([ramp(), grey_ramp()])
    data = encoded(Image.fromarray(pixels), "PNG")
    assert_pixels(decode(data, 4), pixels)
    assert alpha_of(data) == (grey_ramp().min(), grey_ramp().max())
    assert read_header(io.BytesIO(data)).alpha
    with pytest.raises(DataError, match="has no alpha channel"):
        decode(encoded(Image.fromarray(ramp()), "JPEG"), 4)


@pytest.mark.parametrize("kind", ["HEIF", "JXL"])
def test_formats_of_phones_are_read_or_name_their_package(kind: str, decoder: str) -> None:
    data = (FIXTURES / f"ramp.{kind.lower()}").read_bytes()
    if kind == "HEIF" and decoder == "torchcodec":  # 64 x 96 pixels, turned by a quarter
        assert set(read_header(io.BytesIO(data)).size) == {64, 96}
        pixels = decode(data, 3).float()
        assert pixels.shape == (3, 96, 64)
        rising = pixels.mean((0, 2)).diff()  # columns of the ramp have become rows
        assert (rising > 0).all()
        return
    words = {"HEIF": "pip install torchcodec", "JXL": "pip install pillow-jxl-plugin"}[kind]
    for attempt in (lambda: decode(data, 3), lambda: read_header(io.BytesIO(data))):
        with pytest.raises(DataError, match=words):
            attempt()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_spread_over_the_range(bits: int) -> None:
    data = png(8 // bits, 1, bits, 0, b"\0" + bytes([0b00011011]))
    spelled = f"{0b00011011:08b}"
    levels = [int(spelled[i : i + bits], 2) for i in range(0, 8, bits)]
    truth = np.array([[round(level * 255 / (2**bits - 1)) for level in levels]], dtype=np.uint8)
    assert_pixels(decode(data, 1), truth)
    assert_pixels(decode(data, 3), np.repeat(truth[:, :, None], 3, 2))
    assert read_header(io.BytesIO(data)).grey


def test_bilevel_becomes_black_and_white() -> None:
    pixels = grey_ramp() % 2 == 0
    for kind in ("PNG", "TIFF"):
        data = encoded(Image.fromarray(pixels), kind)
        assert_pixels(decode(data, 1), np.where(pixels, 255, 0).astype(np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    inks = Image.merge("CMYK", [Image.new("L", (16, 16), level) for level in (0, 255, 255, 0)])
    pixels = decode(encoded(inks, kind), 3)
    red = np.tile(np.array([255, 0, 0], dtype=np.uint8), (16, 16, 1))
    assert_pixels(pixels, red, 6)


def frames() -> list[Image.Image]:
    return [Image.new("RGB", (8, 6), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_first_picture_counts(kind: str) -> None:
    first, *rest = frames()
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=rest, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert_pixels(decode(data, 3), np.asarray(first))


def test_apng_whose_default_image_is_no_frame() -> None:
    first, *rest = frames()
    data = encoded(first, "PNG", save_all=True, default_image=True, append_images=rest)
    assert_pixels(decode(data, 3), np.asarray(first))


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded(Image.fromarray(ramp()), "PNG"))
    assert read_header(path).size == Size(HEIGHT, WIDTH)
    assert_pixels(decode(path.read_bytes(), 3), ramp())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_cut_off_files_are_refused(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(DataError, match=r"damaged or truncated|not an image of a known format"):
        decode(data[: int(share * len(data))], 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_cut_off_header_is_refused(kind: str) -> None:
    data = encoded(Image.fromarray(ramp()), kind)[:18]
    with pytest.raises(DataError, match=r"damaged or truncated|not an image of a known format"):
        decode(data, 3)
    with pytest.raises(DataError, match=r"damaged or truncated|not an image of a known format"):
        read_header(io.BytesIO(data))


def test_damaged_png_is_refused() -> None:
    data = bytearray(encoded(Image.fromarray(ramp()), "PNG"))
    place = data.index(b"IDAT") + 12
    data[place : place + 8] = b"\0" * 8
    with pytest.raises(DataError, match="damaged or truncated"):
        decode(bytes(data), 3)


@pytest.mark.parametrize("data", [b"", b"hello, this is a letter\n" * 20], ids=["empty", "text"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    for attempt in (lambda: decode(data, 3), lambda: read_header(io.BytesIO(data))):
        with pytest.raises(DataError, match="not an image of a known format"):
            attempt()


def test_no_format_is_tried_that_runs_a_program_or_is_not_promised() -> None:
    """PostScript, and formats that Pillow reads and no document of ours names."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(hello) print\nshowpage\n"
    icon = io.BytesIO()
    Image.new("RGB", (16, 16)).save(icon, "ICO")
    for data in (script, icon.getvalue()):
        for attempt in (lambda d=data: decode(d, 3), lambda d=data: read_header(io.BytesIO(d))):
            with pytest.raises(DataError, match="not an image of a known format"):
                attempt()


def test_bomb_is_refused_by_its_header() -> None:
    data = png(20_000, 20_000, 8, 2, b"")
    for attempt in (lambda: decode(data, 3), lambda: read_header(io.BytesIO(data))):
        with pytest.raises(DataError, match=r"20000 x 20000 pixels|400000000 pixels"):
            attempt()


def test_large_picture_within_the_limit_gives_no_warning() -> None:
    """Pillow warns from half of its limit on, and warnings are errors here."""
    data = png(12_000, 12_000, 8, 0, b"")
    assert read_header(io.BytesIO(data)).size == Size(12_000, 12_000)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_32_bit_pixels_are_refused(kind: type) -> None:
    data = encoded(Image.fromarray(grey_ramp().astype(kind)), "TIFF")
    for attempt in (lambda: decode(data, 1), lambda: read_header(io.BytesIO(data))):
        with pytest.raises(DataError, match=r"32 bits each.*no known range"):
            attempt()


def test_unreadable_path_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(permission denied\)"):
        read_header(tmp_path / "a.png")


def test_one_pixel() -> None:
    data = encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")
    assert decode(data, 3).flatten().tolist() == [1, 2, 3]


def test_a_reason_names_no_file_of_the_decoder() -> None:
    cut = encoded(Image.fromarray(ramp()), "JPEG")[:-40]
    with pytest.raises(DataError, match=r"damaged or truncated \(") as caught:
        decode(cut, 3)
    assert "/" not in str(caught.value)


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "GIF", "JPEG", "WEBP", "JPEG2000", "AVIF", "PPM"])
def test_any_damage_is_a_reason(kind: str) -> None:
    """With random bytes, the image is read, or refused with words, whatever the decoder raises."""
    pixels = grey_ramp().astype(np.uint16) * 257 if kind in ("TIFF", "PNG") else ramp()
    data, random = encoded(Image.fromarray(pixels), kind), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, min(len(data), 200), 3):
            damaged[place] = random.integers(256)
        for attempt in (lambda d: decode(d, 3), lambda d: read_header(io.BytesIO(d)), raw_pixels):
            with contextlib.suppress(DataError):
                attempt(bytes(damaged))
