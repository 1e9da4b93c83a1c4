"""Recipes that train faster than MAE's, or for other kinds of features. Each names its source.

All other settings are those of `MAE_B16`, or of `MAE_TI4` for images of 32 pixels.
"""

from dataclasses import replace

from unmask.contracts import Size
from unmask.data.sizes import RisingSize
from unmask.encoders.vit import VIT_B16
from unmask.masking import PartitionMasking, RandomMasking, SquareMasking
from unmask.objectives import MAE
from unmask.objectives.decoders import CrossAttentionDecoder, SelfAttentionDecoder
from unmask.recipes.mae import MAE_B16, MAE_TI4
from unmask.recipes.recipe import Named
from unmask.training.optimizers import Muon
from unmask.training.schedules import WarmupCosine

FAST_B16 = replace(
    MAE_B16,
    objective=MAE(
        decoder=CrossAttentionDecoder(depth=12, embed_dim=512, num_heads=16),  # CrossMAE, section 4
        predicted=1 / 3,  # 49 of the 147 hidden patches, 25 % of all patches
    ),
    schedule=WarmupCosine(base_lr=5e-5, warmup_epochs=40),  # MAE's 1.5e-4 x predicted / hidden
)
"""ViT-B/16 with CrossMAE's decoder of 12 blocks, 49 of 196 patches rebuilt: 65 % of the FLOPs of `MAE_B16`. Its authors
report 83.7 % fine-tuned on ImageNet-1K after 800 epochs (their MAE: 83.3 %), and 83.2 % after 400 epochs (83.0 %)."""

FAST4_B16 = replace(
    FAST_B16,
    objective=replace(
        FAST_B16.objective, decoder=CrossAttentionDecoder(depth=4, embed_dim=512, num_heads=16)
    ),
)
"""`FAST_B16` with a decoder of 4 blocks: 51 % of the FLOPs of `MAE_B16`. Not measured. In the ablation of CrossMAE's
authors, after 400 epochs, one block reaches 83.0 % and twelve 83.2 % fine-tuned on ImageNet-1K."""

BUDGET_B16 = replace(
    MAE_B16,
    objective=MAE(
        masking=RandomMasking(ratio=0.9),  # more than MAE's 0.75: 19 of 196 patches are visible
        decoder=SelfAttentionDecoder(depth=1, embed_dim=512, num_heads=16),  # fewer than MAE's 8
    ),
    schedule=WarmupCosine(base_lr=1.5e-4, warmup_epochs=10),  # a tenth: ours
    epochs=100,  # fewer than MAE's 800
)
"""ViT-B/16 with a quarter of the FLOPs per image of `MAE_B16` and an eighth of its epochs, after "Masked Autoencoders are
Secretly Efficient Learners" (Wei and others, CVPR workshops 2024): a higher mask ratio, a shallow decoder, fewer epochs.
Its authors report 82.9 % fine-tuned on ImageNet-1K after about 9 hours on one A100, and that the layer decay of fine-tuning
must be tuned again. Mask ratio and epochs are our reading of the abstract."""

DENSE_B16 = replace(
    MAE_B16,
    encoder=replace(VIT_B16, class_tokens=4),
    objective=MAE(
        masking=SquareMasking(masking=RandomMasking(ratio=0.75), side=2),
        decoder=SelfAttentionDecoder(depth=16, embed_dim=512, num_heads=16),
    ),
    schedule=WarmupCosine(base_lr=2.5e-5, warmup_epochs=40),
    image_size=Size(256, 256),
    batch_size=8192,
    epochs=400,
)
"""ViT-B/16 for dense features (depth, segmentation, k-NN) rather than for fine-tuning, after Pixio (CVPR 2026): 256 pixels,
squares of 2 x 2 patches, 4 class tokens, a decoder twice as deep, a low learning rate. Its authors report that squares
raised k-NN by 19 points and the deep decoder by 20. They use ViT-H, learned positions and stochastic depth; we use ViT-B,
sine-cosine positions and no stochastic depth."""

PARTITION_B16 = replace(
    MAE_B16,
    objective=replace(MAE_B16.objective, masking=PartitionMasking(masks=4, ratio=0.75)),
    batch_size=1024,  # 4096 masks per step, as in table 8
    epochs=200,  # as many masks in total as 800 epochs with one mask per image
    schedule=WarmupCosine(base_lr=6e-4, warmup_epochs=10),  # 2.4e-3, table 8's rate for 4096
)
"""`MAE_B16` with each image decoded and cropped once for 4 masks that show every patch once: the same FLOPs, a quarter of
the loading. Ours. Four masks of one image are less varied than masks of four images; we have not measured the effect at this
size."""

