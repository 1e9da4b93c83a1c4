"""Objects from COCO's JSON files: what is read, what is counted, and what is refused."""

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from reference.dense import Thing, coco, picture, write_coco
from torch import Tensor

from unmask.annotations import ObjectLabels, Objects
from unmask.data import Coco
from unmask.data.dense_images import DenseImages
from unmask.errors import DataError

coco_mask: Any = pytest.importorskip("pycocotools.mask")
# the oracle has not followed NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SQUARE = [[2, 2, 8, 2, 8, 6, 2, 6]]


def opened(root: Path, split: str = "train") -> DenseImages:
    return Coco(path=str(root)).open(split)


def objects(source: DenseImages, position: int = 0) -> Objects:
    known = source[position].annotation
    assert isinstance(known, Objects)
    return known


def masks_of(known: Objects) -> Tensor:
    assert known.masks is not None
    return known.masks


def test_boxes_classes_and_pictures_without_objects(tmp_path: Path) -> None:
    things = {"b.png": [Thing((1, 2, 3, 4), 1), Thing((0, 0, 20, 10), 0)], "a.png": []}
    write_coco(tmp_path, coco(things, ("dog", "cat"), ids=(90, 7)))
    source = opened(tmp_path)
    assert source.annotations == ObjectLabels(names=("cat", "dog"))
    assert [source.name(row) for row in range(2)] == ["a.png", "b.png"]
    assert source.labels().tolist() == [-1, -1]
    nothing, some = objects(source, 0), objects(source, 1)
    assert nothing.boxes.shape == (0, 4)
    assert some.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 20, 10]]
    assert some.classes.tolist() == [0, 1]
    assert some.masks is None
    assert some.crowd is None
    assert source.present().tolist() == [[False, False], [True, True]]
    assert source.found().lines() == (
        "2 objects in 2 pictures: cat 1, dog 1",
        "1 pictures have no objects, and are learned as such",
    )


def test_every_kind_of_outline_has_the_pixels_of_the_api(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    mask = np.asfortranarray(random.random((10, 20)) < 0.4).astype(np.uint8)
    compressed = coco_mask.encode(mask)
    text = {"size": [10, 20], "counts": compressed["counts"].decode()}
    runs = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=0, append=2)), prepend=0)
    plain = {"size": [10, 20], "counts": runs.tolist()}
    several = [[1.3, 1.1, 7.7, 2, 4, 8.2], [12, 1, 18, 1, 18, 9, 12.5, 7]]
    outlines = [several, text, plain, [0, 0, 3, 0, 3, 3, 0, 3]]
    things = {"a.png": [Thing((1, 1, 5, 5), polygons=one) for one in outlines]}
    write_coco(tmp_path, coco(things))
    read = masks_of(objects(opened(tmp_path)))
    from_polygons = coco_mask.merge(coco_mask.frPyObjects(several, 10, 20))
    expected = [
        coco_mask.decode(from_polygons),
        mask,
        coco_mask.decode(coco_mask.frPyObjects(plain, 10, 20)),
    ]
    for ours, theirs in zip(read, expected, strict=False):
        assert np.array_equal(ours.numpy(), theirs.astype(bool))
    assert read[3].nonzero().tolist() == [[y, x] for y in range(3) for x in range(3)]


@pytest.mark.parametrize(
    ("box", "becomes", "words"),
    [
        ((5, 5, 1, 1), [5, 5, 6, 6], None),
        ((-3, 4, 10, 10), [0, 4, 7, 10], "1 boxes clipped to their picture, the first in a.png"),
        ((25, 4, 10, 3), None, "1 boxes dropped, because they lie outside of their picture"),
        ((5, 5, 0, 4), None, "1 boxes dropped, because they have no width or height"),
        ((5, 5, -2, 4), None, "1 boxes dropped, because they have no width or height"),
        ((math.nan, 1, 2, 3), None, "1 boxes dropped, because a coordinate is not a number"),
        ((math.inf, 1, 2, 3), None, "1 boxes dropped, because a coordinate is not a number"),
        ((1, 2, 3), None, "1 objects dropped, because they have neither a box nor an outline"),
        ("1,2,3,4", None, "1 objects dropped, because they have neither a box nor an outline"),
    ],
)
def test_odd_boxes_are_clipped_or_dropped_and_counted(
    tmp_path: Path, box: Any, becomes: list[float] | None, words: str | None
) -> None:
    write_coco(tmp_path, coco({"a.png": [Thing((0, 0, 2, 2)), Thing(box)]}))
    source = opened(tmp_path)
    boxes = objects(source).boxes
    assert boxes.dtype == torch.float32
    assert boxes.tolist() == [[0, 0, 2, 2], *([becomes] if becomes else [])]
    lines = source.found().lines()
    assert words is None or any(line.startswith(words) for line in lines), lines
    assert words is not None or len(lines) == 1


