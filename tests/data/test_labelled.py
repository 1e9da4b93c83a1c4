"""Labelled images: splits, few labels, and what is wrong with them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.sources import Annotated
from runs import tiny

from unmask.annotations import ClassLabels, ClassMaps, MultiLabels, ObjectLabels
from unmask.contracts import ImageSource
from unmask.data import Digits, Folder
from unmask.data.draws import draw_few, draw_share
from unmask.data.kinds import find_source
from unmask.data.labelled import Labelled, check_kind, open_labelled
from unmask.errors import DataError, SettingsError


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("cats", "dogs", "emus")
    return tiny.write_classes(tmp_path_factory.mktemp("labelled") / "data", names)


def names(source: ImageSource) -> list[str]:
    return [source.name(position) for position in range(len(source))]


def test_the_split_own_folders_are_taken(classes: Path, tmp_path: Path) -> None:
    for name in ("train", "val"):
        shutil.copytree(classes, tmp_path / name)
    labelled = open_labelled(Folder(path=str(tmp_path)), 0)
    assert labelled.split == "the data's own train and test folders"
    assert (len(labelled.train), len(labelled.test)) == (30, 30)


def test_the_split_digits_have_their_own() -> None:
    labelled = open_labelled(Digits(), 0)
    assert (len(labelled.train), len(labelled.test)) == (1442, 355)


def test_the_split_else_a_fifth_of_each_class_from_the_seed(classes: Path) -> None:
    first, second = (open_labelled(Folder(path=str(classes)), seed) for seed in (3, 3))
    other = open_labelled(Folder(path=str(classes)), 4)
    assert first.split == "20% of each class for testing, drawn from seed 3"
    assert names(first.test) == names(second.test) != names(other.test)
    assert first.test.labels().tolist() == [0, 0, 1, 1, 2, 2]
    assert first.train.labels().tolist() == [0] * 8 + [1] * 8 + [2] * 8
    everything = Folder(path=str(classes)).open()
    assert sorted(names(first.train) + names(first.test)) == names(everything)
    assert first.train.fingerprint == second.train.fingerprint
    prints = {part.fingerprint for part in (first.train, first.test, other.train, everything)}
    assert len(prints) == 4


def test_the_split_no_labels(classes: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"labelled images of at least two classes are needed, and .* has no labels.*cats/1\.jpg",
    ):
        open_labelled(Folder(path=str(classes / "cats")), 0)


def test_the_split_other_classes_in_the_two_folders(classes: Path, tmp_path: Path) -> None:
    shutil.copytree(classes, tmp_path / "train")
    shutil.copytree(classes, tmp_path / "test")
    (tmp_path / "test" / "emus").rename(tmp_path / "test" / "gnus")
    with pytest.raises(DataError, match=r"test has gnus, of which .*train has no images"):
        open_labelled(Folder(path=str(tmp_path)), 0)


@pytest.mark.parametrize("absent", [["cats"], ["emus", "cats"]])
def test_the_split_fewer_classes_in_the_test_folder(
    classes: Path, tmp_path: Path, absent: list[str]
) -> None:
    shutil.copytree(classes, tmp_path / "train")
    shutil.copytree(classes, tmp_path / "test")
    for name in absent:
        shutil.rmtree(tmp_path / "test" / name)
    labelled = open_labelled(Folder(path=str(tmp_path)), 0)
    test = labelled.test
    assert test.annotations == labelled.train.annotations
    for row, label in enumerate(test.labels()):
        assert test.annotations.names[label] == test.name(row).partition("/")[0]
        assert test[row].annotation == label
    assert f"no test images of {', '.join(sorted(absent))}, so not in per-class" in labelled.split


def test_the_split_a_flat_test_folder_is_unlabelled(classes: Path, tmp_path: Path) -> None:
    shutil.copytree(classes, tmp_path / "train")
    shutil.copytree(classes / "cats", tmp_path / "test")
    with pytest.raises(DataError, match=r"in .*test are unlabelled, and those in .*train have 3 "):
        open_labelled(Folder(path=str(tmp_path)), 0)


def test_one_class_folder_is_named(classes: Path, tmp_path: Path) -> None:
    shutil.copytree(classes / "cats", tmp_path / "one" / "cats")
    with pytest.raises(DataError, match="has one class, cats; put each class"):
        open_labelled(Folder(path=str(tmp_path / "one")), 0)


def test_images_outside_of_the_class_folders_are_named(classes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(classes, tmp_path / "data")
    first = sorted((data / "cats").iterdir())[0]
    first.rename(data / "loose.png")
    with pytest.raises(DataError, match=r"1 images outside of its class folders \(cats, .*loose"):
        open_labelled(Folder(path=str(data)), 0)


class TestSeveralClasses:
    """Images that belong to any number of classes."""

    kind = MultiLabels(names=("cat", "dog", "owl"))

    def source(self, labels: list[list[int]]) -> Annotated:
        images = [torch.zeros(3, 4, 4, dtype=torch.uint8)] * len(labels)
        numbers = np.array(labels)
        return Annotated(images, self.kind, list(torch.tensor(labels).float()), numbers)

    def opened(self, labels: list[list[int]], seed: int = 0) -> Labelled:
        return open_labelled(Opening(self.source(labels)), seed, (MultiLabels,))

    def test_they_need_a_task_of_their_own(self) -> None:
        with pytest.raises(
            SettingsError, match=r"any number of labels per image, .* use a task for these"
        ):
            open_labelled(Opening(self.source([[1, 0, 1]] * 9)), 0)

    def test_a_fifth_of_each_class_from_the_seed(self) -> None:
        random = np.random.default_rng(0)
        labels = (random.random((400, 3)) < [0.5, 0.1, 0.02]).astype(int)
        found, again = (self.opened(labels.tolist(), 3) for _ in range(2))
        assert found.split == "20% of the images for testing, drawn from seed 3"
        assert found.train.fingerprint == again.train.fingerprint
        assert found.test.fingerprint != self.opened(labels.tolist(), 4).test.fingerprint
        assert len(found.train) + len(found.test) == 400
        assert abs(len(found.test) - 80) <= 3
        share = found.test.labels().sum(0) / labels.sum(0)
        assert np.abs(share - 0.2).max() < 0.08
        assert not set(found.train.rows) & set(found.test.rows)

    def test_rare_classes_are_on_both_sides(self) -> None:
        """A class with two images has one in each part, one with a single image is learned from."""
        labels = [[1, 0, 0]] * 50 + [[1, 1, 0]] * 2 + [[0, 0, 1]]
        for seed in range(5):
            found = self.opened(labels, seed)
            assert found.train.labels().sum(0).tolist()[1:] == [1, 1]
            assert found.test.labels().sum(0).tolist()[1:] == [1, 0]
            assert found.split.endswith("; 1 of 3 classes have no test image (owl)")

    def test_unlabelled_images_are_left_out_and_counted(self) -> None:
        labels = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [-1, -1, -1]] * 10
        found = self.opened(labels)
        assert found.split.endswith("; 10 images without labels are skipped")
        assert len(found.train) + len(found.test) == 30
        assert found.train.labels().min() == found.test.labels().min() == 0

    def test_their_own_folders_are_taken(self) -> None:
        train, test = self.source([[1, 0, 0], [0, 1, 1]]), self.source([[-1] * 3, [1, 0, 0]])
        found = open_labelled(Opening(train, test), 0, (MultiLabels,))
        assert (len(found.train), len(found.test)) == (2, 1)
        assert found.split == (
            "the data's own train and test folders; 2 of 3 classes have no test image (dog, owl); 1 images without "
            "labels are skipped"
        )

    def test_a_number_of_each_class_cannot_be_drawn(self) -> None:
        labels = np.array([[1, 0, 1], [0, 1, 0]])
        assert draw_few(labels, self.kind.names, "all", 0).tolist() == [0, 1]
        with pytest.raises(SettingsError, match="show several classes at once; use a percentage"):
            draw_few(labels, self.kind.names, "1", 0)

    def test_a_percentage_is_of_all_images_nested_and_shows_every_class(self) -> None:
        labels = (np.random.default_rng(0).random((100, 3)) < [0.9, 0.3, 0.0]).astype(np.int64)
        labels[7] = [0, 0, 1]  # the only one
        for seed in range(20):
            one, three, ten = (
                set(draw_few(labels, self.kind.names, amount, seed))
                for amount in ("1%", "3%", "10%")
            )
            assert [len(one), len(three), len(ten)] == [1, 3, 10]
            assert one < three < ten
            assert one == {7}  # the rarest class first
            assert labels[sorted(three)].any(0).all()
        # apart from these few, every image is as likely as another
        drawn = [draw_few(labels, self.kind.names, "50%", seed) for seed in range(200)]
        often = np.bincount(np.concatenate(drawn), minlength=100) / 200
        assert often[np.arange(100) != 7].min() > 0.3
        assert often[np.arange(100) != 7].max() < 0.7

    def test_nothing_to_learn(self) -> None:
        with pytest.raises(DataError, match="no training image belongs to any class"):
            self.opened([[0, 0, 0]] * 10)

    def test_other_kinds_in_the_two_folders(self, classes: Path) -> None:
        folders = Folder(path=str(classes)).open()
        with pytest.raises(DataError, match=r"have class and the test images classes"):
            open_labelled(Opening(folders, self.source([[1, 0, 0]])), 0)


class Opening(Folder):
    """A spec of data that are there."""

    def __init__(self, train: ImageSource, test: ImageSource | None = None) -> None:
        object.__setattr__(self, "parts", {"train": train} | ({"test": test} if test else {}))

    def splits(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def open(self, split: str = "train") -> ImageSource:
        return self.parts[split]


def test_annotations_of_pixels_need_a_task_of_their_own() -> None:
    images = [torch.zeros(3, 4, 4)]
    source = Annotated(images, ClassMaps(names=("a", "b")), [torch.zeros(4, 4, dtype=torch.long)])
    for takes in ((ClassLabels,), (ClassLabels, MultiLabels)):
        with pytest.raises(SettingsError, match=r"comes with class maps, .* use a task for these"):
            open_labelled(Opening(source), 0, takes)


def test_annotations_of_pixels_are_divided_by_image() -> None:
    kind, images = ClassMaps(names=("a", "b")), [torch.zeros(3, 4, 4)] * 10
    maps = [torch.zeros(4, 4, dtype=torch.long)] * 10
    source = Annotated(images, kind, maps, np.full(10, -1))
    found, again = (open_labelled(Opening(source), 3, (ClassMaps,)) for _ in range(2))
    assert (len(found.train), len(found.test)) == (8, 2)
    assert found.split == "20% of the images for testing, drawn from seed 3"
    assert found.train.fingerprint == again.train.fingerprint
    assert not set(found.train.rows) & set(found.test.rows)
    own = open_labelled(Opening(source, source), 3, (ClassMaps,))
    assert (own.train, own.test) == (source, source)


@pytest.mark.parametrize(
    ("sizes", "drawn"), [([10, 5, 4], [2, 1, 1]), ([2, 1, 3], [1, 0, 1]), ([1, 1], [0, 0])]
)
def test_the_split_share_of_each_class(sizes: list[int], drawn: list[int]) -> None:
    """At least one, and never all, of a class with two or more."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    chosen = draw_share(labels, 0.2, 0)
    assert [int(chosen[labels == c].sum()) for c in range(len(sizes))] == drawn


