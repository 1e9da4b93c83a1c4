"""Discrete codes as the target: the nearest k-means centre of each patch, an alternative to a trained tokenizer."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.channels import Statistics
from unmask.errors import DataError
from unmask.masks import PatchMask
from unmask.patches import filled, gather
from unmask.spec import MOST_CODES, sized, within
from unmask.targets.pixels import Levels, normalized, with_levels


@dataclass(frozen=True, kw_only=True)
class KMeansTokens:
    """The nearest of `codes` k-means centres to each hidden patch, after per-patch normalisation.

    The centres are computed before the first step and saved with the weights. AIM (El-Nouby and others, 2024, table 2)
    compares such codes with pixels. MAE's own tokens (table 1d) are those of a trained tokenizer.
    """

    codes: int = 512
    """Number of codes; must be smaller than the number of training patches."""

    def __post_init__(self) -> None:
        within(self, "[2, inf)", "codes")
        sized(self, "codes", most=MOST_CODES)

    def build(self, patch_size: int, channels: int) -> "TokenTarget":
        """The target for patches of this size; `fit` must be called before it is used."""
        return TokenTarget(patch_size, patch_size**2 * channels, self.codes)


def known_codes(
    codes: Int[Tensor, "m r"], patches: Float[Tensor, "m r p"], images: Tensor
) -> Float[Tensor, "m r 1"]:
    """Codes as a target; NaN if all values of a patch are missing. Images of bytes have no missing values."""
    target = codes.float()[..., None]
    if not images.is_floating_point():
        return target
    return target.masked_fill(patches.isnan().all(-1, keepdim=True), torch.nan)


def code_errors(
    prediction: Float[Tensor, "m r codes"], target: Float[Tensor, "m r 1"]
) -> Float[Tensor, "m r"]:
    """Cross-entropy of each patch in float32; 0 if its code is not known (NaN)."""
    known = ~target.squeeze(-1).isnan()
    numbers = target.squeeze(-1).nan_to_num().long()
    errors = F.cross_entropy(prediction.float().flatten(0, 1), numbers.flatten(), reduction="none")
    return errors.view_as(known) * known


def typical_patches(patches: Float[Tensor, "n p"], codes: int) -> Float[Tensor, "codes p"]:
    """Centres by mini-batch k-means (Sculley, 2010) with a fixed seed; DataError for fewer patches than codes."""
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    if len(patches) < codes:
        raise DataError(
            f"{codes} codes need at least as many patches, and there are {len(patches)}; use fewer "
            "--objective.target.codes, or more images"
        )
    kmeans = MiniBatchKMeans(codes, batch_size=4096, random_state=0)
    with threadpool_limits(torch.get_num_threads()):
        kmeans.fit(patches.cpu().numpy())
    return torch.from_numpy(kmeans.cluster_centers_)


def nearest(patches: Float[Tensor, "*b p"], centers: Float[Tensor, "codes p"]) -> Int[Tensor, "*b"]:
    """The index of the nearest centre of each patch."""
    with torch.autocast(patches.device.type, enabled=False):  # codes must not depend on precision
        # argmin |p - c|^2 = argmax p.c - |c|^2 / 2
        return (patches @ centers.T - centers.square().sum(1) / 2).argmax(-1)


def perplexity_of(counts: Int[Tensor, " codes"]) -> Float[Tensor, ""]:
    """The perplexity (exponential of the entropy) of codes that occur this often: how many are in effective use."""
    return torch.special.entr(counts / counts.sum()).sum().exp()


class TokenTarget(nn.Module):
    """See `KMeansTokens`. The centres and the perplexity of the training patches are buffers."""

    gives_levels = True
    loss = staticmethod(code_errors)
    patches_wanted = 100_000
    centers: Tensor
    perplexity: Tensor
    """Perplexity of the codes of the training patches; equal to their number if all occur equally often."""

    def __init__(self, patch_size: int, values: int, codes: int) -> None:
        super().__init__()
        self.patch_size, self.out_dim = patch_size, codes
        self.register_buffer("centers", torch.zeros(codes, values))
        self.register_buffer("perplexity", torch.zeros(()))

    @property
    def fitted(self) -> bool:
        """Whether `fit` has been called."""
        return bool(self.perplexity > 0)

    def fit(self, patches: Float[Tensor, "n p"]) -> None:
        """Compute the centres; DataError for fewer patches than codes, and if all patches get the same code."""
        patches = normalized(patches, patches)
        self.centers.copy_(typical_patches(patches, len(self.centers)))
        codes = nearest(patches.to(self.centers), self.centers)
        if not self.centers.isfinite().all() or (codes == codes[0]).all():
            raise DataError(
                f"k-means gives all {len(patches):,} training patches the same code, so there is nothing to predict. Check "
                "whether the images are blank, or use objective.target:normalized-pixels"
            )
        self.perplexity.copy_(perplexity_of(codes.bincount(minlength=len(self.centers))))

    def forward(
        self, images: Tensor, mask: PatchMask, statistics: Statistics
    ) -> Float[Tensor, "m r 1"]:
        """The code of each hidden patch; NaN if all values of a patch are missing."""
        patches = gather(images, mask.image, mask.removed_index, self.patch_size, statistics)
        codes = nearest(filled(normalized(patches, images)), self.centers)
        return known_codes(codes, patches, images)

    def pixels(
        self,
        prediction: Float[Tensor, "m n codes"],
        images: Tensor,
        mask: PatchMask,
        statistics: Statistics,
        levels: Levels,
    ) -> Float[Tensor, "m n p"]:
        """The centre of the most likely code, scaled and shifted by `with_levels`."""
        centers = self.centers[prediction.argmax(-1)]
        return with_levels(centers, images, mask, self.patch_size, statistics, levels)
