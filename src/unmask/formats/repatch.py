"""Weights for patches of another size: the patch projection is resampled, and the grid of patches stays.

So ViT-H/14, as MAE published it, becomes the ViT-H/16 that detection needs, whose strides are powers of two.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Size
from unmask.formats.model import Weights

_PROJECTION = "patch_embed.proj.weight"


def repatched(weights: Weights, patch_size: int) -> Weights:
    """The encoder for patches of this size, and for images that are larger in proportion; a decoder is left out."""
    spec = weights.spec
    old = spec.encoder.patch_size
    if patch_size == old:
        return weights
    size = Size(*(side // old * patch_size for side in spec.image_size))
    spec = replace(
        spec.without_decoder(),
        encoder=replace(spec.encoder, patch_size=patch_size),
        image_size=size,
        origin=f"{spec.origin}, patches resampled from {old} to {patch_size} pixels by FlexiViT's pseudo-inverse",
    )
    kernel = resampled_kernel(weights.encoder[_PROJECTION], patch_size)
    return weights._replace(spec=spec, encoder={**weights.encoder, _PROJECTION: kernel}, decoder={})


def resampled_kernel(
    kernel: Float[Tensor, "d c side side"], patch_size: int
) -> Float[Tensor, "d c new new"]:
    """The projection that gives enlarged patches the tokens that the old one gave the patches themselves.

    FlexiViT's resize with the pseudo-inverse (Beyer and others, 2023, section 3.4), for bicubic resizing with
    antialiasing, as timm's `resample_patch_embed`. For smaller patches it is the best approximation. How the file of
    ViTDet's authors (`mae_pretrain_vit_huge_p14to16`) was made is not published.
    """
    side = kernel.shape[-1]
    pixels = torch.eye(side**2).unflatten(1, (1, side, side))
    resized = F.interpolate(pixels, (patch_size, patch_size), mode="bicubic", antialias=True)
    back = torch.linalg.pinv(resized.flatten(1).double())  # [new^2 old^2], from large to small
    new = torch.einsum("np,dcp->dcn", back, kernel.flatten(2).double())
    return new.unflatten(2, (patch_size, patch_size)).to(kernel.dtype)
