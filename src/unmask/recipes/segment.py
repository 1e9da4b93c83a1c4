"""Recipes for semantic segmentation: UperNet on MAE's weights, linear and DPT heads on frozen encoders, and small ones.

Published lengths are in steps on ADE20K (20,210 training images); here they are epochs, so that other data are seen as often.
Not expressed: mmsegmentation draws a crop again if one class fills more than 75 % of it, and at most 2,048 pixels of the
longer side are tested. Its rate falls during warm-up too, which changes it by less than 1 %.
"""

from dataclasses import replace

from unmask.contracts import Size
from unmask.data.mixing import UNMIXED
from unmask.data.scaled_views import FittedImage, ScaleJitter
from unmask.encoders.vit import VIT_B16, VIT_H14, VIT_L16, VIT_S16, VIT_TI16
from unmask.recipes.finetune import Transfer
from unmask.recipes.recipe import Named
from unmask.tasks.dpt import DPT
from unmask.tasks.map_layers import BatchNorms
from unmask.tasks.segment import Segment
from unmask.tasks.segment_heads import LinearMap
from unmask.tasks.upernet import UperNet
from unmask.training.optimizers import AdamW, LayerwiseAdamW
from unmask.training.schedules import WarmupCosine

_ADE20K = 20_210  # training images
_WIDE_B, _WIDE_L, _WIDE_H = VIT_B16.embed_dim, VIT_L16.embed_dim, VIT_H14.embed_dim


def _epochs(steps: int, batch_size: int = 16) -> float:
    """How often so many steps show each training image of ADE20K."""
    return steps * batch_size / _ADE20K


SEGMENT_B16 = Transfer(
    encoder=VIT_B16,
    task=Segment(
        head=UperNet(
            taps=(4, 6, 8, 12),  # outputs of blocks 3, 5, 7, 11 counted from 0
            channels=_WIDE_B,
            norm=BatchNorms(),
            dropout=0.1,
        ),
        drop_path=0.1,
        auxiliary_weight=0.4,
        stride=341 / 512,
    ),
    views=ScaleJitter(least=0.5, most=2.0, side="shortest", photometric=True),
    test_views=FittedImage(side="shortest"),
    mixing=UNMIXED,
    optimizer=LayerwiseAdamW(beta1=0.9, beta2=0.999, weight_decay=0.05, layer_decay=0.65),
    schedule=WarmupCosine(
        base_lr=1.6e-3,  # 1e-4 for a batch of 16
        warmup_epochs=_epochs(1_500),
        cooldown=1.0,
    ),
    image_size=Size(512, 512),
    batch_size=16,
    epochs=_epochs(160_000),  # 126.7; the paper says 100
)
"""UperNet on ViT-B/16 as in mmsegmentation's configuration for MAE (Apache-2.0): mIoU 48.13 % on ADE20K there, 48.1 % in the
paper (table 5). Without its relative position bias and LayerScale, see `Segment`; not measured by us."""

SEGMENT_L16 = replace(
    SEGMENT_B16,
    encoder=VIT_L16,
    task=replace(
        SEGMENT_B16.task,
        head=UperNet(taps=(8, 12, 16, 24), channels=_WIDE_L, norm=BatchNorms(), dropout=0.1),
        drop_path=0.2,
    ),
)
"""UperNet on ViT-L/16: 53.6 % in the paper (table 5), whose settings for L are not public. Taps (7, 11, 15, 23 counted from 0)
and drop path are from public configurations; the rest, layer decay included, is that of ViT-B."""

SEGMENT_H14 = replace(
    SEGMENT_L16,
    encoder=VIT_H14,
    task=replace(
        SEGMENT_L16.task,
        head=UperNet(taps=(8, 16, 24, 32), channels=_WIDE_H, norm=BatchNorms(), dropout=0.1),
        drop_path=0.3,
    ),
    image_size=Size(518, 518),  # the nearest to 512 that patches of 14 divide
)
"""UperNet on ViT-H/14. Ours, from the settings for L: no result of MAE's ViT-H with UperNet is published."""

SEGMENT_S16 = Transfer(
    encoder=VIT_S16,
    task=Segment(head=UperNet(channels=256), drop_path=0.1, auxiliary_weight=0.4),
    views=ScaleJitter(least=0.5, most=2.0, side="shortest"),
    test_views=FittedImage(side="shortest"),
    mixing=UNMIXED,
    optimizer=LayerwiseAdamW(beta1=0.9, beta2=0.999, weight_decay=0.05, layer_decay=0.75),
    schedule=WarmupCosine(base_lr=1.6e-3, warmup_epochs=5, cooldown=1.0),
    image_size=Size(224, 224),
    batch_size=16,
    epochs=100,
)
"""UperNet with LayerNorm on ViT-S/16 at 224 pixels, for a few hundred to a few thousand images. Ours."""

SEGMENT_TI16 = replace(
    SEGMENT_S16, encoder=VIT_TI16, task=replace(SEGMENT_S16.task, head=UperNet(channels=128))
)
"""`SEGMENT_S16` for ViT-Ti/16. Ours."""

SEGMENT_TI8 = replace(
    SEGMENT_TI16,
    encoder=replace(VIT_TI16, patch_size=8, depth=6),
    task=Segment(head=UperNet(channels=64)),
    image_size=Size(120, 160),
    schedule=WarmupCosine(base_lr=8e-3, warmup_epochs=5, cooldown=1.0),
    optimizer=replace(SEGMENT_S16.optimizer, layer_decay=1.0),
    batch_size=8,
)
"""A small encoder with patches of 8 for a few hundred images and one CPU: six blocks, 120 x 160 pixels, no layer decay, so that it
can be trained from scratch. Ours."""

