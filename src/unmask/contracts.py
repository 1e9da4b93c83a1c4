"""The vocabulary of the package: what passes between its parts, and what each part must offer.

Shape letters mean the same everywhere:

b  images in a batch            c  channels              h w  height and width in pixels
m  rows of a mask (m = b, or b times K where an image has K masks)
g  class tokens              t  tokens: class tokens, then patches
n  patches of an image          k  kept (visible) patches    r  removed (hidden) patches
d  width of the encoder         e  width of the decoder      p  values of a patch (rows x columns x channels)
"""

from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unmask.annotations import Annotation, Annotations, AnyAnnotations, nested_map
from unmask.channels import Statistics, Values
from unmask.errors import SettingsError
from unmask.masks import PatchMask


class Size(NamedTuple):
    """Height and width: of an image in pixels, or of a grid in patches."""

    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Read "224" (a square) or "192x320" (height x width)."""
        parts = text.lower().split("x")
        if len(parts) > 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            raise SettingsError(
                f"an image size is one number or HEIGHTxWIDTH, such as 224 or 192x320; got {text!r}"
            )
        return cls(int(parts[0]), int(parts[-1]))

    def __str__(self) -> str:
        return str(self.height) if self.height == self.width else f"{self.height}x{self.width}"


class Encoded(NamedTuple):
    """What an encoder makes of images: class tokens and patch tokens, after its final norm."""

    cls: Float[Tensor, "m g d"]
    patches: Float[Tensor, "m k d"]
    taps: tuple[Float[Tensor, "m t d"], ...] = ()
    """What went into the blocks that were asked for, before any final norm, in their order."""


class Part(NamedTuple):
    """Some of the images of a step, where processes or micro-batches share them."""

    rows: Int[Tensor, " b"]
    """Their places among all images of the step, on the CPU."""
    whole: int
    """How many images the step has."""


class Batch(NamedTuple):
    """Images as the loader gives them, never normalised: uint8, or float32 whose missing values are NaN.

    What is drawn for an image is a row of what is drawn for the whole step, so that it is the same
    for any number of processes and any micro-batch.
    """

    views: tuple[Tensor, ...]
    annotations: Annotations
    """What is known of each image, as the source's kind of annotations puts it together; of class labels
    the share of every class, float32 [b classes], where images are mixed."""
    index: Int[Tensor, " b"]  # pyright: ignore[reportIncompatibleMethodOverride] - of tuple, unused
    epoch: int
    shown: Int[Tensor, "b k"] | None = None
    """Patches of each image that may be looked at; None for all of them."""
    part: Part | None = None
    """Which images of the step these are; None for all."""
    sizes: Int[Tensor, "b 2"] | None = None
    """Height and width of each picture in the first view, where smaller ones are padded at the right and at
    the bottom (with 0, or NaN in float32); None where all have one size."""
    footprints: Float[Tensor, "b v 4 2"] | None = None
    """Corners of each view in the plane of the picture that the images were cut from, such as a map; images that were not
    cut from one lie apart. None where views do not say what they show."""

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on the device, copied without waiting; `part` stays on the CPU."""
        moved = nested_map(
            lambda tensor: tensor.to(device, non_blocking=True), self._replace(part=None)
        )
        return moved._replace(part=self.part)

    def rows(self, chosen: slice | list[int]) -> "Batch":
        """Some of the images; of a part of a step, a smaller part."""
        known = self.annotations
        if isinstance(known, tuple):
            known = known[chosen] if isinstance(chosen, slice) else tuple(known[i] for i in chosen)
        elif known is not None:
            known = known[chosen]
        return self._replace(
            views=tuple(view[chosen] for view in self.views),
            annotations=known,
            index=self.index[chosen],
            shown=None if self.shown is None else self.shown[chosen],
            sizes=None if self.sizes is None else self.sizes[chosen],
            footprints=None if self.footprints is None else self.footprints[chosen],
            part=self.part and self.part._replace(rows=self.part.rows[chosen]),
        )

    @property
    def whole(self) -> int:
        """How many images the step has, those of other processes included."""
        return len(self.index) if self.part is None else self.part.whole

    def own(self, drawn: Tensor, dim: int = 0) -> Tensor:
        """What is for these images of what was drawn for the whole step, whose images lie along `dim`."""
        if self.part is None:
            return drawn
        return drawn.index_select(dim, self.part.rows.to(drawn.device))

    @property
    def images(self) -> Tensor:
        """The first view, [b c h w]; the only one of most objectives."""
        return self.views[0]


