"""Recipes for object detection and instance masks: ViTDet's settings, and smaller ones of ours.

ViTDet: "Exploring Plain Vision Transformer Backbones for Object Detection" (Li and others, 2022), appendix A, and the
configurations of its authors in detectron2 (projects/ViTDet). Scores are average precisions of boxes and masks on COCO's
validation images, Mask R-CNN. Where annotations have no masks, the same recipe trains Faster R-CNN.
"""

from dataclasses import replace

from unmask.contracts import Size
from unmask.data.mixing import UNMIXED
from unmask.data.scaled_views import FittedImage, ScaleJitter
from unmask.encoders.vit import VIT_B16, VIT_H14, VIT_L16, VIT_S16, VIT_TI16, ViT
from unmask.recipes.finetune import Transfer
from unmask.recipes.recipe import Named
from unmask.tasks.detect import Detect
from unmask.training.optimizers import LayerwiseAdamW
from unmask.training.schedules import WarmupCosine

_STEPS = 184_375  # of batches of 64 images: 100 epochs of COCO's 118,000

DETECT_B16 = Transfer(
    encoder=VIT_B16,
    task=Detect(
        window=14,  # section 4
        global_blocks=4,  # section 4: evenly spaced
        drop_path=0.1,  # appendix A.2
    ),
    views=ScaleJitter(least=0.1, most=2.0, flip_probability=0.5),  # appendix A.2
    test_views=FittedImage(side="longest"),  # published configuration
    mixing=UNMIXED,
    optimizer=LayerwiseAdamW(
        beta1=0.9, beta2=0.999, weight_decay=0.1, layer_decay=0.7, exempt="norms"
    ),
    schedule=WarmupCosine(
        base_lr=4e-4,  # 1e-4 for batches of 64
        warmup_epochs=100 * 250 / _STEPS,
        milestones=(163_889 / _STEPS, 177_546 / _STEPS),
    ),
    image_size=Size(1024, 1024),
    batch_size=64,
    epochs=100,
)
"""ViTDet with ViT-B/16: 51.6 box, 45.9 mask. Steps at milestones, as in the published configuration; 1,030 A100-hours for
COCO. Of a run of 50 epochs expect 0.2 less for boxes, of 25 epochs 2.2 less: that was so with the MAE paper's detector."""

DETECT_L16 = replace(
    DETECT_B16,
    encoder=VIT_L16,
    task=replace(DETECT_B16.task, drop_path=0.4),
    optimizer=replace(DETECT_B16.optimizer, layer_decay=0.8),
)
"""ViTDet with ViT-L/16: 55.5 box, 49.2 mask."""

DETECT_H16 = replace(
    DETECT_B16,
    encoder=replace(VIT_H14, patch_size=16),
    task=replace(DETECT_B16.task, drop_path=0.5),
    optimizer=replace(DETECT_B16.optimizer, layer_decay=0.9, exempt="nothing"),
    schedule=replace(DETECT_B16.schedule, warmup_epochs=75 * 250 / _STEPS),
    epochs=75,
)
"""ViTDet with ViT-H/16, from weights of ViT-H/14 whose patch projection is resampled (`formats.repatch`): 56.7 box, 50.2
mask."""

DETECT_S16 = replace(DETECT_B16, encoder=VIT_S16)
"""`DETECT_B16` with ViT-S/16. Ours, not measured."""

DETECT_TI16 = replace(DETECT_B16, encoder=VIT_TI16, task=replace(DETECT_B16.task, drop_path=0.0))
"""`DETECT_B16` with ViT-Ti/16, without stochastic depth. Ours, not measured."""

DETECT_SMALL = replace(
    DETECT_S16,
    task=replace(DETECT_B16.task, window=16),  # four windows of 16 x 16 patches
    views=ScaleJitter(least=0.5, most=1.5, flip_probability=0.5),
    optimizer=replace(DETECT_B16.optimizer, weight_decay=0.05, layer_decay=0.75, exempt="vectors"),
    schedule=WarmupCosine(base_lr=3.2e-3, warmup_epochs=5),  # 2e-4 for batches of 16
    image_size=Size(512, 512),
    batch_size=16,
)
"""For some hundred or thousand pictures, at 512 pixels: milder changes of scale, MAE's exemptions, and half a cosine. Ours."""

DETECT_MINI = replace(
    DETECT_SMALL,
    encoder=ViT(patch_size=16, embed_dim=192, depth=6, num_heads=3),
    task=replace(DETECT_SMALL.task, window=None, drop_path=0.0, channels=64, sampled=128),
    schedule=WarmupCosine(base_lr=1.6e-2, warmup_epochs=5),  # 1e-3 for batches of 16
    image_size=Size(256, 256),
)
"""For one CPU core: 256 pixels, a narrow encoder and narrow heads with global attention. Ours."""

_SOURCE = "ViTDet, appendix A.2, and its authors' configuration"

NAMED = {
    "detect-b16": Named(DETECT_B16, _SOURCE, "51.6 box AP, 45.9 mask AP on COCO (ViTDet)"),
    "detect-l16": Named(DETECT_L16, _SOURCE, "55.5 box AP, 49.2 mask AP on COCO (ViTDet)"),
    "detect-h16": Named(DETECT_H16, _SOURCE, "56.7 box AP, 50.2 mask AP on COCO (ViTDet)"),
    "detect-s16": Named(DETECT_S16, "ours, detect-b16 with ViT-S", "not measured"),
    "detect-ti16": Named(DETECT_TI16, "ours, detect-b16 with ViT-Ti", "not measured"),
    "detect-small": Named(DETECT_SMALL, "ours, for some hundred pictures", "not measured"),
    "detect-mini": Named(DETECT_MINI, "ours, for one CPU core", "not measured"),
}
