"""JPEGs decoded and cropped by the GPU: loading processes only read them.

A choice for machines with few cores for their GPU. The same parts are shown as anywhere else; levels differ from a
CPU's by how nvJPEG turns colours into RGB, and by rounding. What is no plain, upright JPEG is decoded and cropped in
the loading processes as ever.
"""

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from unmask.contracts import Batch, ImageSource, Sample, Size
from unmask.data.decode import decode, decode_jpegs, upright_format
from unmask.data.gpu_crops import cut
from unmask.data.image_files import EncodedImages
from unmask.data.loader import Failures, Viewed, to_device
from unmask.data.multi_views import AnyPretrainingViews
from unmask.data.plain_headers import plain_file
from unmask.data.views import AnyViews, RandomCrop
from unmask.errors import ResourceError, SettingsError

_END = b"\xff\xd9"
_EXIF = b"Exif\0\0"
_PIXELS = 2**25  # of all images that are decoded at once


def check_decoding(
    source: ImageSource, views: AnyPretrainingViews | AnyViews, device: torch.device
) -> None:
    """See that a GPU can decode and crop these images.

    Raises:
        SettingsError: if images or views are of another kind.
        ResourceError: if there is no GPU, or torchcodec cannot use it.
    """
    without = "leave out --decode gpu"
    if not isinstance(views, RandomCrop):
        raise SettingsError(
            f"--decode gpu cuts random crops alone, and this recipe's views are {type(views).__name__}; {without}"
        )
    if not isinstance(source, EncodedImages):
        raise SettingsError(
            f"--decode gpu needs a whole set of image files (a folder, shards or Parquet), and {source.where} is none, "
            f"or some of it is held out; {without}"
        )
    if device.type != "cuda":
        raise ResourceError(
            f"--decode gpu needs a GPU with CUDA, and the device is {device}; {without}"
        )
    tried = io.BytesIO()
    Image.new("RGB", (16, 16)).save(tried, "JPEG")
    try:
        decode_jpegs([_as_row(tried.getvalue())], 3, device)
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ResourceError(
            f"torchcodec cannot decode JPEGs on {device} here ({reason}); {without}"
        ) from None


class _Line(NamedTuple):
    """What the bytes of an image are."""

    epoch: int
    position: int
    """The image that was asked for."""
    whole: Size
    """Of the JPEG; 0 x 0 where the bytes are the finished view."""
    box: tuple[int, int, int, int, int]
    """What to show of it: top, left, height, width, and 1 to mirror it."""

    @classmethod
    def read(cls, numbers: list[int]) -> "_Line":
        epoch, position, height, width, *box = numbers
        return cls(epoch, position, Size(height, width), (box[0], box[1], box[2], box[3], box[4]))

    def written(self) -> Tensor:
        return torch.tensor([self.epoch, self.position, *self.whole, *self.box])


