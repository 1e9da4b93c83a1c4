"""Latent targets: the settings of data2vec 2.0 (Baevski, Babu, Hsu and Auli, 2023), and a small recipe of ours."""

import math
from dataclasses import replace

from unmask.data.views import RandomCrop
from unmask.encoders.vit import VIT_B16
from unmask.masking import InverseBlockMasking
from unmask.objectives import Latent
from unmask.recipes.mae import MAE_B16, MAE_TI4
from unmask.recipes.recipe import Named, Recipe
from unmask.training.optimizers import AdamW, ClipTogether
from unmask.training.schedules import WarmupCosine

LATENT_B16 = Recipe(
    encoder=VIT_B16,
    objective=Latent(  # the published configuration
        masking=InverseBlockMasking(ratio=0.8, adjust=0.07, side=3),
        masks=16,
        target_blocks=10,
        decoder_dim=768,
        decoder_depth=6,
        decoder_groups=16,
        noise=0.01,
        class_weight=0.01,
        first_momentum=0.9998,
        last_momentum=0.99999,
        rising_share=100_000 / 375_000,
    ),
    views=RandomCrop(smallest_share=0.2, flip_probability=0.5),  # MAE's, from memory
    optimizer=AdamW(
        beta1=0.9,
        beta2=0.95,
        weight_decay=0.05,  # from memory
        # 4 for their loss, which is ours times the square root of the width (from memory)
        clipping=ClipTogether(norm=4 / math.sqrt(768)),
    ),
    schedule=WarmupCosine(
        base_lr=1e-3,
        warmup_epochs=10,  # 50,040 steps, from memory
    ),
    image_size=MAE_B16.image_size,
    batch_size=256,  # 16 on each of 16 GPUs
    epochs=75,  # 375,000 steps of 256 images of 1,281,167
)
"""ViT-B/16 with the published settings of data2vec 2.0, 75 epochs with 16 masks. Its authors report 84.5 % fine-tuned on
ImageNet-1K (from memory, perhaps after more epochs), and 86.8 % for ViT-L after 150 epochs. `Latent` lists the
departures."""

LATENT_TI4 = replace(
    MAE_TI4,
    objective=Latent(
        masking=InverseBlockMasking(ratio=0.75, adjust=0.07, side=3),  # 16 of 64 are visible
        masks=4,
        target_blocks=8,
        decoder_dim=192,
        decoder_depth=3,
        decoder_groups=8,
        first_momentum=0.998,  # lower, because a short run has few steps in which the teacher moves
        last_momentum=0.9999,
        rising_share=0.3,
    ),
    optimizer=replace(LATENT_B16.optimizer, clipping=ClipTogether(norm=4 / math.sqrt(192))),
    schedule=WarmupCosine(base_lr=6e-4, warmup_epochs=10),  # `MAE_TI4`'s peak for the same rows
    batch_size=256,
    epochs=100,
)
"""ViT-Ti at patch 4 for images of 32 pixels: 4 masks per image, a decoder of 3 x 192, batches of 256. Ours, based on
data2vec 2.0's settings."""

NAMED = {
    "latent-b16": Named(
        LATENT_B16,
        "data2vec 2.0's published configuration, partly from memory",
        "84.5 % fine-tuned on ImageNet-1K (from memory), ViT-L 86.8 % at 150 epochs",
    ),
    "latent-ti4": Named(LATENT_TI4, "ours, from data2vec 2.0's settings", "not measured"),
}
"""These recipes by their public names."""
