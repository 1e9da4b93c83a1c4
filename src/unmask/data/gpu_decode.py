"""The feed that decodes and crops JPEGs on the GPU; loading processes only read the files.

For machines with few CPU cores per GPU. The crops are the same as in the other feeds; grey levels differ slightly from
those of a CPU because of nvJPEG's colour conversion and rounding. Files that are not plain, upright JPEGs are decoded
and cropped in the loading processes.
"""

import io
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from unmask.annotations import Annotations, whole_image_only
from unmask.contracts import Batch, ImageSource, Size
from unmask.data.cpu_feed import CpuFeed
from unmask.data.decode import decode_jpegs, upright_format
from unmask.data.gpu_crops import cut, cut_box
from unmask.data.image_files import EncodedImages
from unmask.data.labels import Labels
from unmask.data.loader import CropSize, Failures, Wanted, read_or_replace
from unmask.data.multi_views import AnyPretrainingViews
from unmask.data.plain_headers import plain_file
from unmask.data.views import AnyViews, RandomCrop
from unmask.errors import ResourceError, SettingsError, first_line

_REMEDY = "remove --decode gpu"
_END = b"\xff\xd9"  # the JPEG marker for the end of the image
_EXIF = b"Exif\0\0"
_PIXELS = 2**25  # of all images that are decoded at once: 100 MB of RGB


def check_decoding(
    source: ImageSource, views: AnyPretrainingViews | AnyViews, device: torch.device
) -> None:
    """Check that a GPU can decode and crop these images.

    Raises:
        SettingsError: if these images or views are not supported.
        ResourceError: if there is no GPU, or torchcodec cannot use it.
    """
    if not isinstance(views, RandomCrop):
        raise SettingsError(
            f"--decode gpu supports only random crops, but this recipe's views are {type(views).__name__}; {_REMEDY}"
        )
    if not isinstance(source, EncodedImages):
        raise SettingsError(
            f"--decode gpu needs a whole set of image files (a folder, shards or Parquet); {source.where} is not, "
            f"or some of its images are held out; {_REMEDY}"
        )
    whole_image_only(source.annotations, "--decode gpu", _REMEDY)
    if device.type != "cuda":
        raise ResourceError(f"--decode gpu needs a CUDA GPU, but the device is {device}; {_REMEDY}")
    sample = io.BytesIO()
    Image.new("RGB", (16, 16)).save(sample, "JPEG")
    try:
        decode_jpegs([_as_row(sample.getvalue())], 3, device)
    except (ImportError, OSError, RuntimeError) as error:
        reason = first_line(error)
        raise ResourceError(
            f"torchcodec cannot decode JPEGs on {device} ({reason}); {_REMEDY}"
        ) from None


class Files(NamedTuple):
    """The files of a batch."""

    data: UInt8[Tensor, "bytes"]
    """The bytes of all images, concatenated."""
    lengths: Int[Tensor, " b"]
    """Number of bytes of each image."""
    keys: Int[Tensor, "b 2"]
    """(epoch, index) of each image that was asked for."""
    wholes: Int[Tensor, "b 2"]
    """Height and width of each JPEG; 0 and 0 if the bytes are a finished view."""
    boxes: Int[Tensor, "b 5"]
    """The part of each JPEG to show: see `cut_box`."""
    annotations: Annotations
    positions: Int[Tensor, " b"]
    """Positions of the images in the source."""
    epoch: int
    size: Size
    """Pixels of a view."""


