"""Packing: what is read from the shards is what was packed, whatever was packed and however often it was killed."""

import csv
import errno
import hashlib
import io
import json
import os
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from reference.sources import Annotated

from unmask.annotations import ClassMaps, MultiLabels
from unmask.contracts import ImageSource, Size
from unmask.data import Digits, Folder, Parquet, Shards, Tiff, cache, pack_manifest, tar_index
from unmask.data import pack as module
from unmask.data.band_files import BandReading
from unmask.data.cpu_feed import CpuFeed
from unmask.data.decode import decode
from unmask.data.kinds import find_source
from unmask.data.loader import SetAside, batches
from unmask.data.pack import Packer
from unmask.data.pack_bytes import shrunk_size
from unmask.data.pack_manifest import Packing
from unmask.data.tiff import BandImages
from unmask.data.views import CenterCrop
from unmask.errors import DataError, ResourceError, RunError, SettingsError

SMALL = Packing(short_side=24, shard_mib=1)
ORIENTATION = 0x0112


def grey(number: int, size: tuple[int, int]) -> Image.Image:
    """A smooth grey picture."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    return Image.fromarray((rows + columns + number).astype(np.uint8))


def ramp(number: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """A smooth picture of its own."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    planes = [rows * 3 + number, columns * 2 + 40, (rows + columns) + 2 * number]
    return Image.fromarray(np.stack(planes, -1).clip(0, 255).astype(np.uint8))


def noise(number: int, size: tuple[int, int]) -> Image.Image:
    """A picture that no format makes small."""
    values = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two splits of two classes; names that are no keys of a tar, large, turned and broken ones among them."""
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    return write(
        tmp_path / "photos",
        {
            "train/cat/a.b.jpg": encoded(ramp(1)),
            "train/cat/a.jpg": encoded(ramp(2)),
            "train/cat/a.png": encoded(ramp(3), "PNG"),
            "train/dog/à la mer.jpg": encoded(ramp(4, (60, 90))),
            "train/dog/turned.jpg": encoded(ramp(5), exif=turned),
            "train/dog/broken.jpg": encoded(noise(6, (64, 64)))[:900],
            "train/dog/palette.gif": encoded(ramp(7).convert("P"), "GIF"),
            "val/cat/x.jpg": encoded(ramp(8, (90, 30))),
            "val/owl/y.jpg": encoded(ramp(9)),
        },
    )


def run(
    spec: Any, root: Path, packing: Packing = SMALL, *, workers: int = 0, limit: float = 0.5
) -> Packer:
    sources = {split: spec.open(split) for split in spec.splits()}
    packer = Packer(root, packing, sources, workers=workers, max_set_aside=limit)
    for _ in packer.run(Event()):
        pass
    return packer


def members(root: Path) -> dict[str, bytes]:
    found = {}
    for shard in sorted(root.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                found[f"{shard.name}/{member.name}"] = file.read()
    return found


def facts(source: ImageSource) -> tuple[Any, ...]:
    names = [source.name(position) for position in range(len(source))]
    return names, source.labels().tolist(), source.annotations.names, source.channels


def without(source: ImageSource, name: str) -> tuple[Any, ...]:
    names, labels, classes, channels = facts(source)
    place = names.index(name)
    return (
        names[:place] + names[place + 1 :],
        labels[:place] + labels[place + 1 :],
        classes,
        channels,
    )


def test_several_classes_of_an_image_are_packed(tmp_path: Path) -> None:
    images = [encoded(ramp(number), "PNG") for number in range(4)]
    labels = [["owl", "cat"], [], None, ["owl"]]
    table = pa.table({"image": images, "label": labels})
    pq.write_table(table, tmp_path / "x.parquet")
    source = Parquet(path=str(tmp_path / "x.parquet"))
    run(source, tmp_path / "shards")
    packed = Shards(path=str(tmp_path / "shards")).open("train")
    assert packed.annotations == MultiLabels(names=("cat", "owl"))
    assert packed.labels().tolist() == [[1, 1], [0, 0], [-1, -1], [0, 1]]
    about = json.loads(members(tmp_path / "shards")["train-000000.tar/000000000.json"])
    assert (about["label"], about["class_name"]) == ([0, 1], ["cat", "owl"])
    (tmp_path / "shards" / "unmask-pack.json").unlink()  # as others read it
    assert Shards(path=str(tmp_path / "shards")).open("train").labels().tolist() == [
        [1, 1], [0, 0], [-1, -1], [0, 1],
    ]  # fmt: skip


def test_an_image_that_its_source_refuses_is_set_aside(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that do not fit one image concern that image; a changed source concerns all of them."""
    whole = module.stored

    def refusing(error: Exception) -> Callable[..., Any]:
        def stored(source: ImageSource, position: int, *settings: int) -> Any:
            if position == 2:
                raise error
            return whole(source, position, *settings)

        return stored

    monkeypatch.setattr(module, "stored", refusing(SettingsError("does not fit")))
    packer = run(Folder(path=str(photos)), tmp_path / "packed")
    assert "does not fit" in packer.set_aside.read_text()
    monkeypatch.setattr(module, "stored", refusing(RunError("has changed")))
    with pytest.raises(RunError, match="has changed"):
        run(Folder(path=str(photos)), tmp_path / "other")


