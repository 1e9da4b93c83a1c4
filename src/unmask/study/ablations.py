"""The ablations of the MAE paper (He and others, CVPR 2022, section 4) as studies, with its results for ViT-L."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from unmask.data.noise import NOISELESS, Noise, PatchKeep
from unmask.data.views import AnyViews, CenterCrop, FixedCrop, JitteredCrop, RandomCrop
from unmask.encoders.vit import VIT_H14, VIT_L16, ViT
from unmask.errors import SettingsError, did_you_mean
from unmask.masking import BlockMasking, GridMasking, RandomMasking, SquareMasking
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.objectives.mae import AnyEncoding, Replaced, Visible
from unmask.recipes import from_file
from unmask.study.methods import tokenized
from unmask.study.study import PAPER, Study, Trial, Variation
from unmask.targets import (
    Hog,
    KMeansTokens,
    NormalizedPixels,
    Pixels,
    PrincipalComponents,
)

_SMALL_PATCH = 256  # values of a patch
_FEWEST_CODES, _CODES = 512, 8192


def row(name: str, change: Callable[[Trial], Trial], *published: float) -> Variation:
    """A variation with the columns of the paper's table 1, fine-tuning and linear probe, as far as it has them."""
    columns = dict[str, float](zip(("finetune", "linear"), published, strict=False))
    return Variation(name=name, change=change, published=columns)


def decoder(depth: int | None, share: float | None, trial: Trial) -> Trial:
    """A decoder with another depth, or with a width that is this share of the encoder's."""
    trained = trial.recipe.objective
    old = trained.decoder if isinstance(trained, MAE) else None
    if not isinstance(old, SelfAttentionDecoder):
        raise SettingsError("this study needs the paper's decoder, decoder:self-attention")
    width = round(trial.recipe.encoder.embed_dim * share) if share else old.embed_dim
    heads = max(1, round(old.num_heads * width / old.embed_dim))  # of the same width
    new = replace(old, depth=depth or old.depth, embed_dim=width, num_heads=heads)
    return trial.objective(decoder=new)


def objective(**changes: object) -> Callable[[Trial], Trial]:
    """Another masking, encoding or target."""
    return lambda trial: trial.objective(**changes)


def kmeans_codes(trial: Trial) -> Trial:
    """8,192 codes, like the paper's tokenizer, or 512 if patches have fewer than 256 values."""
    few = trial.recipe.encoder.patch_size**2 * 3 < _SMALL_PATCH
    return trial.objective(target=KMeansTokens(codes=_FEWEST_CODES if few else _CODES))


def views(chosen: AnyViews) -> Callable[[Trial], Trial]:
    """Other crops in pretraining."""
    return lambda trial: trial.pretrained(views=chosen)


def jittered(trial: Trial) -> Trial:
    """The base's random crops with colour jitter."""
    crop = trial.recipe.views
    if not isinstance(crop, RandomCrop):
        raise SettingsError("colour jitter needs random crops, but the base has other views")
    return trial.pretrained(
        views=JitteredCrop(
            smallest_share=crop.smallest_share, flip_probability=crop.flip_probability
        )
    )


def epochs(factor: float, trial: Trial) -> Trial:
    """A longer or shorter pretraining; a shorter one has a proportionally shorter warm-up."""
    schedule = trial.recipe.schedule
    warmup = schedule.warmup_epochs * min(1.0, factor)
    return trial.pretrained(
        epochs=trial.recipe.epochs * factor, schedule=replace(schedule, warmup_epochs=warmup)
    )


def blocks(count: str, trial: Trial) -> Trial:
    """Fine-tuning of the last blocks: a number, or a percentage of all blocks."""
    depth = trial.transfer.encoder.depth
    if count.endswith("%"):
        count = str(round(depth * int(count[:-1]) / 100))
    return trial.tuned(task=replace(trial.transfer.task, trained_blocks=count))


def labelled(amount: str, noise: Noise, trial: Trial) -> Trial:
    """Fine-tuning with noise on a share of the labels, for as many steps as on all labels."""
    share = 1.0 if amount == "all" else int(amount[:-1]) / 100
    schedule = trial.transfer.schedule
    tuned = trial.tuned(
        noise=noise,
        epochs=trial.transfer.epochs / share,
        schedule=replace(schedule, warmup_epochs=schedule.warmup_epochs / share),
    )
    return replace(tuned, labels=amount)


