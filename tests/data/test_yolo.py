"""Objects from YOLO's text files: layouts, settings, lines, and what is wrong with them."""

import json
import random
import re
from pathlib import Path

import pytest
import torch
from reference.dense import Thing, coco, picture, voc_object, voc_xml, write_coco, write_yolo

from unmask.annotations import ObjectLabels, Objects
from unmask.data import Coco, Voc, Yolo
from unmask.data.dense_images import DenseImages
from unmask.data.labelled import open_labelled
from unmask.errors import DataError

BOX = "0 0.5 0.5 0.2 0.4\n"


def opened(root: Path, split: str = "train") -> DenseImages:
    return Yolo(path=str(root)).open(split)


def objects(source: DenseImages, position: int = 0) -> Objects:
    known = source[position].annotation
    assert isinstance(known, Objects)
    return known


def settings(root: Path, text: str) -> Path:
    (root / "data.yaml").write_text(text)
    return root / "data.yaml"


def test_boxes_and_pictures_without_objects(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a.png": BOX + "1 0.1 0.1 0.2 0.2\n", "b.png": None, "c.png": ""})
    settings(tmp_path, "train: images/train\nval: images/train\nnames: [cat, dog]\n")
    source = opened(tmp_path)
    assert source.annotations == ObjectLabels(names=("cat", "dog"))
    assert objects(source).boxes.tolist() == [
        pytest.approx([8, 3, 12, 7]),
        pytest.approx([0, 0, 4, 2]),
    ]
    assert [len(objects(source, row).boxes) for row in (1, 2)] == [0, 0]
    lines = source.found().lines()
    assert "2 pictures have no objects, and are learned as such" in lines
    assert "1 pictures have no label file, so no objects, the first in images/train/b.png" in lines


@pytest.mark.parametrize(
    "names",
    [
        "names: [cat, dog]",
        "names: {0: cat, 1: dog}",
        "names:\n  1: dog\n  0: cat",
        "nc: 2\nnames:\n- cat\n- dog",
    ],
)
def test_names_in_every_form(tmp_path: Path, names: str) -> None:
    write_yolo(tmp_path, {"a.png": BOX})
    assert opened(settings(tmp_path, f"train: images/train\n{names}\n")).annotations.names == (
        "cat",
        "dog",
    )


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("images/train", "images/train"),
        ("images/train", "./images/train"),
        ("train/images", "../train/images"),
        ("images/train", "ABSOLUTE"),
        ("images/train", "list.txt"),
        ("images/train", "[images/train]"),
    ],
)
def test_the_ways_in_which_settings_name_pictures(tmp_path: Path, where: str, value: str) -> None:
    picture(tmp_path / where / "a.png")
    label = tmp_path / where.replace("images", "labels") / "a.txt"
    label.parent.mkdir(parents=True)
    label.write_text(BOX)
    (tmp_path / "list.txt").write_text("./images/train/a.png\n")
    value = value.replace("ABSOLUTE", str(tmp_path / where))
    source = opened(settings(tmp_path, f"train: {value}\nnames: [cat]\n"))
    assert objects(source).boxes.tolist() == [pytest.approx([8, 3, 12, 7])]


def test_path_is_the_place_of_the_folders(tmp_path: Path) -> None:
    write_yolo(tmp_path / "sets" / "mine", {"a.png": BOX})
    write_yolo(tmp_path / "sets" / "mine", {"b.png": BOX}, "val")
    text = "path: sets/mine\ntrain: images/train\nval: images/val\nnames: [cat]\n"
    data = Yolo(path=str(settings(tmp_path, text)))
    assert data.splits() == ("train", "test")
    assert data.open("test").name(0).endswith("val/b.png")


