"""Scales of studies: the paper's, and two for small machines."""

from dataclasses import replace

from unmask.contracts import Size
from unmask.data.mixing import UNMIXED
from unmask.data.views import CenterCrop, RandomCrop
from unmask.encoders.vit import ViT
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.recipes import Transfer
from unmask.recipes.finetune import FINETUNE_L16, FINETUNE_TI4
from unmask.recipes.mae import MAE_L16, MAE_TI4
from unmask.study.study import Scale, Trial
from unmask.targets import Pixels
from unmask.tasks import Classify
from unmask.training.optimizers import LayerwiseAdamW
from unmask.training.schedules import WarmupCosine

_TINY_ENCODER = ViT(patch_size=4, embed_dim=96, depth=4, num_heads=3)

_TINY = Trial(
    recipe=replace(
        MAE_TI4,
        encoder=_TINY_ENCODER,
        objective=MAE(
            target=Pixels(), decoder=SelfAttentionDecoder(depth=2, embed_dim=48, num_heads=3)
        ),
        schedule=WarmupCosine(base_lr=2e-3, warmup_epochs=1),
        batch_size=128,
        epochs=10,
    ),
    transfer=Transfer(
        encoder=_TINY_ENCODER,
        task=Classify(label_smoothing=0.1, drop_path=0.1),
        views=RandomCrop(smallest_share=0.4, flip_probability=0.5),
        test_views=CenterCrop(),
        mixing=UNMIXED,
        optimizer=LayerwiseAdamW(layer_decay=0.75),
        schedule=WarmupCosine(base_lr=4e-3, warmup_epochs=0.5),
        image_size=Size(32, 32),
        batch_size=64,
        epochs=3,
    ),
)

TINY = Scale(
    base=_TINY,
    images=10_000,
    about="4 blocks of 96, patches of 4 of 32 pixels, 10,000 images, 10 epochs, then 3 of fine-tuning; four minutes of one CPU core a run",
)

SMALL = Scale(
    base=Trial(
        recipe=replace(MAE_TI4, objective=replace(MAE_TI4.objective, target=Pixels()), epochs=200),
        transfer=FINETUNE_TI4,
    ),
    images=None,
    about="ViT-Ti/4 at 32 pixels, all images, 200 epochs; for a GPU",
)

PAPER = Scale(
    base=Trial(
        recipe=replace(MAE_L16, objective=replace(MAE_L16.objective, target=Pixels())),
        transfer=FINETUNE_L16,
    ),
    images=None,
    about="ViT-L/16 at 224 pixels, 800 epochs, pixels without normalisation, as in the paper's table 1",
)

SCALES: dict[str, Scale] = {"tiny": TINY, "small": SMALL, "paper": PAPER}
