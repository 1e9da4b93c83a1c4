"""DINO: the authors' settings (Caron and others, 2021), and a small one of our own."""

from dataclasses import replace

from unmask.contracts import Size
from unmask.data.multi_views import MultiCrop
from unmask.encoders.vit import VIT_B16, VIT_S16, ViT
from unmask.objectives import DINO
from unmask.recipes.recipe import Named, Recipe
from unmask.training.optimizers import AdamW, ClipEach
from unmask.training.schedules import WarmupCosine

DINO_S16 = Recipe(
    encoder=VIT_S16,  # section 3.2
    objective=DINO(
        prototypes=65536,  # appendix C
        hidden_dim=2048,  # appendix C
        bottleneck_dim=256,  # appendix C
        last_layer_scale="learned",  # the published runs of ViT-S
        frozen_epochs=1,  # main_dino.py
        first_temperature=0.04,  # section 3.2
        temperature=0.07,  # section 3.2
        temperature_epochs=30,  # section 3.2
        center_momentum=0.9,  # appendix D
        teacher_momentum=0.996,  # section 3.1
        drop_path=0.1,  # main_dino.py
    ),
    views=MultiCrop(small_count=8, small_size=Size(96, 96), smallest_share=0.05, middle_share=0.4),
    optimizer=AdamW(
        beta1=0.9,
        beta2=0.999,  # torch's default, as in main_dino.py
        weight_decay=0.04,  # section 3.2
        last_weight_decay=0.4,  # section 3.2
        clipping=ClipEach(norm=3.0),  # main_dino.py
    ),
    schedule=WarmupCosine(base_lr=5e-4, warmup_epochs=10, min_lr=1e-6),  # section 3.2; main_dino.py
    image_size=Size(224, 224),  # section 3.1
    batch_size=1024,  # section 3.2
    epochs=800,  # table 2
)
"""ViT-S/16 as in DINO's section 3.2, 800 epochs. Its authors report 74.5 % with k-NN and 77.0 % with a linear probe on
ImageNet-1K (table 2)."""

DINO_B16 = replace(
    DINO_S16,
    encoder=VIT_B16,
    objective=replace(
        DINO_S16.objective,
        last_layer_scale="fixed",  # the published run of ViT-B/16
        frozen_epochs=3,  # the published run
        temperature_epochs=50,  # the published run
    ),
    views=MultiCrop(
        small_count=10, small_size=Size(96, 96), smallest_share=0.05, middle_share=0.25
    ),
    optimizer=replace(DINO_S16.optimizer, clipping=ClipEach(norm=0.3)),  # the published run
    schedule=WarmupCosine(base_lr=1.875e-4, warmup_epochs=10, min_lr=2e-6),  # 7.5e-4 at 1024
    epochs=400,  # table 2
)
"""ViT-B/16 with the arguments published with its weights. Its authors report 76.1 % with k-NN and 78.2 % with a linear
probe on ImageNet-1K (table 2)."""

DINO_TI4 = replace(
    DINO_S16,
    encoder=ViT(patch_size=4, embed_dim=192, depth=12, num_heads=3),  # as mae-ti4
    objective=DINO(prototypes=4096, hidden_dim=1024, bottleneck_dim=128, drop_path=0.0),
    views=MultiCrop(
        small_count=6,
        small_size=Size(16, 16),
        smallest_share=0.1,
        middle_share=0.4,
        blur_probabilities=(0.0, 0.0, 0.0),  # blur would remove most of what 32 pixels show
    ),
    image_size=Size(32, 32),
    batch_size=256,
    epochs=300,
)
"""ViT-Ti at patch 4 for images of 32 pixels: 2 views of 32 pixels and 6 of 16, 4,096 prototypes, batches of 256. Ours,
based on DINO's settings."""

NAMED = {
    "dino-s16": Named(
        DINO_S16,
        "DINO section 3.2 and main_dino.py",
        "74.5 % with k-NN, 77.0 % with a linear probe on ImageNet-1K at 800 epochs (table 2)",
    ),
    "dino-b16": Named(
        DINO_B16,
        "DINO table 2 and the arguments published with its weights",
        "76.1 % with k-NN, 78.2 % with a linear probe on ImageNet-1K at 400 epochs (table 2)",
    ),
    "dino-ti4": Named(DINO_TI4, "ours, from DINO's settings", "not measured"),
}
