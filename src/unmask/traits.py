"""Optional abilities: what a spec or a module may offer beyond its contract.

Each is asked for with `isinstance`, never by the name of a class, so that a new member gets it by offering it.

| ability | offered by | asked by | when |
|---|---|---|---|
| Hiding | spec of an objective | recipes, plan, console, study | before training: masks must fit the grid |
| Predicting | spec of an objective | `runs.target`, study | a tokenizer is found for its target |
| Masked | spec of an objective | weights, console, formats | decoders are kept; pictures can be rebuilt |
| Decoding | spec of an objective | `runs.weights` | weights to start from have a decoder |
| Explained | spec of an objective | console | the plan is printed |
| Comparing | spec of an objective | recipes, collapse check | views and batch are checked |
| LooksAtImages | masking | `masking.draw_masks` | every step |
| Fitted | module of a target | `runs.target` | once, before the first step |
| Targeted | module of an objective | `runs.target` | once, before the first step |
| Reconstructing | module of an objective | plan, reconstruct | pictures are drawn |
| Layered | module of an encoder, or with one | `training.parameter_groups` | when an optimizer with layer-wise learning rates is built |
| Preparing | module | the loop | after each backward pass |
| Following | module | the loop | after each update |
| Undivided | module | plan | before training: micro-batches are refused |
| Grouping | module | plan | before training: micro-batches of too few images are refused |
| Recomputing | module | console, `runs.training` | before training, if a step would not fit in memory |
| Growing | module | plan | before training: memory is measured of the largest step, time of a usual one |
| Accompanied | module | checkpoints, collapse check | when weights are saved or replaced |
| Joining | module | `training.distributed` | once, with several processes |
| Entered | module of a block | `training.distributed` | once, with `--shard` |
| Fused | module | `training.kernels` | once, when a GPU run is compiled |
| Noted | source of images | console | before training: images are listed |
| CountsConfusions | scoring | `runs.finetune` | after training: a confusion matrix is drawn |
| Locating | module of a dense task | `runs.finetune` | when whole images are scored or predicted |
| Tabular | score | console, report | after training: the scores of classes are printed and written |
| InFiles | source of images | console | when predictions are written: those of GeoTIFFs get their coordinates |
| Placed | source of images | vectors | when vectors are written: tiles of a map have coordinates |
| Cut | source of images | `data.cpu_feed` | batches are loaded: images of one map may overlap |
| Outlined | spec of views | `data.cpu_feed` | likewise: which part of its image a view shows |
| Levelled | source of images | `data.statistics` | when images are opened: 16-bit pictures are scaled as in training |
"""

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unmask.contracts import Masking, Moment, Size
from unmask.masks import PatchMask
from unmask.measures import ScoreTable


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

    smallest_batch: ClassVar[int]
    """How many images a step needs at least."""
    compared: ClassVar[Literal["class", "patches"]]
    """Whether views are compared by their class tokens or by the mean of their patch tokens."""

    def check_views(self, views: object, sizes: tuple[Size, ...]) -> None:
        """Refuse views that it cannot compare, with the mend; `sizes` are theirs."""
        ...


@runtime_checkable
class LooksAtImages(Masking, Protocol):
    """A masking that chooses patches by their pixels.

    `sample` must still work: plans call it, without images, for the number of patches that stay visible.
    """

    def sample_of(self, images: Tensor, grid: Size, generator: torch.Generator) -> PatchMask:
        """Draw masks for these images [b c h w], on the generator's device.

        All images have equally many masks, and each mask keeps equally many patches.
        """
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


@runtime_checkable
class Layered(Protocol):
    """A module whose parameters belong to layers; layer 0 is the closest to the pixels."""

    @property
    def layers(self) -> int:
        """How many layers there are."""
        ...

    def layer_of(self, parameter_name: str) -> int:
        """The layer that a parameter belongs to."""
        ...


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
class Undivided(Protocol):
    """A trainable whose loss is of all images of a batch together, so that it cannot be added up from parts."""

    undivided: str
    """Why, in a clause that follows "because"."""