PIXIO_LINEAR_H14 = Transfer(
    encoder=VIT_H14,
    task=Segment(
        head=LinearMap(norm=BatchNorms(), readout="append"),
        trained_blocks="0",
        averaged="probabilities",
    ),
    views=ScaleJitter(least=0.5, most=2.0, side="shortest"),
    test_views=FittedImage(side="shortest"),
    mixing=UNMIXED,
    optimizer=AdamW(beta1=0.9, beta2=0.999, weight_decay=0.01),
    schedule=WarmupCosine(base_lr=3.2e-3, warmup_epochs=0, cooldown=1.0),  # 2e-4 for a batch of 16
    image_size=Size(252, 252),  # published: 256 at patches of 16
    batch_size=16,
    epochs=60,
)
"""Pixio's linear protocol on a frozen ViT-H/14: batch normalisation and a linear layer on each patch token and the class token.

Its authors report 35.2 % on ADE20K for MAE's ViT-H, 50.2 % for Pixio's. Not expressed: the rate falls linearly, where theirs
falls with the power 0.9; class scores are resized without aligned corners; their augmentation is not fully known, so scales
and flip are those of UperNet."""

PIXIO_LINEAR_B16 = replace(PIXIO_LINEAR_H14, encoder=VIT_B16, image_size=Size(256, 256))
"""`PIXIO_LINEAR_H14` for ViT-B/16, at the published 256 pixels."""

PIXIO_DPT_H14 = replace(
    PIXIO_LINEAR_H14,
    task=replace(
        PIXIO_LINEAR_H14.task,
        head=DPT(map_channels=(256, 512, 1024, 1024), channels=256, norm=BatchNorms(), dropout=0.0),
    ),
    schedule=WarmupCosine(base_lr=1.6e-3, warmup_epochs=0, cooldown=1.0),  # 1e-4 for a batch of 16
)
"""Pixio's DPT protocol on a frozen ViT-H/14: 37.6 % on ADE20K for MAE's ViT-H, 53.6 % for Pixio's (its authors).

Not expressed, besides what `PIXIO_LINEAR_H14` says: whether their head reads the class token, and whether its input is
normalised, is not known to us; here the class token is projected, and the input is not normalised."""

PIXIO_DPT_B16 = replace(PIXIO_DPT_H14, encoder=VIT_B16, image_size=Size(256, 256))
"""`PIXIO_DPT_H14` for ViT-B/16, at the published 256 pixels."""

DINO3_LINEAR_B16 = Transfer(
    encoder=VIT_B16,
    task=Segment(
        head=LinearMap(norm=BatchNorms(), dropout=0.1), trained_blocks="0", stride=341 / 512
    ),
    views=ScaleJitter(least=0.5, most=2.0, side="shortest"),
    test_views=FittedImage(side="shortest"),
    mixing=UNMIXED,
    optimizer=AdamW(beta1=0.9, beta2=0.999, weight_decay=1e-3),
    schedule=WarmupCosine(
        base_lr=1.6e-2,  # 1e-3 for a batch of 16
        warmup_epochs=_epochs(1_500),
        cooldown=1.0,
    ),
    image_size=Size(512, 512),
    batch_size=16,
    epochs=_epochs(40_000),
)
"""DINOv3's linear protocol on a frozen ViT-B/16: dropout, batch normalisation and a linear layer on each patch token.

Its authors report 55.9 % on ADE20K for their model of 7 billion parameters. Not expressed: the shape of their schedule
after warm-up and their colour augmentation are not known to us; ADE20K's class 0 must be set to ignored in the data."""

_MMSEG = "mmsegmentation's UperNet on MAE"
_OURS = "ours, after segment-b16"

NAMED = {
    "segment-b16": Named(SEGMENT_B16, _MMSEG, "mIoU 48.13 % on ADE20K (its authors), paper 48.1 %"),
    "segment-l16": Named(
        SEGMENT_L16, f"{_MMSEG}, and public settings for L", "mIoU 53.6 % on ADE20K (MAE table 5)"
    ),
    "segment-h14": Named(SEGMENT_H14, _OURS, "not published for ViT-H, not measured"),
    "segment-s16": Named(SEGMENT_S16, _OURS, "not measured"),
    "segment-ti16": Named(SEGMENT_TI16, _OURS, "not measured"),
    "segment-ti8": Named(SEGMENT_TI8, _OURS, "not measured at full length"),
    "pixio-linear-h14": Named(
        PIXIO_LINEAR_H14, "Pixio's linear protocol", "mIoU 35.2 % on ADE20K (Pixio's authors)"
    ),
    "pixio-linear-b16": Named(PIXIO_LINEAR_B16, "Pixio's linear protocol", "not known for ViT-B"),
    "pixio-dpt-h14": Named(
        PIXIO_DPT_H14, "Pixio's DPT protocol", "mIoU 37.6 % on ADE20K (Pixio's authors)"
    ),
    "pixio-dpt-b16": Named(PIXIO_DPT_B16, "Pixio's DPT protocol", "not known for ViT-B"),
    "dinov3-linear-b16": Named(
        DINO3_LINEAR_B16, "DINOv3's linear protocol", "not known for MAE's ViT-B"
    ),
}
"""All recipes for segmentation by their public names."""