DECODER_DEPTH = Study(
    title="Blocks of the decoder",
    source="MAE table 1a",
    base="8",
    variations=(
        row("1", partial(decoder, 1, None), 84.8, 65.5),
        row("2", partial(decoder, 2, None), 84.9, 70.0),
        row("4", partial(decoder, 4, None), 84.9, 71.9),
        row("8", partial(decoder, 8, None), 84.9, 73.5),
        row("12", partial(decoder, 12, None), 84.4, 73.3),
    ),
    curve=True,
)

DECODER_WIDTH = Study(
    title="Width of the decoder, as a share of the encoder's",
    source="MAE table 1b",
    base="1/2",
    variations=(
        row("1/8", partial(decoder, None, 1 / 8), 84.9, 69.1),
        row("1/4", partial(decoder, None, 1 / 4), 84.8, 71.3),
        row("1/2", partial(decoder, None, 1 / 2), 84.9, 73.5),
        row("3/4", partial(decoder, None, 3 / 4), 84.4, 73.1),
        row("1", partial(decoder, None, 1.0), 84.3, 73.1),
    ),
    curve=True,
)

MASK_TOKEN = Study(
    title="Mask tokens in the encoder",
    source="MAE table 1c",
    base="without",
    variations=(
        row("with", objective(encoding=Replaced()), 84.2, 59.6),
        row("without", objective(encoding=Visible()), 84.9, 73.5),
    ),
)

TARGET = Study(
    title="Reconstruction target",
    source="MAE table 1d",
    base="pixels",
    variations=(
        row("pixels", objective(target=Pixels()), 84.9, 73.5),
        row("normalised pixels", objective(target=NormalizedPixels()), 85.4, 73.9),
        row(
            "PCA", objective(target=PrincipalComponents(share=1 / 8)), 84.6, 72.3
        ),  # 96 of 768 values
        row("tokenizer's codes", tokenized, 85.3, 71.6),  # the paper's are of DALL-E's tokenizer
        row("k-means tokens", kmeans_codes),
        row("HOG", objective(target=Hog())),
    ),
)

AUGMENTATION = Study(
    title="Augmentation in pretraining",
    source="MAE table 1e; the strength of the jitter is MoCo v3's, because the paper gives none",
    base="random crop",
    variations=(
        row("none", views(CenterCrop()), 84.0, 65.7),
        row("fixed crop", views(FixedCrop()), 84.7, 73.1),
        row("random crop", lambda trial: trial, 84.9, 73.5),
        row("and colour jitter", jittered, 84.3, 71.9),
    ),
)

MASK_SAMPLING = Study(
    title="Which patches are hidden",
    source="MAE table 1f; squares from Pixio",
    base="random 75 %",
    variations=(
        row("random 75 %", objective(masking=RandomMasking()), 84.9, 73.5),
        row("block 50 %", objective(masking=BlockMasking(ratio=0.5)), 83.9, 72.3),
        row("block 75 %", objective(masking=BlockMasking(ratio=0.75)), 82.8, 63.9),
        row("grid 75 %", objective(masking=GridMasking()), 84.0, 66.0),
        row("squares of 2 x 2", objective(masking=SquareMasking(side=2))),
        row("squares of 4 x 4", objective(masking=SquareMasking(side=4))),
    ),
)

MASK_RATIO = Study(
    title="Share of hidden patches",
    source="MAE figure 5; all points except 75 % are from memory",
    base="75 %",
    variations=(
        row("10 %", objective(masking=RandomMasking(ratio=0.1)), 83.2, 54.6),
        row("20 %", objective(masking=RandomMasking(ratio=0.2)), 83.4, 58.9),
        row("30 %", objective(masking=RandomMasking(ratio=0.3)), 83.4, 61.7),
        row("40 %", objective(masking=RandomMasking(ratio=0.4)), 84.7, 67.0),
        row("50 %", objective(masking=RandomMasking(ratio=0.5)), 84.9, 69.9),
        row("60 %", objective(masking=RandomMasking(ratio=0.6)), 85.0, 71.8),
        row("70 %", objective(masking=RandomMasking(ratio=0.7)), 84.9, 73.2),
        row("75 %", objective(masking=RandomMasking(ratio=0.75)), 84.9, 73.5),
        row("80 %", objective(masking=RandomMasking(ratio=0.8)), 84.5, 71.8),
        row("90 %", objective(masking=RandomMasking(ratio=0.9)), 83.0, 66.1),
    ),
    curve=True,
)