def test_annotations_of_pixels_are_refused(tmp_path: Path) -> None:
    """Images are resized when they are packed, and boxes would stay behind."""
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    kind = ClassMaps(names=("a",))
    source = Annotated([image], kind, [torch.zeros(8, 8, dtype=torch.long)])
    packer = Packer(tmp_path / "out", SMALL, {"train": source}, workers=0, max_set_aside=0.5)
    with pytest.raises(
        SettingsError,
        match="a folder of shards cannot carry class maps yet; train on the original images, or pack",
    ):
        packer.check()


def bytes_of(root: Path) -> dict[str, str]:
    return {
        shard.name: hashlib.sha256(shard.read_bytes()).hexdigest() for shard in root.glob("*.tar")
    }


class TestWhatIsReadIsWhatWasPacked:
    def test_names_labels_classes_and_splits(self, photos: Path, tmp_path: Path) -> None:
        root = tmp_path / "packed"
        run(Folder(path=str(photos)), root)
        original, shards = Folder(path=str(photos)), find_source(str(root))
        assert isinstance(shards, Shards)
        assert shards.splits() == ("train", "test")
        assert facts(shards.open("train")) == without(original.open("train"), "dog/broken.jpg")
        assert facts(shards.open("test")) == facts(original.open("test"))

    def test_the_same_without_index_and_description(self, photos: Path, tmp_path: Path) -> None:
        """Other software, and ours, find names, labels and classes in the tar alone."""
        root = tmp_path / "packed"
        run(Folder(path=str(photos)), root)
        expected = facts(Shards(path=str(root)).open())
        for file in (root / pack_manifest.PACK, *root.glob("*.arrow")):
            file.unlink()
        assert facts(Shards(path=str(root)).open()) == expected

    def test_in_the_form_of_webdataset(self, photos: Path, tmp_path: Path) -> None:
        run(Folder(path=str(photos)), tmp_path / "packed")
        found = members(tmp_path / "packed")
        assert [name for name in found if name.startswith("train")][:3] == [
            f"train-000000.tar/000000000.{ending}" for ending in ("jpg", "cls", "json")
        ]
        assert found["train-000000.tar/000000004.cls"] == b"1"
        assert json.loads(found["train-000000.tar/000000004.json"]) == {
            "original_name": "dog/palette.gif",
            "label": 1,
            "class_name": "dog",
        }

    def test_what_is_broken_is_listed(self, photos: Path, tmp_path: Path) -> None:
        packer = run(Folder(path=str(photos)), tmp_path / "packed")
        with packer.set_aside.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["file"] for row in rows] == ["train: dog/broken.jpg"]
        assert "truncated" in rows[0]["reason"]
        assert packer.left_out == 1

    def test_too_much_is_broken(self, photos: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"1 of 9 images .* more than the allowed 5%"):
            run(Folder(path=str(photos)), tmp_path / "packed", limit=0.05)
        run(Folder(path=str(photos)), tmp_path / "packed")  # goes on when more is allowed

    @pytest.mark.parametrize("names", [("owl", "cat", "dog"), ()])
    def test_parquet_with_classes_that_no_image_has(
        self, tmp_path: Path, names: tuple[str, ...]
    ) -> None:
        labels = [2, None, 2]
        schema: dict[str, Any] = {}
        if names:
            about = {"label": {"_type": "ClassLabel", "names": list(names)}}
            schema = {"huggingface": json.dumps({"info": {"features": about}})}
        columns: dict[str, Any] = {"image": [{"bytes": encoded(ramp(n))} for n in range(3)]}
        table = pa.table(columns | ({"label": labels} if names else {}))
        pq.write_table(table.replace_schema_metadata(schema), tmp_path / "x.parquet")
        source = Parquet(path=str(tmp_path / "x.parquet"))
        run(source, tmp_path / "packed")
        found = Shards(path=str(tmp_path / "packed")).open()
        assert facts(found) == facts(source.open())
        assert found.labels().tolist() == ([2, -1, 2] if names else [-1] * 3)

    def test_shards_of_others(self, tmp_path: Path) -> None:
        """Keys that come again in another shard."""
        for number in range(2):
            with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
                for name, data in (("k.png", encoded(ramp(number), "PNG")), ("k.cls", b"7")):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        source = Shards(path=str(tmp_path / "{0..1}.tar"))
        run(source, tmp_path / "packed")
        assert facts(Shards(path=str(tmp_path / "packed")).open()) == facts(source.open())

    def test_digits_to_the_bit(self, tmp_path: Path) -> None:
        original = Digits().open("test")
        packer = Packer(tmp_path / "p", SMALL, {"train": original}, workers=0, max_set_aside=0)
        for _ in packer.run(Event()):
            pass
        found = Shards(path=str(tmp_path / "p")).open()
        assert facts(found) == facts(original)
        assert all(torch.equal(found[i].image, original[i].image) for i in range(0, 355, 17))


