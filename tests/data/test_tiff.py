"""Multi-band images: axes, values, missing ones, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from unmask.data import Tiff, band_files
from unmask.data.band_files import BandReading, read_bands, read_shape
from unmask.data.decode import decode
from unmask.data.kinds import find_source
from unmask.data.tiff import BandImages
from unmask.errors import DataError, ResourceError, SettingsError

RANDOM = np.random.default_rng(0)


def scene(
    channels: int = 5, kind: Any = np.uint8, size: tuple[int, int] = (12, 10)
) -> NDArray[Any]:
    """Channels first."""
    values = RANDOM.uniform(0, 250, (channels, *size))
    return values.astype(kind)


def write(path: Path, array: NDArray[Any], no_data: str | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = [(42113, "s", 0, no_data, True)] if no_data is not None else []
    tifffile.imwrite(path, array, extratags=tags, metadata=None, **options)
    return path


def opened(path: Path, **settings: Any) -> BandImages:
    return Tiff(path=str(path), **settings).open()


class TestArrays:
    @pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
    @pytest.mark.parametrize("layout", ["contig", "separate", "pages", "last.npy", "first.npy"])
    def test_every_layout_gives_the_same_channels(
        self, tmp_path: Path, kind: Any, layout: str
    ) -> None:
        values = scene(kind=kind)
        file = tmp_path / ("a.npy" if layout.endswith("npy") else "a.tif")
        if layout == "contig":
            write(file, values.transpose(1, 2, 0), planarconfig=layout, photometric="minisblack")
        elif layout == "separate":
            write(file, values, planarconfig=layout, photometric="minisblack")
        elif layout == "pages":
            write(file, values, photometric="minisblack")
        else:
            np.save(file, values if layout == "first.npy" else values.transpose(1, 2, 0))
        source = opened(tmp_path)
        assert (source.channels, source.typical_size()) == (5, (12, 10))
        image = source[0].image
        assert image.dtype == (torch.uint8 if kind is np.uint8 else torch.float32)
        assert np.array_equal(image.numpy(), values.astype(np.float32))

    def test_one_channel(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", scene()[0])
        assert opened(tmp_path)[0].image.shape == (1, 12, 10)

    @pytest.mark.parametrize("codec", ["zlib", "lzw"])
    def test_compressed(self, tmp_path: Path, codec: str) -> None:
        values = scene()
        write(tmp_path / "a.tif", values, compression=codec, photometric="minisblack")
        assert np.array_equal(opened(tmp_path)[0].image.numpy(), values)

    def test_channels_are_counted_from_one_and_keep_their_order(self, tmp_path: Path) -> None:
        values = scene()
        np.save(tmp_path / "a.npy", values)
        source = opened(tmp_path, channels=(4, 1))
        assert source.channels == 2
        assert np.array_equal(source[0].image.numpy(), values[[3, 0]])

    def test_folders_are_classes(self, tmp_path: Path) -> None:
        for name in ("wet", "dry"):
            (tmp_path / name).mkdir()
            np.save(tmp_path / name / "a.npy", scene())
        source = opened(tmp_path)
        assert (source.annotations.names, source.labels().tolist()) == (("dry", "wet"), [0, 1])

    def test_a_single_file(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", scene())
        assert opened(tmp_path / "a.npy").name(0) == "a.npy"


class TestMissing:
    def test_what_a_geotiff_notes(self, tmp_path: Path) -> None:
        """Also as 0.0 for bytes, which tifffile itself refuses to read."""
        values = scene()
        values[2, 3, 4] = values[0, 1] = 0
        write(tmp_path / "a.tif", values, no_data="0.0", photometric="minisblack")
        image = opened(tmp_path)[0].image
        assert image.dtype == torch.float32
        assert np.array_equal(image.isnan().numpy(), values == 0)
        assert np.array_equal(image.nan_to_num().numpy(), values)

    def test_what_the_user_says_comes_first(self, tmp_path: Path) -> None:
        values = scene(kind=np.float32)
        values[1, 2, 3] = -9999
        write(tmp_path / "a.tif", values, no_data="7", photometric="minisblack")
        image = opened(tmp_path, no_data=-9999.0)[0].image
        assert image.isnan().nonzero().tolist() == [[1, 2, 3]]

    def test_infinite_values_are_missing(self, tmp_path: Path) -> None:
        values = scene(kind=np.float32)
        values[0, 0, :3] = [np.nan, np.inf, -np.inf]
        np.save(tmp_path / "a.npy", values)
        assert opened(tmp_path)[0].image.isnan().sum() == 3

    def test_bytes_among_numbers_are_numbers(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", scene())
        np.save(tmp_path / "b.npy", scene(kind=np.uint16))
        assert {sample.image.dtype for sample in map(opened(tmp_path).__getitem__, (0, 1))} == {
            torch.float32
        }

    def test_nothing_but_missing_values(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.full((3, 8, 9), np.nan, np.float32))
        source = opened(tmp_path)
        with pytest.raises(DataError, match="all values are missing"):
            source[0]


class TestRefused:
    def test_a_few_with_other_channels_are_left_out(self, tmp_path: Path) -> None:
        for number in range(20):
            np.save(tmp_path / f"{number:02}.npy", scene())
        np.save(tmp_path / "odd.npy", scene(4))
        source = opened(tmp_path)
        assert (len(source), source.refused) == (20, [("odd.npy", "has 4 channels instead of 5")])

    def test_many_with_other_channels_stop(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", scene())
        np.save(tmp_path / "b.npy", scene(4))
        with pytest.raises(DataError, match=r"1 of 5 \(such as a\.npy\), 1 of 4 .*--channels 1"):
            opened(tmp_path)
        assert opened(tmp_path, channels=(1, 2)).channels == 2

    def test_a_channel_that_is_not_there(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", scene())
        with pytest.raises(DataError, match="has 5 channels; channel 6 does not exist"):
            opened(tmp_path, channels=(6,))

    def test_channels_below_one(self) -> None:
        with pytest.raises(SettingsError, match="counted from 1"):
            Tiff(path="x", channels=(0,))

    @pytest.mark.parametrize(
        ("array", "reason"),
        [
            (np.zeros((2, 3, 4, 5)), r"an array of shape \(2, 3, 4, 5\) is not an image"),
            (np.zeros((4, 9, 4)), "is ambiguous"),
            (np.zeros((9, 9), complex), "values of type complex128 cannot be pixels"),
            (np.zeros((0, 9)), "has no pixels"),
            (np.array([["a"]]), "values of type <U1 cannot be pixels"),
        ],
    )
    def test_arrays_that_are_no_images(self, tmp_path: Path, array: Any, reason: str) -> None:
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(DataError, match=reason):
            opened(tmp_path)

    @pytest.mark.parametrize("name", ["a.npy", "a.tif"])
    def test_damage_is_said(self, tmp_path: Path, name: str) -> None:
        values = scene(size=(40, 30))
        if name == "a.npy":
            np.save(tmp_path / name, values)
        else:
            write(tmp_path / name, values, compression="zlib", photometric="minisblack")
        whole = (tmp_path / name).read_bytes()
        (tmp_path / "words.tif").write_text("words")
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="damaged") as caught:
            opened(tmp_path)[0]
        assert "\n" not in str(caught.value)

    def test_pickles_are_not_opened(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.array([[{}]], dtype=object), allow_pickle=True)
        with pytest.raises(DataError, match="damaged, or not an array of numbers"):
            opened(tmp_path)

    def test_a_missing_reader_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path / "a.tif", scene(), photometric="minisblack")
        monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
        with pytest.raises(ResourceError, match=r'pip install "unmask\[tiff\]"'):
            opened(tmp_path)

    def test_a_missing_codec_is_named(self) -> None:
        error = ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")
        assert """pip install "unmask[tiff]\"""" in band_files._reason(error)


