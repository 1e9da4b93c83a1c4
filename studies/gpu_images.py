"""What `gpu.py` carries to a machine without network: images in one file, and packages that it may lack."""

import hashlib
import shutil
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.annotations import ClassLabels
from unmask.contracts import ImageSource
from unmask.data.decode import decode
from unmask.data.image_files import EncodedImages
from unmask.data.in_memory import MemoryImages
from unmask.data.kinds import find_source
from unmask.data.labelled import Labelled, open_labelled
from unmask.data.labels import Labels

CARRIED = (
    "attrs", "cattrs", "jaxtyping", "platformdirs", "safetensors", "typing_extensions", "wadler_lindig",
)  # fmt: skip
"""Distributions that a run needs and a bare machine may lack. They are Python alone, or compiled for its stable interface."""

IMAGES = "images.npz"
"""Bytes of the image files of each split, one after another, with their lengths, labels and the names of the classes."""


def prepare(folder: Path, data: Path) -> None:
    """Write the packages, and the images of DATA with classes and with test images of its own, into a folder to carry."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CARRIED:
        copied(name, folder / "packages")
    if not (folder / "packages" / "torchcodec").is_dir():
        print(
            f"warning: {folder / 'packages'} holds no torchcodec, without which nothing is decoded on the GPU; put its wheel there "
            "with the line of pip that `python studies/gpu.py --help` shows"
        )
    labelled = open_labelled(find_source(str(data)), 0)
    arrays = {"names": np.array(labelled.train.annotations.names)}
    for split in ("train", "test"):
        arrays |= {
            f"{split}_{what}": each for what, each in joined(getattr(labelled, split)).items()
        }
    np.savez_compressed(folder / IMAGES, **arrays)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(
        f"{folder}: {size / 2**20:.1f} MiB, {len(labelled.train):,} and {len(labelled.test):,} images"
    )


def copied(name: str, folder: Path) -> None:
    """Copy an installed distribution.

    Raises:
        SystemExit: if it is compiled for this version of Python alone.
    """
    for file in distribution(name).files or ():
        if file.parts[0] == ".." or "__pycache__" in file.parts:
            continue
        if file.suffix == ".so" and ".abi3." not in file.name:
            raise SystemExit(
                f"{name} is compiled for this Python; carry its wheel for the other one"
            )
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(file.locate()), target)


def joined(source: ImageSource) -> dict[str, NDArray[np.generic]]:
    """The files of a source as arrays."""
    if not isinstance(source, EncodedImages):
        raise SystemExit(
            f"{source.where} has no test images of its own, or is not made of image files"
        )
    files = [source.encoded(position) for position in range(len(source))]
    return {
        "bytes": np.frombuffer(b"".join(files), np.uint8),
        "lengths": np.array([len(file) for file in files]),
        "labels": source.labels(),
    }


@cache
def images_in(data: Path, most: int | None) -> Labelled:
    """Images of a folder made by `prepare`, decoded; the first `most` of each split, or all.

    Raises:
        FileNotFoundError: if the folder holds no such images.
    """
    with np.load(data / IMAGES) as arrays:
        kind = ClassLabels(names=tuple(arrays["names"].tolist()))
        return Labelled(
            *(split_of(split, kind, arrays, most) for split in ("train", "test")), "its own"
        )


def split_of(
    split: str, kind: ClassLabels, arrays: dict[str, NDArray[np.generic]], most: int | None
) -> MemoryImages:
    """The images of a split."""
    content, lengths = arrays[f"{split}_bytes"].tobytes(), arrays[f"{split}_lengths"][:most]
    ends = np.cumsum(lengths).tolist()
    pixels = [
        decode(content[end - length : end], 3, None)
        for end, length in zip(ends, lengths.tolist(), strict=True)
    ]
    return MemoryImages(
        f"{IMAGES}, {split}",
        hashlib.sha256(content[: ends[-1]]).hexdigest()[:16],
        [f"{split} {number}" for number in range(len(pixels))],
        torch.stack(pixels),
        Labels(kind, arrays[f"{split}_labels"][:most]),
    )
