"""Recipes for a time: the encoder, batch and rate for so much computing.

Measured with `studies/minutes.py` at equal processor time (studies/minutes.md; CIFAR-10, one seed): batches of 64 at a highest rate
of 1e-3 beat 32 and 128 and half and double the rate; a cross-attention decoder of two blocks that rebuilds a third of the hidden
patches beats one block of self-attention, 75 % hidden, several masks, rising sizes and noise masks. On digits, half of 16
patches is better than a quarter. `LEAST_STEPS` and `COOLDOWN` are first choices.
"""

import math
from dataclasses import replace

from unmask.contracts import Size
from unmask.encoders.vit import ViT
from unmask.masking import RandomMasking, count_visible
from unmask.objectives import MAE
from unmask.objectives.decoders import CrossAttentionDecoder, SelfAttentionDecoder
from unmask.recipes.finetune import Transfer
from unmask.recipes.mae import MAE_B16, MAE_TI4
from unmask.recipes.recipe import Recipe
from unmask.recipes.tokenizer import Tokenizing
from unmask.training.schedules import WarmupCosine, fitting_batch
from unmask.traits import Comparing

LEAST_STEPS = 4000
"""Steps that an encoder should get; with fewer, a smaller one is taken. Not measured yet."""

BATCH = 64
"""Images per step."""

PEAK = 1e-3
"""Highest learning rate at this batch size; it grows with the root of the batch size."""

WARMUP = 0.05
"""Share of the run in which the rate rises."""

RATIO = 0.875
"""Share of the patches that are hidden, at most."""

VISIBLE = 8
"""Patches that stay visible, at least; in a grid of 4 x 4 half of them (digits: 50 % is better than 75 %)."""

PREDICTED = 1 / 3
"""Share of the hidden patches that are rebuilt, as in CrossMAE."""

DECODER_DEPTH = 2
"""Blocks of the cross-attention decoder."""

COOLDOWN = 0.3
"""Share of the run in which the rate falls."""

_LARGEST = 224  # pixels of a crop's side


def encoders_for(size: Size) -> list[ViT]:
    """The encoders for images of this typical size, from small to large."""
    side = min(size)
    patch = 2 if side <= 12 else 4 if side <= 40 else 8 if side <= 112 else 16
    shapes = [(128, 4, 4), (192, 6, 3), (192, 12, 3), (384, 12, 6), (768, 12, 12)]
    return [
        ViT(patch_size=patch, embed_dim=width, depth=depth, num_heads=heads)
        for width, depth, heads in shapes
    ]


def recipe_for(encoder: ViT, size: Size, images: int) -> Recipe:
    """The recipe that trains this encoder on so many images; its epochs are set when its speed is known."""
    patch, batch = encoder.patch_size, fitting_batch(BATCH, images)
    side = patch * max(4, min(min(size), _LARGEST) // patch)
    width = min(512, max(128, encoder.embed_dim // 2))
    return replace(
        MAE_TI4 if patch <= 4 else MAE_B16,
        encoder=encoder,
        objective=MAE(
            masking=RandomMasking(ratio=_ratio(side // patch)),
            decoder=CrossAttentionDecoder(
                depth=DECODER_DEPTH, embed_dim=width, num_heads=width // 32
            ),
            predicted=PREDICTED,
        ),
        schedule=WarmupCosine(
            base_lr=peak(batch) * 256 / batch, warmup_epochs=WARMUP, cooldown=COOLDOWN
        ),
        image_size=Size(side, side),
        batch_size=batch,
        epochs=1.0,
    )


def _ratio(patches_a_side: int) -> float:
    """The share of hidden patches, in thousandths; rounded down, so that as many stay visible as are meant to."""
    return min(RATIO, math.floor(1000 * (1 - VISIBLE / patches_a_side**2)) / 1000)


def peak(batch_size: int) -> float:
    """The highest learning rate for a batch size: AdamW's grows with the root of it (Malladi and others, 2022)."""
    return PEAK * (batch_size / BATCH) ** 0.5


def batch_for(recipe: Recipe | Transfer | Tokenizing, images: int) -> int:
    """The batch of a recipe that suits so many images: what is set, warned of and advised follows this rule.

    No batch holds an image twice, and an epoch has at least eight steps unless batches would have fewer than 16 images. In
    pretraining, a run that would take few steps gets batches of `BATCH` or more. Methods that compare the images of a batch
    keep theirs as long as there are as many images. A batch for very few images is even, because mixup takes pairs.
    """
    batch, most = recipe.batch_size, max(1, images - images % 2)
    if isinstance(recipe, Recipe):
        if isinstance(recipe.objective, Comparing):
            return min(batch, most) if batch > images else batch
        shown = recipe.epochs * images
        while batch // 2 >= BATCH and shown < LEAST_STEPS * batch:
            batch //= 2
    batch = fitting_batch(batch, images)
    return batch if batch <= images else most


def with_more_steps(recipe: Recipe, images: int) -> Recipe:
    """The recipe with the batch that suits so many images, see `batch_for`, and with a rate that suits the batch."""
    batch = batch_for(recipe, images)
    if batch == recipe.batch_size:
        return recipe
    if isinstance(recipe.objective, Comparing):
        return replace(recipe, batch_size=batch)
    rate = min(recipe.schedule.peak(recipe.batch_size), peak(batch))
    schedule = replace(recipe.schedule, base_lr=rate * 256 / batch)
    return replace(recipe, batch_size=batch, schedule=schedule)


def products(recipe: Recipe) -> float:
    """Products of a forward pass of an image through the blocks; a masked autoencoder or a recipe of its kind."""
    objective, encoder, grid = recipe.objective, recipe.encoder, recipe.encoder_grid()
    assert isinstance(objective, MAE)
    visible = count_visible(objective.masking, grid)
    hidden, width = grid.height * grid.width - visible, encoder.embed_dim
    seen = visible + encoder.class_tokens
    products = encoder.depth * seen * (12 * width**2 + 2 * seen * width)
    decoder = objective.decoder
    if isinstance(decoder, CrossAttentionDecoder):
        wide, asked = decoder.embed_dim, max(1, round(objective.predicted * hidden))
        products += decoder.depth * asked * (10 * wide**2 + 2 * seen * wide)
        return products + decoder.depth * seen * 2 * width * wide  # keys and values
    assert isinstance(decoder, SelfAttentionDecoder)
    tokens, wide = seen + hidden, decoder.embed_dim
    return products + decoder.depth * tokens * (12 * wide**2 + 2 * tokens * wide)