class TestPixels:
    def test_small_upright_files_are_copied_bit_for_bit(self, photos: Path, tmp_path: Path) -> None:
        packer = run(Folder(path=str(photos)), tmp_path / "packed")
        found = members(tmp_path / "packed")
        for place, (name, ending) in enumerate(
            [("a.b.jpg", "jpg"), ("a.jpg", "jpg"), ("a.png", "png")]
        ):
            data = (photos / "train/cat" / name).read_bytes()
            assert found[f"train-000000.tar/{place:09}.{ending}"] == data
        assert (
            sum(shard.copied for shard in packer.shards.values()) == 4
        )  # y.jpg of the test split too

    def test_larger_ones_are_resized_as_pillow_would(self, tmp_path: Path) -> None:
        """Pillow's bicubic filter is the reference; a quality of 100 leaves a level or two to JPEG."""
        large = grey(4, (60, 90))
        write(tmp_path / "photos", {"a.png": encoded(large, "PNG")})
        run(
            Folder(path=str(tmp_path / "photos")),
            tmp_path / "packed",
            Packing(short_side=24, quality=100),
        )
        image = Shards(path=str(tmp_path / "packed")).open()[0].image
        assert image.shape == (1, 24, 36)
        truth = np.asarray(large.resize((36, 24), Image.Resampling.BICUBIC))
        difference = image[0].int() - torch.from_numpy(truth.astype(np.int32))
        assert difference.abs().max() <= 2

    def test_a_turned_one_is_turned_once(self, photos: Path, tmp_path: Path) -> None:
        run(Folder(path=str(photos)), tmp_path / "packed", Packing(short_side=24, quality=100))
        data = members(tmp_path / "packed")["train-000000.tar/000000005.jpg"]
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (20, 16)  # 16 x 20 before
            assert image.getexif().get(ORIENTATION) is None
        truth = decode((photos / "train/dog/turned.jpg").read_bytes(), 3)
        assert (decode(data, 3).int() - truth.int()).abs().max() <= 4

    def test_what_is_not_resized_is_not_compressed_with_loss(
        self, photos: Path, tmp_path: Path
    ) -> None:
        run(Folder(path=str(photos)), tmp_path / "packed")
        data = members(tmp_path / "packed")["train-000000.tar/000000004.png"]
        assert torch.equal(
            decode(data, 3), decode((photos / "train/dog/palette.gif").read_bytes(), 3)
        )

    def test_policy_of_decoding(self, tmp_path: Path) -> None:
        """16 bits are scaled to 8, and what is transparent lies on white."""
        wide = Image.fromarray(np.full((12, 12), 65535, np.uint16))
        clear = Image.new("RGBA", (12, 12), (0, 0, 0, 0))
        write(tmp_path / "photos", {"a.png": encoded(wide, "PNG"), "b.png": encoded(clear, "PNG")})
        run(Folder(path=str(tmp_path / "photos")), tmp_path / "packed")
        source = Shards(path=str(tmp_path / "packed")).open()
        assert [int(source[i].image.min()) for i in range(2)] == [255, 255]

    @pytest.mark.parametrize(
        ("size", "result"),
        [((24, 24), (24, 24)), ((10, 90), (10, 90)), ((48, 60), (24, 30)), ((1000, 25), (960, 24))],
    )
    def test_sizes(self, size: tuple[int, int], result: tuple[int, int]) -> None:
        assert shrunk_size(Size(*size), 24) == result


