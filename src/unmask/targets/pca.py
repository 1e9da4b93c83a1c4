"""Leading principal components of patches as the target (MAE table 1d)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmask.channels import Statistics
from unmask.errors import DataError
from unmask.masks import PatchMask
from unmask.patches import gather
from unmask.spec import within
from unmask.targets.pixels import Levels, squared_error


@dataclass(frozen=True, kw_only=True)
class PrincipalComponents:
    """The leading principal components of each hidden patch, which drop fine detail.

    Patches are normalised as the encoder's input is, without per-patch normalisation. The components are fitted to
    training patches before the first step and saved with the weights.
    """

    share: float = 0.125
    """Number of components, as a share of the values of a patch: MAE keeps 96 of 768 (table 1d)."""

    def __post_init__(self) -> None:
        within(self, "(0, 1]", "share", usual="MAE uses 0.125")

    def build(self, patch_size: int, channels: int) -> "ComponentTarget":
        """The target for patches of this size; `fit` must be called before it is used."""
        values = patch_size**2 * channels
        return ComponentTarget(patch_size, values, max(1, round(self.share * values)))


class ComponentTarget(nn.Module):
    """See `PrincipalComponents`. Mean, basis and the explained share of the variance are buffers."""

    gives_levels = True
    loss = staticmethod(squared_error)
    patches_wanted = 100_000
    mean: Tensor
    basis: Tensor
    kept_variance: Tensor

    def __init__(self, patch_size: int, values: int, components: int) -> None:
        super().__init__()
        self.patch_size, self.out_dim = patch_size, components
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("basis", torch.zeros(components, values))
        self.register_buffer("kept_variance", torch.zeros(()))

    @property
    def fitted(self) -> bool:
        """Whether `fit` has been called."""
        return bool(self.kept_variance > 0)

    def fit(self, patches: Float[Tensor, "n p"]) -> None:
        """Compute mean and leading eigenvectors of the covariance, in float64; DataError if all patches are the same.

        The sign of an eigenvector is arbitrary, so its largest entry is made positive: the same patches then give the
        same target everywhere.
        """
        patches = patches.double()
        mean = patches.mean(0)
        variances, vectors = torch.linalg.eigh((patches - mean).T.cov(correction=0))
        if not float(variances[-1]) > 0:
            raise DataError(
                "all training patches are the same, so they have no principal components; check whether the images are blank"
            )
        leading = vectors.T.flip(0)[: self.out_dim]  # [q p]
        largest = leading.gather(1, leading.abs().argmax(1, keepdim=True))
        self.mean.copy_(mean)
        self.basis.copy_(leading * largest.sign())
        self.kept_variance.copy_(variances.flip(0)[: self.out_dim].sum() / variances.sum())

    def forward(
        self, images: Tensor, mask: PatchMask, statistics: Statistics
    ) -> Float[Tensor, "m r q"]:
        """The coefficients of the hidden patches; a missing value counts as the mean at its position in the patch."""
        patches = gather(images, mask.image, mask.removed_index, self.patch_size, statistics)
        centered = patches - self.mean
        if not images.is_floating_point():
            return centered @ self.basis.T
        missing = centered.isnan()
        coefficients = centered.masked_fill(missing, 0.0) @ self.basis.T
        return coefficients.masked_fill(missing.all(-1, keepdim=True), torch.nan)

    def pixels(
        self,
        prediction: Float[Tensor, "m n q"],
        images: Tensor,
        mask: PatchMask,
        statistics: Statistics,
        levels: Levels,
    ) -> Float[Tensor, "m n p"]:
        """The patches with these coefficients; all other components are 0."""
        return prediction @ self.basis + self.mean