class TestFrames:
    VALUES = RANDOM.integers(0, 4096, (2, 5, 3, 12, 10)).astype(np.uint16)

    @pytest.mark.parametrize("options", [{"imagej": True}, {"compression": "zlib"}, {}], ids=str)
    def test_each_has_its_values(self, tmp_path: Path, options: dict[str, Any]) -> None:
        """Of time, depth and channels, the last are channels."""
        pytest.importorskip("imagecodecs")
        path = tmp_path / ("a.tif" if "imagej" in options else "a.ome.tif")
        tifffile.imwrite(
            path, self.VALUES, photometric="minisblack", metadata={"axes": "TZCYX"}, **options
        )
        shape = read_shape(path, BandReading())
        assert (shape.channels, shape.frames, shape.axes) == (3, 10, "TZ")
        for time, depth in ((0, 0), (0, 4), (1, 2)):
            found = read_bands(path, BandReading(), False, time * 5 + depth)
            assert np.array_equal(found.numpy(), self.VALUES[time, depth])

    def test_a_frame_may_lie_within_pages(self, tmp_path: Path) -> None:
        """Channels first, then depth, each a page."""
        path = tmp_path / "a.ome.tif"
        tifffile.imwrite(path, self.VALUES[0], photometric="minisblack", metadata={"axes": "CZYX"})
        shape = read_shape(path, BandReading())
        assert (shape.channels, shape.frames) == (5, 3)
        found = read_bands(path, BandReading(), False, 2)
        assert np.array_equal(found.numpy(), self.VALUES[0][:, 2])

    def test_pages_of_other_sizes_are_noticed(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for side in (12, 10):
                file.write(scene(1, size=(side, side))[0], photometric="minisblack", metadata=None)
        images = opened(tmp_path)
        assert images[0].image.shape == (1, 12, 12)
        assert images.notes == ("1 files have pages of other sizes, which are not read",)

    def test_names_tell_frames_apart(self, tmp_path: Path) -> None:
        tifffile.imwrite(
            tmp_path / "a.ome.tif",
            self.VALUES[0],
            photometric="minisblack",
            metadata={"axes": "ZCYX"},
        )
        images = opened(tmp_path)
        assert [images.name(position) for position in (0, 4)] == ["a.ome.tif[1]", "a.ome.tif[5]"]


class TestPhotometric:
    @pytest.mark.parametrize("kind", [np.uint8, np.uint16, bool])
    def test_white_may_be_zero(self, tmp_path: Path, kind: Any) -> None:
        values = RANDOM.integers(0, 2 if kind is bool else 200, (12, 16)).astype(kind)
        white = 1 if kind is bool else np.iinfo(kind).max
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
        found = opened(tmp_path)[0].image[0].numpy()
        assert np.array_equal(found, white - values.astype(np.int64))
        as_stored = opened(tmp_path, photometric=False)[0].image[0].numpy()
        assert np.array_equal(as_stored, values.astype(as_stored.dtype))

    def test_what_is_missing_is_found_first(self, tmp_path: Path) -> None:
        values = np.array([[0, 7], [255, 9]], np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
        found = opened(tmp_path, no_data=0.0)[0].image[0]
        assert found.isnan().tolist() == [[True, False], [False, False]]
        assert found[0, 1] == 248

    def test_palettes_are_looked_up(self, tmp_path: Path) -> None:
        palette = RANDOM.integers(0, 65536, (3, 256)).astype(np.uint16)
        indexes = RANDOM.integers(0, 256, (12, 10)).astype(np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", indexes, photometric="palette", colormap=palette)
        images = opened(tmp_path)
        assert (images.channels, images.values) == (3, "uint8")
        assert np.array_equal(images[0].image.numpy(), (palette >> 8)[:, indexes].astype(np.uint8))


class TestPictures:
    def test_are_read_with_all_their_bits_where_there_are_no_others(self, tmp_path: Path) -> None:
        deep = RANDOM.integers(0, 4096, (12, 10)).astype(np.uint16)
        Image.fromarray(deep).save(tmp_path / "a.png")
        images = opened(tmp_path)
        assert images.values == "float32"
        assert np.array_equal(images[0].image[0].numpy(), deep)

    def test_alpha_is_a_channel(self, tmp_path: Path) -> None:
        colours = RANDOM.integers(0, 256, (12, 10, 4)).astype(np.uint8)
        Image.fromarray(colours).save(tmp_path / "a.png")
        images = opened(tmp_path)
        assert (images.channels, images.values) == (4, "uint8")
        assert np.array_equal(images[0].image.numpy(), colours.transpose(2, 0, 1))

    def test_previews_beside_scenes_are_passed_over(self, tmp_path: Path) -> None:
        write(tmp_path / "a.tif", scene())
        Image.new("RGB", (12, 10)).save(tmp_path / "a.png")
        assert len(opened(tmp_path)) == 1


class TestBandsInFiles:
    def test_order_and_channels(self, tmp_path: Path) -> None:
        values = scene(3, np.uint16)
        for band, name in enumerate(("blue", "green", "red")):
            write(tmp_path / name / "s.tif", values[band])
        images = opened(tmp_path, bands=("red", "green", "blue"), channels=(3, 1))
        assert np.array_equal(images[0].image.numpy(), values[[0, 2]])

    def test_sizes_must_agree(self, tmp_path: Path) -> None:
        write(tmp_path / "s_B1.tif", scene(1)[0])
        write(tmp_path / "s_B2.tif", scene(1, size=(6, 5))[0])
        with pytest.raises(DataError, match=r"has 12x10 pixels, and s_B2\.tif has 6x5"):
            opened(tmp_path, bands=("B1", "B2"))

    def test_a_word_stands_alone(self, tmp_path: Path) -> None:
        """B1 is not in B10."""
        for name in ("s_B1.tif", "s_B10.tif", "s_B2.tif"):
            write(tmp_path / name, scene(1)[0])
        images = opened(tmp_path, bands=("B1", "B2"))
        assert (len(images), images.channels) == (1, 2)
        assert images.notes == ("1 files of other bands are not used",)


class TestOddArrays:
    def test_byte_order(self, tmp_path: Path) -> None:
        values = scene(3, np.dtype(">u2"))
        np.save(tmp_path / "a.npy", values)
        found = read_bands(tmp_path / "a.npy", BandReading(), bytes_only=False)
        assert np.array_equal(found.numpy(), values)
        with pytest.raises(DataError, match="8-bit values are needed"):
            read_bands(tmp_path / "a.npy", BandReading(), bytes_only=True)

    def test_records_are_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((12, 10), [("a", "u1"), ("b", "f4")]))
        with pytest.raises(DataError, match="cannot be pixels"):
            read_bands(tmp_path / "a.npy", BandReading(), True)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_no_channel_is_lost_whatever_the_layout(
    tmp_path: Path, channels: int, kind: Any, photometric: str, planar: Any
) -> None:
    """Planes of 16 bits are common in microscopes and GDAL; Pillow reads the first one, or eight bits, without a word."""
    extra = channels - (3 if photometric == "rgb" else 1)
    if extra < 0:
        pytest.skip("red, green and blue are three")
    array = scene(channels, kind)
    if planar == "contig":
        array = np.moveaxis(array, 0, -1)
    path = tmp_path / "images" / "a.tif"
    write(path, array, photometric=photometric, planarconfig=planar, extrasamples=[0] * extra)
    is_plain = photometric == "rgb" and channels == 3 and kind is np.uint8
    source = find_source(str(path.parent)).open("train")
    assert isinstance(source, BandImages) is not is_plain
    assert source.channels == channels
    assert source[0].image.shape[0] == channels


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_picture_never_loses_bits_without_a_word(
    tmp_path: Path, channels: int, photometric: str, planar: Any
) -> None:
    """Where pictures are read, as in a folder that holds PNG files too, 16-bit channels are refused with a remedy."""
    array = scene(channels, np.uint16)
    if planar == "contig":
        array = np.moveaxis(array, 0, -1)
    extra = [0] * (channels - (3 if photometric == "rgb" else 1))
    path = write(
        tmp_path / "a.tif", array, photometric=photometric, planarconfig=planar, extrasamples=extra
    )
    with pytest.raises(DataError, match="--data-kind tiff"):
        decode(path.read_bytes(), 3)