class TestBands:
    @pytest.mark.parametrize("channels", [1, 5, 13])
    @pytest.mark.parametrize("kind", [np.float32, np.uint16, np.uint8])
    def test_small_ones_to_the_bit(self, tmp_path: Path, channels: int, kind: Any) -> None:
        random = np.random.default_rng(0)
        for number in range(3):
            values = random.integers(0, 200, (channels, 16, 15)).astype(kind)
            if kind is np.float32:
                values[:, :2] = np.nan
            (tmp_path / "scenes").mkdir(exist_ok=True)
            np.save(tmp_path / "scenes" / f"{number}.npy", values)
        spec = Tiff(path=str(tmp_path / "scenes"))
        run(spec, tmp_path / "packed")
        original, found = spec.open(), find_source(str(tmp_path / "packed")).open()
        assert facts(found) == facts(original)
        assert found.typical_size() == original.typical_size() == (16, 15)
        for one, other in zip(
            map(found.__getitem__, range(3)), map(original.__getitem__, range(3)), strict=True
        ):
            assert one.image.dtype == other.image.dtype
            assert torch.equal(one.image.nan_to_num(-1), other.image.nan_to_num(-1))
        if kind is not np.uint8:
            assert isinstance(found, BandImages)

    def test_wide_and_narrow(self, tmp_path: Path) -> None:
        """More channels than columns: the array is laid out so that it is read as it was."""
        values = np.random.default_rng(0).normal(size=(9, 40, 6)).astype(np.float32)
        import tifffile

        (tmp_path / "scenes").mkdir()
        tifffile.imwrite(tmp_path / "scenes/a.tif", values, photometric="minisblack", metadata=None)
        run(Tiff(path=str(tmp_path / "scenes")), tmp_path / "packed")
        found = Shards(path=str(tmp_path / "packed")).open()[0].image
        assert np.array_equal(found.numpy(), values)

    def test_missing_values_when_shrunk(self, tmp_path: Path) -> None:
        """Constant where it is known; missing where most of what is averaged is."""
        values = np.full((4, 96, 48), 7.0, np.float32)
        values[:, :48] = np.nan
        (tmp_path / "scenes").mkdir()
        np.save(tmp_path / "scenes/a.npy", values)
        run(Tiff(path=str(tmp_path / "scenes")), tmp_path / "packed")
        image = Shards(path=str(tmp_path / "packed")).open()[0].image
        assert image.shape == (4, 48, 24)
        assert image[:, :22].isnan().all()
        torch.testing.assert_close(image[:, 26:], torch.full((4, 22, 24), 7.0))

    def test_chosen_channels(self, tmp_path: Path) -> None:
        values = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((5, 8, 9), np.float32)
        (tmp_path / "scenes").mkdir()
        np.save(tmp_path / "scenes/a.npy", values)
        run(Tiff(path=str(tmp_path / "scenes"), channels=(4, 2)), tmp_path / "packed")
        image = Shards(path=str(tmp_path / "packed")).open()[0].image
        assert image[:, 0, 0].tolist() == [3.0, 1.0]
        with pytest.raises(SettingsError, match="set when shards are packed"):
            find_source(str(tmp_path / "packed"), how=BandReading(channels=(1,)))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise that fills three shards of a MiB."""
    folder = tmp_path_factory.mktemp("many") / "photos"
    return write(
        folder,
        {f"{n % 2}/{n:03}.jpg": encoded(noise(n, (170, 170)), quality=95) for n in range(60)},
    )


MANY = Packing(short_side=170, shard_mib=1)


class TestSameShards:
    def test_for_any_number_of_processes(self, many: Path, tmp_path: Path) -> None:
        packing = Packing(short_side=120, quality=97, shard_mib=1)
        for workers in (0, 1, 2):
            run(Folder(path=str(many)), tmp_path / str(workers), packing, workers=workers)
        expected = bytes_of(tmp_path / "0")
        assert len(expected) > 1
        assert bytes_of(tmp_path / "1") == expected
        assert bytes_of(tmp_path / "2") == expected
        described = json.loads((tmp_path / "0" / pack_manifest.PACK).read_text())["shards"]
        assert {name: shard["sha256"] for name, shard in described.items()} == expected

    def test_killed_again_and_again(self, many: Path, tmp_path: Path) -> None:
        """Whole shards are never made again; the rest is, to the same bytes."""
        run(Folder(path=str(many)), tmp_path / "whole", MANY)
        root = tmp_path / "killed"
        seen: dict[str, int] = {}
        for images in (1, 25, 30, 55):
            child = os.fork()
            if child == 0:
                try:
                    _pack_until(many, root, images)
                finally:
                    os._exit(1)
            _, status = os.waitpid(child, 0)
            assert os.WTERMSIG(status) == signal.SIGKILL
            with pytest.raises(DataError, match="was interrupted; run the same command again"):
                find_source(str(root)).open()
            times = {shard.name: shard.stat().st_mtime_ns for shard in root.glob("*.tar")}
            assert seen.items() <= times.items()
            seen = times
        assert len(seen) == 2
        run(Folder(path=str(many)), root, MANY)
        assert bytes_of(root) == bytes_of(tmp_path / "whole")
        assert seen.items() <= {s.name: s.stat().st_mtime_ns for s in root.glob("*.tar")}.items()
        assert not list(root.glob(".writing-*"))

    def test_stopped(self, many: Path, tmp_path: Path) -> None:
        source = Folder(path=str(many)).open()
        packer = Packer(tmp_path / "p", MANY, {"train": source}, workers=0, max_set_aside=0)
        stop = Event()
        for report in packer.run(stop):
            if report.done > 30:
                stop.set()
        assert list(packer.shards) == ["train-000000.tar"]
        assert [path.name for path in (tmp_path / "p").glob("*.tar")] == ["train-000000.tar"]
        assert not list((tmp_path / "p").glob(".writing-*"))

    def test_a_damaged_or_lost_shard_is_made_again(self, many: Path, tmp_path: Path) -> None:
        root = tmp_path / "p"
        run(Folder(path=str(many)), root, MANY)
        expected = bytes_of(root)
        one, two = root / "train-000001.tar", root / "train-000002.tar"
        damaged = bytearray(one.read_bytes())
        damaged[5000] ^= 1
        one.write_bytes(damaged)
        two.unlink()
        run(Folder(path=str(many)), root, MANY)
        assert bytes_of(root) == expected

    def test_a_copied_set_is_known_again(
        self, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Other times of change, same contents: packing again checks and notes them, and makes nothing."""
        root = tmp_path / "p"
        run(Folder(path=str(many)), root, MANY)
        for shard in root.glob("*.tar"):
            os.utime(shard, (1e9, 1e9))
        monkeypatch.setattr(module, "ShardWriter", lambda _: pytest.fail("made again"))
        run(Folder(path=str(many)), root, MANY)
        monkeypatch.setattr(tar_index, "make_index", lambda _: pytest.fail("scanned"))
        assert len(Shards(path=str(root)).open()) == 60