class Encoded(Viewed):
    """Of a source's images the files, and where random crops cut them; images once they have arrived."""

    def __init__(self, images: Viewed) -> None:
        super().__init__(images.source, images.views, images.size, images.seed)
        self.images, self.labels = images, images.source.labels()

    def read(self, position: int) -> Sample:
        """The bytes of a plain JPEG, in a row; the pixels of anything else."""
        assert isinstance(self.source, EncodedImages)
        data = self.source.encoded(position)
        image = _as_row(data) if _for_gpu(data) else decode(data, self.source.channels)
        return Sample(image, self.labels[position])

    def row(self, epoch: int, index: int, size: Size, failures: Failures) -> tuple[Any, int, int]:
        """The bytes of one image and what to show of it, its label and its position."""
        sample, found = self._readable(epoch, index, failures)
        key = self.seed, epoch, index
        if sample.image.ndim > 1:
            (view,) = self.views(sample.image, size, *key)
            line = _Line(epoch, index, Size(0, 0), (0, 0, 0, 0, 0))
            return (view.flatten(), line.written()), sample.label, found
        plain = plain_file(sample.image.numpy().tobytes())
        assert plain is not None
        assert isinstance(self.views, RandomCrop)
        line = _Line(epoch, index, plain.size, self.views.draw(plain.size, *key))
        return (sample.image, line.written()), sample.label, found

    def together(self, rows: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """All bytes in one row, how many are of which image, and what they are."""
        files, lines = zip(*rows, strict=True)
        return torch.cat(files), torch.tensor([len(file) for file in files]), torch.stack(lines)

    def arrived(self, batch: Batch, device: torch.device, failures: Failures) -> Batch:
        """The crops of a batch; an image that proves damaged is replaced as it would be anywhere else."""
        data, lengths, written = batch.views
        files = data.split(lengths.tolist())
        lines = [_Line.read(numbers) for numbers in written.tolist()]
        size, channels = self.size_at(batch.epoch), self.source.channels
        labels, index = batch.labels.clone(), batch.index.clone()
        crops = torch.empty(len(files), channels, *size, dtype=torch.uint8, device=device)
        for row, line in enumerate(lines):
            if not line.whole.height:
                crops[row] = files[row].view(channels, *size).to(device, non_blocking=True)
        for rows in _few_at_once(lines):
            pictures = _each_decoded([files[row] for row in rows], channels, device)
            good = {
                row: picture
                for row, picture in zip(rows, pictures, strict=True)
                if picture is not None and picture.shape == (channels, *lines[row].whole)
            }
            if good:
                shown = _cut(list(good.values()), [lines[row].box for row in good], size)
                crops[torch.tensor(list(good)).to(device, non_blocking=True)] = shown
            for row in set(rows).difference(good):
                again = lines[row].epoch, lines[row].position
                (view,), labels[row], index[row] = self.images.row(*again, size, failures)
                crops[row] = view.to(device)
        return to_device(batch._replace(views=(crops,), labels=labels, index=index), device)


def _for_gpu(data: bytes) -> bool:
    """Whether a file is a whole JPEG in which every reader sees the same: the markers tell, but not of damage within."""
    plain = plain_file(data)
    if plain is None or plain.format != "JPEG" or not data.endswith(_END):
        return False
    if plain.size.height * plain.size.width > _PIXELS:
        return False
    return _EXIF not in data or upright_format(data) == "JPEG"


def _as_row(data: bytes) -> UInt8[Tensor, "n"]:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _few_at_once(lines: list[_Line]) -> Iterator[list[int]]:
    """Rows of JPEGs, of like size, as many together as memory is meant to hold."""
    pixels = [line.whole.height * line.whole.width for line in lines]
    waiting: list[int] = []
    for row in sorted((row for row, count in enumerate(pixels) if count), key=pixels.__getitem__):
        if waiting and (len(waiting) + 1) * pixels[row] > _PIXELS:
            yield waiting
            waiting = []
        waiting.append(row)
    if waiting:
        yield waiting


def _cut(
    pictures: list[Tensor], boxes: list[tuple[int, ...]], size: Size
) -> UInt8[Tensor, "b c new_h new_w"]:
    """A part of each, resized: the parts are laid into frames of one size, to be resized together."""
    frames = torch.tensor([(0, 0, *box[2:]) for box in boxes])
    first, device = pictures[0], pictures[0].device
    height, width = frames[:, 2:4].amax(0).tolist()
    parts = torch.zeros(len(boxes), len(first), height, width, dtype=first.dtype, device=device)
    for part, picture, (top, left, high, wide, _) in zip(parts, pictures, boxes, strict=True):
        part[:, :high, :wide] = picture[:, top : top + high, left : left + wide]
    return cut(parts, frames.to(device, non_blocking=True), size)


def _each_decoded(files: list[Tensor], channels: int, device: torch.device) -> list[Tensor | None]:
    """All at once; if that fails, one by one to find out which it was."""
    try:
        return list(decode_jpegs(files, channels, device))
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # a fault of the GPU, not of a file
        raise
    except RuntimeError:
        if len(files) == 1:
            return [None]
        return [picture for file in files for picture in _each_decoded([file], channels, device)]
