"""Autoregressive image models: our recipes, with the settings of AIM (El-Nouby and others, 2024) on the usual encoders."""

from dataclasses import replace

from unmask.contracts import Size
from unmask.data.views import RandomCrop
from unmask.encoders.vit import VIT_B16
from unmask.objectives.aim import AIM
from unmask.recipes.mae import MAE_TI4
from unmask.recipes.recipe import Named, Recipe
from unmask.targets import NormalizedPixels
from unmask.training.optimizers import AdamW, ClipTogether
from unmask.training.schedules import WarmupCosine

AIM_B16 = Recipe(
    encoder=VIT_B16,  # AIM's smallest is 1536 x 24
    objective=AIM(
        target=NormalizedPixels(),  # AIM section 3
        head_dim=1024,  # in proportion: AIM has 2048 on encoders of 1536
        head_depth=12,  # AIM section 3
    ),
    views=RandomCrop(smallest_share=0.4, flip_probability=0.5),  # AIM's ablation of crops
    optimizer=AdamW(  # AIM's appendix, from memory
        beta1=0.9, beta2=0.95, weight_decay=0.05, clipping=ClipTogether(norm=1.0)
    ),
    schedule=WarmupCosine(
        base_lr=6.25e-5,  # AIM: 1e-3 for 4096 images
        warmup_epochs=50,  # AIM: 31,250 of 500,000 steps, from memory
    ),
    image_size=Size(224, 224),
    batch_size=4096,  # AIM section 3
    epochs=800,
)
"""ViT-B/16 with AIM's settings, trained for as long as MAE's ablations. Ours: AIM's authors did not train at this size, and
saw overfitting on ImageNet-1K alone. Departures: biases and a class token."""

AIM_TI4 = replace(
    MAE_TI4,
    objective=AIM(head_dim=256, head_depth=4),
    optimizer=AIM_B16.optimizer,
    schedule=WarmupCosine(base_lr=1.5e-4, warmup_epochs=20),
)
"""AIM for images of 32 pixels, with a smaller head and `MAE_TI4`'s learning rate. Ours."""

NAMED = {
    "aim-b16": Named(AIM_B16, "ours, with AIM's settings", "not known at this size"),
    "aim-ti4": Named(AIM_TI4, "ours, from aim-b16", "not measured"),
}
"""These recipes by their public names."""
