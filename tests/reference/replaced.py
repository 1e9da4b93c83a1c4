"""A slow, literal masked autoencoder whose encoder sees mask tokens (MAE table 1c), from the paper's text.

The embedding of each removed patch is exchanged for one learned token before positions are added; the
encoder runs over every patch; the decoder takes what comes out, and has no mask token.
"""

import torch
from reference.mae import Result, Weights, cut, mean_over_removed, position, shuffle, transformer
from torch import Tensor


def replaced(
    weights: Weights,
    images: Tensor,
    noise: Tensor,
    *,
    patch_size: int,
    ratio: float,
    heads: int,
    decoder_heads: int,
    normalized: bool,
) -> Result:
    """One pass over images [b, c, h, w] whose channels are normalised already; latents of all patches."""
    columns = images.shape[3] // patch_size
    latents, predictions, flags, patches = [], [], [], []
    for image, values in zip(images, noise.tolist(), strict=True):
        _, removed, _ = shuffle(values, ratio)
        latent = encode(weights, image, removed, patch_size, heads)
        latents.append(latent)
        predictions.append(decode(weights, latent, columns, decoder_heads))
        flags.append([1 if number in removed else 0 for number in range(len(values))])
        patches.append(cut(image, patch_size))
    loss = mean_over_removed(patches, predictions, flags, normalized)
    return Result(loss, torch.stack(latents), torch.stack(predictions), flags, torch.stack(patches))


def encode(
    weights: Weights, image: Tensor, removed: list[int], patch_size: int, heads: int
) -> Tensor:
    """Class token and a token of every patch: project, exchange, add positions, transform."""
    kernel, bias = weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"]
    rows, columns = image.shape[1] // patch_size, image.shape[2] // patch_size
    sequence = [weights["cls_token"][0, 0]]
    for row in range(rows):
        for column in range(columns):
            top, left = row * patch_size, column * patch_size
            region = image[:, top : top + patch_size, left : left + patch_size]
            token = (kernel * region).sum((1, 2, 3)) + bias
            if row * columns + column in removed:
                token = weights["mask_token"][0, 0]
            sequence.append(token + position(len(bias), row, column))
    return transformer(weights, "", torch.stack(sequence), heads)


def decode(weights: Weights, latent: Tensor, columns: int, heads: int) -> Tensor:
    """Guesses for every patch: project, add positions, transform."""
    sequence = []
    for number, token in enumerate(latent):
        embedded = weights["decoder_embed.weight"] @ token + weights["decoder_embed.bias"]
        if number > 0:
            embedded = embedded + position(len(embedded), *divmod(number - 1, columns))
        sequence.append(embedded)
    output = transformer(weights, "decoder_", torch.stack(sequence), heads)
    guesses = [
        weights["decoder_pred.weight"] @ token + weights["decoder_pred.bias"] for token in output
    ]
    return torch.stack(guesses[1:])
