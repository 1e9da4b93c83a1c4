"""Checks of images: constant and repeated ones, statistics that do not fit, and the size of their structures."""

import hashlib
import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource, Size
from unmask.data.in_order import WHOLE_IMAGE, Unreadable, in_order
from unmask.data.labelled import Subset
from unmask.doctor.finding import Finding
from unmask.masks import PatchMask
from unmask.patches import patch_grid

MOST = 512
"""Images that are looked at, spread evenly over the set; fewer where they are large."""

_VALUES = 2**24  # of all images that are looked at, which are computed with in float64

_MANY, _MOSTLY = 0.02, 0.3  # shares of the images: a warning, and a fault
_FLAT = 1e-3  # deviation of an image relative to that of all: constant
_LEVEL = 0.5  # of 255: constant, for bytes
_FAR = 1.0  # distance of means in deviations
_TIMES = 3.0  # ratio of deviations
_EASY, _HARD = 4.0, 0.5  # correlation length relative to the way to a visible patch, and to a patch
_AT_ONCE = 64


class LookedAt(NamedTuple):
    """Images of a set that checks are made on."""

    images: Shaped[Tensor, "b c h w"]
    refused: Unreadable
    """Names and reasons of files that the scan left out."""
    images_in_all: int
    """How many images the set has without those."""
    decoded: int
    """How many were to be read."""
    unreadable: Unreadable
    """Names and reasons of those that could not be."""


