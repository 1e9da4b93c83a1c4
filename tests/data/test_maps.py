"""Pictures with class maps: layouts, values, names, and what is wrong with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference.dense import picture, write_map
from torch import Tensor

from unmask.annotations import ClassMaps, Objects
from unmask.data import InstanceMaps, Maps
from unmask.data.dense_images import DenseImages
from unmask.data.kinds import kind_of
from unmask.errors import DataError, SettingsError

VALUES = np.arange(200).reshape(10, 20) % 3


def opened(root: Path, split: str = "train", **options: Any) -> DenseImages:
    return Maps(path=str(root), **options).open(split)


def read(source: DenseImages, position: int = 0) -> Tensor:
    known = source[position].annotation
    assert isinstance(known, Tensor)
    return known


def pair(
    root: Path,
    name: str = "a",
    values: Any = VALUES,
    pictures: str = "images",
    maps: str = "masks",
    **how: Any,
) -> None:
    picture(root / pictures / f"{name}.png")
    write_map(root / maps / f"{name}.png", values, **how)


def named(root: Path, *names: str) -> None:
    (root / "classes.txt").write_text("\n".join(names))


@pytest.mark.parametrize(
    ("places", "splits"),
    [
        ({"train": ("images", "masks")}, ("train",)),
        ({"train": ("images", "labels")}, ("train",)),
        ({"train": ("JPEGImages", "SegmentationClass")}, ("train",)),
        (
            {s: (f"images/{s}", f"annotations/{s}") for s in ("training", "validation")},
            ("train", "test"),
        ),
        ({s: (f"{s}/images", f"{s}/masks") for s in ("train", "val", "test")}, ("train", "test")),
        ({s: (s, f"{s}annot") for s in ("train", "val", "test")}, ("train", "test")),
        ({s: (s, f"{s}_labels") for s in ("train", "val")}, ("train", "test")),
    ],
)
def test_layouts(
    tmp_path: Path, places: dict[str, tuple[str, str]], splits: tuple[str, ...]
) -> None:
    for split, (pictures, maps) in places.items():
        pair(tmp_path, split, pictures=pictures, maps=maps)
    data = Maps(path=str(tmp_path))
    assert data.splits() == splits
    for split in splits:
        source = data.open(split)
        assert len(source) == 1
        assert torch.equal(read(source), torch.from_numpy(VALUES))
        assert source.labels().tolist() == [-1]
    assert len(data.pictures()) == 1


def test_cityscapes(tmp_path: Path) -> None:
    values = np.full((10, 20), 7)
    values[0, :4] = (0, 33, 3, 26)
    for split in ("train", "val"):
        stem = f"{split}/bonn/bonn_000"
        picture(tmp_path / "leftImg8bit" / f"{stem}_leftImg8bit.png")
        write_map(tmp_path / "gtFine" / f"{stem}_gtFine_labelIds.png", values)
        for other in ("color", "instanceIds"):
            write_map(tmp_path / "gtFine" / f"{stem}_gtFine_{other}.png", values + 90)
    source = opened(tmp_path, "test")
    assert len(source.annotations.names) == 19
    assert read(source)[0, :5].tolist() == [255, 18, 255, 13, 0]


def test_ade20k_numbers_its_classes_from_one(tmp_path: Path) -> None:
    pair(tmp_path, pictures="images/training", maps="annotations/training")
    text = (
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t2\t3\t1\twall\n2\t0.1\t2\t3\t0\tdoor, gate\n"
    )
    (tmp_path / "objectInfo150.txt").write_text(text)
    source = opened(tmp_path)
    assert source.annotations == ClassMaps(names=("wall", "door, gate"))
    assert torch.equal(read(source), torch.from_numpy(np.where(VALUES == 0, 255, VALUES - 1)))
    assert "0 is ignored, because objectInfo150.txt numbers classes from 1" in source.notes


def test_zero_is_ignored_where_names_do_not_say_so(tmp_path: Path) -> None:
    pair(tmp_path)
    named(tmp_path, "wall", "door")
    source = opened(tmp_path, zero_is_ignored=True)
    assert source.annotations.names == ("wall", "door")
    assert torch.equal(read(source), torch.from_numpy(np.where(VALUES == 0, 255, VALUES - 1)))


@pytest.mark.parametrize(
    ("suffix", "partner"),
    [("_mask", ""), ("_label", ""), ("_L", ""), ("_gt", "_rgb"), ("_seg", "_image"), (".jpg", "")],
)
def test_names_that_differ_by_usual_words(tmp_path: Path, suffix: str, partner: str) -> None:
    picture(tmp_path / "images" / f"a{partner}.png")
    write_map(tmp_path / "masks" / f"a{suffix}.png", VALUES)
    assert len(opened(tmp_path)) == 1


@pytest.mark.parametrize("folder", [".", "train"])
def test_maps_among_the_pictures(tmp_path: Path, folder: str) -> None:
    for name in ("1_sat", "2_sat", "new"):
        picture(tmp_path / folder / f"{name}.png")
    for name in ("1_mask", "2_mask"):
        write_map(tmp_path / folder / f"{name}.png", VALUES)
    assert kind_of(str(tmp_path)) == "maps"
    source = opened(tmp_path)
    assert [source.name(row) for row in range(len(source))] == ["1_sat.png", "2_sat.png"]
    alone = Maps(path=str(tmp_path)).pictures()
    assert [alone.name(row) for row in range(len(alone))] == ["1_sat.png", "2_sat.png", "new.png"]


def test_a_few_names_like_those_of_maps_are_pictures(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "a_mask", "gas_mask", "iron_mask"):
        picture(tmp_path / f"{name}.png")
    assert kind_of(str(tmp_path)) == "folder"


class TestNames:
    """Classes from files beside the data, or from the values."""

    def test_without_a_file_every_value_is_a_class(self, tmp_path: Path) -> None:
        pair(tmp_path, "a", np.where(VALUES == 2, 7, 0))
        pair(tmp_path, "b", np.full((10, 20), 255))
        pair(tmp_path, "c", np.full((10, 20), 11))
        source = opened(tmp_path)
        assert source.annotations == ClassMaps(names=("0", "7", "11"))
        assert read(source, 0).unique().tolist() == [0, 1]
        assert read(source, 1).unique().tolist() == [255]
        assert read(source, 2).unique().tolist() == [2]
        assert "no classes.txt, so the 3 values of the class maps are classes" in source.notes

    def test_zero_and_255_alone_are_two_classes(self, tmp_path: Path) -> None:
        pair(tmp_path, values=np.where(VALUES == 2, 255, 0))
        source = opened(tmp_path)
        assert source.annotations.names == ("0", "255")
        assert read(source).unique().tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("classes.txt", "0 background\n255 road\n"),
            ("classes.txt", "background\nroad\n"),
            ("classes.json", '{"background": 0, "road": 255}'),
            ("classes.json", '{"0": "background", "255": "road"}'),
            ("classes.json", '["background", "road"]'),
            ("classes.json", '[{"name": "background", "id": 0}, {"name": "road", "id": 255}]'),
            ("classes.csv", "name,value\nbackground,0\nroad,255\n"),
            ("classes.csv", "name\nbackground\nroad\n"),
        ],
    )
    def test_zero_and_255_are_the_two_classes_of_a_file(
        self, tmp_path: Path, name: str, text: str
    ) -> None:
        pair(tmp_path, values=np.where(VALUES == 2, 255, 0))
        (tmp_path / name).write_text(text)
        source = opened(tmp_path)
        assert source.annotations.names == ("background", "road")
        assert torch.equal(read(source), torch.from_numpy((VALUES == 2).astype(np.int64)))
        assert source.found().ignored == 0
        assert f"255 is the class road of {name}, so it is not ignored" in source.notes

    def test_255_stays_ignored_where_it_is_not_named(self, tmp_path: Path) -> None:
        """Also if a file has two names, and where 255 is named and `ignored` says otherwise."""
        pair(tmp_path, values=np.where(VALUES == 2, 255, 0))
        pair(tmp_path, "b", np.ones((10, 20)))
        named(tmp_path, "background", "road")
        assert read(opened(tmp_path)).unique().tolist() == [0, 255]
        named(tmp_path, "0 background", "1 road", "255 sky")
        assert opened(tmp_path).annotations.names == ("background", "road", "sky")
        asked = opened(tmp_path, ignored=(7, 255))
        assert asked.annotations.names == ("background", "road")

    def test_zero_and_255_with_another_number_of_names_are_refused(self, tmp_path: Path) -> None:
        pair(tmp_path, values=np.where(VALUES == 2, 255, 0))
        named(tmp_path, "background", "road", "sky")
        words = (
            r"masks have 0 and 255 alone, and .*classes\.txt names 3 classes without numbers; write"
        )
        with pytest.raises(DataError, match=words):
            opened(tmp_path)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("classes.txt", "sky\nroad\nvoid\n"),
            ("classes.txt", "0 sky\n1: road\n2, Void\n"),
            ("names.txt", "# a comment\nsky\nroad\n\nunlabelled\n"),
            ("classes.json", '["sky", "road", "void"]'),
            ("classes.json", '{"0": "sky", "1": "road", "2": "void"}'),
            ("classes.json", '{"sky": 0, "road": 1, "void": 2}'),
            ("classes.json", '{"names": ["sky", "road", "else"], "ignore_index": 2}'),
            (
                "classes.json",
                '[{"name": "sky", "id": 0}, {"name": "road", "id": 1}, {"name": "ignore"}]',
            ),
            ("classes.csv", "value,name\n0,sky\n1,road\n2,void\n"),
        ],
    )
    def test_files_of_names(self, tmp_path: Path, name: str, text: str) -> None:
        pair(tmp_path)
        (tmp_path / name).write_text(text)
        source = opened(tmp_path)
        assert source.annotations == ClassMaps(names=("sky", "road"))
        assert torch.equal(read(source), torch.from_numpy(np.where(VALUES == 2, 255, VALUES)))

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("class_dict.csv", "name,r,g,b\nsky,0,0,128\nroad,200,1,7\nVoid,9,9,9\n"),
            ("label_colors.txt", "0 0 128\tsky\n200 1 7\troad\n9 9 9\tVoid\n"),
            ("classes.json", '{"sky": [0, 0, 128], "road": [200, 1, 7], "void": [9, 9, 9]}'),
            (
                "classes.json",
                '[{"name": "sky", "color": [0, 0, 128]}, {"name": "road", "color": [200, 1, 7]},'
                ' {"name": "void", "color": [9, 9, 9]}]',
            ),
        ],
    )
    def test_colours(self, tmp_path: Path, name: str, text: str) -> None:
        colours = np.array([(0, 0, 128), (200, 1, 7), (9, 9, 9)])
        pair(tmp_path, values=colours[VALUES])
        pair(tmp_path, "b", values=VALUES, mode="P", palette=colours.ravel().tolist())
        (tmp_path / name).write_text(text)
        source = opened(tmp_path)
        assert source.annotations.names == ("sky", "road")
        expected = torch.from_numpy(np.where(VALUES == 2, 255, VALUES))
        assert torch.equal(read(source, 0), expected)
        assert torch.equal(read(source, 1), expected)

    def test_unknown_colours_are_named_with_the_file(self, tmp_path: Path) -> None:
        values = np.zeros((10, 20, 3), int)
        values[0, :5] = (1, 2, 3)
        pair(tmp_path, values=values)
        (tmp_path / "classes.csv").write_text("name,r,g,b\nsky,0,0,0\n")
        words = r"masks/a\.png has the colours 1,2,3 in 2\.5% of its pixels, which .*classes\.csv does not name; add them"
        with pytest.raises(DataError, match=words):
            opened(tmp_path)

    def test_colours_without_a_table_are_refused(self, tmp_path: Path) -> None:
        pair(tmp_path, values=np.stack([VALUES, VALUES, VALUES + 1], -1))
        with pytest.raises(
            DataError, match=r"a\.png: a colour picture, and no file says .* write classes\.csv"
        ):
            opened(tmp_path)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("sky\nsky\n", "has the name sky twice"),
            ("1 sky\n1 road\n", "has the value 1 twice"),
            ("0 sky\n1 2 3 road\n", "colours for some classes and numbers for others"),
            ("void\n", "names no class that is not ignored"),
            ("0 sky\n99999999999 road\n", "gives road the value 99999999999, too large"),
        ],
    )
    def test_tables_that_are_wrong(self, tmp_path: Path, text: str, words: str) -> None:
        pair(tmp_path)
        (tmp_path / "classes.txt").write_text(text)
        with pytest.raises(DataError, match=words) as raised:
            opened(tmp_path)
        assert "classes.txt" in str(raised.value)


class TestValues:
    """Values in files of every form."""

    def test_palette_and_grey_colours_are_numbers(self, tmp_path: Path) -> None:
        named(tmp_path, "x", "y", "z")
        pair(tmp_path, "a", mode="P", palette=[9, 8, 7] * 256)
        pair(tmp_path, "b", np.stack([VALUES] * 3, -1))
        source = opened(tmp_path)
        for position in range(2):
            assert torch.equal(read(source, position), torch.from_numpy(VALUES))

    def test_rasters_with_missing_values(self, tmp_path: Path) -> None:
        tifffile = pytest.importorskip("tifffile")
        named(tmp_path, "x", "y", "z")
        (tmp_path / "images").mkdir()
        (tmp_path / "masks").mkdir()
        bands = np.random.default_rng(0).integers(0, 900, (10, 20, 4)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "images" / "a.tif", bands)
        values = VALUES.astype(np.float32)
        values[0, 0] = -9999
        extra = [(42113, "s", 0, "-9999", True)]
        tifffile.imwrite(tmp_path / "masks" / "a.tif", values, extratags=extra)
        source = opened(tmp_path)
        assert source.channels == 4
        assert read(source)[0, :4].tolist() == [255, 1, 2, 0]

    def test_arrays(self, tmp_path: Path) -> None:
        named(tmp_path, "x", "y", "z")
        picture(tmp_path / "images" / "a.png")
        (tmp_path / "masks").mkdir()
        np.save(tmp_path / "masks" / "a.npy", VALUES.astype(np.int64))
        assert torch.equal(read(opened(tmp_path)), torch.from_numpy(VALUES))
        np.save(tmp_path / "masks" / "a.npy", VALUES + 0.5)
        with pytest.raises(DataError, match=r"a\.npy: values that are no whole numbers"):
            read(opened(tmp_path))

    def test_an_odd_value_is_an_error_at_once(self, tmp_path: Path) -> None:
        named(tmp_path, "x", "y")
        pair(tmp_path)
        words = r"a\.png has the values 2 in 33\.0% of its pixels, which .*classes\.txt does not name; .*--ignore 2"
        with pytest.raises(DataError, match=words):
            opened(tmp_path)
        source = opened(tmp_path, ignored=(2, 255))
        assert torch.equal(read(source), torch.from_numpy(np.where(VALUES == 2, 255, VALUES)))

    def test_an_odd_value_that_was_not_seen_is_an_error_when_it_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("unmask.data.maps._LOOKED_AT", 2)
        named(tmp_path, "x", "y", "z")
        for name in "abc":
            pair(tmp_path, name, VALUES + 9 * (name == "b"))
        source = opened(tmp_path)
        with pytest.raises(DataError, match=r"b\.png has the values 9, 10, 11 in 100\.0%"):
            source[1]
        assert (
            source.found()
            .lines()[0]
            .startswith("pixels in 2 of 3 evenly spaced class maps: x 33.5%")
        )

    def test_a_value_of_the_test_split_alone_is_named(self, tmp_path: Path) -> None:
        for split, values in (("train", VALUES), ("val", VALUES + 1)):
            pair(tmp_path, values=values, pictures=f"images/{split}", maps=f"masks/{split}")
        with pytest.raises(DataError, match=r"val/a\.png has the values 3"):
            opened(tmp_path, "test")

    def test_an_ignored_class_leaves_no_hole(self, tmp_path: Path) -> None:
        named(tmp_path, "x", "y", "z")
        pair(tmp_path)
        source = opened(tmp_path, ignored=(1,))
        assert source.annotations == ClassMaps(names=("x", "z"))
        assert torch.equal(read(source), torch.from_numpy(np.array([0, 255, 1])[VALUES]))

    def test_many_values_are_no_classes(self, tmp_path: Path) -> None:
        pytest.importorskip("tifffile")
        picture(tmp_path / "images" / "a.png")
        (tmp_path / "masks").mkdir()
        np.save(tmp_path / "masks" / "a.npy", np.arange(300).reshape(10, 30)[:, :20] * 7)
        picture(tmp_path / "images" / "b.png")
        np.save(tmp_path / "masks" / "b.npy", np.arange(200).reshape(10, 20) * 7 + 1)
        with pytest.raises(
            DataError, match="have more than 256 different values; if they are classes"
        ):
            opened(tmp_path)

    def test_negative_ignored_values_are_refused(self) -> None:
        with pytest.raises(SettingsError, match=r"must not be negative, got \[-1\]"):
            Maps(path="x", ignored=(-1,))


def test_maps_of_another_size_are_set_aside_with_both_sizes(tmp_path: Path) -> None:
    named(tmp_path, "x", "y", "z")
    pair(tmp_path, "a")
    pair(tmp_path, "b", VALUES[:5])
    source = opened(tmp_path)
    words = r"the picture has 20 x 10 pixels, and its class map has \(b\.png\) 20 x 5; give both the same size"
    with pytest.raises(DataError, match=words):
        source[1]
    assert any("1 pictures cannot be used, the first is b.png" in note for note in source.notes)


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_map_says_by_its_size_in_which_frame_it_is(tmp_path: Path, is_stored: bool) -> None:
    named(tmp_path, "x", "y", "z")
    picture(tmp_path / "images" / "a.png", orientation=6)
    upright = np.rot90(VALUES, -1)
    write_map(tmp_path / "masks" / "a.png", VALUES if is_stored else upright)
    source = opened(tmp_path)
    assert source[0].image.shape == (3, 20, 10)
    assert torch.equal(read(source), torch.from_numpy(upright.copy()))
    how = "annotated as stored" if is_stored else "annotated as displayed"
    assert any(how in note for note in source.notes)


def test_pictures_and_maps_without_partner_are_counted(tmp_path: Path) -> None:
    pair(tmp_path)
    picture(tmp_path / "images" / "new.png")
    write_map(tmp_path / "masks" / "gone.png", VALUES)
    source = opened(tmp_path)
    assert "1 pictures have no class map and are not used, the first is new.png" in source.notes
    assert "1 class maps have no picture, the first is masks/gone.png" in source.notes
    alone = Maps(path=str(tmp_path)).pictures()
    assert [alone.name(row) for row in range(len(alone))] == ["a.png", "new.png"]


def test_damaged_maps_are_set_aside(tmp_path: Path) -> None:
    named(tmp_path, "x", "y", "z")
    pair(tmp_path, "a")
    pair(tmp_path, "b")
    (tmp_path / "masks" / "b.png").write_bytes((tmp_path / "masks" / "b.png").read_bytes()[:60])
    source = opened(tmp_path)
    with pytest.raises(DataError, match=r"masks/b\.png: damaged or truncated"):
        source[1]


def test_what_is_present(tmp_path: Path) -> None:
    named(tmp_path, "x", "y", "z")
    pair(tmp_path, "a")
    pair(tmp_path, "b", np.full((10, 20), 1))
    pair(tmp_path, "c", np.full((10, 20), 255))
    assert opened(tmp_path).present().tolist() == [[True] * 3, [False, True, False], [False] * 3]


def test_classes_of_another_order_are_renumbered(tmp_path: Path) -> None:
    named(tmp_path, "x", "y", "z")
    pair(tmp_path)
    source = opened(tmp_path).with_kind(ClassMaps(names=("z", "w", "y", "x")))
    assert torch.equal(read(source), torch.from_numpy(np.array([3, 2, 0])[VALUES]))


class TestInstances:
    """Maps in which every value is one object."""

    def test_objects_are_the_values(self, tmp_path: Path) -> None:
        values = np.zeros((10, 20), int)
        values[2:5, 3:9], values[7, 0], values[9, 9] = 4, 1, 255
        pair(tmp_path, values=values)
        source = InstanceMaps(path=str(tmp_path)).open()
        known = source[0].annotation
        assert isinstance(known, Objects)
        assert known.masks is not None
        assert known.boxes.tolist() == [[0, 7, 1, 8], [3, 2, 9, 5]]
        assert torch.equal(known.masks, torch.from_numpy(np.stack([values == 1, values == 4])))
        assert source.found().lines() == ("2 objects in 1 pictures: object 2",)

    def test_one_class_at_most(self, tmp_path: Path) -> None:
        pair(tmp_path)
        named(tmp_path, "cell")
        assert InstanceMaps(path=str(tmp_path)).open().annotations.names == ("cell",)
        named(tmp_path, "cell", "nucleus")
        with pytest.raises(DataError, match="names 2 classes, and maps of objects tell no classes"):
            InstanceMaps(path=str(tmp_path)).open()

    def test_a_picture_without_objects(self, tmp_path: Path) -> None:
        pair(tmp_path, values=np.zeros((10, 20)))
        known = InstanceMaps(path=str(tmp_path)).open()[0].annotation
        assert isinstance(known, Objects)
        assert known.masks is not None
        assert known.masks.shape == (0, 10, 20)


def test_maps_of_another_format(tmp_path: Path) -> None:
    named(tmp_path, "x", "y", "z")
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(VALUES.astype(np.uint8), "L").save(tmp_path / "masks" / "a.bmp")
    assert torch.equal(read(opened(tmp_path)), torch.from_numpy(VALUES))