def test_a_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """What objects have besides boxes and outlines, here nearly all of 20 MB, is not kept."""
    content = coco({"a.png": [Thing((1, 1, 9, 9))] * 2000})
    for entry in content["annotations"]:
        entry["caption"] = "a cell " * 1430
    file = write_coco(tmp_path, content)
    size = file.stat().st_size
    assert size > 20_000_000
    del content, entry
    tracemalloc.start()
    try:
        source = opened(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert source.found().counts == (2000,)
    assert peak < 0.75 * size


def test_crowds_are_marked_and_counted_apart(tmp_path: Path) -> None:
    things = {"a.png": [Thing((0, 0, 2, 2)), Thing((3, 3, 9, 5), crowd=1)]}
    write_coco(tmp_path, coco(things))
    source = opened(tmp_path)
    crowd = objects(source).crowd
    assert crowd is not None
    assert crowd.tolist() == [False, True]
    assert source.found().counts == (1,)
    assert "1 more are crowds or difficult" in source.found().lines()[1]


def test_an_object_without_outline_among_others_counts_as_a_crowd(tmp_path: Path) -> None:
    two_corners = [[1, 1, 5, 5]]
    things = {
        "a.png": [Thing((2, 2, 6, 4), polygons=SQUARE), Thing((9, 1, 4, 4), polygons=two_corners)]
    }
    write_coco(tmp_path, coco(things))
    source = opened(tmp_path)
    known = objects(source)
    assert known.crowd is not None
    assert known.crowd.tolist() == [False, True]
    assert masks_of(known)[1].nonzero().tolist() == [
        [y, x] for y in range(1, 5) for x in range(9, 13)
    ]
    words = " ".join(source.found().lines())
    assert "1 polygons left out, because they lack three corners" in words
    assert "1 objects without an outline count as crowds" in words


def test_outlines_of_a_few_objects_are_not_used(tmp_path: Path) -> None:
    things = {"a.png": [Thing((2, 2, 6, 4), polygons=SQUARE), *[Thing((1, 1, 2, 2))] * 3]}
    write_coco(tmp_path, coco(things))
    source = opened(tmp_path)
    assert source.annotations == ObjectLabels(names=("cell",), masks=False)
    assert "outlines not used, because most objects have none" in " ".join(source.found().lines())


def test_run_lengths_of_another_size_are_not_used(tmp_path: Path) -> None:
    other = {"size": [20, 10], "counts": [0, 200]}
    short = {"size": [10, 20], "counts": [3, 4]}
    things = {
        "a.png": [
            Thing((2, 2, 6, 4), polygons=one) for one in (SQUARE, SQUARE, SQUARE, other, short)
        ]
    }
    write_coco(tmp_path, coco(things))
    source = opened(tmp_path)
    crowd = objects(source).crowd
    assert crowd is not None
    assert crowd.tolist() == [False, False, False, True, True]
    words = " ".join(source.found().lines())
    assert (
        "1 outlines not used, because their picture has another size, the first in a.png" in words
    )
    assert "1 run lengths left out, because they do not fill their picture" in words


def test_a_box_may_be_missing_where_polygons_are_there(tmp_path: Path) -> None:
    content = coco({"a.png": [Thing((0, 0, 1, 1), polygons=SQUARE)]})
    del content["annotations"][0]["bbox"]
    write_coco(tmp_path, content)
    assert objects(opened(tmp_path)).boxes.tolist() == [[2, 2, 8, 6]]


@pytest.mark.parametrize("form", ["list", "text"])
def test_a_box_may_be_missing_where_run_lengths_are_there(tmp_path: Path, form: str) -> None:
    """Also where runs go on over the end of a column, or an outline has no pixel."""
    masks = np.zeros((4, 10, 20), np.uint8)
    masks[0, 3:7, 4:9] = 1
    masks[1, :, 19] = 1
    masks[2, 8:, 2], masks[2, :3, 3] = 1, 1  # one run
    entries = [coco_mask.encode(np.asfortranarray(mask)) for mask in masks]
    texts: list[Any] = [{"size": [10, 20], "counts": one["counts"].decode()} for one in entries]
    if form == "list":
        texts = [{"size": [10, 20], "counts": runs_of(mask)} for mask in masks]
    content = coco({"a.png": [Thing((0, 0, 1, 1), polygons=one) for one in texts]})
    for entry in content["annotations"]:
        del entry["bbox"]
    write_coco(tmp_path, content)
    source = opened(tmp_path)
    known = objects(source)
    expected = [(4, 3, 9, 7), (19, 0, 20, 10), (2, 0, 4, 10)]
    assert [tuple(box) for box in known.boxes.tolist()] == expected
    assert torch.equal(masks_of(known), torch.from_numpy(masks[:3].astype(bool)))
    assert any(
        line.startswith("1 objects dropped, because they have neither")
        for line in source.found().lines()
    )


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths column by column, counted one by one."""
    runs, inside = [0], 0
    for value in mask.T.ravel().tolist():
        if value != inside:
            runs.append(0)
            inside = value
        runs[-1] += 1
    return runs


def test_boxes_outside_of_a_picture_whose_size_is_not_stated_are_dropped_and_counted(
    tmp_path: Path,
) -> None:
    things = {
        "a.png": [
            Thing((25, 1, 4, 4), polygons=[[25, 1, 29, 1, 29, 5]]),
            Thing((2, 2, 6, 4), crowd=1, polygons=SQUARE),
            Thing((-9, 2, 4, 4), polygons=[[-9, 2, -5, 2, -5, 6]]),
            Thing((15, 2, 9, 4), polygons=[[15, 2, 24, 2, 24, 6]]),
        ]
    }
    content = coco(things)
    for image in content["images"]:
        del image["width"], image["height"]
    write_coco(tmp_path, content)
    source = opened(tmp_path)
    known = objects(source)
    assert known.boxes.tolist() == [[2, 2, 8, 6], [15, 2, 20, 6]]
    assert known.classes.tolist() == [0, 0]
    assert known.crowd is not None
    assert known.crowd.tolist() == [True, False]
    assert bool(masks_of(known)[0, 2:6, 2:8].all())
    assert len(masks_of(known)) == 2
    said = [*source.notes, *source.found().lines()]
    words = "boxes dropped, because they lie outside of their picture, the first in a.png"
    assert sum(int(line.split()[0]) for line in said if line.endswith(words)) == 2


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """JSON may escape NUL, and halves of surrogate pairs."""
    for place, name, words in (
        ("images__0__file_name", "a\0.png", r"the file_name of image 1 is 'a\\x00\.png', which is"),
        ("images__0__file_name", "\ud800.png", r"the file_name of image 1 is '\\ud800\.png'"),
        ("categories__0__name", "\udfff", r"the name of category 1 is '\\udfff'"),
    ):
        file = write_coco(tmp_path, edited())
        file.write_text(json.dumps(edited(**{place: name})))
        with pytest.raises(DataError, match=rf"instances_train\.json: {words}"):
            opened(tmp_path)


def test_odd_names_and_numbers_do_not_stop_the_others(tmp_path: Path) -> None:
    """A name longer than any file's, and a corner beyond all floats."""
    things = {"a.png": [Thing((0, 0, 2, 2), polygons=[[10**400] * 6])]}
    content = coco(things)
    file = write_coco(tmp_path, content)
    content["images"].append({"id": 2, "file_name": "x" * 300})
    file.write_text(json.dumps(content))
    source = opened(tmp_path)
    assert objects(source).boxes.tolist() == [[0, 0, 2, 2]]
    assert source.refused == [("x" * 300, "cannot be read (File name too long)")]


def edited(**changes: Any) -> dict[str, Any]:
    content = coco({"a.png": [Thing((0, 0, 2, 2))], "b.png": [Thing((1, 1, 2, 2))]})
    for place, value in changes.items():
        kind, number, key = place.split("__")
        content[kind][int(number)][key] = value
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (edited(images__1__id=1), "image id 1 is that of a.png and of b.png"),
        (
            edited(annotations__0__category_id=9),
            "have the category 9, which categories lacks; add it",
        ),
        (edited(images__0__file_name=None), "image 1 has no file_name; add it"),
        (edited(images__0__id=None), "an entry of images has no id"),
        (edited(annotations__1__image_id=[1]), "an entry of annotations has no image_id"),
        (edited() | {"images": []}, "lists no images, so it is not in COCO's format"),
        (
            edited() | {"categories": [{"id": 1, "name": "x"}, {"id": 1, "name": "y"}]},
            "two names, x and y",
        ),
        (
            edited() | {"categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "x"}]},
            "two categories are called x",
        ),
        (
            edited() | {"annotations": [{"image_id": 1, "category_id": 1}]},
            "has no boxes, only other annotations",
        ),
        (edited() | {"annotations": ["x"]}, "an entry of annotations has no image_id: x"),
    ],
)
def test_files_that_contradict_themselves_are_refused(
    tmp_path: Path, content: dict[str, Any], words: str
) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    picture(tmp_path / "images" / "train" / "a.png")
    picture(tmp_path / "images" / "train" / "b.png")
    with pytest.raises(DataError, match=r"instances_train\.json") as raised:
        opened(tmp_path)
    assert words in str(raised.value)


