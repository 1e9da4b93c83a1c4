"""Object detection and instance masks with a plain encoder: ViTDet (Li and others, 2022).

An encoder whose blocks see windows, a simple feature pyramid, proposals, and heads for classes, boxes and masks. Written
after the paper and detectron2's code (Apache-2.0). Cascade heads are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from unmask.annotations import Annotations, AnyAnnotations, ObjectLabels, Objects
from unmask.contracts import Batch, Loss
from unmask.encoders.layers import kept_paths
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.randomness import generator as seeded_generator
from unmask.spec import sized, within
from unmask.tasks.average_precision import Precisions
from unmask.tasks.boxes import with_area
from unmask.tasks.canvas import canvas_of, on_canvas, sizes_of
from unmask.tasks.detection_scores import DetectionScore
from unmask.tasks.detections import Detections, best, in_whole
from unmask.tasks.proposals import RegionProposals, proposal_losses, proposed
from unmask.tasks.pyramid import SCALES, SimplePyramid
from unmask.tasks.regions import (
    RegionHeads,
    Trained,
    assumed_proposals,
    box_losses,
    chosen_proposals,
    mask_loss,
)
from unmask.tasks.task import Prediction, Thresholds
from unmask.tasks.windowed import WindowedBlocks

_POOLED_LEVELS = 4  # the coarsest level is for proposals alone


@dataclass(frozen=True, kw_only=True)
class Detect:
    """Object detection: boxes with classes, and masks where the annotations have them."""

    needs: ClassVar[type[ObjectLabels]] = ObjectLabels
    """The annotations that the task needs."""

    holds_out: ClassVar[float] = 0.0
    """Share of the training images held out for choosing thresholds: 0, because there are no thresholds."""

    trained_blocks: str = "all"
    """Trained part of the encoder: all, with embeddings, or 0."""

    window: int | None = 14
    """Side of an attention window in patches; null for global attention in all blocks."""

    global_blocks: int = 4
    """Number of blocks with global attention: the last of each of as many equal parts of the encoder."""

    positions: Literal["relative", "absolute"] = "relative"
    """Positions of patches: relative ones in each block, which start at 0, besides the encoder's own; or only its own."""

    drop_path: float = 0.1
    """Stochastic depth: probability of skipping each half of the last block; increases linearly from 0 in the first."""

    checkpointing: bool = False
    """Whether activations of blocks are always computed again for the backward pass: less memory, and one more pass through
    them; if not, only where a step would not fit in memory."""

    channels: int = 256
    """Width of the pyramid and of the heads."""

    sampled: int = 512
    """Proposals of an image that the heads learn from, at most a quarter of them on objects."""

    def __post_init__(self) -> None:
        within(self, "[0, 1)", "drop_path")
        within(self, "[0, inf)", "global_blocks")
        sized(self, "channels", "sampled", "window")
        if self.trained_blocks not in ("all", "0"):
            raise SettingsError(
                f"a detector trains the encoder as a whole or not at all, so --trained-blocks must be all or 0, got "
                f"{self.trained_blocks!r}"
            )

    @property
    def score_types(self) -> tuple[type[DetectionScore]]:
        """The classes of its scores: without masks, and with them."""
        return (DetectionScore,)

    def check(self, depth: int) -> None:
        """Refuse an encoder with fewer blocks than `global_blocks`."""
        if self.window is not None and self.global_blocks > depth:
            raise SettingsError(
                f"global_blocks must be at most the number of blocks, got {self.global_blocks} of {depth}; ViTDet uses 4"
            )

    def build(self, encoder: VisionTransformer, annotations: AnyAnnotations) -> "Detector":
        """The module, which trains the encoder in place unless `trained_blocks` is 0."""
        assert isinstance(annotations, ObjectLabels)
        if encoder.pos_embed is None:
            raise SettingsError(
                "detection needs an encoder with position embeddings, and BEiT's blocks have none; use encoder.blocks:plain"
            )
        return Detector(self, encoder, len(annotations.names), annotations.masks)

    def scoring(self, annotations: AnyAnnotations, thresholds: Thresholds = None) -> Precisions:
        """An empty scoring; ResourceError if the package for it is missing."""
        assert isinstance(annotations, ObjectLabels)
        return Precisions(annotations.names, annotations.masks)

    def thresholds(self, outputs: Any, truth: Annotations) -> Thresholds:
        """None: scores rank detections at all thresholds."""
        return None

    def predictions(self, outputs: Any, thresholds: Thresholds = None) -> list[Prediction]:
        """The classes found in each image, by the score of their best detection; `outputs` are those of `locate`."""
        return [_classes_of(found) for found in outputs]


