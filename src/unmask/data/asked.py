"""What DATA may be, and what to say of a word that is something else."""

import difflib
import re
from pathlib import Path

from unmask.data.coco_files import is_coco
from unmask.data.splits import any_files
from unmask.errors import DataError

DATA_IS = (
    "DATA is a folder of images, tar shards, Parquet, multi-band images (TIFF, .npy), images with class maps or boxes (COCO, "
    "YOLO, Pascal VOC), or digits"
)

_URL = re.compile(r"(https?|s3|gs|az|abfss?|hf|ftp|file)://", re.IGNORECASE)
_PACKED = (".zip", ".7z", ".rar", ".bz2", ".xz", ".zst")
_TABLES = (".csv", ".tsv", ".jsonl", ".json", ".txt", ".xlsx")


def check_readable(name: str) -> None:
    """Refuse what is neither images nor an image, as it was typed, with what to do instead.

    Raises:
        DataError: for an address, an archive or a table of labels.
    """
    if _URL.match(name):
        raise DataError(f"{name} is an address, and images are read from disk; download them first")
    path = Path(name).expanduser()
    ending = path.suffix.lower()
    if path.is_file() and ending in _PACKED:
        raise DataError(f"{name} is an archive; unpack it and give the folder. {DATA_IS}")
    if path.is_file() and ending in _TABLES and not (ending == ".json" and is_coco(path)):
        raise DataError(
            f"{name} is a table; give the folder of its images as DATA, and the table with --labels-file"
        )


def check_data(data: str) -> None:
    """Refuse a word that cannot be DATA, as it was typed, with what to do instead.

    Raises:
        DataError: as `check_readable`, and for a path that does not exist.
    """
    check_readable(data)
    path = Path(data).expanduser()
    if any_files(str(path)):
        return
    raise DataError(f"{data} does not exist{_nearest(path)}; {DATA_IS}")


def _nearest(path: Path) -> str:
    """A question with the existing name that is most like a missing one; else the part of the path that exists."""
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    missing = path.absolute().relative_to(parent).parts[0]
    try:
        names = sorted(entry.name for entry in parent.iterdir())
    except OSError:
        return ""
    close = difflib.get_close_matches(missing, names, n=1)
    if close:
        return f" (did you mean {parent / close[0]}?)"
    return "" if parent == path.absolute().parent else f" ({parent} exists, but has no {missing})"