def test_objects_of_pictures_that_are_not_listed_are_dropped(tmp_path: Path) -> None:
    write_coco(tmp_path, edited(annotations__1__image_id=77))
    source = opened(tmp_path)
    assert source.found().counts == (1,)
    assert "1 objects dropped, because their picture is not listed" in " ".join(
        source.found().lines()
    )


def test_a_picture_listed_twice_has_the_objects_of_both(tmp_path: Path) -> None:
    write_coco(tmp_path, edited(images__1__file_name="a.png"))
    source = opened(tmp_path)
    assert len(source) == 1
    assert objects(source).boxes.tolist() == [[0, 0, 2, 2], [1, 1, 3, 3]]


def test_missing_pictures_are_named_and_others_are_used(tmp_path: Path) -> None:
    file = write_coco(tmp_path, edited())
    (tmp_path / "images" / "train" / "a.png").unlink()
    source = opened(tmp_path)
    assert source.refused == [("a.png", "cannot be read (No such file or directory)")]
    assert objects(source).boxes.tolist() == [[1, 1, 3, 3]]
    (tmp_path / "images" / "train" / "b.png").unlink()
    with pytest.raises(
        DataError, match=r"none of the pictures .* such as a\.png; put them into"
    ) as raised:
        opened(tmp_path)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_rotated_pictures_keep_their_objects_in_either_frame(
    tmp_path: Path, orientation: int
) -> None:
    """A painted rectangle is where its box and its mask are, whichever frame the file states."""
    stored = np.zeros((10, 20), np.uint8)
    stored[2:6, 3:12] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder = tmp_path / "images" / "train"
    folder.mkdir(parents=True)
    Image.fromarray(stored).save(folder / "a.png", exif=exif)
    is_lying = orientation >= 5
    square = [[3, 2, 12, 2, 12, 6, 3, 6]]
    content = coco({"a.png": [Thing((3, 2, 9, 4), polygons=square)]})
    if (
        not is_lying
    ):  # width and height do not tell, so the boxes are those of the displayed picture
        shown = np.array(ImageOps.exif_transpose(Image.open(folder / "a.png")))
        rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
        left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        corners = [left, top, right, top, right, bottom, left, bottom]
        box = tuple(map(float, (left, top, right - left, bottom - top)))
        content = coco({"a.png": [Thing(box, polygons=[list(map(float, corners))])]})
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    source = opened(tmp_path)
    image, known = source[0].image[0] > 127, objects(source)
    assert torch.equal(masks_of(known)[0], image)
    places = image.nonzero()
    low, high = places.min(0).values, places.max(0).values + 1
    assert known.boxes.tolist() == [[float(low[1]), float(low[0]), float(high[1]), float(high[0])]]
    how = "annotated as stored" if is_lying else "annotated as displayed"
    assert any(how in note for note in source.notes), source.notes


