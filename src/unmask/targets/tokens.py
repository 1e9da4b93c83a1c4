"""Discrete codes as the target: the nearest of some typical patches (k-means, as an alternative to a trained tokenizer)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.channels import Statistics
from unmask.errors import DataError, SettingsError
from unmask.masks import PatchMask
from unmask.patches import filled, gather
from unmask.targets.pixels import Levels, normalized, with_levels


@dataclass(frozen=True, kw_only=True)
class KMeansTokens:
    """Which of `codes` typical patches each hidden patch is most like, once both are normalised.

    The typical patches are found by k-means before the first step and kept with the weights. AIM (El-Nouby
    and others, 2024, table 2) compares such codes with pixels. MAE's own tokens (table 1d) are those of a
    trained tokenizer.
    """

    codes: int = 512
    """How many there are; fewer than the training patches."""

    def __post_init__(self) -> None:
        if self.codes < 2:
            raise SettingsError(f"codes must be at least 2, got {self.codes}")

    def build(self, patch_size: int, channels: int) -> "TokenTarget":
        """The target for patches of this size, yet to be fitted."""
        return TokenTarget(patch_size, patch_size**2 * channels, self.codes)


def known_codes(
    codes: Int[Tensor, "m r"], patches: Float[Tensor, "m r p"], images: Tensor
) -> Float[Tensor, "m r 1"]:
    """Codes as a target; NaN where all of a patch is missing, which images of bytes cannot have."""
    target = codes.float()[..., None]
    if not images.is_floating_point():
        return target
    return target.masked_fill(patches.isnan().all(-1, keepdim=True), torch.nan)


def code_errors(
    prediction: Float[Tensor, "m r codes"], target: Float[Tensor, "m r 1"]
) -> Float[Tensor, "m r"]:
    """Cross-entropy of each patch in float32; 0 where its code is not known (NaN)."""
    known = ~target.squeeze(-1).isnan()
    numbers = target.squeeze(-1).nan_to_num().long()
    errors = F.cross_entropy(prediction.float().flatten(0, 1), numbers.flatten(), reduction="none")
    return errors.view_as(known) * known


def typical_patches(patches: Float[Tensor, "n p"], codes: int) -> Float[Tensor, "codes p"]:
    """So many typical patches, by k-means in mini-batches (Sculley, 2010), from a fixed draw.

    Raises:
        DataError: if there are fewer patches than codes.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    if len(patches) < codes:
        raise DataError(
            f"{codes} codes cannot be found among {len(patches)} patches; take fewer with "
            "--objective.target.codes, or more images"
        )
    kmeans = MiniBatchKMeans(codes, batch_size=4096, random_state=0)
    with threadpool_limits(torch.get_num_threads()):
        kmeans.fit(patches.cpu().numpy())
    return torch.from_numpy(kmeans.cluster_centers_)


def nearest(patches: Float[Tensor, "*b p"], centers: Float[Tensor, "codes p"]) -> Int[Tensor, "*b"]:
    """The number of the nearest center of each patch; in float32 under autocast too, since codes are a function of the pixels alone."""
    with torch.autocast(patches.device.type, enabled=False):
        return (patches @ centers.T - centers.square().sum(1) / 2).argmax(-1)


def perplexity_of(counts: Int[Tensor, "codes"]) -> Float[Tensor, ""]:
    """How many codes would be in use if all in use were used alike, from how often each occurs."""
    return torch.special.entr(counts / counts.sum()).sum().exp()


class TokenTarget(nn.Module):
    """See `KMeansTokens`. The typical patches, and how evenly training patches use them, are buffers."""

    gives_levels = True
    patches_wanted = 100_000
    centers: Tensor
    perplexity: Tensor
    """Of the codes of the training patches: the number of codes if all are used alike."""

    def __init__(self, patch_size: int, values: int, codes: int) -> None:
        super().__init__()
        self.patch_size, self.out_dim = patch_size, codes
        self.register_buffer("centers", torch.zeros(codes, values))
        self.register_buffer("perplexity", torch.zeros(()))

    @property
    def fitted(self) -> bool:
        """Whether the typical patches are those of some images."""
        return bool(self.perplexity > 0)

    def fit(self, patches: Float[Tensor, "n p"]) -> None:
        """Find the typical patches.

        Raises:
            DataError: if there are fewer patches than codes, or all get the same.
        """
        known = normalized(patches, patches)
        self.centers.copy_(typical_patches(known, len(self.centers)))
        found = nearest(known.to(self.centers), self.centers)
        if not self.centers.isfinite().all() or (found == found[0]).all():
            raise DataError(
                f"k-means gives all {len(known):,} training patches one code, so there is nothing to guess; are the "
                "images blank? objective.target:normalized-pixels needs no codes"
            )
        self.perplexity.copy_(perplexity_of(found.bincount(minlength=len(self.centers))))

    def forward(
        self, images: Tensor, mask: PatchMask, statistics: Statistics
    ) -> Float[Tensor, "m r 1"]:
        """The number of the code of each hidden patch; NaN where all of a patch is missing."""
        patches = gather(images, mask.image, mask.removed_index, self.patch_size, statistics)
        return known_codes(
            nearest(filled(normalized(patches, images)), self.centers), patches, images
        )

    def loss(
        self, prediction: Float[Tensor, "m r codes"], target: Float[Tensor, "m r 1"]
    ) -> Float[Tensor, "m r"]:
        """Cross-entropy of each patch; 0 where its code is not known."""
        return code_errors(prediction, target)

    def pixels(
        self,
        prediction: Float[Tensor, "m n codes"],
        images: Tensor,
        mask: PatchMask,
        statistics: Statistics,
        levels: Levels,
    ) -> Float[Tensor, "m n p"]:
        """The typical patch of the likeliest code, with mean and deviation as `with_levels` gives them."""
        drawn = self.centers[prediction.argmax(-1)]
        return with_levels(drawn, images, mask, self.patch_size, statistics, levels)
