"""A memory of normal images, and what it finds odd in test images, beside controls."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unmask.contracts import ImageSource, Size
from unmask.data.in_order import Unreadable
from unmask.encoders.vit import VisionTransformer
from unmask.evaluation.frozen import PRETRAINED, RANDOM, RAW
from unmask.evaluation.odd import (
    Memory,
    OddRule,
    described,
    finite,
    remember,
    squashed,
    tokens_of_block,
)
from unmask.evaluation.odd_scores import region_overlap, separation
from unmask.evaluation.odd_truth import Odd, Truth
from unmask.evaluation.patches import PatchVectors, pixels_of_patches
from unmask.formats.model import ModelSpec
from unmask.patches import patch_grid

Controls = Literal["auto", "none"]


@dataclass(frozen=True, kw_only=True)
class Look:
    """How images are looked at: by which encoder, at which size, under which rule."""

    encoder: VisionTransformer
    """The encoder, on the device."""
    spec: ModelSpec
    """Its shape, and the statistics of its input."""
    size: Size
    """The size that images are squashed to."""
    rule: OddRule
    """How odd places are found."""
    seed: int
    """Of the draw of held-out images, and of random weights."""
    device: torch.device
    """Where the encoder computes."""

    def vectors(self) -> PatchVectors:
        """The patch tokens of the encoder."""
        return tokens_of_block(self.encoder, self.rule.block)


class Finding(NamedTuple):
    """What was found in an image."""

    position: int
    """Of the image in its source."""
    name: str
    score: float
    odd: bool
    """Whether the score is above the threshold."""
    truth: Odd | None
    distances: Float[Tensor, " n"]
    """Of its patches, row by row."""


@dataclass(frozen=True, kw_only=True)
class Measures:
    """How well odd images and pixels were told from normal ones; null where that is not known."""

    images: int
    """Images whose truth is known."""
    odd: int
    """Odd images among them."""
    image_auroc: float | None
    """Area under the ROC curve of the images' scores."""
    image_precision: float | None
    """Average precision of the images' scores."""
    stand_ins: int
    """Held-out normal images that stand for normal test images, where there are none."""
    found: float | None
    """Share of the odd images above the threshold."""
    false_alarms: float | None
    """Share of the normal test images above the threshold."""
    pixel_auroc: float | None
    """Area under the ROC curve of the pixels' distances."""
    pixel_precision: float | None
    """Average precision of the pixels' distances."""
    region_overlap: float | None
    """PRO up to 30 % false alarms."""


def arms(look: Look, controls: Controls) -> Iterator[tuple[str, PatchVectors]]:
    """The encoder, the same with random weights, and raw pixels: each with the vectors of patches."""
    yield PRETRAINED, look.vectors()
    if controls == "none":
        return
    untrained = look.spec.build_encoder(look.seed).to(look.device).eval()
    yield RANDOM, tokens_of_block(untrained, look.rule.block)
    yield RAW, pixels_of_patches(look.spec.encoder.patch_size, look.spec.statistics)


def learn(normal: ImageSource, look: Look, vectors: PatchVectors) -> tuple[Memory, Unreadable]:
    """The memory of normal images, and those that could not be read."""
    tokens, unreadable = described(normal, look.spec, look.size, vectors, look.device)
    grid = patch_grid(look.size, look.spec.encoder.patch_size)
    return remember(tokens, grid, look.rule, look.seed), unreadable


@torch.inference_mode()
def find(
    memory: Memory,
    source: ImageSource,
    look: Look,
    vectors: PatchVectors,
    truth: Truth,
    unreadable: Unreadable,
) -> list[Finding]:
    """What is odd in each readable image, in the order of the source."""
    findings: list[Finding] = []
    for batch in squashed(source, look.spec, look.size, unreadable, "looking"):
        distances = memory.distances(finite(vectors(batch.images.to(look.device))))
        scores = memory.score(distances).tolist()
        known = batch.annotations
        assert isinstance(known, tuple)
        for row, position in enumerate(batch.positions):
            whole = Size(*batch.wholes[row].tolist())
            findings.append(
                Finding(
                    position,
                    source.name(position),
                    scores[row],
                    scores[row] > memory.threshold.score,
                    truth.of(position, known[row], whole, look.size),
                    distances[row],
                )
            )
    return findings


def measured(findings: list[Finding], memory: Memory, size: Size) -> Measures:
    """The measures over all images whose truth is known; pixels at `size`."""
    known = [(one, one.truth) for one in findings if one.truth is not None]
    scores = [one.score for one, _ in known]
    odd = [truth.image for _, truth in known]
    stand_ins = 0
    if known and all(odd):
        stand_ins = len(memory.normal)
        scores, odd = [*scores, *memory.normal.tolist()], [*odd, *[False] * stand_ins]
    images = separation(np.array(scores, np.float32), np.array(odd, bool))
    called = [(one.odd, truth.image) for one, truth in known]
    maps = [(one, truth) for one, truth in known if truth.pixels is not None]
    pixels, overlap = None, None
    if maps:
        heights = [memory.map(one.distances, size).numpy() for one, _ in maps]
        truths = [truth.pixels.numpy() for _, truth in maps if truth.pixels is not None]
        ignored = [
            np.zeros(tuple(size), bool) if truth.ignored is None else truth.ignored.numpy()
            for _, truth in maps
        ]
        flat = (
            np.concatenate([one[~left_out] for one, left_out in zip(each, ignored, strict=True)])
            for each in (heights, truths)
        )
        pixels, overlap = separation(*flat), region_overlap(heights, truths, ignored=ignored)
    return Measures(
        images=len(known),
        odd=sum(truth.image for _, truth in known),
        image_auroc=_known(images.auroc),
        image_precision=_known(images.precision),
        stand_ins=stand_ins,
        found=_share([said for said, true in called if true]),
        false_alarms=_share([said for said, true in called if not true]),
        pixel_auroc=_known(pixels and pixels.auroc),
        pixel_precision=_known(pixels and pixels.precision),
        region_overlap=_known(overlap),
    )


def _known(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value


def _share(said: list[bool]) -> float | None:
    return sum(said) / len(said) if said else None
