"""A slow, literal CrossMAE, written from the paper's description (Fu, Lian and others, TMLR 2025, section 3).

Loops over images, patches to rebuild, decoder blocks, heads and tokens; parameters by our names. The parts that it
shares with MAE, such as norms and MLPs, are those of the literal MAE.
"""

import math
from typing import NamedTuple

import torch
from reference.mae import Weights, attention, cut, mean_over_removed, mlp, norm, position
from torch import Tensor


class Result(NamedTuple):
    """What one pass gives."""

    loss: Tensor
    prediction: Tensor  # [images, rebuilt, values]


def crossmae(
    weights: Weights,
    images: Tensor,
    kept: list[list[int]],
    rebuilt: list[list[int]],
    *,
    patch_size: int,
    heads: int,
    decoder_heads: int,
    normalized: bool,
) -> Result:
    """One pass over images [b, c, h, w] whose channels are normalised already, with these patches."""
    columns = images.shape[3] // patch_size
    predictions, everywhere, flags, patches = [], [], [], []
    for image, seen, asked in zip(images, kept, rebuilt, strict=True):
        maps = encoder_maps(weights, image, seen, patch_size, heads)
        guesses = [rebuild(weights, maps, divmod(n, columns), decoder_heads) for n in asked]
        predictions.append(torch.stack(guesses))
        patches.append(cut(image, patch_size))
        number = dict(zip(asked, guesses, strict=True))
        count = len(patches[-1])
        flags.append([1 if n in number else 0 for n in range(count)])
        blank = torch.zeros_like(guesses[0])
        everywhere.append(torch.stack([number.get(n, blank) for n in range(count)]))
    loss = mean_over_removed(patches, everywhere, flags, normalized)
    return Result(loss, torch.stack(predictions))


def encoder_maps(
    weights: Weights, image: Tensor, kept: list[int], patch_size: int, heads: int
) -> list[Tensor]:
    """What goes into each encoder block, and what the encoder gives in the end; each [tokens, width]."""
    kernel, bias = (
        weights["encoder.patch_embed.proj.weight"],
        weights["encoder.patch_embed.proj.bias"],
    )
    columns = image.shape[2] // patch_size
    tokens = [
        weights["encoder.cls_token"][0, number]
        for number in range(len(weights["encoder.cls_token"][0]))
    ]
    for number in kept:
        row, column = divmod(number, columns)
        top, left = row * patch_size, column * patch_size
        region = image[:, top : top + patch_size, left : left + patch_size]
        tokens.append((kernel * region).sum((1, 2, 3)) + bias + position(len(bias), row, column))
    state = torch.stack(tokens)
    maps = []
    for block in range(blocks(weights, "encoder.")):
        maps.append(state)
        name = f"encoder.blocks.{block}."
        state = state + attention(
            weights, f"{name}attn.", norm(weights, f"{name}norm1", state), heads
        )
        state = state + mlp(weights, f"{name}mlp.", norm(weights, f"{name}norm2", state))
    maps.append(norm(weights, "encoder.norm", state))
    return maps


def rebuild(weights: Weights, maps: list[Tensor], place: tuple[int, int], heads: int) -> Tensor:
    """The guess for one patch, which sees the maps and no other patch's query."""
    token = weights["decoder.mask_token"][0, 0]
    query = token + position(len(token), *place)
    for block in range(blocks(weights, "decoder.")):
        name = f"decoder.blocks.{block}."
        memory = torch.zeros_like(maps[0])
        for share, tokens in zip(weights["decoder.mixture"][block], maps, strict=True):
            memory = memory + share * tokens
        memory = norm(weights, f"{name}norm_memory", memory)
        query = query + look(
            weights, name, norm(weights, f"{name}norm1", query[None])[0], memory, heads
        )
        query = query + mlp(weights, f"{name}mlp.", norm(weights, f"{name}norm2", query[None]))[0]
    query = norm(weights, "decoder.norm", query[None])[0]
    return weights["decoder.pred.weight"] @ query + weights["decoder.pred.bias"]


def look(weights: Weights, name: str, query: Tensor, memory: Tensor, heads: int) -> Tensor:
    """One query's attention to the memory, head by head and token by token."""
    width = len(query)
    size = width // heads
    query = weights[f"{name}query.weight"] @ query + weights[f"{name}query.bias"]
    both = [
        weights[f"{name}key_value.weight"] @ token + weights[f"{name}key_value.bias"]
        for token in memory
    ]
    joined = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = [(query[part] * pair[:width][part]).sum() / math.sqrt(size) for pair in both]
        powers = [score.exp() for score in scores]
        whole = sum(powers)
        joined.append(
            sum(p / whole * pair[width:][part] for p, pair in zip(powers, both, strict=True))
        )
    return weights[f"{name}proj.weight"] @ torch.cat(joined) + weights[f"{name}proj.bias"]


def blocks(weights: Weights, prefix: str) -> int:
    """How many blocks there are."""
    return sum(
        name.startswith(f"{prefix}blocks.") and name.endswith("norm1.weight") for name in weights
    )