MUON_B16 = replace(MAE_B16, optimizer=Muon(momentum=0.95, beta1=0.9, beta2=0.95, weight_decay=0.05))
"""`MAE_B16` with Muon, at AdamW's learning rate and weight decay, to which its updates are scaled (Liu and others, 2025). A
study of 2026 (arXiv 2605.24770) reports that Muon is better than AdamW for MAE too; its figures are not confirmed."""

RISING_B16 = replace(MAE_B16, sizes=RisingSize(first=Size(128, 128), stages=4))
"""`MAE_B16` at 128, 160, 192 and finally 224 pixels, a quarter of the epochs each: 64, 100, 144 and 196 patches, on average
64 % of 196. Rising sizes are from DailyMAE (up to 5.8 times as fast, including its loader). FastMIM (2022) found that 128
pixels suffice for most of pretraining. The sizes and their shares are ours."""

FAST_TI4 = replace(
    MAE_TI4,
    objective=MAE(
        decoder=CrossAttentionDecoder(depth=4, embed_dim=128, num_heads=4), predicted=1 / 3
    ),
)
"""`MAE_TI4` with a cross-attention decoder, 16 of 64 patches rebuilt. Ours, with the learning rate of `MAE_TI4`;
studies/fast.md compares the two at equal time."""

BUDGET_TI4 = replace(
    MAE_TI4,
    objective=MAE(
        masking=RandomMasking(ratio=0.875),  # 8 of 64 patches are visible
        decoder=SelfAttentionDecoder(depth=1, embed_dim=128, num_heads=4),
    ),
    schedule=WarmupCosine(base_lr=1.5e-4, warmup_epochs=10),
    epochs=100,
)
"""`BUDGET_B16` for 32 pixels: 8 of 64 patches visible, one decoder block. Ours; see studies/fast.md."""

DENSE_TI4 = replace(
    MAE_TI4,
    encoder=replace(MAE_TI4.encoder, class_tokens=4),
    objective=MAE(
        masking=SquareMasking(masking=RandomMasking(ratio=0.75), side=2),
        decoder=SelfAttentionDecoder(depth=4, embed_dim=128, num_heads=4),
    ),
)
"""`DENSE_B16` for 32 pixels: squares of 2 x 2 patches, 4 class tokens, a decoder twice as deep. Ours, with the learning rate
of `MAE_TI4`; see studies/fast.md."""

PARTITION_TI4 = replace(
    MAE_TI4,
    objective=replace(MAE_TI4.objective, masking=PartitionMasking(masks=4, ratio=0.75)),
    batch_size=256,
    epochs=75,
    schedule=WarmupCosine(base_lr=6e-4, warmup_epochs=7.5),
)
"""`PARTITION_B16` for 32 pixels. Ours."""

MUON_TI4 = replace(MAE_TI4, optimizer=MUON_B16.optimizer)
"""`MUON_B16` for 32 pixels. Ours."""

RISING_TI4 = replace(MAE_TI4, sizes=RisingSize(first=Size(16, 16), stages=3))
"""`RISING_B16` for 32 pixels: 16, 24 and 32 pixels, a third of the epochs each. Ours."""

NAMED = {
    "fast-b16": Named(
        FAST_B16,
        "CrossMAE section 4 on MAE table 8",
        "83.7 % fine-tuned on ImageNet-1K at 800 epochs (CrossMAE's authors)",
    ),
    "fast4-b16": Named(
        FAST4_B16,
        "fast-b16 with 4 decoder blocks",
        "not measured; at 400 epochs 83.0 % with 1 block and 83.2 % with 12 (CrossMAE's authors)",
    ),
    "budget-b16": Named(
        BUDGET_B16,
        "Wei and others (2024) on MAE table 8",
        "82.9 % fine-tuned on ImageNet-1K after 9 hours on one A100 (its authors)",
    ),
    "dense-b16": Named(
        DENSE_B16, "Pixio's findings on ViT-B", "not known for ViT-B; Pixio reports ViT-H"
    ),
    "partition-b16": Named(PARTITION_B16, "ours, four disjoint masks per image", "not measured"),
    "muon-b16": Named(MUON_B16, "arXiv 2605.24770 on MAE table 8", "not measured"),
    "rising-b16": Named(RISING_B16, "after DailyMAE and FastMIM, on MAE table 8", "not measured"),
    "fast-ti4": Named(FAST_TI4, "ours, mae-ti4 with CrossMAE's decoder", "studies/fast.md"),
    "budget-ti4": Named(BUDGET_TI4, "ours, mae-ti4 as Wei and others", "studies/fast.md"),
    "dense-ti4": Named(DENSE_TI4, "ours, mae-ti4 as Pixio", "studies/fast.md"),
    "partition-ti4": Named(PARTITION_TI4, "ours, four disjoint masks per image", "not measured"),
    "muon-ti4": Named(MUON_TI4, "ours, mae-ti4 with Muon", "not measured"),
    "rising-ti4": Named(RISING_TI4, "ours, mae-ti4 with rising sizes", "not measured"),
}
