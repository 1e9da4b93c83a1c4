"""A slow, literal masked autoencoder, written from the paper (section 3 and appendix A.1).

Loops over images, patches, queries and heads; explicit shuffling and unshuffling; parameters by their
published names. It shares no line with the package and is differentiable, so that gradients can be
compared as well.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

Weights = dict[str, Tensor]


class Result(NamedTuple):
    """What one pass gives."""

    loss: Tensor
    latent: Tensor  # [images, 1 + kept, width], kept patches in the order of their noise
    prediction: Tensor  # [images, patches, values], in image order
    removed: list[list[int]]  # 1 where a patch is removed
    patches: Tensor  # [images, patches, values], not normalised per patch


def mae(
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
    """One pass over images [b, c, h, w] whose channels are normalised already."""
    rows, columns = images.shape[2] // patch_size, images.shape[3] // patch_size
    latents, predictions, flags, patches = [], [], [], []
    for image, values in zip(images, noise.tolist(), strict=True):
        kept, removed, restore = shuffle(values, ratio)
        latent = encode(weights, image, kept, patch_size, heads)
        latents.append(latent)
        predictions.append(decode(weights, latent, restore, rows, columns, decoder_heads))
        flags.append([1 if number in removed else 0 for number in range(len(values))])
        patches.append(cut(image, patch_size))
    loss = mean_over_removed(patches, predictions, flags, normalized)
    return Result(loss, torch.stack(latents), torch.stack(predictions), flags, torch.stack(patches))


def shuffle(noise: list[float], ratio: float) -> tuple[list[int], list[int], list[int]]:
    """Kept patches, removed patches, and where each patch went in the shuffled list."""
    shuffled = sorted(range(len(noise)), key=lambda number: noise[number])
    kept = int(len(noise) * (1 - ratio))
    restore = [shuffled.index(number) for number in range(len(noise))]
    return shuffled[:kept], shuffled[kept:], restore


def encode(weights: Weights, image: Tensor, kept: list[int], patch_size: int, heads: int) -> Tensor:
    """Class token and kept patches: project, add positions, drop the removed ones, transform."""
    kernel, bias = weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"]
    rows, columns = image.shape[1] // patch_size, image.shape[2] // patch_size
    tokens = []
    for row in range(rows):
        for column in range(columns):
            top, left = row * patch_size, column * patch_size
            region = image[:, top : top + patch_size, left : left + patch_size]
            token = (kernel * region).sum((1, 2, 3)) + bias
            tokens.append(token + position(len(bias), row, column))
    sequence = [weights["cls_token"][0, 0]] + [tokens[number] for number in kept]
    return transformer(weights, "", torch.stack(sequence), heads)


def decode(
    weights: Weights, latent: Tensor, restore: list[int], rows: int, columns: int, heads: int
) -> Tensor:
    """Guesses for every patch: project, append mask tokens, unshuffle, add positions, transform."""
    embedded = [
        weights["decoder_embed.weight"] @ token + weights["decoder_embed.bias"] for token in latent
    ]
    hidden = len(restore) - (len(embedded) - 1)
    shuffled = embedded[1:] + [weights["mask_token"][0, 0]] * hidden
    sequence = [embedded[0]]
    for number, place in enumerate(restore):
        row, column = divmod(number, columns)
        assert row < rows
        sequence.append(shuffled[place] + position(len(shuffled[place]), row, column))
    output = transformer(weights, "decoder_", torch.stack(sequence), heads)
    guesses = [
        weights["decoder_pred.weight"] @ token + weights["decoder_pred.bias"] for token in output
    ]
    return torch.stack(guesses[1:])


def position(width: int, row: int, column: int) -> Tensor:
    """Sines, then cosines, of the column; the same of the row."""
    quarter = width // 4
    values = []
    for place in (column, row):
        angles = [place * 10000 ** (-number / quarter) for number in range(quarter)]
        values += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    return torch.tensor(values, dtype=torch.float64)


def transformer(weights: Weights, prefix: str, tokens: Tensor, heads: int) -> Tensor:
    """Pre-norm blocks and the last norm."""
    depth = sum(name.startswith(f"{prefix}blocks.") for name in weights) // 12
    for number in range(depth):
        name = f"{prefix}blocks.{number}."
        tokens = tokens + attention(
            weights, f"{name}attn.", norm(weights, f"{name}norm1", tokens), heads
        )
        tokens = tokens + mlp(weights, f"{name}mlp.", norm(weights, f"{name}norm2", tokens))
    return norm(weights, f"{prefix}norm", tokens)


def attention(weights: Weights, name: str, tokens: Tensor, heads: int) -> Tensor:
    """Softmax attention, one head and one query after the other."""
    width = tokens.shape[1]
    size = width // heads
    weight, bias = weights[f"{name}qkv.weight"], weights[f"{name}qkv.bias"]
    mixed: list[list[Tensor]] = [[] for _ in tokens]
    for head in range(heads):
        starts = [part * width + head * size for part in range(3)]
        queries, keys, values = (
            tokens @ weight[start : start + size].T + bias[start : start + size] for start in starts
        )
        for number, query in enumerate(queries):
            scores = [(query * key).sum() / math.sqrt(size) for key in keys]
            highest = max(score.item() for score in scores)
            powers = [(score - highest).exp() for score in scores]
            whole = sum(powers)
            pairs = zip(powers, values, strict=True)
            mixed[number].append(sum(power / whole * value for power, value in pairs))
    projection, shift = weights[f"{name}proj.weight"], weights[f"{name}proj.bias"]
    return torch.stack([projection @ torch.cat(joined) + shift for joined in mixed])


def mlp(weights: Weights, name: str, tokens: Tensor) -> Tensor:
    """Two layers with the exact GELU, x times the normal distribution function of x."""
    outputs = []
    for token in tokens:
        hidden = weights[f"{name}fc1.weight"] @ token + weights[f"{name}fc1.bias"]
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        outputs.append(weights[f"{name}fc2.weight"] @ hidden + weights[f"{name}fc2.bias"])
    return torch.stack(outputs)


def norm(weights: Weights, name: str, tokens: Tensor) -> Tensor:
    """Layer norm with the biased variance and 1e-6."""
    outputs = []
    for token in tokens:
        mean = token.sum() / len(token)
        variance = ((token - mean) ** 2).sum() / len(token)
        scaled = (token - mean) / torch.sqrt(variance + 1e-6)
        outputs.append(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])
    return torch.stack(outputs)


def cut(image: Tensor, patch_size: int) -> Tensor:
    """Patches row by row, each a list of (row, column, channel)."""
    channels, height, width = image.shape
    values = image.tolist()
    patches = []
    for top in range(0, height, patch_size):
        for left in range(0, width, patch_size):
            patches.append(
                [
                    values[channel][top + row][left + column]
                    for row in range(patch_size)
                    for column in range(patch_size)
                    for channel in range(channels)
                ]
            )
    return torch.tensor(patches, dtype=image.dtype)


def normalize(patch: list[float]) -> list[float]:
    """Mean 0 and unbiased variance 1 over all values of a patch."""
    mean = sum(patch) / len(patch)
    variance = sum((value - mean) ** 2 for value in patch) / (len(patch) - 1)
    return [(value - mean) / math.sqrt(variance + 1e-6) for value in patch]


def mean_over_removed(
    patches: list[Tensor], predictions: list[Tensor], flags: list[list[int]], normalized: bool
) -> Tensor:
    """Mean squared error of each patch, averaged over the removed patches of all images."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for image, guesses, removed in zip(patches, predictions, flags, strict=True):
        for patch, guess, flag in zip(image.tolist(), guesses, removed, strict=True):
            if flag:
                truth = normalize(patch) if normalized else patch
                error = (guess - torch.tensor(truth, dtype=torch.float64)) ** 2
                total = total + error.sum() / len(patch)
                count += 1
    return total / count
