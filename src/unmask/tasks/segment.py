"""Semantic segmentation: the class of every pixel, from any encoder and a head on its patch tokens."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.annotations import Annotations, AnyAnnotations, ClassMaps
from unmask.contracts import Batch, Loss, Size
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.patches import size_of
from unmask.spec import within
from unmask.tasks.canvas import on_canvas
from unmask.tasks.class_maps_score import ClassMapsScoring, MeanIoU
from unmask.tasks.map_layers import PatchMaps, kept_channels, upsampled
from unmask.tasks.segment_heads import AnyMapHead, FullyConvolutional
from unmask.tasks.sliding import class_map, sliding_scores
from unmask.tasks.task import Prediction, Thresholds, likeliest
from unmask.tasks.trained import (
    check_blocks_word,
    drawn_paths,
    freeze,
    frozen_halves,
    through_blocks,
)
from unmask.tasks.upernet import UperNet

_AUXILIARY_CHANNELS = 256
_AUXILIARY_MAP = 2  # the third of four maps
_WINDOWS = 8  # scored at a time


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Cross-entropy of every pixel with a known class; scored by mean intersection over union (mIoU).

    By default the whole encoder is trained: frozen MAE features are weak here (ADE20K: about 35 frozen and linear for ViT-H
    in Pixio's tables, 48 for fine-tuned ViT-B). Left out from the published recipes of MAE and BEiT: their relative
    position bias in every block, which starts at zero, and their LayerScale, which starts at 1.
    """

    needs: ClassVar[type[ClassMaps]] = ClassMaps
    """The annotations that the task needs."""

    holds_out: ClassVar[float] = 0.0
    """Share of the training images held out for choosing thresholds: 0, because there are no thresholds."""

    head: AnyMapHead = UperNet()
    """The head, from maps of patches to class scores."""

    trained_blocks: str = "all"
    """Trained part of the encoder: all (with embeddings), the last N blocks, half (the MLP of the last block), or 0."""

    drop_path: float = 0.0
    """Stochastic depth: probability of skipping each half of the last block; increases linearly from 0 in the first."""

    auxiliary_weight: float = 0.0
    """Weight of the loss of a second head on the third map, which serves training alone; 0 builds none."""

    stride: float = 2 / 3
    """Step between the windows that slide over test images, as a share of the window's side, which is the image size."""

    averaged: Literal["scores", "probabilities"] = "scores"
    """What is averaged where windows overlap: the scores of classes (mmsegmentation), or their softmax (Pixio)."""

    checkpointing: bool = False
    """Whether activations of blocks are always computed again for the backward pass: less memory, and one more pass through
    them; if not, only where a step would not fit in memory."""

    def __post_init__(self) -> None:
        within(self, "[0, 1)", "drop_path")
        within(self, "[0, inf)", "auxiliary_weight")
        within(self, "(0, 1]", "stride")
        check_blocks_word(self.trained_blocks)

    @property
    def least_images(self) -> int:
        """How many images must be normalised together: the micro-batches of all processes; 4 with batch normalisation."""
        return self.head.norm.least_images

    @property
    def score_types(self) -> tuple[type[MeanIoU]]:
        """The class of its score."""
        return (MeanIoU,)

    def check(self, depth: int) -> None:
        """Refuse an encoder whose blocks do not suit the head or `trained_blocks`."""
        frozen_halves(self.trained_blocks, depth)
        if self.auxiliary_weight and len(self.head.blocks(depth)) <= _AUXILIARY_MAP:
            raise SettingsError(
                "the auxiliary head needs a head with four maps; use task.head:upernet or task.head:dpt, or set "
                "auxiliary_weight to 0"
            )

    def build(self, encoder: VisionTransformer, annotations: AnyAnnotations) -> "Segmenter":
        """The module, which trains the encoder's trained part in place."""
        assert isinstance(annotations, ClassMaps)
        return Segmenter(self, encoder, annotations)

    def scoring(
        self, annotations: AnyAnnotations, thresholds: Thresholds = None
    ) -> ClassMapsScoring:
        """Empty counts of pixels; thresholds are not used."""
        assert isinstance(annotations, ClassMaps)
        return ClassMapsScoring(annotations)

    def thresholds(self, outputs: Any, truth: Annotations) -> Thresholds:
        """None: the prediction of a pixel is the class with the highest score."""
        return None

    def predictions(self, outputs: Any, thresholds: Thresholds = None) -> list[Prediction]:
        """For each image the share of its pixels in each predicted class, the largest first."""
        return [_shares(one) for one in outputs]


class Drawn(NamedTuple):
    """What is random in a step, as factors on the images of this batch; None where nothing is dropped."""

    paths: Float[Tensor, "halves b 1 1"] | None = None
    channels: Float[Tensor, "b d 1 1"] | None = None
    auxiliary: Float[Tensor, "b d 1 1"] | None = None