def test_boxes_of_the_displayed_picture_stay_as_they_are(tmp_path: Path) -> None:
    content = coco({"a.png": [Thing((1, 2, 3, 4))]}, width=10, height=20)
    write_coco(tmp_path, content, orientation=6)
    source = opened(tmp_path)
    assert source[0].image.shape == (3, 20, 10)
    assert objects(source).boxes.tolist() == [[1, 2, 4, 6]]
    assert "1 pictures are rotated by EXIF and annotated as displayed" in source.notes


def test_a_picture_of_another_size_than_stated_is_set_aside(tmp_path: Path) -> None:
    write_coco(tmp_path, coco({"a.png": [Thing((1, 2, 3, 4))], "b.png": []}))
    picture(tmp_path / "images" / "train" / "b.png", 40, 20)
    source = opened(tmp_path)
    words = r"the picture has 40 x 20 pixels, and instances_train\.json says 20 x 10; give both the same size"
    with pytest.raises(DataError, match=words):
        source[1]
    assert any("1 pictures cannot be used, the first is b.png" in note for note in source.notes)
    picture(tmp_path / "images" / "train" / "a.png", 30, 10)
    with pytest.raises(
        DataError, match=r"no annotation in .* fits its picture: a\.png: the picture has 30"
    ):
        opened(tmp_path)


