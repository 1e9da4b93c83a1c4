"""Masked autoencoders: the paper's settings (He and others, CVPR 2022), and smaller recipes of ours."""

from dataclasses import replace

from unmask.contracts import Size
from unmask.data.views import CenterCrop, RandomCrop
from unmask.encoders.vit import VIT_B16, VIT_H14, VIT_L16, VIT_S16, VIT_TI16, ViT
from unmask.masking import RandomMasking
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.recipes.recipe import Named, Recipe
from unmask.targets import NormalizedPixels
from unmask.training.optimizers import AdamW
from unmask.training.schedules import WarmupCosine

MAE_B16 = Recipe(
    encoder=VIT_B16,  # section 4 and appendix A.1
    objective=MAE(
        masking=RandomMasking(ratio=0.75),  # figure 5
        target=NormalizedPixels(),  # table 1d, used in table 3
        decoder=SelfAttentionDecoder(depth=8, embed_dim=512, num_heads=16),  # tables 1a and 1b
    ),
    views=RandomCrop(smallest_share=0.2, flip_probability=0.5),  # table 8
    optimizer=AdamW(beta1=0.9, beta2=0.95, weight_decay=0.05),  # table 8
    schedule=WarmupCosine(base_lr=1.5e-4, warmup_epochs=40),  # table 8
    image_size=Size(224, 224),  # section 4
    batch_size=4096,  # table 8
    epochs=800,  # section 4 (ablations); table 3 trains 1600
)
"""ViT-B/16 as in the paper's table 8. Its authors report 83.6 % fine-tuned on ImageNet-1K after 1600 epochs (table 3)."""

MAE_L16 = replace(MAE_B16, encoder=VIT_L16)
"""ViT-L/16, otherwise as `MAE_B16`: 85.9 % after 1600 epochs (table 3)."""

MAE_H14 = replace(MAE_B16, encoder=VIT_H14)
"""ViT-H/14, otherwise as `MAE_B16`: 86.9 % after 1600 epochs (table 3)."""

MAE_S16 = replace(MAE_B16, encoder=VIT_S16)
"""ViT-S/16 with table 8's settings; the paper has no ViT-S. The CrossMAE authors report 78.9 % for MAE after 800 epochs."""

MAE_TI16 = replace(
    MAE_B16,
    encoder=VIT_TI16,
    objective=MAE(decoder=SelfAttentionDecoder(depth=2, embed_dim=128, num_heads=4)),
    schedule=WarmupCosine(base_lr=6e-4, warmup_epochs=20),
    batch_size=256,
    epochs=400,
)
"""ViT-Ti/16 with a small decoder, for hundreds to thousands of photographs. Ours; studies/photos.md has the results of a run on
500 photographs."""

MAE_TI4 = Recipe(
    encoder=ViT(patch_size=4, embed_dim=192, depth=12, num_heads=3),  # DeiT's Ti at patch 4
    objective=MAE(decoder=SelfAttentionDecoder(depth=2, embed_dim=128, num_heads=4)),
    views=RandomCrop(smallest_share=0.4, flip_probability=0.5),
    optimizer=AdamW(beta1=0.9, beta2=0.95, weight_decay=0.05),  # table 8
    schedule=WarmupCosine(base_lr=1.5e-4, warmup_epochs=30),  # table 8's rate
    image_size=Size(32, 32),
    batch_size=1024,
    epochs=300,
)
"""ViT-Ti at patch 4 for images of 32 pixels. Ours; its full length has not been run. Others report 84 % fine-tuned on CIFAR-10
for another model, with patch 2 (four times the tokens) and a larger decoder (docs/recipes.md)."""

MAE_MINI4 = replace(
    MAE_TI4,
    encoder=ViT(patch_size=4, embed_dim=192, depth=6, num_heads=3),
    schedule=WarmupCosine(base_lr=1e-3, warmup_epochs=1),
    batch_size=256,
    epochs=10,
)
"""Half the depth of `MAE_TI4`, with a higher learning rate; takes an hour on two CPU cores. Ours; studies/cifar10.md has its
results on CIFAR-10."""

MAE_DIGITS = Recipe(
    encoder=ViT(patch_size=2, embed_dim=64, depth=4, num_heads=4),
    objective=MAE(
        target=NormalizedPixels(),
        decoder=SelfAttentionDecoder(depth=1, embed_dim=64, num_heads=4),
    ),
    views=CenterCrop(),
    optimizer=AdamW(beta1=0.9, beta2=0.95, weight_decay=0.05),  # table 8
    schedule=WarmupCosine(base_lr=8e-3, warmup_epochs=9),  # peak 2e-3
    image_size=Size(8, 8),
    batch_size=64,  # at equal compute better than 256 (studies/minutes.md)
    epochs=90,
)
"""For scikit-learn's 1,797 digits of 8 x 8 pixels; takes a minute on two CPU cores. Ours; `unmask demo` prints its results."""

NAMED = {
    "mae-b16": Named(
        MAE_B16, "MAE table 8", "83.6 % fine-tuned on ImageNet-1K at 1600 epochs (table 3)"
    ),
    "mae-l16": Named(
        MAE_L16, "MAE table 8", "85.9 % fine-tuned on ImageNet-1K at 1600 epochs (table 3)"
    ),
    "mae-h14": Named(
        MAE_H14, "MAE table 8", "86.9 % fine-tuned on ImageNet-1K at 1600 epochs (table 3)"
    ),
    "mae-s16": Named(
        MAE_S16,
        "MAE table 8; ViT-S from DeiT table 1",
        "78.9 % fine-tuned on ImageNet-1K at 800 epochs (CrossMAE's authors)",
    ),
    "mae-ti16": Named(MAE_TI16, "ours, from MAE table 8", "our run: studies/photos.md"),
    "mae-ti4": Named(
        MAE_TI4,
        "ours, from MAE table 8",
        "not measured at its 300 epochs; shorter runs: studies/fast-ti4.md",
    ),
    "mae-mini4": Named(MAE_MINI4, "ours, half of mae-ti4", "our run: studies/cifar10.md"),
    "mae-digits": Named(MAE_DIGITS, "ours", "printed by unmask demo; studies/digits.md"),
}
