"""MoCo v3: the authors' settings (Chen, Xie and He, 2021), and a small recipe of ours."""

from dataclasses import replace

from unmask.contracts import Size
from unmask.data.multi_views import TwoCrops
from unmask.encoders.vit import VIT_B16, VIT_S16, ViT
from unmask.objectives import MoCo3
from unmask.recipes.recipe import Named, Recipe
from unmask.training.optimizers import AdamW
from unmask.training.schedules import WarmupCosine

MOCO3_B16 = Recipe(
    encoder=VIT_B16,  # table 2
    objective=MoCo3(
        hidden_dim=4096,  # section 4, "MLP heads"
        out_dim=256,  # section 4
        temperature=0.2,  # the published commands
        momentum=0.99,  # the published code; rises to 1
    ),
    views=TwoCrops(smallest_share=0.08),  # the published commands
    optimizer=AdamW(beta1=0.9, beta2=0.999, weight_decay=0.1),  # section 4
    schedule=WarmupCosine(base_lr=1.5e-4, warmup_epochs=40),  # section 4
    image_size=Size(224, 224),  # section 4
    batch_size=4096,  # section 4
    epochs=300,  # table 4
)
"""ViT-B/16, 300 epochs. Its authors report 76.7 % with a linear probe and 83.2 % fine-tuned on ImageNet-1K."""

MOCO3_S16 = replace(MOCO3_B16, encoder=replace(VIT_S16, num_heads=12))
"""ViT-S/16 with 12 heads, as in the paper (DeiT's has 6): 73.2 % with a linear probe, 81.4 % fine-tuned."""

MOCO3_TI4 = replace(
    MOCO3_B16,
    encoder=ViT(patch_size=4, embed_dim=192, depth=12, num_heads=3),  # as mae-ti4
    objective=MoCo3(hidden_dim=1024, out_dim=128),
    views=TwoCrops(
        smallest_share=0.2,
        blur_probabilities=(0.0, 0.0),  # blur would remove most of what 32 pixels show
    ),
    image_size=Size(32, 32),
    batch_size=256,
)
"""ViT-Ti at patch 4 for images of 32 pixels, head 1024-1024-128, batches of 256. Ours, based on MoCo v3's settings."""

NAMED = {
    "moco3-s16": Named(
        MOCO3_S16,
        "MoCo v3 section 4 and its published commands",
        "73.2 % with a linear probe, 81.4 % fine-tuned on ImageNet-1K at 300 epochs",
    ),
    "moco3-b16": Named(
        MOCO3_B16,
        "MoCo v3 section 4 and its published commands",
        "76.7 % with a linear probe, 83.2 % fine-tuned on ImageNet-1K at 300 epochs",
    ),
    "moco3-ti4": Named(MOCO3_TI4, "ours, from MoCo v3's settings", "not measured"),
}