@pytest.mark.parametrize(
    "place",
    [
        "images/train/a.png",
        "train/a.png",
        "images/a.png",
        "annotations/a.png",
        "a.png",
        "train/images/a.png",
        "annotations/images/a.png",
    ],
)
def test_pictures_are_found_near_the_file(tmp_path: Path, place: str) -> None:
    picture(tmp_path / place)
    file = tmp_path / "annotations" / "instances_train.json"
    file.parent.mkdir(exist_ok=True)
    for name in ("a.png", "C:\\data\\a.png", "elsewhere/a.png", "./a.png"):
        file.write_text(json.dumps(coco({name: [Thing((1, 2, 3, 4))]})))
        assert objects(opened(file)).boxes.tolist() == [[1, 2, 4, 6]]


def test_splits_and_further_files(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_coco(tmp_path, coco({f"{split}.png": [Thing((1, 2, 3, 4))]}), split)
    folder = tmp_path / "annotations"
    (folder / "captions_train.json").write_text('{"info": {}, "images": [], "annotations": []}')
    (folder / "captions_val.json").write_text('{"info": {}, "images": [], "annotations": []}')
    (folder / "sizes.json").write_text('{"a": 1}')
    data = Coco(path=str(tmp_path))
    assert data.splits() == ("train", "test")
    assert data.open("test").name(0) == "val.png"
    assert any(
        n.startswith("not read: annotations/captions_train.json, annot") for n in data.open().notes
    )
    write_coco(tmp_path, coco({"test.png": []}), "test")
    assert data.open("test").name(0) == "test.png"
    assert "instances_val.json not used for test; instances_test.json is" in data.open("test").notes


def test_roboflow_keeps_a_file_in_each_split(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        picture(tmp_path / split / "a.png")
        content = coco({"a.png": [Thing((1, 2, 3, 4))]})
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
    data = Coco(path=str(tmp_path))
    assert data.splits() == ("train", "test")
    assert data.open("test").where.endswith("valid")


def test_the_pictures_alone_are_all_but_those_of_the_other_split(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for name in ("a.png", "b.png", "new.png"):
        picture(folder / name)
    (tmp_path / "annotations").mkdir()
    for split, name in (("train", "a.png"), ("val", "b.png")):
        file = tmp_path / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(coco({name: [Thing((1, 2, 3, 4))]})))
    alone = Coco(path=str(tmp_path)).pictures()
    assert [alone.name(row) for row in range(len(alone))] == ["a.png", "new.png"]
    assert alone.annotations.names == ()
    (folder / "b.png").unlink()
    assert len(Coco(path=str(tmp_path)).pictures()) == 2
    assert alone[0].annotation is None


def test_four_bands_are_read_with_their_boxes(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    file = write_coco(tmp_path, coco({"a.tif": [Thing((1, 2, 3, 4))]}))
    pixels = np.random.default_rng(0).integers(0, 4000, (10, 20, 4)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "images" / "train" / "a.tif", pixels)
    source = opened(file)
    assert source.channels == 4
    assert source.values == "float32"
    assert objects(source).boxes.tolist() == [[1, 2, 4, 6]]
    assert source[0].image.shape == (4, 10, 20)


def test_equal_data_have_equal_fingerprints_and_other_boxes_another(tmp_path: Path) -> None:
    marks: list[str] = []
    for number, box in enumerate([(1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 5)]):
        write_coco(tmp_path / str(number), coco({"a.png": [Thing(box)]}))
        marks.append(opened(tmp_path / str(number)).fingerprint)
    assert marks[0] == marks[1] != marks[2]
