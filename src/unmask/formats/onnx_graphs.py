"""What the ONNX files of a model compute: modules whose inputs and outputs are those of the file.

Images are float32 in the units of the model's statistics, from 0 to 1 for pictures, and every graph normalises them itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from unmask.channels import ChannelStatistics
from unmask.contracts import Size
from unmask.encoders.vit import VisionTransformer
from unmask.masks import PatchMask
from unmask.patches import denormalize, unpatchify
from unmask.randomness import generator
from unmask.targets.pixels import PixelTarget
from unmask.traits import Reconstructing

IMAGES, KEPT, REMOVED = "images", "kept_index", "removed_index"
"""Names of inputs."""

_MISSING = 0.1  # share of missing values in examples with bands


class Graph(NamedTuple):
    """One ONNX file: what it computes, and for which images."""

    name: str
    """Of the file, without its ending."""
    module: nn.Module
    """Takes images, and the indices of kept and removed patches if it rebuilds; returns a tensor for each output."""
    outputs: tuple[str, ...]
    """Names of the outputs."""
    size: Size
    """Size of the images that the model was trained on, in pixels."""
    patch_size: int
    statistics: ChannelStatistics
    facts: dict[str, Any]
    """What else the file says of itself, as JSON values."""
    any_size: bool = True
    """Whether images of other sizes, in multiples of the patch size, fit."""

    @property
    def rebuilds(self) -> bool:
        """Whether it takes a mask."""
        return isinstance(self.module, Rebuilding)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return (IMAGES, KEPT, REMOVED) if self.rebuilds else (IMAGES,)

    def example(self, batch: int, size: Size) -> tuple[Tensor, ...]:
        """Inputs of random numbers, the same in every call; about three quarters of the patches are hidden."""
        random = generator("cpu", "onnx", batch, *size)
        shape = (batch, len(self.statistics.mean), *size)
        images = torch.rand(shape, generator=random)
        if self.statistics.values == "float32":
            mean, std = (moment[:, None, None] for moment in self.statistics.tensors())
            images = mean + std * torch.randn(shape, generator=random)
            images[torch.rand(shape, generator=random) < _MISSING] = torch.nan
        if not self.rebuilds:
            return (images,)
        patches = size.height * size.width // self.patch_size**2
        order = torch.rand(batch, patches, generator=random).argsort(1)
        kept = max(1, patches // 4)
        return images, order[:, :kept].contiguous(), order[:, kept:].contiguous()


class Encoding(nn.Module):
    """Features of whole images, as `Model.embed` gives them."""

    outputs = ("cls", "mean", "patches")

    def __init__(self, encoder: VisionTransformer) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, images: Shaped[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"], Float[Tensor, "b n d"]]:
        """The class token (the mean of several), the mean of the patch tokens, and the patch tokens."""
        encoded = self.encoder.encode(images)
        return encoded.cls.mean(1), encoded.patches.mean(1), encoded.patches


class Rebuilding(nn.Module):
    """An image rebuilt from its kept patches; the removed ones are never read."""

    outputs = ("rebuilt", "prediction")

    def __init__(self, objective: Reconstructing) -> None:
        super().__init__()
        assert isinstance(objective, nn.Module)
        assert isinstance(objective.target, PixelTarget)
        self.objective: Any = objective

    def forward(
        self,
        images: Shaped[Tensor, "b c h w"],
        kept_index: Int[Tensor, "b k"],
        removed_index: Int[Tensor, "b r"],
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b n p"]]:
        """The decoder's picture of all patches, and its output before levels are added, in the units of the target.

        Levels of hidden patches come from their visible neighbours. Pictures are not clipped to 0 to 1. Each patch is in
        `kept_index` or in `removed_index`.
        """
        encoder = self.objective.encoder
        grid, batch = self.objective.grid_of(images), images.shape[0]
        patches = grid.height * grid.width
        # tells the exporter that the outputs have as many patches as the image
        torch._check(kept_index.shape[1] + removed_index.shape[1] == patches)  # pyright: ignore[reportPrivateUsage]
        removed = torch.ones(batch, patches, dtype=torch.bool).scatter(1, kept_index, False)
        mask = PatchMask(torch.arange(batch), removed, kept_index, removed_index)
        output = self.objective.predict_all(images, mask)
        moments = encoder.statistics
        values = self.objective.target.pixels(output, images, mask, moments, "neighbors")
        picture = unpatchify(denormalize(values, moments), encoder.patch_size, grid)
        return picture, output


class Classifying(nn.Module):
    """Class scores of whole images, as `Model.predict` uses them."""

    outputs = ("scores", "probabilities")

    def __init__(self, classifier: Any, *, several: bool) -> None:
        """`several`: an image may belong to several classes, so probabilities do not sum to 1."""
        super().__init__()
        self.classifier, self.several = classifier, several

    def forward(
        self, images: Shaped[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b classes"], Float[Tensor, "b classes"]]:
        """Scores, and probabilities."""
        scores = self.classifier.predict(images)
        return scores, scores.sigmoid() if self.several else scores.softmax(1)


class Segmenting(nn.Module):
    """Class scores of each pixel of a window; the run itself slides such windows over larger pictures."""

    outputs = ("scores",)

    def __init__(self, segmenter: Any) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b classes h w"]:
        """Scores, or probabilities if those are averaged where windows overlap."""
        return self.segmenter.scores(images)


def larger(graph: Graph) -> Size:
    """A size above the trained one whose sides differ."""
    height, width = graph.size
    more = (2, 1) if height == width + graph.patch_size else (1, 2)
    return Size(height + more[0] * graph.patch_size, width + more[1] * graph.patch_size)


def smaller(graph: Graph) -> Size:
    """A size below the trained one, at least two patches high and wide."""
    height, width = graph.size
    least, step = 2 * graph.patch_size, graph.patch_size
    return Size(max(least, height - step), max(least, width - 2 * step))


def sizes_to_check(graph: Graph) -> list[Size]:
    """The trained size, and a larger and a smaller one, if the graph takes any."""
    if not graph.any_size:
        return [graph.size]
    return list(dict.fromkeys([graph.size, larger(graph), smaller(graph)]))


Run = Callable[[dict[str, Any]], list[Any]]
"""Run a file: named inputs to outputs, as arrays."""


class Difference(NamedTuple):
    """How far a file is from its graph, where that is worst."""

    output: str
    """The output with the largest difference beside its values."""
    difference: float
    """The largest difference of one of its values; of rebuilt pictures in standard deviations of the channel."""
    largest: float
    """The largest value there, in the same unit."""

    @property
    def relative(self) -> float:
        """The difference beside the largest value, if that is above 1."""
        return self.difference / max(1.0, self.largest)


@torch.no_grad()
def largest_difference(graph: Graph, run: Run, batches: tuple[int, ...]) -> Difference:
    """The worst difference of a file to its graph, over outputs, and over the channels of rebuilt pictures.

    Each is judged alone, because a band of large values would hide a wrong one of small values.

    Args:
        graph: what the file should compute.
        run: runs the file.
        batches: how many images to compare on at a time; each with every size of `sizes_to_check`.
    """
    found: dict[tuple[str, int], Difference] = {}
    for size in sizes_to_check(graph):
        for batch in batches:
            inputs = graph.example(batch, size)
            named = {name: one.numpy() for name, one in zip(graph.inputs, inputs, strict=True)}
            ours = graph.module(*inputs)
            ours = ours if isinstance(ours, tuple) else (ours,)
            for name, tensor, array in zip(graph.outputs, ours, run(named), strict=True):
                assert tensor.shape == array.shape
                for part, (wanted, given) in enumerate(
                    _parts(graph, name, tensor, torch.from_numpy(array))
                ):
                    # NaN on either side must not pass as equal
                    off = float((wanted - given).abs().nan_to_num(torch.inf).max())
                    before = found.get((name, part), Difference(name, 0.0, 0.0))
                    found[name, part] = Difference(
                        name,
                        max(before.difference, off),
                        max(before.largest, float(wanted.abs().nan_to_num(0.0).max())),
                    )
    return max(found.values(), key=lambda one: one.relative)


def _parts(graph: Graph, name: str, ours: Tensor, theirs: Tensor) -> list[tuple[Tensor, Tensor]]:
    """What is compared alone: a whole output, or each channel of rebuilt pictures, normalised."""
    if name != "rebuilt":
        return [(ours, theirs)]
    mean, std = graph.statistics.tensors()

    def normalised(images: Tensor, channel: int) -> Tensor:
        return (images[:, channel] - mean[channel]) / std[channel]

    return [
        (normalised(ours, channel), normalised(theirs, channel)) for channel in range(len(mean))
    ]