@runtime_checkable
class Grouping(Protocol):
    """A trainable, or its spec, whose results depend on which images are computed together, in a micro-batch of all processes."""

    @property
    def least_images(self) -> int:
        """How many images must be computed together."""
        ...


@runtime_checkable
class Recomputing(Protocol):
    """A trainable that can compute activations again in the backward pass, with the same gradients, instead of keeping them."""

    saves_memory: bool
    """Whether it does."""


@runtime_checkable
class Growing(Protocol):
    """A trainable whose steps take more time and memory when it has learned something."""

    load: float | None
    """Share of what a step can take at most, from 0 to 1, whatever its weights are; None: what its weights make of it."""


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
class Joining(Protocol):
    """A module whose results depend on the images of all processes; it computes alone until it is told of them."""

    def join(self) -> None:
        """Called once in every process before the first step, if there are several."""
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
class Noted(Protocol):
    """A source of images that has something to tell of them, such as labels that belong to no image."""

    notes: tuple[str, ...]
    """What a user should know, a line each."""
    beside: Counter[str]
    """How many images of each place are in none of the splits."""


@runtime_checkable
class Locating(Protocol):
    """A module that says where in an image something is."""

    def locate(
        self, images: Tensor, sizes: Int[Tensor, "b 2"] | None, wholes: Int[Tensor, "b 2"]
    ) -> tuple[Any, ...]:
        """What is in each image, in the frame of the picture itself, on the CPU.

        Args:
            images: [b c h w] as the loader gives them, smaller ones padded at the right and at the bottom.
            sizes: height and width of each without the padding; None if there is none.
            wholes: height and width of each picture before it was resized.
        """
        ...


@runtime_checkable
class Tabular(Protocol):
    """A score with a table of classes."""

    def table(self) -> ScoreTable:
        """The scores of each class."""
        ...


@runtime_checkable
class InFiles(Protocol):
    """A source of images that are, or may be, files of their own."""

    def file(self, position: int) -> Path | None:
        """The file of an image; None if it lies in a shard, a table or memory."""
        ...


class Places(NamedTuple):
    """Where the images of a source lie: squares on the ground."""

    degrees: Float[NDArray[np.float64], "n 2"]
    """Longitude and latitude of their middles, in degrees of WGS 84."""
    metres: Float[NDArray[np.float64], " n"]
    """Their sides."""
    cells: Int[NDArray[np.int64], "n 2"]
    """Row and column of each among the tiles of its size, from the upper left of the map."""


@runtime_checkable
class Placed(Protocol):
    """A source of images whose places on the Earth are known."""

    def places(self) -> Places:
        """The place of each image."""
        ...


@runtime_checkable
class Cut(Protocol):
    """A source whose images are cut from one larger picture, where they may overlap."""

    windows: Int[NDArray[np.int64], "n 4"]
    """Left, top, width and height of each, in pixels."""


@runtime_checkable
class Outlined(Protocol):
    """Views that say which part of an image each of them shows."""

    def footprints(self, *key: int) -> Float[Tensor, "v 4 2"]:
        """The corners of each view of the image of a key, in order; x and y from 0 to 1."""
        ...


@runtime_checkable
class Levelled(Protocol):
    """A source of images whose 16-bit pictures are scaled to 8 bits."""

    levels: tuple[float, float] | None
    """The values that become 0 and 255; None if there are no 16-bit pictures."""

    def with_levels(self, levels: tuple[float, float] | None) -> Any:
        """The same source with another range."""
        ...


@runtime_checkable
class CountsConfusions(Protocol):
    """A scoring that counts which class is predicted for which."""

    confusion: Int[Tensor, "classes classes"]
    """Number of images by true class (rows) and predicted class (columns)."""
