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
from unmask.data.cpu_feed import CpuFeed, Shown
from unmask.data.decode import decode, decode_jpegs, plain_file, upright_format
from unmask.data.gpu_crops import cut, cut_box
from unmask.data.image_files import EncodedImages
from unmask.data.labels import Labels
from unmask.data.loader import CropSize, Failures, Wanted, read_or_replace, size_in
from unmask.data.multi_views import AnyPretrainingViews
from unmask.data.views import AnyViews, RandomCrop
from unmask.errors import ResourceError, SettingsError

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
        reason = str(error).partition("\n")[0]
        raise ResourceError(
            f"torchcodec cannot decode JPEGs on {device} ({reason}); {_REMEDY}"
        ) from None


class _Line(NamedTuple):
    """How to turn the bytes of an image into its view."""

    epoch: int
    requested: int
    """Position of the requested image."""
    whole: Size
    """Size of the JPEG; 0 x 0 if the bytes are the finished view."""
    box: tuple[int, int, int, int, int]
    """The part to show: see `cut_box`."""

    @classmethod
    def read(cls, numbers: list[int]) -> "_Line":
        epoch, requested, height, width, *box = numbers
        return cls(epoch, requested, Size(height, width), (box[0], box[1], box[2], box[3], box[4]))

    def written(self) -> Tensor:
        return torch.tensor([self.epoch, self.requested, *self.whole, *self.box])


class Files(NamedTuple):
    """The files of a batch."""

    data: UInt8[Tensor, "bytes"]
    """The bytes of all images, concatenated."""
    lengths: Int[Tensor, "b"]
    """Number of bytes of each image."""
    lines: Int[Tensor, "b 9"]
    """A `_Line` for each image."""
    annotations: Annotations
    positions: Int[Tensor, "b"]
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

    def size_at(self, epoch: int) -> Size:
        """Pixels of a crop in an epoch."""
        return size_in(self.size, epoch)

    def load(self, wanted: Wanted, failures: Failures) -> Files:
        """The bytes of plain JPEGs; the finished views of all other images."""
        data: list[Tensor] = []
        lines: list[Tensor] = []
        positions: list[int] = []
        for key in wanted.keys:
            image, position = read_or_replace(self.read, self.source, self.seed, key, failures)
            content, line = self._line(image, key, wanted.size)
            data.append(content)
            lines.append(line.written())
            positions.append(position)
        return Files(
            data=torch.cat(data),
            lengths=torch.tensor([len(content) for content in data]),
            lines=torch.stack(lines),
            annotations=self._annotations(positions),
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
        return _as_row(data) if _for_gpu(data) else decode(data, self.source.channels)

    def _line(self, image: Tensor, key: tuple[int, int], size: Size) -> tuple[Tensor, _Line]:
        if image.ndim > 1:
            (view,) = self.views(image, size, self.seed, *key)
            return view.flatten(), _Line(*key, Size(0, 0), (0, 0, 0, 0, 0))
        plain = plain_file(image.numpy().tobytes())
        assert plain is not None
        box = cut_box(self.views.geometry(plain.size, size, self.seed, *key))
        return image, _Line(*key, plain.size, box)

    def arrive(self, loaded: Files, device: torch.device, failures: Failures) -> Batch:
        """The crops of a batch; damaged images are replaced as in the other feeds."""
        files = loaded.data.split(loaded.lengths.tolist())
        lines = [_Line.read(numbers) for numbers in loaded.lines.tolist()]
        size, channels = loaded.size, self.source.channels
        crops = torch.empty(len(files), channels, *size, dtype=torch.uint8, device=device)
        replaced: dict[int, Shown] = {}
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
                key = lines[row].epoch, lines[row].requested
                replaced[row] = self.cpu.shown(key, size, failures)
                crops[row] = replaced[row].views[0].to(device)
        batch = Batch((crops,), loaded.annotations, loaded.positions, loaded.epoch)
        return self._with(batch, replaced).to(device)

    def _with(self, batch: Batch, replaced: dict[int, Shown]) -> Batch:
        """The batch with the positions and annotations of its replacement images."""
        if not replaced:
            return batch
        positions = batch.index.tolist()
        for row, shown in replaced.items():
            positions[row] = shown.position
        return batch._replace(
            index=torch.tensor(positions), annotations=self._annotations(positions)
        )

    def _annotations(self, positions: list[int]) -> Annotations:
        return self.source.annotations.collate([self.labels.annotation(i) for i in positions])


def _for_gpu(data: bytes) -> bool:
    """Whether a file looks like a complete, plain and upright JPEG; damage inside shows only when it is decoded."""
    plain = plain_file(data)
    if plain is None or plain.format != "JPEG" or not data.endswith(_END):
        return False
    if plain.size.height * plain.size.width > _PIXELS:
        return False
    return _EXIF not in data or upright_format(data) == "JPEG"


def _as_row(data: bytes) -> UInt8[Tensor, "n"]:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _few_at_once(lines: list[_Line]) -> Iterator[list[int]]:
    """Groups of rows with JPEGs of similar size, each group with at most `_PIXELS` pixels."""
    pixels = [line.whole.height * line.whole.width for line in lines]
    group: list[int] = []
    for row in sorted((row for row, count in enumerate(pixels) if count), key=pixels.__getitem__):
        if group and (len(group) + 1) * pixels[row] > _PIXELS:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _cut(
    pictures: list[Tensor], boxes: list[tuple[int, ...]], size: Size
) -> UInt8[Tensor, "b c new_h new_w"]:
    """A part of each picture, resized. The parts are copied into frames of one size, so that one call resizes all."""
    frames = torch.tensor([(0, 0, *box[2:]) for box in boxes])
    first, device = pictures[0], pictures[0].device
    height, width = frames[:, 2:4].amax(0).tolist()
    parts = torch.zeros(len(boxes), len(first), height, width, dtype=first.dtype, device=device)
    for part, picture, (top, left, high, wide, _) in zip(parts, pictures, boxes, strict=True):
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
