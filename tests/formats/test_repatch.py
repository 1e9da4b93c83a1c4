"""Weights for patches of another size, against timm's function and the definition."""

import pytest
import torch
from reference.problems import random
from timm.layers import resample_patch_embed
from torch.nn import functional as F

from unmask.channels import IMAGENET
from unmask.contracts import Size
from unmask.encoders.vit import ViT
from unmask.formats.model import FORMAT, ModelSpec, Weights
from unmask.formats.repatch import repatched, resampled_kernel
from unmask.patches import patchify


@pytest.mark.parametrize(("old", "new"), [(14, 16), (16, 8), (4, 7), (6, 6)])
def test_kernels_equal_timms(old: int, new: int) -> None:
    kernel = torch.randn(5, 3, old, old, generator=random(0))
    expected = resample_patch_embed(kernel, [new, new])
    torch.testing.assert_close(resampled_kernel(kernel, new), expected, atol=1e-4, rtol=1e-4)


def test_enlarged_patches_have_the_same_tokens() -> None:
    """Section 3.4: the new projection of a patch resized from 14 to 16 is the old one of the patch, exactly."""
    kernel = torch.randn(5, 3, 14, 14, generator=random(0))
    patches = torch.rand(4, 3, 14, 14, generator=random(1))
    large = F.interpolate(patches, (16, 16), mode="bicubic", antialias=True)
    old, new = F.conv2d(patches, kernel), F.conv2d(large, resampled_kernel(kernel, 16))
    torch.testing.assert_close(new, old, atol=1e-4, rtol=1e-4)


def test_an_encoder_keeps_its_grid_and_everything_else() -> None:
    spec = ModelSpec(
        format=FORMAT,
        encoder=ViT(patch_size=14, embed_dim=8, depth=1, num_heads=2),
        objective=None,
        image_size=Size(28, 42),
        channels=3,
        statistics=IMAGENET,
        origin="a test",
    )
    encoder = spec.build_encoder()
    weights = repatched(Weights(spec, dict(encoder.state_dict()), {}), 16)
    assert weights.spec.image_size == Size(32, 48)
    assert weights.spec.encoder == ViT(patch_size=16, embed_dim=8, depth=1, num_heads=2)
    assert weights.spec.origin == (
        "a test, patches resampled from 14 to 16 pixels by FlexiViT's pseudo-inverse"
    )
    new = weights.build_encoder()
    assert new.grid == encoder.grid
    # patches resized one by one have the tokens of before
    images = torch.rand(1, 3, 28, 42, generator=random(2))
    patches = patchify(images, 14).unflatten(2, (14, 14, 3)).permute(0, 1, 4, 2, 3)
    large = F.interpolate(patches[0], (16, 16), mode="bicubic", antialias=True)  # [6 c 16 16]
    whole = large.unflatten(0, (2, 3)).permute(2, 0, 3, 1, 4).reshape(1, 3, 32, 48)
    torch.testing.assert_close(new(whole), encoder(images), atol=1e-4, rtol=1e-4)
    assert repatched(weights, 16) is weights
