"""Adapt weights to images of another size or with other channels.

Position tables, and tables of relative positions, are resampled in two dimensions. For other channels the patch projection
changes as follows. To one channel: it is summed over the old channels, so that a grey image gives the same tokens as before in
all channels. To several: the old channels are repeated in turn and scaled by old / new, so that tokens keep their scale. The
decoder's prediction is averaged over channels or repeated without scaling, because it predicts each channel separately.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import Size
from unmask.encoders.positions import resized, resized_table
from unmask.encoders.vit import ViT
from unmask.formats.model import Weights
from unmask.patches import patch_grid

_TABLE = "pos_embed"
_RELATIVE = "relative.table"
_PROJECTION = "patch_embed.proj.weight"
_PREDICTION = ("decoder.pred.weight", "decoder.pred.bias")


def adapt(
    weights: Weights, encoder_spec: ViT, image_size: Size, statistics: ChannelStatistics
) -> Weights:
    """The weights for images of this size, with the channels of the statistics.

    `encoder_spec` has the shape of the weights, and says how position tables are resampled.
    """
    spec, resampling = weights.spec, encoder_spec.position_resampling
    assert encoder_spec.fits(spec.encoder)
    old = patch_grid(spec.image_size, spec.encoder.patch_size)
    new = patch_grid(image_size, spec.encoder.patch_size)
    channels = len(statistics.mean)

    mean, std = statistics.tensors()
    encoder = {**weights.encoder, "mean": mean, "std": std}
    if _TABLE in encoder:
        encoder[_TABLE] = resized(encoder[_TABLE], old, new, resampling)
    if _RELATIVE in encoder:
        encoder[_RELATIVE] = resized_table(encoder[_RELATIVE], old, new)
    encoder[_PROJECTION] = projection_for(encoder[_PROJECTION], channels)

    decoder = dict(weights.decoder)
    if f"decoder.{_TABLE}" in decoder:
        table = decoder[f"decoder.{_TABLE}"]
        decoder[f"decoder.{_TABLE}"] = resized(table, old, new, resampling)
    for name in decoder.keys() & set(_PREDICTION):
        decoder[name] = prediction_for(decoder[name], spec.channels, channels)

    spec = replace(
        spec,
        encoder=encoder_spec,
        image_size=image_size,
        channels=channels,
        statistics=statistics,
    )
    return weights._replace(spec=spec, encoder=encoder, decoder=decoder)


def projection_for(
    weight: Float[Tensor, "d old side side"], channels: int
) -> Float[Tensor, "d new side side"]:
    """The patch projection for another number of channels."""
    old = weight.shape[1]
    if channels == old:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(channels) % old] * (old / channels)


def prediction_for(
    rows: Float[Tensor, " out *e"], old: int, channels: int
) -> Float[Tensor, " new *e"]:
    """The rows of the prediction, ordered as (row, column, channel), for another number of channels."""
    if channels == old:
        return rows
    pixels = rows.unflatten(0, (-1, old))  # [pixels old *e]
    new = pixels.mean(1, keepdim=True) if channels == 1 else pixels[:, torch.arange(channels) % old]
    return new.flatten(0, 1)
