"""Places: recipes of ours for finding pictures on a map; see `objectives.place`."""

from dataclasses import replace

from unmask.contracts import Size
from unmask.data.place_views import TwoLooks
from unmask.encoders.vit import VIT_S16, VIT_TI16
from unmask.objectives import Place
from unmask.recipes.recipe import Named, Recipe
from unmask.training.optimizers import AdamW
from unmask.training.schedules import WarmupCosine

PLACE_TI16 = Recipe(
    encoder=VIT_TI16,
    objective=Place(),
    views=TwoLooks(),
    optimizer=AdamW(beta1=0.9, beta2=0.999, weight_decay=0.05),
    schedule=WarmupCosine(base_lr=2e-4, warmup_epochs=5),
    image_size=Size(224, 224),
    batch_size=128,
    epochs=100,
)
"""ViT-Ti/16, to start from an encoder that was pretrained on the map (`--init`)."""

PLACE_S16 = replace(PLACE_TI16, encoder=VIT_S16)
"""ViT-S/16, likewise."""

_SOURCE = "ours, after Game4Loc and MoCo v3"
NAMED = {
    "place-ti16": Named(PLACE_TI16, _SOURCE, "not measured"),
    "place-s16": Named(PLACE_S16, _SOURCE, "not measured"),
}
