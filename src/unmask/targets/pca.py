"""Leading principal components of patches as the target (MAE table 1d)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmask.channels import Statistics
from unmask.errors import DataError, SettingsError
from unmask.masks import PatchMask
from unmask.patches import gather
from unmask.targets.pixels import Levels, squared_error


@dataclass(frozen=True, kw_only=True)
class PrincipalComponents:
    """The largest coefficients of each hidden patch in the basis that suits the training patches best.

    What it drops is fine detail. Patches are taken as the encoder sees them, without normalisation of each
    patch; the basis is fitted before the first step and kept with the weights.
    """

    share: float = 0.125
    """Coefficients kept, as a share of the values of a patch: MAE keeps 96 of 768 (table 1d)."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise SettingsError(
                f"the share of components must lie above 0 and be at most 1, got {self.share}; MAE keeps 0.125"
            )

    def build(self, patch_size: int, channels: int) -> "ComponentTarget":
        """The target for patches of this size, yet to be fitted."""
        values = patch_size**2 * channels
        return ComponentTarget(patch_size, values, max(1, round(self.share * values)))


class ComponentTarget(nn.Module):
    """See `PrincipalComponents`. Mean, basis and the share of variance kept are buffers."""

    gives_levels = True
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
        """Whether mean and basis are those of some patches."""
        return bool(self.kept_variance > 0)

    def fit(self, patches: Float[Tensor, "n p"]) -> None:
        """Take mean and leading eigenvectors of the covariance, in float64.

        The largest entry of each vector is made positive, so that equal patches give equal targets.

        Raises:
            DataError: if all patches are alike.
        """
        patches = patches.double()
        mean = patches.mean(0)
        variances, vectors = torch.linalg.eigh((patches - mean).T.cov(correction=0))
        if not float(variances[-1]) > 0:
            raise DataError("all training patches are alike, so they have no principal components")
        leading = vectors.T.flip(0)[: self.out_dim]  # [q p]
        largest = leading.gather(1, leading.abs().argmax(1, keepdim=True))
        self.mean.copy_(mean)
        self.basis.copy_(leading * largest.sign())
        self.kept_variance.copy_(variances.flip(0)[: self.out_dim].sum() / variances.sum())

    def forward(
        self, images: Tensor, mask: PatchMask, statistics: Statistics
    ) -> Float[Tensor, "m r q"]:
        """The coefficients of the hidden patches; missing values count as the mean of their place."""
        patches = gather(images, mask.image, mask.removed_index, self.patch_size, statistics)
        apart = patches - self.mean
        if not images.is_floating_point():
            return apart @ self.basis.T
        missing = apart.isnan()
        coefficients = apart.masked_fill(missing, 0.0) @ self.basis.T
        return coefficients.masked_fill(missing.all(-1, keepdim=True), torch.nan)

    def loss(self, prediction: Tensor, target: Tensor) -> Float[Tensor, "m r"]:
        """Mean squared error of each patch's coefficients."""
        return squared_error(prediction, target)

    def pixels(
        self,
        prediction: Float[Tensor, "m n q"],
        images: Tensor,
        mask: PatchMask,
        statistics: Statistics,
        levels: Levels,
    ) -> Float[Tensor, "m n p"]:
        """The patches that have these coefficients, and no others."""
        return prediction @ self.basis + self.mean