def _pack_until(photos: Path, root: Path, images: int) -> None:
    """Pack, and die as if the machine had been switched off once so many images are done."""
    source = Folder(path=str(photos)).open()
    packer = Packer(root, MANY, {"train": source}, workers=0, max_set_aside=0)
    for report in packer.run(Event()):
        if report.done >= images:
            os.kill(os.getpid(), signal.SIGKILL)


class TestRefusals:
    @pytest.mark.parametrize(
        ("packing", "said"),
        [
            (Packing(short_side=100, shard_mib=1), "--short-side 170, not 100"),
            (Packing(short_side=170, quality=80, shard_mib=1), "--quality 90, not 80"),
            (Packing(short_side=170), "--shard-mib 1, not 256"),
            (Packing(short_side=170, shard_mib=1, channels=(1,)), "--channels not set, not 1"),
        ],
    )
    def test_other_settings(self, many: Path, tmp_path: Path, packing: Packing, said: str) -> None:
        run(Folder(path=str(many)), tmp_path / "p", MANY)
        with pytest.raises(
            RunError, match=f"was packed with {said}; .*--short-side 170 --quality 90"
        ):
            run(Folder(path=str(many)), tmp_path / "p", packing)

    def test_other_images(self, many: Path, photos: Path, tmp_path: Path) -> None:
        run(Folder(path=str(many)), tmp_path / "p", MANY)
        with pytest.raises(RunError, match="with the splits train, but these have train, test"):
            run(Folder(path=str(photos)), tmp_path / "p", MANY)
        with pytest.raises(RunError, match=r"packed from other images .train: 60 then, 7 now"):
            run(Folder(path=str(photos / "train")), tmp_path / "p", MANY)

    def test_a_folder_of_something_else(self, many: Path, tmp_path: Path) -> None:
        write(tmp_path / "p", {"letter.txt": b"dear"})
        with pytest.raises(RunError, match="is neither empty nor a folder of packed shards"):
            run(Folder(path=str(many)), tmp_path / "p", MANY)
        with pytest.raises(RunError, match="is a file"):
            run(Folder(path=str(many)), tmp_path / "p" / "letter.txt", MANY)

    def test_two_at_a_time(self, many: Path, tmp_path: Path) -> None:
        source = Folder(path=str(many)).open()
        root = tmp_path / "p"
        first = Packer(root, MANY, {"train": source}, workers=0, max_set_aside=0).run(Event())
        next(first)
        child = os.fork()  # locks are a process's
        if child == 0:
            try:
                run(Folder(path=str(many)), root, MANY)
            except RunError as error:
                os._exit(7 if "another process is packing" in str(error) else 8)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        first.close()  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        "settings", [{"short_side": 0}, {"shard_mib": 0}, {"quality": 0}, {"quality": 101}]
    )
    def test_senseless_settings(self, settings: dict[str, int]) -> None:
        (name,) = settings
        with pytest.raises(SettingsError, match=name):
            Packing(**settings)

    def test_a_full_disk(self, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is whole stays, what is not goes, and the next try goes on."""
        root, real = tmp_path / "p", module.ShardWriter.add

        def add(writer: Any, name: str, data: bytes) -> int:
            if "000001" in writer.path.name and writer.bytes > 2**19:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(writer, name, data)

        monkeypatch.setattr(module.ShardWriter, "add", add)
        with pytest.raises(
            ResourceError,
            match=r"No space left.*1 complete shards are kept.*same command",
        ):
            run(Folder(path=str(many)), root, MANY)
        assert [path.name for path in root.glob("*.tar")] == ["train-000000.tar"]
        assert not list(root.glob(".writing-*"))
        monkeypatch.undo()
        run(Folder(path=str(many)), root, MANY)
        assert len(Shards(path=str(root)).open()) == 60


@pytest.fixture
def shards(many: Path, tmp_path: Path) -> Path:
    run(Folder(path=str(many)), tmp_path / "shards", MANY)
    return tmp_path / "shards"


class TestReading:
    def test_needs_no_scan(self, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from unmask.data import picture_facts as reading

        monkeypatch.setattr(tar_index, "make_index", lambda _: pytest.fail("scanned"))
        monkeypatch.setattr(reading, "read_header", lambda _: pytest.fail("read a header"))
        source = Shards(path=str(shards)).open()
        assert (len(source), source.smallest_side, source.typical_size()) == (60, 170, (170, 170))

    def test_an_index_that_does_not_hold_is_not_trusted(self, many: Path, shards: Path) -> None:
        """The index of another shard of the same size: its places would be wrong."""
        expected = [Shards(path=str(shards)).open()[i].image for i in range(60)]
        one = shards / "train-000001.tar"
        os.utime(one, (1e9, 1e9))
        wrong = (shards / "train-000000.arrow").read_bytes()
        (shards / "train-000001.arrow").write_bytes(wrong)
        source = Shards(path=str(shards)).open()
        assert facts(source) == facts(Folder(path=str(many)).open())
        assert all(torch.equal(source[i].image, expected[i]) for i in range(60))

    @pytest.mark.parametrize(
        ("harm", "said"),
        [
            (lambda shard: shard.unlink(), "is missing, one of 3 shards; copy it again"),
            (
                lambda shard: os.truncate(shard, 9000),
                "has 9,000 bytes instead of .* it is truncated; copy",
            ),
            (lambda shard: shard.with_name("x.tar").write_bytes(b""), "x.tar is not one of the 3"),
        ],
    )
    def test_a_set_that_is_not_whole(
        self, shards: Path, harm: Callable[[Path], object], said: str
    ) -> None:
        harm(shards / "train-000001.tar")
        with pytest.raises(DataError, match=said):
            Shards(path=str(shards)).open()

    def test_a_part_of_a_set(self, shards: Path) -> None:
        """Asked for by name, so it is no mistake; the classes are those of the whole."""
        source = Shards(path=str(shards / "train-000001.tar")).open()
        assert 0 < len(source) < 60
        assert source.annotations.names == ("0", "1")

    def test_a_damaged_member(self, shards: Path) -> None:
        """JPEG decoders pass over much damage in silence; the checksum does not."""
        shard = shards / "train-000000.tar"
        with tarfile.open(shard) as tar:
            middle = tar.getmembers()[0]
        before = shard.stat()
        with shard.open("r+b") as file:
            file.seek(middle.offset_data + middle.size // 2)
            file.write(b"\x55\x33")
        os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(DataError, match=r"its checksum in train-000000\.tar has changed"):
            Shards(path=str(shards)).open()[0]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_set_that_changes_under_a_run(
        self, shards: Path, tmp_path: Path, workers: int
    ) -> None:
        source = Shards(path=str(shards)).open()
        stream = batches(
            CpuFeed(source, CenterCrop(), Size(8, 8), 0),
            batch_size=10,
            first_step=0,
            steps=30,
            workers=workers,
            device=torch.device("cpu"),
            set_aside=SetAside(tmp_path / "set_aside.csv", 60, 1.0),
        )
        next(stream)
        time.sleep(0.01)
        os.utime(shards / "train-000001.tar")
        with pytest.raises(RunError, match=r"train-000001.tar has changed since it was opened"):
            for _ in stream:
                pass
        assert not (tmp_path / "set_aside.csv").exists()

    def test_a_shard_that_goes(self, shards: Path) -> None:
        source = Shards(path=str(shards)).open()
        (shards / "train-000000.tar").unlink()
        with pytest.raises(RunError, match=r"train-000000.tar was removed since it was opened"):
            source[0]

    def test_two_sets_with_other_classes(self, shards: Path, photos: Path, tmp_path: Path) -> None:
        run(Folder(path=str(photos / "train")), tmp_path / "more" / "a")
        shards.rename(tmp_path / "more" / "b")
        with pytest.raises(DataError, match="packed with different classes or channels"):
            Shards(path=str(tmp_path / "more")).open()

    def test_a_description_that_makes_no_sense(self, shards: Path) -> None:
        (shards / pack_manifest.PACK).write_text('{"format_version": 99}')
        with pytest.raises(
            DataError, match="has format 99, but this version of unmask reads formats up to 1"
        ):
            Shards(path=str(shards)).open()
        (shards / pack_manifest.PACK).write_text("{")
        with pytest.raises(DataError, match="cannot be read"):
            Shards(path=str(shards)).open()

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (
                {"offset": 2**40},
                "train-000001.arrow is not an index of train-000001.tar: its columns",
            ),
            ({"size": -1}, "or its images are not inside the shard; remove it, and the shard is"),
            ({"crc32": "words"}, "its columns have other types"),
            ({"label": "7"}, r"label 7 of .* has no class name: there are 2 classes"),
            ({"label": "owl"}, r"label owl of .* has no class name"),
        ],
    )
    def test_an_index_that_points_elsewhere(
        self, shards: Path, change: dict[str, Any], said: str
    ) -> None:
        """Its shard has not changed, so only its contents tell."""
        index = shards / "train-000001.arrow"
        table, note = cache.read_table(index) or pytest.fail("no index")
        for name, value in change.items():
            column = table.column(name).to_pylist()
            column[3] = value
            if name == "crc32":
                column = [str(value) for value in column]
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(column))
        cache.write_table(index, table, note)
        with pytest.raises(DataError, match=said):
            Shards(path=str(shards)).open()

    @pytest.mark.parametrize("channels", [0, -3, 10**12])
    def test_channels_of_no_image(self, shards: Path, channels: int) -> None:
        about = json.loads((shards / pack_manifest.PACK).read_text())
        about["splits"]["train"]["channels"] = channels
        (shards / pack_manifest.PACK).write_text(json.dumps(about))
        with pytest.raises(DataError, match=f"channels must be from 1 to 100,000, got {channels}"):
            Shards(path=str(shards)).open()


class TestArraysOfOthers:
    def test_beside_an_image_they_are_no_image(self, tmp_path: Path) -> None:
        array = io.BytesIO()
        np.save(array, np.zeros((4, 4, 2), np.float32))
        with tarfile.open(tmp_path / "x.tar", "w") as tar:
            for name, data in (
                ("a.png", encoded(ramp(1), "PNG")),
                ("a.npy", array.getvalue()),
                ("b.npy", array.getvalue()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        source = Shards(path=str(tmp_path / "x.tar")).open()
        assert facts(source)[0] == ["a.png"]
        assert source.others[".npy"] == 1
        assert source.refused == [("b.npy", "an array among encoded images")]
