"""A recipe of your own, derived from one of ours; every part can be swapped.

    unmask pretrain FOLDER --recipe examples/own_recipe.py:RECIPE

As it stands it suits pictures of 8 x 8 pixels, such as scikit-learn's digits, and takes seconds.
"""

from dataclasses import replace

from unmask import MAE, RECIPES, RandomMasking, Recipe, ViT

OURS = RECIPES["mae-digits"].recipe
assert isinstance(OURS.objective, MAE)

RECIPE: Recipe = replace(
    OURS,
    encoder=ViT(patch_size=2, embed_dim=32, depth=2, num_heads=2),
    objective=MAE(
        masking=RandomMasking(ratio=0.75),
        target=OURS.objective.target,
        decoder=replace(OURS.objective.decoder, embed_dim=32, depth=1, num_heads=2),
    ),
    schedule=replace(OURS.schedule, base_lr=4e-3, warmup_epochs=3.0),
    batch_size=64,
    epochs=30.0,
)

if __name__ == "__main__":
    print(RECIPE)  # the run's spec.json holds the same as JSON
