"""Folders of images: what is found, what is passed over, and what is said."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unmask.contracts import Size
from unmask.data import Folder
from unmask.data.image_files import EncodedImages
from unmask.errors import DataError

Paint = Callable[..., None]


@pytest.fixture
def paint(tmp_path: Path) -> Paint:
    """Write small images of one colour each."""

    def write(*names: str, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> None:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, size, (10, 20, 30) if mode == "RGB" else 40).save(path)

    return write


def opened(path: Path, split: str = "train") -> EncodedImages:
    return Folder(path=str(path)).open(split)


def names(source: EncodedImages) -> list[str]:
    return [source.name(position) for position in range(len(source))]


def test_flat(tmp_path: Path, paint: Paint) -> None:
    paint("b.png", "a.jpg", "c.PNG", "d.Jpeg")
    source = opened(tmp_path)
    assert names(source) == ["a.jpg", "b.png", "c.PNG", "d.Jpeg"]
    assert source.annotations.names == ()
    assert source.labels().tolist() == [-1] * 4
    assert source.typical_size() == Size(4, 6)
    assert source.channels == 3
    image, annotation = source[1]
    assert annotation is None
    expected = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None].expand(3, 4, 6)
    assert torch.equal(image, expected)


def test_class_folders(tmp_path: Path, paint: Paint) -> None:
    paint("dogs/2.png", "cats/1.png", "dogs/1.png", "ants/deep/er/1.png")
    source = opened(tmp_path)
    assert source.annotations.names == ("ants", "cats", "dogs")
    assert names(source) == ["ants/deep/er/1.png", "cats/1.png", "dogs/1.png", "dogs/2.png"]
    assert source.labels().tolist() == [0, 1, 2, 2]
    assert source[3].annotation == 2


def test_a_loose_image_means_no_classes(tmp_path: Path, paint: Paint) -> None:
    paint("cats/1.png", "dogs/1.png", "loose.png")
    assert opened(tmp_path).annotations.names == ()


def test_order_is_that_of_the_names_whatever_the_disk_says(
    tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint("b/2.png", "a/1.png", "a/3.png", "b/1.png")
    before = names(opened(tmp_path))
    walk = os.walk

    def backwards(*arguments: object, **options: object) -> object:
        for folder, inner, files in walk(*arguments, **options):  # type: ignore[call-overload]
            inner.reverse()
            yield folder, inner, files[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    assert names(opened(tmp_path)) == before == sorted(before)


@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("train", "val"), ("training", "validation")]
)
def test_splits(tmp_path: Path, paint: Paint, train: str, test: str) -> None:
    paint(f"{train}/cats/1.png", f"{train}/dogs/1.png", f"{test}/cats/2.png", f"{test}/dogs/2.png")
    folder = Folder(path=str(tmp_path))
    assert folder.splits() == ("train", "test")
    assert names(folder.open("train")) == ["cats/1.png", "dogs/1.png"]
    assert names(folder.open("test")) == ["cats/2.png", "dogs/2.png"]
    assert folder.open().annotations.names == ("cats", "dogs")


def test_a_test_folder_comes_before_a_val_folder(tmp_path: Path, paint: Paint) -> None:
    paint("train/1.png", "val/2.png", "test/3.png")
    assert names(opened(tmp_path, "test")) == ["3.png"]


def test_without_a_train_folder_everything_is_train(tmp_path: Path, paint: Paint) -> None:
    paint("test/1.png", "other/2.png")
    folder = Folder(path=str(tmp_path))
    assert folder.splits() == ("train",)
    assert names(folder.open()) == ["other/2.png", "test/1.png"]


def test_hidden_and_system_files_are_passed_over(tmp_path: Path, paint: Paint) -> None:
    paint("a.png", ".hidden.png", ".cache/b.png", "__MACOSX_/c.png", "._a.png")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "desktop.ini").write_text("x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    source = opened(tmp_path)
    assert names(source) == ["__MACOSX_/c.png", "a.png"]
    assert not source.others
    assert not source.refused


def test_other_files_are_counted(tmp_path: Path, paint: Paint) -> None:
    paint("a.png")
    for name in ("notes.txt", "more.TXT", "archive.tar", "README"):
        (tmp_path / name).write_text("x")
    assert opened(tmp_path).others == {".txt": 2, ".tar": 1, "(no ending)": 1}


@pytest.mark.parametrize(
    "name",
    [
        "ünïcödé 你好.png",
        "two  spaces .png",
        "a" * 240 + ".png",
        "quote\"s'.png",
        "new\nline.png",
        "#%;&.png",
    ],
)
def test_odd_names(tmp_path: Path, paint: Paint, name: str) -> None:
    paint(name, f"{'x' * 200}/{'y' * 200}/{name}")
    source = opened(tmp_path)
    assert sorted(names(source)) == sorted([name, f"{'x' * 200}/{'y' * 200}/{name}"])
    assert source[0].image.shape == (3, 4, 6)


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_names_that_are_no_text(tmp_path: Path, paint: Paint) -> None:
    paint("a.png")
    odd = os.fsencode(tmp_path) + b"/bad\xff.png"
    with open(odd, "wb") as file:  # noqa: PTH123 - a path of bytes
        file.write((tmp_path / "a.png").read_bytes())
    source = opened(tmp_path)
    assert len(source) == 2
    assert source[1].image.shape == (3, 4, 6)


def test_links_in_a_circle(tmp_path: Path, paint: Paint) -> None:
    paint("a/1.png")
    (tmp_path / "a" / "back").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert names(opened(tmp_path)) == ["a/1.png"]


def test_links_to_folders_elsewhere_are_followed(
    tmp_path: Path, paint: Paint, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Image.new("RGB", (3, 3)).save(elsewhere / "2.png")
    paint("a/1.png")
    (tmp_path / "b").symlink_to(elsewhere, target_is_directory=True)
    source = opened(tmp_path)
    assert names(source) == ["a/1.png", "b/2.png"]
    assert source.annotations.names == ("a", "b")


def test_broken_links_are_refused_by_name(tmp_path: Path, paint: Paint) -> None:
    paint("a.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    source = opened(tmp_path)
    assert names(source) == ["a.png"]
    ((name, reason),) = source.refused
    assert name == "gone.png"
    assert "No such file" in reason


def test_files_that_are_no_images_are_refused_with_reasons(tmp_path: Path, paint: Paint) -> None:
    paint("good.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "letter.jpg").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    source = opened(tmp_path)
    assert names(source) == ["good.png"]
    assert sorted(source.refused) == [
        ("empty.png", "empty (0 bytes)"),
        ("letter.jpg", "not an image of a known format"),
    ]


def test_a_file_without_permission_is_refused(
    tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the refusal is staged."""
    paint("a.png", "locked.png")
    real = Image.open

    def refuse(path: object, **more: Any) -> Image.Image:
        if str(path).endswith("locked.png"):
            raise PermissionError(13, "Permission denied")
        return real(path, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", refuse)
    source = opened(tmp_path)
    assert source.refused == [("locked.png", "cannot be read (permission denied)")]


def test_a_file_that_vanishes_is_an_error_of_the_data(tmp_path: Path, paint: Paint) -> None:
    paint("a.png", "b.png")
    source = opened(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"cannot be read \(No such file or directory\)"):
        source[0]


def test_a_folder_without_permission_is_named(
    tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint("a.png", "locked/b.png")
    scan = os.scandir

    def refuse(path: object) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    source = opened(tmp_path)
    assert names(source) == ["a.png"]
    ((name, reason),) = source.refused
    assert name.endswith("locked")
    assert "Permission denied" in reason


def test_grey_alone_is_one_channel(tmp_path: Path, paint: Paint) -> None:
    paint("a.png", "b.jpg", mode="L")
    source = opened(tmp_path)
    assert source.channels == 1
    assert source[0].image.shape == (1, 4, 6)
    assert (source[0].image == 40).all()


def test_grey_among_colour_is_three_channels(tmp_path: Path, paint: Paint) -> None:
    paint("a.png", mode="L")
    paint("b.png")
    source = opened(tmp_path)
    assert source.channels == 3
    assert source[0].image.tolist() == [[[40] * 6] * 4] * 3


def test_typical_size_is_the_median(tmp_path: Path, paint: Paint) -> None:
    paint("a.png", size=(10, 30))
    paint("b.png", size=(20, 40))
    paint("c.png", size=(900, 50))
    source = opened(tmp_path)
    assert source.typical_size() == Size(40, 20)
    assert source.smallest_side == 10


def test_fingerprint_tells_names_and_sizes(tmp_path: Path, paint: Paint) -> None:
    paint("a.png", "b.png")
    before = opened(tmp_path).fingerprint
    assert opened(tmp_path).fingerprint == before
    (tmp_path / "a.png").rename(tmp_path / "aa.png")
    renamed = opened(tmp_path).fingerprint
    paint("aa.png", size=(60, 40))
    assert len({before, renamed, opened(tmp_path).fingerprint}) == 3


def test_pixels_are_not_read_when_opening(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = tmp_path / "cut.png"
    Image.fromarray(noise).save(whole)
    whole.write_bytes(whole.read_bytes()[:4000])
    source = opened(tmp_path)
    assert len(source) == 1
    with pytest.raises(DataError, match="damaged or truncated"):
        source[0]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="nowhere does not exist; DATA is a folder of images, tar shards"
    ):
        opened(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder(tmp_path: Path, paint: Paint) -> None:
    paint("a.png")
    with pytest.raises(DataError, match=r"a\.png is a file; DATA is a folder of images"):
        opened(tmp_path / "a.png")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no image found in .*\(it is empty\); images end in .*\.png"
    ):
        opened(tmp_path)


def test_folder_without_images(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("x")
    (tmp_path / "data.tar").write_text("x")
    with pytest.raises(DataError, match=r"no image found.*it contains 3 \.txt, 1 \.tar"):
        opened(tmp_path)


def test_folder_of_broken_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no")
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"none of the 2 image files .* can be read; the first is a\.png: not an"
    ):
        opened(tmp_path)
