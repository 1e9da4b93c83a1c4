"""Discrete codes as the target: the nearest of some typical patches (k-means, as an alternative to a trained tokenizer)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import PatchMask, Statistics
from unmask.errors import DataError, SettingsError
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
        """Find the typical patches by k-means in mini-batches (Sculley, 2010), from a fixed draw.

        Raises:
            DataError: if there are fewer patches than codes.
        """
        from sklearn.cluster import MiniBatchKMeans

        codes = len(self.centers)
        if len(patches) < codes:
            raise DataError(
                f"{codes} codes cannot be found among {len(patches)} patches; take fewer with "
                "--objective.target.codes, or more images"
            )
        known = normalized(patches, patches)
        kmeans = MiniBatchKMeans(codes, batch_size=4096, random_state=0)
        kmeans.fit(known.cpu().numpy())
        self.centers.copy_(torch.from_numpy(kmeans.cluster_centers_))
        shares = torch.bincount(self._codes(known.to(self.centers)), minlength=codes) / len(known)
        self.perplexity.copy_(torch.special.entr(shares).sum().exp())

    def forward(
        self, images: Tensor, mask: PatchMask, statistics: Statistics
    ) -> Float[Tensor, "m r 1"]:
        """The number of the code of each hidden patch; NaN where all of a patch is missing."""
        patches = gather(images, mask.image, mask.removed_index, self.patch_size, statistics)
        codes = self._codes(filled(normalized(patches, images))).float()[..., None]
        if not images.is_floating_point():
            return codes
        return codes.masked_fill(patches.isnan().all(-1, keepdim=True), torch.nan)

    def loss(
        self, prediction: Float[Tensor, "m r codes"], target: Float[Tensor, "m r 1"]
    ) -> Float[Tensor, "m r"]:
        """Cross-entropy of each patch; 0 where its code is not known."""
        known = ~target.squeeze(-1).isnan()
        numbers = target.squeeze(-1).nan_to_num().long()
        errors = F.cross_entropy(
            prediction.float().flatten(0, 1), numbers.flatten(), reduction="none"
        )
        return errors.view_as(known) * known

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

    def _codes(self, patches: Float[Tensor, "*b p"]) -> Tensor:
        """The nearest typical patch of each."""
        half_length = self.centers.square().sum(1) / 2
        return (patches @ self.centers.T - half_length).argmax(-1)
