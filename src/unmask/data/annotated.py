"""Sources of dense annotations among others: recognised in folders, with their pictures alone, and what they hold."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from unmask.asked import is_coco
from unmask.contracts import ImageSource
from unmask.data import AnySource
from unmask.data.coco_files import coco_files
from unmask.data.dense_images import DenseImages, Known, WithPictures
from unmask.data.found import Found
from unmask.data.labelled import Subset
from unmask.data.map_layouts import map_layout
from unmask.data.split_folders import split_folder
from unmask.data.voc import voc_parts
from unmask.data.walk import files_in, folders_in, is_image
from unmask.data.yolo_files import is_yolo, settings_file
from unmask.errors import SettingsError
from unmask.spec import kind_of

_CLASSES = 2  # least number of folders that are classes


def dense_kind(path: Path) -> str | None:
    """The kind of the dense annotations at a path: coco, yolo, voc or maps; None if there are none.

    Data with folders of classes in their splits are for classification, also if they come with COCO's boxes.
    """
    if path.is_file():
        if path.suffix.lower() == ".json":
            return "coco" if is_coco(path) else None
        return "yolo" if settings_file(path) else None
    if not path.is_dir():
        return None
    if coco_files(path).parts and not _has_class_folders(path):
        return "coco"
    if is_yolo(path):
        return "yolo"
    if voc_parts(path):
        return "voc"
    return "maps" if map_layout(path) else None


def kind_for(task: str, path: Path) -> str | None:
    """The kind of data at a path for a task, or None to let the path decide: classify, segment or detect.

    Raises:
        SettingsError: for another task, or if the data do not come with what it needs.
    """
    if task == "classify":
        return None if dense_kind(path) is None else "folder"
    found = dense_kind(path) if path.is_file() else None
    if task == "segment":
        kinds = {"maps": path.is_dir() and map_layout(path)}
    elif task == "detect":
        kinds = {
            "coco": found == "coco" or (path.is_dir() and coco_files(path).parts),
            "yolo": found == "yolo" or (path.is_dir() and is_yolo(path)),
            "voc": path.is_dir() and voc_parts(path),
        }
    else:
        raise SettingsError(f"--task must be classify, segment or detect, got {task!r}")
    for kind, is_there in kinds.items():
        if is_there:
            return kind
    needs = (
        "class maps beside the pictures" if task == "segment" else "COCO, YOLO or Pascal VOC files"
    )
    raise SettingsError(f"--task {task} needs {needs}, and {path} has none; see docs/dense.md")


def _has_class_folders(root: Path) -> bool:
    """Whether the training split is divided into folders of pictures, as for classification."""
    train = split_folder(root, "train")
    if not train:
        return False
    folders = folders_in(root / train)
    return len(folders) >= _CLASSES and all(
        any(map(is_image, files_in(root / train / name))) for name in folders
    )


def pictures_alone(data: AnySource, split: str = "train") -> ImageSource:
    """The images of a split for what learns from pixels alone: of dense annotations, all pictures and no annotations.

    Raises:
        DataError: see `open` of the source.
    """
    if not isinstance(data, WithPictures):
        return data.open(split)
    pictures = data.pictures(split)
    kind = kind_of(AnySource, data)
    pictures.more_notes += (f"pictures alone are used; annotations ({kind}) are not read",)
    return pictures


def undescribed(source: ImageSource) -> ImageSource:
    """The same images without their dense annotations, for what learns from pixels alone."""
    if isinstance(source, Subset):
        return Subset(undescribed(source.whole), source.rows)
    return source.pictures if isinstance(source, DenseImages) else source


def found_in(source: ImageSource) -> Found | None:
    """What the dense annotations of a source hold; None if it has none."""
    known, rows = _known_of(source)
    return None if known is None else known.found(rows)


def present_in(source: ImageSource) -> Bool[NDArray[np.bool_], "n classes"] | None:
    """Which classes each image of dense annotations shows; None if there are none. Class maps are read for it."""
    known, rows = _known_of(source)
    return None if known is None else known.present(rows)


def _known_of(source: ImageSource) -> tuple[Known | None, NDArray[np.int64]]:
    """The dense annotations of a source, or of the source that it is a part of, and the rows of its images there."""
    if isinstance(source, Subset):
        known, rows = _known_of(source.whole)
        return known, rows[source.rows]
    if isinstance(source, DenseImages):
        return source.known, source.rows
    return None, np.arange(len(source))