class GpuDecode:
    """A source's images as random crops decoded on a GPU; loading processes read the files and draw the crop boxes."""

    def __init__(self, source: ImageSource, views: RandomCrop, size: CropSize, seed: int) -> None:
        """Raises SettingsError if the annotations are class maps or boxes."""
        whole_image_only(source.annotations, "--decode gpu", _REMEDY)
        self.source, self.views, self.size, self.seed = source, views, size, seed
        self.labels = Labels(source.annotations, source.labels())
        self.cpu = CpuFeed(source, views, size, seed)
        """For images that the GPU cannot decode."""

    def load(self, wanted: Wanted, failures: Failures) -> Files:
        """The bytes of plain JPEGs; the finished views of all other images."""
        data: list[Tensor] = []
        wholes: list[Size] = []
        boxes: list[tuple[int, ...]] = []
        positions: list[int] = []
        for key in wanted.keys:
            image, position = read_or_replace(self.read, self.source, self.seed, key, failures)
            content, whole, box = self._content(image, key, wanted.size)
            data.append(content)
            wholes.append(whole)
            boxes.append(box)
            positions.append(position)
        return Files(
            data=torch.cat(data),
            lengths=torch.tensor([len(content) for content in data]),
            keys=torch.tensor(wanted.keys),
            wholes=torch.tensor(wholes),
            boxes=torch.tensor(boxes),
            annotations=self.labels.collated(positions),
            positions=torch.tensor(positions),
            epoch=wanted.epoch,
            size=wanted.size,
        )

    def read(self, position: int) -> Tensor:
        """The bytes of a plain JPEG, [n]; the pixels of any other image, [c h w].

        Raises:
            DataError: if it cannot be decoded.
        """
        assert isinstance(self.source, EncodedImages)
        data = self.source.encoded(position)
        return _as_row(data) if _for_gpu(data) else self.source.decoded(data)

    def _content(
        self, image: Tensor, key: tuple[int, int], size: Size
    ) -> tuple[Tensor, Size, tuple[int, ...]]:
        """The bytes of an image, with its size and box in `Files`."""
        if image.ndim > 1:
            (view,) = self.views(image, size, self.seed, *key)
            return view.flatten(), Size(0, 0), (0, 0, 0, 0, 0)
        plain = plain_file(image.numpy().tobytes())
        assert plain is not None
        return image, plain.size, cut_box(self.views.geometry(plain.size, size, self.seed, *key))

    def arrive(self, loaded: Files, device: torch.device, failures: Failures) -> Batch:
        """The crops of a batch; damaged images are replaced as in the other feeds."""
        files = loaded.data.split(loaded.lengths.tolist())
        wholes: list[list[int]] = loaded.wholes.tolist()
        size, channels = loaded.size, self.source.channels
        crops = torch.empty(len(files), channels, *size, dtype=torch.uint8, device=device)
        positions: list[int] = loaded.positions.tolist()
        for row in (row for row, (height, _) in enumerate(wholes) if not height):
            crops[row] = files[row].view(channels, *size).to(device, non_blocking=True)
        for rows in _few_at_once([height * width for height, width in wholes]):
            pictures = _each_decoded([files[row] for row in rows], channels, device)
            good = {
                row: picture
                for row, picture in zip(rows, pictures, strict=True)
                if picture is not None and picture.shape == (channels, *wholes[row])
            }
            if good:
                order = torch.tensor(list(good))
                cropped = _cut(list(good.values()), loaded.boxes[order], size)
                crops[order.to(device, non_blocking=True)] = cropped
            for row in set(rows).difference(good):
                epoch, index = loaded.keys[row].tolist()
                shown = self.cpu.shown((epoch, index), size, failures)
                crops[row], positions[row] = shown.views[0].to(device), shown.position
        batch = Batch((crops,), loaded.annotations, loaded.positions, loaded.epoch)
        if positions != loaded.positions.tolist():  # some were replaced
            batch = batch._replace(
                index=torch.tensor(positions), annotations=self.labels.collated(positions)
            )
        return batch.to(device)


def _for_gpu(data: bytes) -> bool:
    """Whether a file looks like a complete, plain and upright JPEG; damage inside shows only when it is decoded."""
    plain = plain_file(data)
    if plain is None or plain.format != "JPEG" or not data.endswith(_END):
        return False
    if plain.size.height * plain.size.width > _PIXELS:
        return False
    return _EXIF not in data or upright_format(data) == "JPEG"


def _as_row(data: bytes) -> UInt8[Tensor, " n"]:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _few_at_once(pixels: list[int]) -> Iterator[list[int]]:
    """Groups of rows with JPEGs of similar size (0 is none), each group with at most `_PIXELS` pixels."""
    group: list[int] = []
    for row in sorted((row for row, count in enumerate(pixels) if count), key=pixels.__getitem__):
        if group and (len(group) + 1) * pixels[row] > _PIXELS:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _cut(
    pictures: list[Tensor], boxes: Int[Tensor, "b 5"], size: Size
) -> UInt8[Tensor, "b c new_h new_w"]:
    """A part of each picture, resized. The parts are copied into frames of one size, so that one call resizes all."""
    frames = boxes.clone()
    frames[:, :2] = 0
    first, device = pictures[0], pictures[0].device
    height, width = frames[:, 2:4].amax(0).tolist()
    parts = torch.zeros(len(boxes), len(first), height, width, dtype=first.dtype, device=device)
    for part, picture, (top, left, high, wide, _) in zip(
        parts, pictures, boxes.tolist(), strict=True
    ):
        part[:, :high, :wide] = picture[:, top : top + high, left : left + wide]
    return cut(parts, frames.to(device, non_blocking=True), size)


def _each_decoded(files: list[Tensor], channels: int, device: torch.device) -> list[Tensor | None]:
    """All files decoded together; if that fails, one by one, with None for the damaged ones."""
    try:
        return list(decode_jpegs(files, channels, device))
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # caused by the GPU, not by a file
        raise
    except RuntimeError:
        if len(files) == 1:
            return [None]
        return [picture for file in files for picture in _each_decoded([file], channels, device)]