@pytest.mark.parametrize("above", [True, False])
def test_folders_without_settings(tmp_path: Path, above: bool) -> None:
    for split in ("train", "val"):
        first, second = (
            (f"{split}/images", f"{split}/labels")
            if above
            else (f"images/{split}", f"labels/{split}")
        )
        picture(tmp_path / first / "a.png")
        (tmp_path / second).mkdir(parents=True)
        (tmp_path / second / "a.txt").write_text("2 0.5 0.5 0.2 0.4\n")
    data = Yolo(path=str(tmp_path))
    assert data.splits() == ("train", "test")
    assert data.open().annotations.names == ("0", "1", "2")
    (tmp_path / "classes.txt").write_text("cat\ndog\nowl\n")
    assert data.open("test").annotations.names == ("cat", "dog", "owl")


def test_polygons_are_masks_and_their_box_is_around_them(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a.png": "0 0.1 0.2 0.4 0.2 0.4 0.6 0.1 0.6\n"})
    source = opened(settings(tmp_path, "train: images/train\nnames: [cat]\n"))
    known = objects(source)
    assert known.masks is not None
    assert known.boxes.tolist() == [pytest.approx([2, 2, 8, 6])]
    assert known.masks[0].nonzero().tolist() == [[y, x] for y in range(2, 6) for x in range(2, 8)]


def test_boxes_are_those_of_the_displayed_picture(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a.png": BOX}, orientation=6)
    source = opened(settings(tmp_path, "train: images/train\nnames: [cat]\n"))
    assert source[0].image.shape == (3, 20, 10)
    assert objects(source).boxes.tolist() == [pytest.approx([4, 6, 6, 14])]
    assert "1 pictures are rotated by EXIF and annotated as displayed" in source.notes


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.2", r"a\.txt, line 2 has 4 numbers; a box has 5"),
        ("0 0.5 0.5 0.2 0.4 0.9", r"line 2 has 6 numbers"),
        ("0 0.1 0.2 0.3 0.4 0.5 0.6 0.7", r"line 2 has 8 numbers"),
        ("cat 0.5 0.5 0.2 0.4", r"line 2 is not numbers: 'cat 0\.5"),
    ],
)
def test_a_damaged_label_file_excludes_its_picture(tmp_path: Path, line: str, words: str) -> None:
    write_yolo(tmp_path, {"a.png": BOX + line, "b.png": BOX})
    source = opened(settings(tmp_path, "train: images/train\nnames: [cat]\n"))
    assert len(source) == 1
    ((name, reason),) = source.refused
    assert name.endswith("a.png")
    assert re.search(words, reason), reason


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 nan 0.5 0.2 0.4", "1 boxes dropped, because a coordinate is not a number"),
        ("0 0.5 0.5 0 0.4", "1 boxes dropped, because they have no width or height"),
        ("0 1.5 0.5 0.2 0.4", "1 boxes dropped, because they lie outside of their picture"),
        ("0 0.95 0.5 0.2 0.4", "1 boxes clipped to their picture"),
        ("0 0.5 0.5 0.05 0.1", None),
    ],
)
def test_odd_boxes_are_counted(tmp_path: Path, line: str, words: str | None) -> None:
    write_yolo(tmp_path, {"a.png": BOX + line})
    source = opened(settings(tmp_path, "train: images/train\nnames: [cat]\n"))
    lines = " ".join(source.found().lines())
    assert (words or "2 objects in 1 pictures: cat 2") in lines
    boxes = objects(source).boxes
    assert bool(((boxes >= 0) & (boxes <= torch.tensor([20, 10, 20, 10]))).all())


@pytest.mark.parametrize("number", ["2", "-1", "0.5", "nan"])
def test_a_class_without_a_name_is_refused_with_its_line(tmp_path: Path, number: str) -> None:
    write_yolo(tmp_path, {"a.png": BOX + f"{number} 0.5 0.5 0.2 0.4"})
    file = settings(tmp_path, "train: images/train\nnames: [cat, dog]\n")
    with pytest.raises(
        DataError, match=rf"a\.txt, line 2: class {number}, and .*data\.yaml has 2 names"
    ):
        opened(file)