class Segmenter(nn.Module):
    """See `Segment`. Heads and losses are computed in float32: in half precision they are known to give NaN.

    The error of an image is the sum over its pixels with a known class, divided by the pixels of a whole crop (as in
    mmsegmentation), and the loss is the mean over images. So a batch computed in parts, or by several processes, gives the
    same gradient, unless the head normalises over batches. Smaller pictures are padded to the size of a crop; the encoder
    sees the channel's mean there.
    """

    def __init__(self, task: Segment, encoder: VisionTransformer, annotations: ClassMaps) -> None:
        super().__init__()
        self.task, self.ignored = task, annotations.ignored
        self.least_images, self.saves_memory = task.least_images, task.checkpointing
        self.encoder = encoder
        self.blocks = task.head.blocks(len(encoder.blocks))
        self.head = task.head.build(encoder.embed_dim, len(annotations.names))
        self.auxiliary: FullyConvolutional | None = None
        if task.auxiliary_weight:
            self.auxiliary = FullyConvolutional(
                encoder.embed_dim, _AUXILIARY_CHANNELS, len(annotations.names), task.head.norm
            )
        freeze(encoder, task.trained_blocks, norm=task.head.uses_norm)

    @property
    def window(self) -> Size:
        """Height and width of a crop in training and of a window in testing."""
        return Size(*(side * self.encoder.patch_size for side in self.encoder.grid))

    @property
    def stride(self) -> Size:
        """Rows and columns from one window to the next."""
        return Size(*(max(1, int(side * self.task.stride)) for side in self.window))

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The loss; the generator draws the skipped half blocks and the dropped channels."""
        truth = batch.annotations
        assert isinstance(truth, Tensor)
        images = on_canvas(batch.images, batch.sizes, self.window)
        drawn = self._drawn(batch, generator)
        maps = self._maps(images, drawn.paths)
        with torch.autocast(images.device.type, enabled=False):
            total = self._error(self.head(maps, drawn.channels), truth, size_of(images))
            if self.auxiliary is None:
                return Loss(total, {})
            second = self.auxiliary(maps.patches[_AUXILIARY_MAP], drawn.auxiliary)
            extra = self._error(second, truth, size_of(images))
        parts = {"main": total.detach(), "auxiliary": extra.detach()}
        return Loss(total + self.task.auxiliary_weight * extra, parts)

    def scores(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b classes h w"]:
        """Class scores, or probabilities if those are averaged, of each pixel; without randomness."""
        maps = self._maps(images, None)
        with torch.autocast(images.device.type, enabled=False):
            scores = upsampled(self.head(maps), size_of(images))
            return scores.softmax(1) if self.task.averaged == "probabilities" else scores

    def locate(
        self,
        images: Shaped[Tensor, "b c h w"],
        sizes: Int[Tensor, "b 2"] | None,
        wholes: Int[Tensor, "b 2"],
    ) -> tuple[Int[Tensor, "_ _"], ...]:
        """The class of each pixel of the whole pictures; see `traits.Locating`."""
        extents = [list(size_of(images))] * len(images) if sizes is None else sizes.tolist()
        maps: list[Tensor] = []
        for image, (height, width), whole in zip(images, extents, wholes.tolist(), strict=True):
            picture = image[:, :height, :width]
            scores = sliding_scores(self.scores, picture, self.window, self.stride, _WINDOWS)
            maps.append(class_map(scores, Size(*whole)).cpu())
        return tuple(maps)

    def _maps(
        self, images: Shaped[Tensor, "b c h w"], paths: Float[Tensor, "halves b 1 1"] | None
    ) -> PatchMaps:
        """The outputs of the head's blocks in float32, the last after the encoder's norm if the head uses it."""
        encoder = self.encoder
        frozen = frozen_halves(self.task.trained_blocks, len(encoder.blocks))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.task.trained_blocks == "all"):
            tokens, bias = encoder.embed(images), encoder.relations(size_of(images))
        outputs = through_blocks(
            encoder,
            tokens,
            bias,
            frozen,
            paths,
            wanted=self.blocks,
            saves_memory=self.saves_memory,
        )
        if self.task.head.uses_norm:
            outputs[-1] = encoder.norm(outputs[-1])
        of_block = dict(zip(sorted({*self.blocks}), outputs, strict=True))
        outputs = [of_block[block].float() for block in self.blocks]
        grid, classes = tuple(encoder.mask_grid(size_of(images))), encoder.class_tokens
        return PatchMaps(
            tuple(tokens[:, classes:].mT.unflatten(2, grid) for tokens in outputs),
            tuple(tokens[:, :classes].mean(1) for tokens in outputs),
        )

    def _error(
        self, scores: Float[Tensor, "b classes y x"], truth: Int[Tensor, "b h w"], size: Size
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the pixels with a known class, over the pixels of all crops of this size."""
        scores = upsampled(scores, size)[:, :, : truth.shape[1], : truth.shape[2]]
        total = F.cross_entropy(scores, truth, ignore_index=self.ignored, reduction="sum")
        return total / (len(truth) * size.height * size.width)

    def _drawn(self, batch: Batch, generator: torch.Generator) -> Drawn:
        """Drawn for the whole step; each part of it gets its rows."""
        if not self.training:
            return Drawn()
        task, depth, paths = self.task, len(self.encoder.blocks), None
        if task.drop_path:
            frozen = frozen_halves(task.trained_blocks, depth)
            paths = drawn_paths(task.drop_path, depth, frozen, batch.whole, generator)
            paths = batch.own(paths, dim=1)
        if not task.head.dropout:
            return Drawn(paths)
        draw = partial(kept_channels, task.head.dropout, batch.whole, generator=generator)
        heads = [self.head] if self.auxiliary is None else [self.head, self.auxiliary]
        return Drawn(paths, *(batch.own(draw(head.channels)) for head in heads))


def _shares(classes: Int[Tensor, "h w"]) -> Prediction:
    counts = torch.bincount(classes.flatten())
    ((order, shares),) = likeliest((counts / classes.numel())[None])
    count = int((counts > 0).sum())
    return Prediction(order[:count], shares[:count], order[:count])