def test_a_part_holds_the_images_it_names(classes: Path) -> None:
    whole, labelled = Folder(path=str(classes)).open(), open_labelled(Folder(path=str(classes)), 0)
    by_name = {whole.name(place): whole[place] for place in range(len(whole))}
    for part in (labelled.train, labelled.test):
        for place in range(len(part)):
            image, label = part[place]
            assert image.equal(by_name[part.name(place)].image)
            assert label == by_name[part.name(place)].annotation == part.labels()[place]


def test_a_class_with_one_image(classes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(classes, tmp_path / "data")
    for file in sorted((data / "dogs").iterdir())[1:]:
        file.unlink()
    labelled = open_labelled(Folder(path=str(data)), 0)
    dogs = labelled.train.annotations.names.index("dogs")
    assert (labelled.train.labels() == dogs).sum() == 1
    assert dogs not in labelled.test.labels()
    assert "no test images of dogs" in labelled.split


def test_few_labels_are_drawn_for_each_class_and_nested() -> None:
    labels = np.repeat([0, 1, 2], [10, 20, 30])
    few, more = (set(draw_few(labels, ("a", "b", "c"), n, 0)) for n in ("2", "5"))
    assert few < more
    assert np.bincount(labels[sorted(more)]).tolist() == [5, 5, 5]
    tenth = draw_few(labels, ("a", "b", "c"), "10%", 0)
    assert np.bincount(labels[tenth]).tolist() == [1, 2, 3]
    assert draw_few(labels, ("a", "b", "c"), "all", 0).tolist() == list(range(60))
    assert set(draw_few(labels, ("a", "b", "c"), "2", 1)) != few


def test_more_labels_than_there_are() -> None:
    labels = np.repeat([0, 1], [10, 3])
    with pytest.raises(
        SettingsError, match="5 labels need 5 training images of each class, but 'dogs' has 3"
    ):
        draw_few(labels, ("cats", "dogs"), "5", 0)


@pytest.mark.parametrize("amount", ["some", "0", "-1", "200%", ""])
def test_amounts_that_are_none(amount: str) -> None:
    with pytest.raises(SettingsError, match="such as 1,5,10,1%,10%,all, got"):
        draw_few(np.array([0, 1]), ("cats", "dogs"), amount, 0)


def test_images_without_a_label_among_labelled_ones(classes: Path) -> None:
    source = Folder(path=str(classes)).open()
    source.image_labels.values[[3, 7]] = -1
    labelled = open_labelled(Opening(source), 0)
    assert len(labelled.train) + len(labelled.test) == 28
    assert labelled.split.endswith("2 images without labels are skipped")


@pytest.mark.parametrize(("empty", "use"), [("train", "training"), ("val", "test")])
def test_a_class_without_images_in_one_of_the_folders(
    classes: Path, tmp_path: Path, empty: str, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train", "val"):
        shutil.copytree(classes, tmp_path / name)
    opened = Folder.open

    def without_dogs(data: Folder, split: str = "train") -> ImageSource:
        """As in tables, which name classes that none of their images has."""
        source = opened(data, split)
        if (split == "train") == (empty == "train"):
            values = source.image_labels.values
            source.image_labels = source.image_labels._replace(
                values=np.where(values == 1, 0, values)
            )
        return source

    monkeypatch.setattr(Folder, "open", without_dogs)
    if use == "test":
        assert "no test images of dogs" in open_labelled(Folder(path=str(tmp_path)), 0).split
        return
    with pytest.raises(DataError, match="have dogs, but no training image has"):
        open_labelled(Folder(path=str(tmp_path)), 0)


@pytest.mark.parametrize(("needs", "words"), [(ClassMaps, "class maps"), (ObjectLabels, "boxes")])
def test_classes_of_whole_images_are_not_for_dense_tasks(
    classes: Path, needs: type, words: str
) -> None:
    source = open_labelled(find_source(str(classes)), 0).train
    with pytest.raises(SettingsError, match=f"this task needs {words}, and .* of whole images"):
        check_kind(source, (needs,))
