"""Principal components: against scikit-learn, and what they keep of what."""

import math

import numpy as np
import pytest
import torch
from reference import problems
from sklearn.decomposition import PCA

from unmask.errors import DataError, SettingsError
from unmask.patches import normalize, patchify
from unmask.targets import PrincipalComponents
from unmask.targets.pca import ComponentTarget

STATISTICS = problems.statistics(3)
SIDE, VALUES = 4, 48
MASK = problems.first_patches_kept(2, 16, 4)


def patches(rank: int, count: int = 400, noise: float = 0.0) -> torch.Tensor:
    """Patches of a known rank, and noise."""
    random = problems.random(rank)
    weights = torch.randn(count, rank, generator=random) * torch.arange(rank, 0, -1)
    mixed = weights @ torch.randn(rank, VALUES, generator=random) + 3
    return mixed + noise * torch.randn(count, VALUES, generator=random)


def fitted(to: torch.Tensor, components: int) -> ComponentTarget:
    target = PrincipalComponents(share=components / VALUES).build(SIDE, 3)
    assert not target.fitted
    target.fit(to)
    assert target.fitted
    return target


def test_sizes_are_those_of_the_paper() -> None:
    assert PrincipalComponents().build(16, 3).out_dim == 96


def test_a_set_of_low_rank_is_recovered() -> None:
    known = patches(rank=5)
    target = fitted(known, 5)
    assert target.kept_variance.item() == pytest.approx(1, abs=1e-6)
    coefficients = (known - target.mean) @ target.basis.T
    torch.testing.assert_close(coefficients @ target.basis + target.mean, known, atol=1e-4, rtol=0)
    torch.testing.assert_close(target.basis @ target.basis.T, torch.eye(5), atol=1e-6, rtol=0)


@pytest.mark.parametrize("components", [1, 6, 48])
def test_equals_scikit_learn(components: int) -> None:
    known = patches(rank=20, noise=0.5)
    ours, theirs = fitted(known, components), PCA(components, svd_solver="full")
    theirs.fit(known.double().numpy())
    assert ours.kept_variance.item() == pytest.approx(theirs.explained_variance_ratio_.sum())
    signs = np.sign((ours.basis.double().numpy() * theirs.components_).sum(1))[:, None]
    np.testing.assert_allclose(ours.basis, signs * theirs.components_, atol=1e-5)


def test_target_is_the_projection_of_the_hidden_patches() -> None:
    images = problems.pictures(problems.Problem())
    cut = normalize(patchify(images, SIDE), STATISTICS)
    target = fitted(cut.flatten(0, 1), 6)
    found = target(images, MASK, STATISTICS)
    assert found.shape == (2, 12, 6)
    for row in range(2):
        for place, number in enumerate(MASK.removed_index[row].tolist()):
            for component in range(6):
                apart = cut[row, number] - target.mean
                expected = sum((apart * target.basis[component]).tolist())
                assert found[row, place, component].item() == pytest.approx(expected, abs=1e-5)


def test_all_components_draw_the_patch_itself() -> None:
    images = problems.pictures(problems.Problem())
    cut = normalize(patchify(images, SIDE), STATISTICS)
    target = fitted(patches(rank=48), 48)
    drawn = target.pixels(target(images, MASK, STATISTICS), images, MASK, STATISTICS, "true")
    torch.testing.assert_close(drawn, cut[:, 4:], atol=1e-4, rtol=0)


def test_missing_values_count_as_the_mean() -> None:
    images = problems.pictures(problems.Problem()).float()
    target = fitted(patches(rank=6), 6)
    images[0, :, 4:8, 0:4] = math.nan  # all of patch 4, the first hidden one
    images[0, 0, 4, 4] = math.nan  # one value of patch 5
    found = target(images, MASK, STATISTICS)
    assert found[0, 0].isnan().all()
    assert found[0, 1:].isfinite().all()
    filled = normalize(patchify(images, SIDE), STATISTICS)[0, 5]
    filled[0] = target.mean[0]
    torch.testing.assert_close(found[0, 1], (filled - target.mean) @ target.basis.T)
    assert target.loss(torch.ones_like(found), found)[0, 0] == 0


def test_a_fit_does_not_hang_on_signs() -> None:
    known = patches(rank=6)
    torch.testing.assert_close(fitted(known, 6).basis, fitted(known.flip(0), 6).basis)


def test_patches_all_alike_are_refused() -> None:
    with pytest.raises(DataError, match="all training patches are the same"):
        fitted(torch.ones(10, VALUES), 6)


@pytest.mark.parametrize("share", [0, -0.1, 1.5, math.nan])
def test_bad_share_is_refused(share: float) -> None:
    with pytest.raises(
        SettingsError, match=r"share must be (above 0 and at most 1|a finite number)"
    ):
        PrincipalComponents(share=share)