SCHEDULE = Study(
    title="Epochs of pretraining, as a multiple of the scale's",
    source="MAE figure 7, points from memory; 1 is 800 epochs",
    base="1",
    variations=(
        row("1/8", partial(epochs, 1 / 8), 82.3, 57.3),
        row("1/4", partial(epochs, 1 / 4), 83.3, 64.4),
        row("1/2", partial(epochs, 1 / 2), 84.3, 69.7),
        row("1", partial(epochs, 1.0), 84.9, 73.5),
        row("2", partial(epochs, 2.0), 85.1, 75.1),
    ),
    timed=False,
    curve=True,
)

PARTIAL = Study(
    title="Fine-tuned blocks",
    source="MAE figure 9",
    base="all",
    variations=(
        row("0", partial(blocks, "0"), 73.5),
        row("half", partial(blocks, "half"), 79.1),
        row("1", partial(blocks, "1"), 81.0),
        row("half of them", partial(blocks, "50%")),
        row("all", partial(blocks, "all"), 84.9),
    ),
    scores=("finetune",),
    timed=False,
    curve=True,
)

_RISING = PatchKeep(first=0.5, last=1.0)

NOISE = Study(
    title="Noise in fine-tuning, by share of the labels, at equal steps",
    source="ours; hidden patches as in PatchDropout",
    base="no noise at all",
    variations=tuple(
        Variation(
            name=f"{name} at {amount}",
            change=partial(labelled, amount, noise),
            beside=f"no noise at {amount}",
        )
        for amount in ("1%", "10%", "all")
        for name, noise in {
            "no noise": NOISELESS,
            "hidden patches": Noise(patch_keep=_RISING),
            "swapped patches": Noise(patch_keep=_RISING, instead="patches"),
            "pixel noise": Noise(pixel_noise=0.3),
        }.items()
    ),
    scores=("finetune",),
    timed=False,
)


def of_size(encoder: ViT, chosen: AnyEncoding, depth: int, trial: Trial) -> Trial:
    """One of the paper's encoders, with or without mask tokens, and a decoder of `depth` blocks."""
    sized = replace(
        trial,
        recipe=replace(trial.recipe, encoder=encoder),
        transfer=replace(trial.transfer, encoder=encoder),
    )
    return decoder(depth, None, sized.objective(encoding=chosen))


SPEED = Study(
    title="Time of 800 epochs, by the encoder's input and the decoder's depth",
    source="MAE table 2 (128 TPU-v3 cores; ours on this machine)",
    base="ViT-L with mask tokens: 8 blocks",
    variations=tuple(
        Variation(
            name=f"{size} {'with mask tokens' if chosen == Replaced() else 'without'}: "
            f"{depth} block{'s' * (depth > 1)}",
            change=partial(of_size, encoder, chosen, depth),
            published={"hours": hours},
            beside=f"{size} with mask tokens: 8 blocks",
        )
        for size, encoder, every in (
            ("ViT-L", VIT_L16, (42.4, 15.4, 11.6)),
            ("ViT-H", VIT_H14, (119.6, 34.5, 29.3)),
        )
        for (chosen, depth), hours in zip(
            ((Replaced(), 8), (Visible(), 8), (Visible(), 1)), every, strict=True
        )
    ),
    scores=(),
    scale=PAPER,
)

STUDIES: dict[str, Study] = {
    "decoder-depth": DECODER_DEPTH,
    "decoder-width": DECODER_WIDTH,
    "mask-token": MASK_TOKEN,
    "target": TARGET,
    "augmentation": AUGMENTATION,
    "mask-sampling": MASK_SAMPLING,
    "mask-ratio": MASK_RATIO,
    "schedule": SCHEDULE,
    "speed": SPEED,
    "partial": PARTIAL,
    "noise": NOISE,
}
"""Every study by its public name."""


def find_study(name: str) -> Study:
    """The study of this name, or the object that `FILE.py:NAME` points to.

    Raises:
        SettingsError: with the nearest name, or the problem of the file.
    """
    if ".py" in name:
        return from_file(name, Study)
    if name not in STUDIES:
        raise SettingsError(f"unknown study {name!r}; {did_you_mean(name, STUDIES)}")
    return STUDIES[name]