class Loss(NamedTuple):
    """What a step minimises, and the parts worth logging beside it."""

    total: Float[Tensor, ""]
    parts: dict[str, Tensor]


@runtime_checkable
class Masking(Protocol):
    """A rule that says which patches to hide."""

    def sample(self, batch: int, grid: Size, generator: torch.Generator) -> PatchMask:
        """Draw masks for `batch` images cut into `grid` patches, on the generator's device.

        All images have equally many masks, those of an image side by side.
        """
        ...


@runtime_checkable
class Target(Protocol):
    """What hidden patches hold, and how wrong a guess is."""

    out_dim: int
    gives_levels: bool
    """Whether a picture of a guess shows how bright pixels are; if not, it is a drawing of something else."""

    def __call__(self, images: Tensor, mask: PatchMask, statistics: Statistics) -> Tensor:
        """The true values of the removed patches, [m r p]; NaN where a value is missing."""
        ...

    def loss(self, prediction: Tensor, target: Tensor) -> Float[Tensor, "m r"]:
        """The error of each removed patch over its known values; 0 where none is known."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Images to tokens; may be shown only a part of them."""

    embed_dim: int
    patch_size: int
    channels: int

    @property
    def statistics(self) -> Statistics:
        """Mean and deviation that the encoder normalises with."""
        ...

    def mask_grid(self, size: Size) -> Size:
        """The grid on which patches of an image of this size are hidden."""
        ...

    def encode(self, images: Tensor, *, taps: Collection[int] = ()) -> Encoded:
        """Tokens of whole images; nothing is hidden and nothing is random.

        `taps` are the numbers of blocks whose inputs are returned too, as heads for dense tasks need them; 0 is
        the first block, and the number of blocks stands for the output of the last.
        """
        ...

    def encode_visible(
        self, images: Tensor, mask: PatchMask, taps: Collection[int] = ()
    ) -> Encoded:
        """Tokens of the kept patches alone; hidden pixels are never read.

        `taps` are as in `encode`.
        """
        ...


@runtime_checkable
class Trainable(Protocol):
    """Anything the loop can train."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The loss of a batch; all randomness comes from the generator."""
        ...


class Moment(NamedTuple):
    """Where a run stands at a step."""

    step: int
    """The step, counted from 0."""
    steps: int
    """How many there are in all."""
    epoch: int
    """Of the first image of the step, counted from 0."""


class Sample(NamedTuple):
    """One image of a source, and what is known of it.

    Pixels are [c h w]: uint8, or float32 in the data's own units, in which NaN says that a value is missing.
    """

    image: Tensor
    annotation: Annotation


@runtime_checkable
class ImageSource(Protocol):
    """Images by position, after a scan that decoded nothing."""

    where: str
    """Which images these are, in words."""
    channels: int
    values: Values
    """What the pixels of every image are."""
    annotations: AnyAnnotations
    """What is known of the images, and the names of the classes."""
    refused: list[tuple[str, str]]
    """(name, reason) of files that should be images and are not."""
    others: Counter[str]
    """How many files of other endings were passed over."""
    fingerprint: str
    """Equal for equal data, whose order is then equal."""
    state: str
    """Equal as long as nobody writes to the files: their place and times of change included."""
    smallest_side: int
    """The shorter side of the smallest image, in pixels."""
    in_memory: bool
    """Whether reading an image costs nothing worth a process of its own."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> Sample:
        """Raises DataError if the image cannot be decoded."""
        ...

    def name(self, position: int) -> str:
        """Which file, for messages and lists."""
        ...

    def labels(self) -> NDArray[np.int64]:
        """The class of every image, [n], or 0 or 1 for each of several classes, [n classes].

        -1 where it is not known, and [n] of -1 where annotations say more than classes.
        """
        ...

    def typical_size(self) -> Size:
        """Median height and width."""
        ...


class StepReport(NamedTuple):
    """What one step did. Tensors stay on the device until somebody reads them."""

    step: int
    loss: Tensor
    parts: dict[str, Tensor]
    learning_rate: float
    images: int
    size: Size
    """Pixels of a crop."""
    waiting_seconds: float
    loss_scale: float | None = None
    """Factor on the loss in the backward pass of this step; None without one."""
    skipped: bool = False
    """Whether the weights stayed, because gradients were not finite at this scale."""


Reports = Iterator[StepReport]
