"""Mask tokens in the encoder: BEiT (Bao and others, ICLR 2022), SimMIM (Xie and others, CVPR 2022), and smaller ones of ours."""

from dataclasses import replace

from unmask.contracts import Size
from unmask.data.views import RandomCrop
from unmask.encoders.vit import VIT_B16, VIT_L16, BeitBlocks
from unmask.masking import BlockMasking, RandomMasking, SquareMasking
from unmask.objectives import MAE
from unmask.objectives.decoders import LinearDecoder
from unmask.objectives.mae import Replaced
from unmask.recipes.mae import MAE_TI4
from unmask.recipes.recipe import Named, Recipe
from unmask.targets import AbsolutePixels, KMeansTokens
from unmask.training.optimizers import AdamW, ClipTogether
from unmask.training.schedules import WarmupCosine

BEIT_B16 = Recipe(
    encoder=replace(VIT_B16, blocks=BeitBlocks(layer_scale=0.1)),  # appendix; published code
    objective=MAE(
        masking=BlockMasking(ratio=75 / 196, smallest_block=16 / 196),  # section 2.3, algorithm 1
        target=KMeansTokens(codes=8192),  # as many as DALL-E's tokenizer has (section 2.1)
        encoding=Replaced(),  # section 2.3
        decoder=LinearDecoder(),  # section 2.3
    ),
    views=RandomCrop(smallest_share=0.08, flip_probability=0.5),  # the published code's default
    optimizer=AdamW(  # published code (paper: a beta2 of 0.999)
        beta1=0.9, beta2=0.98, weight_decay=0.05, clipping=ClipTogether(norm=3.0)
    ),
    schedule=WarmupCosine(
        base_lr=1.875e-4,  # published: 1.5e-3 for 2048 images
        warmup_epochs=10,
        min_lr=1e-5,
    ),
    image_size=Size(224, 224),
    batch_size=2048,
    epochs=800,
)
"""ViT-B/16 as in BEiT's published commands: 83.2 % fine-tuned on ImageNet-1K (MAE table 3). Departures: k-means codes of
patches instead of a trained tokenizer's; no stochastic depth (published: 0.1) and no colour jitter (paper: 0.4)."""

BEIT_L16 = replace(BEIT_B16, encoder=replace(VIT_L16, blocks=BeitBlocks(layer_scale=1e-5)))
"""ViT-L/16, otherwise as `BEIT_B16`: 85.2 % (MAE table 3)."""

BEIT_TI4 = replace(
    MAE_TI4,
    encoder=replace(MAE_TI4.encoder, blocks=BeitBlocks(layer_scale=0.1)),
    objective=replace(BEIT_B16.objective, target=KMeansTokens(codes=512)),
    optimizer=BEIT_B16.optimizer,
    schedule=BEIT_B16.schedule,
)
"""BEiT for images of 32 pixels, with 512 codes; 25 of 64 patches are hidden. Ours."""

SIMMIM_B16 = Recipe(
    encoder=BEIT_B16.encoder,  # published configuration: shared relative positions, LayerScale 0.1
    objective=MAE(
        masking=SquareMasking(masking=RandomMasking(ratio=0.6), side=2),  # squares of 32 pixels
        target=AbsolutePixels(),  # section 3.3
        encoding=Replaced(),  # section 3.1
        decoder=LinearDecoder(),  # section 3.2
    ),
    views=RandomCrop(smallest_share=0.67, flip_probability=0.5),  # section 4.1
    optimizer=AdamW(  # published configuration
        beta1=0.9, beta2=0.999, weight_decay=0.05, clipping=ClipTogether(norm=5.0)
    ),
    schedule=WarmupCosine(
        base_lr=5e-5,  # published: 1e-4 for 512 images
        warmup_epochs=10,
    ),
    image_size=Size(224, 224),
    batch_size=2048,
    epochs=800,
)
"""ViT-B/16 as in SimMIM's published configuration of 800 epochs: 83.8 % fine-tuned on ImageNet-1K (its README). Departures:
the learning rate follows half a cosine (published: divided by ten after 700 epochs); no stochastic depth (published:
0.1)."""

SIMMIM_TI4 = replace(
    BEIT_TI4,
    objective=SIMMIM_B16.objective,
    optimizer=SIMMIM_B16.optimizer,
    schedule=WarmupCosine(base_lr=1.5e-4, warmup_epochs=10),
)
"""SimMIM for images of 32 pixels: squares of 8 pixels, `MAE_TI4`'s learning rate. Ours."""

NAMED = {
    "beit-b16": Named(
        BEIT_B16,
        "BEiT's published commands; codes by k-means",
        "83.2 % fine-tuned on ImageNet-1K with DALL-E's codes (MAE table 3)",
    ),
    "beit-l16": Named(
        BEIT_L16,
        "BEiT's published commands; codes by k-means",
        "85.2 % fine-tuned on ImageNet-1K with DALL-E's codes (MAE table 3)",
    ),
    "simmim-b16": Named(
        SIMMIM_B16,
        "SimMIM's published configuration",
        "83.8 % fine-tuned on ImageNet-1K (SimMIM's README)",
    ),
    "beit-ti4": Named(BEIT_TI4, "ours, from beit-b16", "not measured"),
    "simmim-ti4": Named(SIMMIM_TI4, "ours, from simmim-b16", "not measured"),
}
