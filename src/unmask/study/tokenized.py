"""Trials whose target is the codes of a tokenizer that is trained first, on the same images."""

from dataclasses import replace

from unmask.recipes.tokenizer import TOKENIZER_B16, TOKENIZER_TI4
from unmask.study.study import Trial
from unmask.targets import TokenizerCodes

WIDE = 384
"""The width of an encoder from which on recipes made for ViT-B suit it better than those for ViT-Ti."""


def tokenized(trial: Trial, epochs: float | None = None) -> Trial:
    """The trial, predicting codes of its own patches; the tokenizer's recipe follows the encoder's width.

    It is trained for so many epochs, a twentieth of them to warm up, or as its recipe says.
    """
    recipe = trial.recipe
    chosen = TOKENIZER_B16 if recipe.encoder.embed_dim >= WIDE else TOKENIZER_TI4
    chosen = replace(chosen, patch_size=recipe.encoder.patch_size, image_size=recipe.image_size)
    if epochs is not None:
        schedule = replace(chosen.schedule, warmup_epochs=epochs / 20)
        chosen = replace(chosen, epochs=epochs, schedule=schedule)
    target = TokenizerCodes(path="", tokenizer=chosen.tokenizer)  # known once it is trained
    return replace(trial.objective(target=target), tokenizing=chosen)