class Detector(nn.Module):
    """See `Detect`; with masks, Mask R-CNN, without, Faster R-CNN.

    Class tokens and the encoder's final norm are not used and stay as they are. A frozen encoder is used without
    gradients, with its relative positions at 0.
    """

    def __init__(self, task: Detect, encoder: VisionTransformer, classes: int, masks: bool) -> None:
        super().__init__()
        self.task, self.masks = task, masks
        self.trained = task.trained_blocks == "all"
        self.load: float | None = None  # see `Growing`: good proposals give the mask head more work
        self.encoder = encoder
        self.windows = WindowedBlocks(
            encoder,
            task.window,
            task.global_blocks,
            task.positions == "relative",
            task.checkpointing,
        )
        strides = [encoder.patch_size / scale for scale in SCALES]
        self.pyramid = SimplePyramid(encoder.embed_dim, task.channels)
        self.proposals = RegionProposals(task.channels, strides)
        self.heads = RegionHeads(
            task.channels,
            classes,
            masks,
            encoder.patch_size,
            strides[:_POOLED_LEVELS],
        )
        self.encoder.requires_grad_(self.trained)
        self.windows.requires_grad_(self.trained)
        self.encoder.cls_token.requires_grad_(False)
        self.encoder.norm.requires_grad_(False)

    @property
    def saves_memory(self) -> bool:
        """See `Recomputing`."""
        return self.windows.checkpointing

    @saves_memory.setter
    def saves_memory(self, value: bool) -> None:
        self.windows.checkpointing = value

    @property
    def layers(self) -> int:
        """The encoder's layers; the last one is that of the heads too."""
        return self.encoder.layers

    def layer_of(self, parameter_name: str) -> int:
        """The encoder's layer; relative positions belong to their block, heads to the last layer."""
        owner, _, name = parameter_name.partition(".")
        if owner == "encoder":
            return self.encoder.layer_of(name)
        if owner == "windows":  # windows.positions.NUMBER.rows
            return int(name.split(".")[1]) + 1
        return self.layers - 1

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The sum of the losses of proposals, classes, boxes and masks; the generator draws for all images of the step.

        All are means over images, so that parts of a batch add up, and each image has random numbers of its own.
        """
        assert isinstance(batch.annotations, tuple)
        objects = [learned(of_image) for of_image in batch.annotations]
        boxes = [of_image.boxes.float() for of_image in objects]
        seeds = torch.randint(2**62, (batch.whole,), generator=generator, device=generator.device)
        kept = self._kept(batch.whole, generator)
        kept = None if kept is None else batch.own(kept, dim=1)
        device = batch.images.device
        randoms = [
            seeded_generator(device, "sampled boxes", seed) for seed in batch.own(seeds).tolist()
        ]
        levels = self._levels(batch.images, batch.sizes, kept)
        found = self.proposals(levels)
        parts = proposal_losses(found, boxes, randoms)
        sizes = sizes_of(batch.images, batch.sizes)
        candidates = proposed(found, sizes, True)
        chosen = [
            chosen_proposals(of_image, known, self.task.sampled, random)
            if self.load is None
            else assumed_proposals(known, self.task.sampled, self.load)
            for of_image, known, random in zip(candidates, boxes, randoms, strict=True)
        ]
        scores, offsets = self.heads.of_boxes(levels, [one.boxes for one in chosen])
        classes = [of_image.classes for of_image in objects]
        parts |= box_losses(scores, offsets, chosen, boxes, classes)
        if self.masks:
            parts["masks"] = self._mask_loss(levels, chosen, objects)
        return Loss(torch.stack(list(parts.values())).sum(), parts)

    @torch.no_grad()
    def locate(
        self,
        images: Shaped[Tensor, "b c h w"],
        sizes: Int[Tensor, "b 2"] | None,
        wholes: Int[Tensor, "b 2"],
    ) -> tuple[Detections, ...]:
        """The objects in each picture, in the frame of the original picture, on the CPU.

        Args:
            images: as the loader gives them, padded at the right and the bottom.
            sizes: height and width of each picture in `images`; None: all of it.
            wholes: height and width of each original picture.
        """
        extents = sizes_of(images, sizes)
        levels = self._levels(images, sizes, None)
        proposals = proposed(self.proposals(levels), extents, False)
        scores, offsets = self.heads.of_boxes(levels, proposals)
        counts = [len(boxes) for boxes in proposals]
        found = [
            best(*of_image)
            for of_image in zip(
                scores.split(counts), offsets.split(counts), proposals, extents, strict=True
            )
        ]
        masks: Sequence[Tensor | None] = [None] * len(found)
        if self.masks:
            classes = torch.cat([one.classes for one in found])
            logits = self.heads.masks_of(levels, [one.boxes for one in found], classes)
            masks = logits.sigmoid().split([len(one.boxes) for one in found])
        return tuple(
            in_whole(one, mask, extent, (height, width))
            for one, mask, extent, (height, width) in zip(
                found, masks, extents, wholes.tolist(), strict=True
            )
        )

    def _mask_loss(
        self, levels: list[Tensor], chosen: list[Trained], objects: list[Objects]
    ) -> Float[Tensor, ""]:
        on = [Trained(one.boxes[one.match >= 0], one.match[one.match >= 0]) for one in chosen]
        classes = [known.classes[one.match] for known, one in zip(objects, on, strict=True)]
        logits = self.heads.masks_of(levels, [one.boxes for one in on], torch.cat(classes))
        masks = [known.masks for known in objects]
        return mask_loss(logits, on, [mask for mask in masks if mask is not None])

    def _levels(
        self,
        images: Shaped[Tensor, "b c h w"],
        sizes: Int[Tensor, "b 2"] | None,
        kept: Float[Tensor, "halves b 1 1"] | None,
    ) -> list[Float[Tensor, "b _c _h _w"]]:
        encoder = self.encoder
        canvas = canvas_of(images, encoder.grid, encoder.patch_size)
        padded = on_canvas(images, sizes, canvas)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trained):
            maps = self.windows(encoder, padded, kept)
        return self.pyramid(maps)

    def _kept(
        self, images: int, generator: torch.Generator
    ) -> Float[Tensor, "halves b 1 1"] | None:
        """See `kept_paths`; the probability increases linearly from 0 in the first block."""
        if not (self.training and self.trained and self.task.drop_path):
            return None
        depth, device = len(self.encoder.blocks), generator.device
        rates = torch.linspace(0, self.task.drop_path, depth, device=device)
        return kept_paths(rates.repeat_interleave(2), images, generator)


def learned(objects: Objects) -> Objects:
    """The objects that count in training: no crowds, and boxes with an area."""
    counts = with_area(objects.boxes)
    return objects.rows(counts if objects.crowd is None else counts & ~objects.crowd)


def _classes_of(found: Detections) -> Prediction:
    """The classes in a picture; detections are ordered by score, so the first of each class is its best."""
    scores: dict[int, float] = {}
    for number, score in zip(found.classes.tolist(), found.scores.tolist(), strict=True):
        scores.setdefault(number, score)
    return Prediction(list(scores), list(scores.values()), list(scores))
