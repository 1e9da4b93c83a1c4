"""A recipe of your own, derived from one of ours; every part can be swapped.

    unmask pretrain FOLDER --recipe examples/own_recipe.py:RECIPE

As it stands it suits pictures of 8 x 8 pixels, such as scikit-learn's digits, and takes seconds.
"""

import json
from dataclasses import replace

from unmask.encoders import ViT
from unmask.masking import RandomMasking
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.recipes import find_recipe
from unmask.spec import to_json
from unmask.targets import NormalizedPixels
from unmask.training.schedules import WarmupCosine

RECIPE = replace(
    find_recipe("mae-digits"),
    encoder=ViT(patch_size=2, embed_dim=32, depth=2, num_heads=2),
    objective=MAE(
        masking=RandomMasking(ratio=0.75),  # or BlockMasking, GridMasking
        target=NormalizedPixels(),  # or Pixels: better pictures, weaker features
        decoder=SelfAttentionDecoder(embed_dim=32, depth=1, num_heads=2),
    ),
    schedule=WarmupCosine(base_lr=4e-3, warmup_epochs=3.0),
    batch_size=64,
    epochs=30.0,
)

if __name__ == "__main__":
    print(json.dumps(to_json(RECIPE), indent=1))  # as it will stand in the run's spec.json