def look_at(
    source: ImageSource, size: Size, statistics: ChannelStatistics, most: int = MOST
) -> LookedAt:
    """Up to `most` images, spread evenly, resized and cropped as for evaluation."""
    fitting = max(32, _VALUES // (size.height * size.width * source.channels))
    count = min(most, fitting, len(source))
    rows = np.unique(np.linspace(0, len(source) - 1, count).astype(np.int64))
    unreadable: Unreadable = []
    batches = in_order(
        Subset(source, rows), WHOLE_IMAGE, size, statistics, unreadable, batch_size=_AT_ONCE
    )
    images = torch.cat([batch.images for batch in batches])
    return LookedAt(images, source.refused, len(source), len(rows), unreadable)


def readable(found: LookedAt, allowed: float) -> Finding:
    """Images that cannot be used: a run sets them aside, up to the share that is allowed."""
    failures = [*found.refused, *found.unreadable]
    looked = f"{found.decoded:,} of {found.images_in_all:,} images"
    if not failures:
        return Finding("fine", "readable images", f"{looked} were read, and all can be")
    share = len(found.refused) / (found.images_in_all + len(found.refused))
    share += (1 - share) * len(found.unreadable) / found.decoded
    name, reason = failures[0]
    return Finding(
        "fault" if share > allowed else "warning",
        "readable images",
        f"{len(found.refused):,} files are unusable by their headers, and of {looked} that were read {len(found.unreadable):,} "
        f"are damaged; the first is {name}: {reason}",
        f"a run sets such images aside, and stops where they are more than --max-set-aside allows ({allowed:.0%})",
        "repair or remove them; a run lists all of them in set_aside.csv",
    )


def constant(images: Shaped[Tensor, "b c h w"]) -> Finding:
    """Images that are one colour: there is nothing to rebuild in them."""
    values = images.flatten(1).double()
    least = _LEVEL if images.dtype == torch.uint8 else _FLAT * _deviation(values.flatten())
    count = sum(_deviation(row) <= least for row in values)
    share = count / len(images)
    if share <= _MANY:
        return Finding(
            "fine", "constant images", f"{count:,} of {len(images):,} images are one colour"
        )
    return Finding(
        "fault" if share > _MOSTLY else "warning",
        "constant images",
        f"{count:,} of {len(images):,} images are one colour",
        "nothing can be learnt from them, and a loss on normalised patches is 0 or noise there",
        "remove them; if they look right elsewhere, their values are read wrongly (16 bits? bands?)",
    )


def _deviation(values: Float[Tensor, " n"]) -> float:
    known = values[~values.isnan()]
    return float(known.std(correction=0)) if len(known) else 0.0


def repeated(images: Shaped[Tensor, "b c h w"]) -> Finding:
    """Images that are equal after resizing."""
    hashes = [hashlib.blake2b(image.numpy().tobytes()).digest() for image in images]
    twins = len(hashes) - len(set(hashes))
    share = twins / len(images)
    seen = f"{twins:,} of {len(images):,} images repeat another one"
    if share <= _MANY:
        return Finding("fine", "repeated images", seen)
    return Finding(
        "fault" if share > _MOSTLY else "warning",
        "repeated images",
        seen,
        "the set is smaller than it seems, so the encoder learns it by heart; copies in both train and test make "
        "scores too good",
        "keep one of each, and count epochs by the rest",
    )


def fits_statistics(images: Shaped[Tensor, "b c h w"], statistics: ChannelStatistics) -> Finding:
    """Whether the statistics that normalise the images are about theirs."""
    pixels = images.double().movedim(1, 0).flatten(1)  # [c b*h*w]
    if images.dtype == torch.uint8:
        pixels = pixels / 255
    means = pixels.nanmean(1)
    deviations = (pixels - means[:, None]).square().nanmean(1).sqrt()
    bad: list[str] = []
    for channel, (mean, std) in enumerate(zip(statistics.mean, statistics.std, strict=True)):
        own_mean, own_std = float(means[channel]), float(deviations[channel])
        ratio = max(own_std, 1e-12) / std
        if abs(own_mean - mean) > _FAR * max(std, own_std) or not 1 / _TIMES < ratio < _TIMES:
            bad.append(
                f"channel {channel + 1}: mean {own_mean:.3g} and deviation {own_std:.3g}, but {mean:.3g} and {std:.3g} are used"
            )
    if not bad:
        return Finding(
            "fine",
            "statistics",
            "mean and deviation of the images are about those that normalise them",
        )
    return Finding(
        "warning",
        "statistics",
        "; ".join(bad[:3]) + ("; ..." if len(bad) > 3 else ""),
        "the network expects values with mean 0 and deviation 1",
        "--statistics measure measures them on the images",
        "likely",
    )


def correlation_length(images: Shaped[Tensor, "b c h w"]) -> float:
    """Pixels after which the correlation of two pixels in a row or column falls to 1/e, on average over images.

    The mean of the channels is used, less the mean of the image. Half the shorter side if it does not fall so far;
    0 if all images are constant.
    """
    grey = images.double().nanmean(1)
    grey = torch.where(grey.isnan(), grey.nanmean((1, 2), keepdim=True), grey).nan_to_num()
    grey = grey - grey.mean((1, 2), keepdim=True)
    power = float(grey.square().mean())
    if power == 0:
        return 0.0
    before, most = 1.0, min(grey.shape[1:]) // 2
    for lag in range(1, most + 1):
        products = [
            (grey[:, lag:] * grey[:, :-lag]).mean(),
            (grey[:, :, lag:] * grey[:, :, :-lag]).mean(),
        ]
        now = float(sum(products)) / len(products) / power
        if now < 1 / math.e:
            return lag - (1 / math.e - now) / (before - now)
        before = now
    return float(most)


def way_to_visible(mask: PatchMask, grid: Size) -> float:
    """Mean distance from a hidden patch to the nearest visible one of its image, in patches."""
    places = torch.cartesian_prod(*(torch.arange(side) for side in grid)).double()  # [n 2]
    ways = torch.cdist(places[mask.removed_index], places[mask.kept_index])  # [m r k]
    return float(ways.min(-1).values.mean())


def structures(length: float, patch_size: int, mask: PatchMask, size: Size) -> list[Finding]:
    """Whether the hidden part is neither copied from its neighbours nor impossible to guess.

    The spatial scale of what is learnt follows from patch size and ratio (arXiv 2508.15404).
    """
    about = "patch size and masking"
    grid = patch_grid(size, patch_size)
    way = patch_size * way_to_visible(mask, grid)
    hidden = mask.removed_index.shape[1] / (grid.height * grid.width)
    seen = (
        f"pixels are correlated over {length:.1f} pixels; patches have {patch_size}, {hidden:.0%} are hidden, and the next "
        f"visible patch is {way:.1f} pixels away"
    )
    if length > _EASY * way:
        return [
            Finding(
                "note", about, seen,
                "hidden patches can mostly be copied from their neighbours",
                "try a higher --objective.masking.ratio or a larger --encoder.patch-size",
                "possible",
            )
        ]  # fmt: skip
    if length < _HARD * patch_size:
        return [
            Finding(
                "note", about, seen,
                "most structures are smaller than a patch, so hidden patches can hardly be guessed",
                "try a smaller --encoder.patch-size or larger pictures (--image-size)",
                "possible",
            )
        ]  # fmt: skip
    return [Finding("fine", about, seen)]
