"""What kind of data a name means, and that the kind changes nothing else."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from PIL import Image
from runs import tiny

from unmask.data import AnySource, Digits, Folder, Parquet, Shards, Tiff
from unmask.data.band_files import BandReading
from unmask.data.cpu_feed import CpuFeed
from unmask.data.kinds import find_source, is_data, kind_of, parse_channels
from unmask.data.loader import SetAside, batches
from unmask.errors import SettingsError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


class TestKind:
    @pytest.mark.parametrize(
        ("names", "kind"),
        [
            (["a.jpg", "b.txt"], "folder"),
            (["deep/er/a.PNG", "x.tar", "y.parquet"], "folder"),  # images go first
            (["a.tar", "notes.txt"], "shards"),
            (["a.tar.gz"], "shards"),
            (["train/a.parquet", "test/a.parquet"], "parquet"),
            (["a.npy"], "tiff"),
            (["a.tif"], "tiff"),  # not one that Pillow reads
            (["a.txt"], "folder"),
            ([".hidden.tar"], "folder"),
            ([], "folder"),
        ],
    )
    def test_of_a_folder(self, tmp_path: Path, names: list[str], kind: str) -> None:
        assert kind_of(str(touch(tmp_path, *names))) == kind

    @pytest.mark.parametrize(
        ("name", "kind"),
        [("x-{000..010}.tar", "shards"), ("x.tgz", "shards"), ("d/*.parquet", "parquet"),
         ("a.NPY", "tiff"), ("a.tif", "tiff"), ("a.jpg", "folder"), ("gone", "folder")],
    )  # fmt: skip
    def test_of_a_file_or_pattern(self, name: str, kind: str) -> None:
        assert kind_of(name) == kind

    def test_plain_tiffs_are_pictures(self, tmp_path: Path) -> None:
        Image.new("RGB", (4, 4)).save(tmp_path / "a.tif")
        assert kind_of(str(tmp_path)) == "folder"

    def test_a_tiff_that_notes_missing_values_is_more_than_a_picture(self, tmp_path: Path) -> None:
        tags = [(42113, "s", 0, "255", True)]
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.uint8), extratags=tags)
        assert kind_of(str(tmp_path)) == "tiff"

    def test_the_user_has_the_last_word(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "folder").mkdir()
        data = str(touch(tmp_path, "a.jpg", "x.tar"))
        assert isinstance(find_source(data, "shards"), Shards)
        assert isinstance(find_source("folder", "folder"), Folder)
        assert find_source("digits") == Digits()

    def test_a_misspelt_kind(self) -> None:
        with pytest.raises(
            SettingsError, match="unknown --data-kind 'parket'; did you mean 'parquet'"
        ):
            find_source("x", "parket")

    def test_sets_and_single_images(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.jpg", "a.tar")
        sets = ["digits", str(tmp_path), "x.tar", "x-{0..3}.tar", "x*.parquet"]
        assert all(map(is_data, sets))
        assert not any(map(is_data, [str(tmp_path / "a.jpg"), "b.npy", "c.tif"]))


class TestChannels:
    def test_go_to_images_of_many_bands(self, tmp_path: Path) -> None:
        touch(tmp_path, "x.npy")
        path = str(tmp_path / "x.npy")
        found = find_source(path, None, BandReading(channels=(4, 3), no_data=-1.0))
        assert found == Tiff(path=path, channels=(4, 3), no_data=-1.0)

    def test_are_refused_elsewhere(self, tmp_path: Path) -> None:
        with pytest.raises(
            SettingsError, match=r"--channels must be left out, because .* grey or colour images"
        ):
            find_source(str(touch(tmp_path, "a.jpg")), None, BandReading(channels=(1,)))

    def test_as_text(self) -> None:
        assert parse_channels(None) == ()
        assert parse_channels("4, 3,2") == (4, 3, 2)
        for wrong in ("0", "a", "1,,2", "", "-1", "1.5"):
            with pytest.raises(SettingsError, match="list of channels counted from 1"):
                parse_channels(wrong)


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AnySource]:
    """The same images in every kind of data."""
    root = tmp_path_factory.mktemp("everywhere")
    tiny.write_classes(root / "folder", ("cats", "dogs", "emus"), 7)
    files = sorted((root / "folder").rglob("*.png"))
    with tarfile.open(root / "x.tar", "w") as tar:
        for file in files:
            tar.add(file, file.relative_to(root / "folder").as_posix())
    rows = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    labels = pa.array([file.parent.name for file in files])
    pq.write_table(pa.table({"image": rows, "label": labels}), root / "x.parquet")
    for file in files:
        place = root / "npy" / file.relative_to(root / "folder").with_suffix(".npy")
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            np.save(place, np.asarray(image))
    return {
        kind: find_source(str(root / name))
        for kind, name in (
            ("folder", "folder"),
            ("shards", "x.tar"),
            ("parquet", "x.parquet"),
            ("tiff", "npy"),
        )
    }


def test_kinds_are_told_apart(everywhere: dict[str, AnySource]) -> None:
    assert [type(s) for s in everywhere.values()] == [Folder, Shards, Parquet, Tiff]


@pytest.mark.parametrize("kind", ["shards", "parquet", "tiff"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_images_give_the_same_batches(
    everywhere: dict[str, AnySource], tmp_path: Path, kind: str, workers: int
) -> None:
    """To the bit: order, crops, labels."""
    found = []
    for name, loaders in (("folder", 0), (kind, workers)):
        source = everywhere[name].open("train")
        stream = batches(
            CpuFeed(source, tiny.RECIPE.views, tiny.RECIPE.image_size, seed=3),
            batch_size=4,
            first_step=0,
            steps=9,
            workers=loaders,
            device=torch.device("cpu"),
            set_aside=SetAside(tmp_path / "set_aside.csv", len(source), 0),
        )
        found.append([(b.images, b.annotations, b.index, b.epoch) for b in stream])
        assert source.annotations.names == ("cats", "dogs", "emus")
    for ours, theirs in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True))
        assert ours[3] == theirs[3]


@pytest.mark.parametrize("kind", ["shards", "parquet", "tiff"])
def test_the_same_images_give_the_same_training(
    everywhere: dict[str, AnySource], tmp_path: Path, kind: str
) -> None:
    """To the bit: every loss and every weight."""
    runs = [
        tiny.finished_run(tmp_path / name, everywhere[name].path)  # type: ignore[union-attr]
        for name in ("folder", kind)
    ]
    tiny.assert_same_end(*runs)
