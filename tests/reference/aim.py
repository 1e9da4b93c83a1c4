"""A slow, literal autoregressive image model, written from the paper's text (AIM, section 3).

Every query looks for itself at the keys that it may see: those of the prefix, and those up to itself. The
class token, which AIM has not, stands before the first patch and belongs to the prefix.
"""

import math

import torch
from reference.mae import Weights, cut, mlp, norm, normalize, position
from torch import Tensor


def aim(
    weights: Weights, images: Tensor, prefixes: list[int], *, patch_size: int, heads: int
) -> tuple[Tensor, Tensor]:
    """Loss, and guesses [b, patches - 1, values] for the second patch and on."""
    columns = images.shape[3] // patch_size
    predictions, total, count = [], torch.zeros((), dtype=torch.float64), 0
    for image, prefix in zip(images, prefixes, strict=True):
        patches = cut(image, patch_size)
        tokens = encode(weights, patches, columns, prefix, heads)
        guesses = [
            guess(weights, tokens[place + 1], place, columns) for place in range(len(patches) - 1)
        ]
        predictions.append(torch.stack(guesses))
        for place in range(prefix, len(patches)):
            truth = torch.tensor(normalize(patches[place].tolist()), dtype=torch.float64)
            total = total + ((guesses[place - 1] - truth) ** 2).mean()
            count += 1
    return total / count, torch.stack(predictions)


def encode(weights: Weights, patches: Tensor, columns: int, prefix: int, heads: int) -> Tensor:
    """Class token and patches: project, add positions, transform."""
    kernel = weights["encoder.patch_embed.proj.weight"].permute(0, 2, 3, 1).flatten(1)
    bias = weights["encoder.patch_embed.proj.bias"]
    tokens = [weights["encoder.cls_token"][0, 0]]
    for place, patch in enumerate(patches):
        tokens.append(kernel @ patch + bias + position(len(bias), *divmod(place, columns)))
    sequence = torch.stack(tokens)
    depth = sum(name.endswith("norm1.weight") for name in weights)
    for number in range(depth):
        name = f"encoder.blocks.{number}."
        seen = norm(weights, f"{name}norm1", sequence)
        sequence = sequence + attention(weights, f"{name}attn.", seen, prefix, heads)
        sequence = sequence + mlp(weights, f"{name}mlp.", norm(weights, f"{name}norm2", sequence))
    return norm(weights, "encoder.norm", sequence)


def attention(weights: Weights, name: str, tokens: Tensor, prefix: int, heads: int) -> Tensor:
    """Softmax attention of each query over what it may see, head by head."""
    width = tokens.shape[1]
    size = width // heads
    queries, keys, values = (
        tokens @ weights[f"{name}qkv.weight"].T + weights[f"{name}qkv.bias"]
    ).split(width, dim=1)
    rows = []
    for place in range(len(tokens)):
        sees = [other for other in range(len(tokens)) if other <= place or other - 1 < prefix]
        parts = []
        for head in range(heads):
            cut_out = slice(head * size, (head + 1) * size)
            scores = torch.stack(
                [queries[place, cut_out] @ keys[other, cut_out] / math.sqrt(size) for other in sees]
            )
            shares = scores.exp() / scores.exp().sum()
            pairs = zip(shares, sees, strict=True)
            parts.append(
                torch.stack([share * values[other, cut_out] for share, other in pairs]).sum(0)
            )
        projected = weights[f"{name}proj.weight"] @ torch.cat(parts)
        rows.append(projected + weights[f"{name}proj.bias"])
    return torch.stack(rows)


def guess(weights: Weights, token: Tensor, place: int, columns: int) -> Tensor:
    """From one token: its position once more, MLPs beside straight paths, a norm, a linear layer."""
    token = token + position(len(token), *divmod(place, columns))
    token = weights["head.embed.weight"] @ token + weights["head.embed.bias"]
    for number in range(
        sum(name.endswith(".norm.weight") and "head.blocks" in name for name in weights)
    ):
        name = f"head.blocks.{number}."
        token = token + mlp(weights, f"{name}mlp.", norm(weights, f"{name}norm", token[None]))[0]
    token = norm(weights, "head.norm", token[None])[0]
    return weights["head.pred.weight"] @ token + weights["head.pred.bias"]