@pytest.mark.parametrize("number", ["-1", "-inf", "1.5", "32768"])
def test_a_class_that_is_no_number_is_refused_where_there_are_no_names(
    tmp_path: Path, number: str
) -> None:
    write_yolo(tmp_path, {"a.png": BOX + f"{number} 0.5 0.5 0.2 0.4"})
    words = rf"a\.txt, line 2: class {number}, and classes without names must be whole numbers from 0 to 32767"
    with pytest.raises(DataError, match=words):
        opened(tmp_path)


def test_lists_of_pictures_that_are_wrong(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a.png": BOX})
    file = settings(tmp_path, "train: train.txt\nnames: [cat]\n")
    (tmp_path / "train.txt").write_bytes(b"images/train/\xff.png\n")
    with pytest.raises(DataError, match=r"train\.txt is not text in UTF-8; it must name a picture"):
        opened(file)
    names = ["images/train/a.png", "images/train/b\0.png", f"images/train/{'x' * 300}.png"]
    (tmp_path / "train.txt").write_text("\n".join(names))
    source = opened(file)
    assert len(source) == 1
    reasons = [reason for _, reason in source.refused]
    assert len(reasons) == 2
    assert "cannot be the name of a file" in reasons[0]
    assert "File name too long" in reasons[1]
    alone = Yolo(path=str(file)).pictures()
    assert [name for name, _ in alone.refused] == [r"images/train/b\x00.png", names[2]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: images/train\nnames: [a, a]\n", "two classes are called a"),
        ("train: images/train\nnames: {0: a, 2: b}\n", "numbered from 0 without holes, got 0, 2"),
        ("train: images/train\nnames:\n", "has no names; write a list"),
        ("train: nowhere\nnames: [a]\n", r"nowhere does not exist; correct train and path"),
        ("val: images/train\nnames: [a]\n", "has no train, or a folder"),
        ("train: images/train\nnames: [a\n", "is not valid YAML"),
        ("train: &x images/train\nval: *x\nnames: [a]\n", "aliases"),
        ("train: !!python/object/apply:os.system [ls]\nnames: [a]\n", "is not valid YAML"),
        ("train: [\nnames: \t", "is not valid YAML"),
        ("- train\n- names\n", "has no settings"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, text: str, words: str) -> None:
    write_yolo(tmp_path, {"a.png": BOX})
    with pytest.raises(DataError, match=words) as raised:
        opened(settings(tmp_path, text))
    assert "data.yaml" in str(raised.value)


def test_label_files_without_a_picture_are_counted(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a.png": BOX})
    (tmp_path / "labels" / "train" / "gone.txt").write_text(BOX)
    source = opened(settings(tmp_path, "train: images/train\nnames: [cat]\n"))
    assert "1 label files belong to no picture, the first is labels/train/gone.txt" in source.notes


def test_coco_to_yolo_and_back_loses_nothing(tmp_path: Path) -> None:
    """Boxes to a thousandth of a pixel, masks and classes exactly."""
    draw = random.Random(0)
    width, height = 97, 61
    names = ("a", "b", "c")
    things: dict[str, list[Thing]] = {}
    for number in range(12):
        objects_here: list[Thing] = []
        for _ in range(draw.randrange(6)):
            left, top = draw.uniform(0, 60), draw.uniform(0, 30)
            right, bottom = left + draw.uniform(1, 30), top + draw.uniform(1, 30)
            corners = [left, top, right, top, right, bottom, (left + right) / 2, top]
            box = (left, top, right - left, bottom - top)
            objects_here.append(Thing(box, draw.randrange(3), [corners]))
        things[f"{number:02}.png"] = objects_here
    write_coco(tmp_path / "coco", coco(things, names, width, height), width=width, height=height)
    first = Coco(path=str(tmp_path / "coco")).open()
    written: dict[str, str | None] = {}
    for name, here in things.items():
        lines: list[str] = []
        for thing in here:
            shares = [
                value / (height if i % 2 else width) for i, value in enumerate(thing.polygons[0])
            ]
            lines.append(" ".join(map(repr, [thing.number, *shares])))
        written[name] = "\n".join(lines)
    write_yolo(tmp_path / "yolo", written, width=width, height=height)
    settings(tmp_path / "yolo", "train: images/train\nnames: [a, b, c]\n")
    second = opened(tmp_path / "yolo")
    assert first.annotations == second.annotations == ObjectLabels(names=names, masks=True)
    for position in range(len(first)):
        one, other = objects(first, position), objects(second, position)
        torch.testing.assert_close(one.boxes, other.boxes, atol=1e-3, rtol=0)
        assert torch.equal(one.classes, other.classes)
        assert one.masks is not None
        assert other.masks is not None
        assert torch.equal(one.masks, other.masks)


class TestVoc:
    """Boxes from Pascal VOC's XML files."""

    def write(
        self,
        root: Path,
        files: dict[str, str],
        pictures: str = "JPEGImages",
        xml: str = "Annotations",
    ) -> None:
        for name, text in files.items():
            picture(root / pictures / f"{name}.png")
            (root / xml).mkdir(parents=True, exist_ok=True)
            (root / xml / f"{name}.xml").write_text(text)

    def test_corners_count_from_one(self, tmp_path: Path) -> None:
        things = voc_object("dog", (1, 1, 20, 10)) + voc_object("cat", (3, 2, 3, 2), difficult=1)
        self.write(tmp_path, {"a": voc_xml(things)})
        source = Voc(path=str(tmp_path)).open()
        known = objects(source)
        assert source.annotations == ObjectLabels(names=("cat", "dog"))
        assert known.boxes.tolist() == [[0, 0, 20, 10], [2, 1, 3, 2]]
        assert known.classes.tolist() == [1, 0]
        assert known.crowd is not None
        assert known.crowd.tolist() == [False, True]

    def test_lists_divide_the_pictures(self, tmp_path: Path) -> None:
        self.write(tmp_path, {name: voc_xml(voc_object(name, (1, 1, 4, 4))) for name in "abcd"})
        lists = tmp_path / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("a\nb\n")
        (lists / "val.txt").write_text("c\n")
        (lists / "dog_train.txt").write_text("a 1\nb -1\n")
        data = Voc(path=str(tmp_path))
        assert data.splits() == ("train", "test")
        parts = [data.open(split) for split in ("train", "test")]
        assert [[part.name(i) for i in range(len(part))] for part in parts] == [
            ["a.png", "b.png"],
            ["c.png"],
        ]
        assert parts[0].annotations.names == parts[1].annotations.names == ("a", "b", "c")
        alone = data.pictures()
        assert [alone.name(i) for i in range(len(alone))] == ["a.png", "b.png", "d.png"]

    @pytest.mark.parametrize(
        ("pictures", "xml"), [("images", "annotations"), ("", ""), ("train", "train")]
    )
    def test_other_layouts(self, tmp_path: Path, pictures: str, xml: str) -> None:
        self.write(tmp_path, {"a": voc_xml(voc_object("dog", (1, 1, 4, 4)))}, pictures, xml)
        assert objects(Voc(path=str(tmp_path)).open()).boxes.tolist() == [[0, 0, 4, 4]]

    def test_the_stated_size_says_which_frame(self, tmp_path: Path) -> None:
        self.write(tmp_path, {"a": voc_xml(voc_object("dog", (4, 3, 12, 6)))})
        picture(tmp_path / "JPEGImages" / "a.png", orientation=6)
        source = Voc(path=str(tmp_path)).open()
        assert objects(source).boxes.tolist() == [[4, 3, 8, 12]]
        assert "1 pictures are rotated by EXIF and annotated as stored" in source.notes[0]

    def test_boxes_outside_of_a_picture_whose_size_is_not_stated(self, tmp_path: Path) -> None:
        things = "".join(voc_object("dog", box) for box in ((26, 2, 29, 5), (1, 1, 4, 4)))
        text = voc_xml(things)
        self.write(tmp_path, {"a": re.sub("<size>.*</size>", "", text)})
        source = Voc(path=str(tmp_path)).open()
        assert objects(source).boxes.tolist() == [[0, 0, 4, 4]]
        words = "1 boxes dropped, because they lie outside of their picture, the first in a.png"
        assert words in source.notes

    def test_damaged_files_and_files_without_partner(self, tmp_path: Path) -> None:
        good = voc_xml(voc_object("dog", (1, 1, 4, 4)))
        self.write(tmp_path, {"a": good, "b": good[:-20], "c": good.replace("dog", "")})
        picture(tmp_path / "JPEGImages" / "plain.png")
        (tmp_path / "Annotations" / "gone.xml").write_text(good)
        source = Voc(path=str(tmp_path)).open()
        assert [name for name, _ in source.refused] == ["b.png", "c.png"]
        assert "b.xml is not valid XML" in source.refused[0][1]
        assert "c.xml has an object without a name" in source.refused[1][1]
        assert (
            "1 pictures have no XML file and are not used, the first is plain.png" in source.notes
        )
        assert "1 annotations have no picture, the first is gone" in source.notes

    def test_odd_boxes_are_counted_and_unknown_names_refused(self, tmp_path: Path) -> None:
        things = "".join(
            voc_object("dog", box) for box in ((1, 1, 30, 4), ("x", 1, 2, 3), (9, 1, 4, 4))
        )
        self.write(tmp_path, {"a": voc_xml(things)})
        words = " ".join(Voc(path=str(tmp_path)).open().found().lines())
        assert "1 boxes clipped to their picture" in words
        assert "1 boxes dropped, because a coordinate is not a number" in words
        assert "1 boxes dropped, because they have no width or height" in words
        (tmp_path / "classes.txt").write_text("cat\n")
        with pytest.raises(DataError, match=r"objects are called dog, which .*classes\.txt lacks"):
            Voc(path=str(tmp_path)).open()

    def test_a_bomb_of_entities_is_refused(self, tmp_path: Path) -> None:
        levels = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(12))
        bomb = f'<!DOCTYPE annotation [<!ENTITY e0 "x">{levels}]><annotation>&e12;</annotation>'
        self.write(tmp_path, {"a": bomb, "b": voc_xml(voc_object("dog", (1, 1, 4, 4)))})
        assert "not valid XML" in Voc(path=str(tmp_path)).open().refused[0][1]


def test_a_split_is_drawn_and_masks_are_dropped_where_one_part_has_none(tmp_path: Path) -> None:
    write_coco(tmp_path, coco({f"{n}.png": [Thing((1, 2, 3, 4))] for n in range(10)}))
    labelled = open_labelled(Coco(path=str(tmp_path)), 3, (ObjectLabels,))
    assert labelled.split == "20% of the images for testing, drawn from seed 3"
    assert (len(labelled.train), len(labelled.test)) == (8, 2)
    outlined = coco({"a.png": [Thing((1, 2, 3, 4), polygons=[[1, 2, 4, 2, 4, 6]])]})
    outlined["categories"].insert(0, {"id": 0, "name": "other"})
    write_coco(tmp_path, outlined, "val")
    with pytest.raises(DataError, match=r"has other, of which .* has no images"):
        open_labelled(Coco(path=str(tmp_path)), 3, (ObjectLabels,))
    file = tmp_path / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["categories"].append({"id": 2, "name": "other"})
    file.write_text(json.dumps(content))
    labelled = open_labelled(Coco(path=str(tmp_path)), 3, (ObjectLabels,))
    assert labelled.split.endswith("masks are not used, because the training images have none")
    assert labelled.train.annotations == labelled.test.annotations
    known = labelled.test[0].annotation
    assert isinstance(known, Objects)
    assert known.masks is None
    assert labelled.test.annotations.names[int(known.classes[0])] == "cell"
