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
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

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

    rows: Int[Tensor, "b"]
    """Their places among all images of the step, on the CPU."""
    whole: int
    """How many images the step has."""


class Batch(NamedTuple):
    """Images as the loader gives them, never normalised: uint8, or float32 whose missing values are NaN.

    What is drawn for an image is a row of what is drawn for the whole step, so that it is the same
    for any number of processes and any micro-batch.
    """

    views: tuple[Tensor, ...]
    labels: Tensor
    """The class of each image, [b]; or the share of every class in it, [b classes], where images are mixed."""
    index: Int[Tensor, "b"]  # pyright: ignore[reportIncompatibleMethodOverride] - of tuple, unused
    epoch: int
    shown: Int[Tensor, "b k"] | None = None
    """Patches of each image that may be looked at; None for all of them."""
    part: Part | None = None
    """Which images of the step these are; None for all."""

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
class Fitted(Protocol):
    """A target that is fitted once, before the first step; what it finds lies in its buffers."""

    patches_wanted: int
    """How many patches make a good fit."""

    @property
    def fitted(self) -> bool:
        """Whether that has been done."""
        ...

    def fit(self, patches: Float[Tensor, "n p"]) -> None:
        """Take what it needs from training patches, normalised as the encoder's input is."""
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

    def encode(self, images: Tensor) -> Encoded:
        """Tokens of whole images; nothing is hidden and nothing is random."""
        ...

    def encode_visible(
        self, images: Tensor, mask: PatchMask, taps: Collection[int] = ()
    ) -> Encoded:
        """Tokens of the kept patches alone; hidden pixels are never read.

        `taps` are numbers of blocks whose inputs are wanted too; 0 is the first block, and the number of
        blocks stands for what comes out of the last.
        """
        ...


@runtime_checkable
class ReplacingEncoder(Encoder, Protocol):
    """An encoder that also takes a token in place of each hidden patch."""

    def encode_replaced(
        self, images: Tensor, mask: PatchMask, token: Tensor, taps: Collection[int] = ()
    ) -> Encoded:
        """Tokens of all patches in image order; hidden pixels are never read."""
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


@runtime_checkable
class Preparing(Protocol):
    """A trainable that does something to its gradients, such as forgetting those of a layer that rests."""

    def before_step(self, moment: Moment) -> None:
        """Called once before each step of the optimizer, when gradients are there and not yet clipped."""
        ...


@runtime_checkable
class Following(Protocol):
    """A trainable that does something after every update, such as averaging its weights."""

    def after_step(self, moment: Moment) -> None:
        """Called once after each step of the optimizer."""
        ...


@runtime_checkable
class Joining(Protocol):
    """A module whose results depend on the images of all processes; it computes alone until it is told of them."""

    def join(self) -> None:
        """Called once in every process before the first step, if there are several."""
        ...


@runtime_checkable
class Undivided(Protocol):
    """A trainable whose loss is of all images of a batch together, so that it cannot be added up from parts."""

    undivided: str
    """Why, in a clause that follows "because"."""


@runtime_checkable
class Accompanied(Protocol):
    """A trainable with parts that serve training alone, such as a teacher; no model file holds them."""

    companions: tuple[str, ...]
    """What the names of these parts' tensors begin with."""
    gives: str
    """What the names of the tensors begin with that make up the encoder to take away."""

    def begin(self) -> None:
        """Let these parts start from what they accompany, whose weights have been replaced."""
        ...


@runtime_checkable
class Entered(Protocol):
    """A module whose weights are also used by other methods than `forward`."""

    entrances: tuple[str, ...]
    """The names of these methods."""


@runtime_checkable
class Fused(Protocol):
    """A module with methods that are many small operations, and faster on a GPU when compiled, each as a whole."""

    fused: tuple[str, ...]
    """The names of these methods."""


@runtime_checkable
class Layered(Protocol):
    """A module whose parameters lie in layers, 0 being the nearest to the pixels."""

    @property
    def layers(self) -> int:
        """How many layers there are."""
        ...

    def layer_of(self, parameter_name: str) -> int:
        """The layer that a parameter belongs to."""
        ...


@runtime_checkable
class Hiding(Protocol):
    """The spec of an objective that hides patches."""

    @property
    def masking(self) -> Masking:
        """Which patches it hides."""
        ...


@runtime_checkable
class Predicting(Protocol):
    """The spec of an objective that predicts what patches hold."""

    @property
    def target(self) -> Any:
        """What they hold: the spec of a `Target`."""
        ...


@runtime_checkable
class Masked(Hiding, Predicting, Protocol):
    """The spec of an objective that hides patches and rebuilds what they hold."""


@runtime_checkable
class Decoding(Predicting, Protocol):
    """The spec of an objective whose decoder can be trained further with other settings."""

    def with_decoder_of(self, other: Any) -> Any:
        """This spec with the decoder of another; unchanged if that has no decoder of this kind."""
        ...

    def has_decoder_of(self, other: Any) -> bool:
        """Whether the decoder is that of another spec."""
        ...


@runtime_checkable
class Explained(Protocol):
    """The spec of an objective that says in its own words what it does with an image."""

    def in_words(self, kept: int, patches: int, size: Size) -> tuple[str, str]:
        """A heading of one word, and what the encoder sees: `kept` of the `patches` of a crop of this size."""
        ...


@runtime_checkable
class Comparing(Protocol):
    """The spec of an objective that compares views of an image, or images of a batch."""

    @property
    def smallest_batch(self) -> int:
        """How many images a step needs at least."""
        ...

    def check_views(self, sizes: tuple[Size, ...]) -> None:
        """Refuse views that it cannot compare, with the mend."""
        ...


@runtime_checkable
class Targeted(Protocol):
    """An objective's module that guesses what patches hold."""

    target: Any
    """What they hold: a module that keeps the contract of `Target`."""


@runtime_checkable
class Reconstructing(Targeted, Protocol):
    """An objective's module whose guesses can be drawn."""

    encoder: Any
    """What sees the visible patches: a module that keeps the contract of `Encoder`."""
    masking: Any
    """Which patches are hidden: a `Masking`."""

    def grid_of(self, images: Tensor) -> Size:
        """The grid on which these images are masked."""
        ...

    def predict_all(self, images: Tensor, mask: PatchMask) -> Tensor:
        """A guess for every patch, in image order."""
        ...


class Sample(NamedTuple):
    """One image of a source and the number of its class (-1 if it has none).

    Pixels are [c h w]: uint8, or float32 in the data's own units, in which NaN says that a value is missing.
    """

    image: Tensor
    label: int


@runtime_checkable
class ImageSource(Protocol):
    """Images by position, after a scan that decoded nothing."""

    where: str
    """Which images these are, in words."""
    channels: int
    values: Values
    """What the pixels of every image are."""
    class_names: tuple[str, ...]
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

    def labels(self) -> list[int]:
        """The class of every image; -1 without classes."""
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


Reports = Iterator[StepReport]
