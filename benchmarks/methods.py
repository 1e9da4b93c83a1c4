"""One training step of each method that MAE is compared with, beside a peer's implementation of the same, on a CPU.

    python benchmarks/methods.py --sizes ti4 b16 --threads 1 --clock processor --out methods.json

DINO, AIM and SimMIM are put together from lightly's parts as its documented examples do, MoCo v3 is
stable-pretraining's; a library that is missing is named as absent. Encoder, head, views, batch and fused AdamW are the
same for both, and the numbers of learned weights are held against each other before anything is timed; the step ends with
the teacher's. unmask is given bytes, as by its loader, its peers normalised floats. Memory is each one's in a process of its own.
"""

import argparse
import copy
import importlib.metadata
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightly.loss import DINOLoss
from lightly.models import utils as lightly_utils
from lightly.models.modules import (
    AIMPredictionHead,
    DINOProjectionHead,
    MaskedCausalVisionTransformer,
    MaskedVisionTransformerTIMM,
)
from peers import (  # beside this file; needs lightly and transformers
    CLOCKS,
    MEAN,
    STD,
    Clock,
    Contestant,
    Spread,
    Timings,
    environment,
    fused_adamw,
    resident,
    take_turns,
    time_step,
    whole_steps,
)
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.channels import IMAGENET
from unmask.contracts import Batch, Moment, Size
from unmask.data.multi_views import sizes_of
from unmask.encoders import ViT
from unmask.recipes import RECIPES, Recipe
from unmask.traits import Following

METHODS = ("dino", "moco3", "aim", "simmim")
PEERS = {"moco3": "stable-pretraining"}
ROUNDS = {"ti4": 15, "b16": 5}
BATCH = {"ti4": 64, "b16": 4}
MEMORY_STEPS = 2
MOMENT = Moment(step=500, steps=1000, epoch=50)
GOAL = 1.0

Parts = tuple[nn.Module, Callable[[], Tensor]]
"""A model and what computes its loss, a teacher's update before it."""


# The same for both


def recipe_of(method: str, size: str) -> Recipe:
    """unmask's recipe; SimMIM's on plain blocks, as its peer has no relative positions."""
    recipe = RECIPES[f"{method}-{size}"].recipe
    if method != "simmim":
        return recipe
    return replace(recipe, encoder=RECIPES[f"mae-{size}"].recipe.encoder)


def draw_views(recipe: Recipe, images: int) -> tuple[Tensor, ...]:
    """Random bytes [b c h w] for each view of the recipe."""
    random = torch.Generator().manual_seed(0)
    return tuple(
        torch.randint(0, 256, (images, 3, *size), dtype=torch.uint8, generator=random)
        for size in sizes_of(recipe.views, recipe.image_size)
    )


def to_floats(views: tuple[Tensor, ...]) -> list[Tensor]:
    """The views as a peer's loader hands them over."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return [(view.float() / 255 - mean) / std for view in views]


def timm_vit(spec: ViT, size: Size, kind: type[nn.Module] = VisionTransformer, **more: Any) -> Any:
    """timm's encoder, or one derived from it, of the same shape."""
    return kind(
        img_size=size.height, patch_size=spec.patch_size, embed_dim=spec.embed_dim,
        depth=spec.depth, num_heads=spec.num_heads, num_classes=0, **more,
    )  # fmt: skip


# unmask's


def ours(method: str, size: str, images: int) -> Parts:
    """unmask's module of the recipe."""
    recipe = recipe_of(method, size)
    torch.manual_seed(0)
    encoder = recipe.encoder.build(recipe.image_size, 3, IMAGENET.tensors())
    module = recipe.objective.build(encoder).train()
    random = torch.Generator().manual_seed(1)
    views = draw_views(recipe, images)
    batch = Batch(views, torch.zeros(images).long(), torch.arange(images), MOMENT.epoch)

    def loss() -> Tensor:
        if isinstance(module, Following):
            module.after_step(MOMENT)
        return module(batch, random).total

    if isinstance(module, Following):
        module(batch, random)  # the teacher's outputs, which the first update asks for
    return module, loss


# Theirs


class Branch(nn.Module):
    """An encoder and a head on its class token."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, view: Tensor) -> Tensor:
        """The head's outputs."""
        return self.head(self.backbone(view).flatten(start_dim=1))


def their_dino(size: str, images: int) -> Parts:
    """lightly's documented DINO: every view on its own."""
    recipe = recipe_of("dino", size)
    spec = recipe.objective
    vit = timm_vit(
        recipe.encoder, recipe.image_size, dynamic_img_size=True, drop_path_rate=spec.drop_path
    )
    student, teacher = (
        Branch(
            copy.deepcopy(vit),
            DINOProjectionHead(
                recipe.encoder.embed_dim, spec.hidden_dim, spec.bottleneck_dim, spec.prototypes,
                norm_last_layer=spec.last_layer_scale == "fixed",
            ),
        )
        for _ in range(2)
    )  # fmt: skip
    lightly_utils.deactivate_requires_grad(teacher)
    criterion = DINOLoss(output_dim=spec.prototypes, warmup_teacher_temp_epochs=5)
    views = to_floats(draw_views(recipe, images))

    def loss() -> Tensor:
        for mine, other in zip(student.children(), teacher.children(), strict=True):
            lightly_utils.update_momentum(mine, other, m=0.998)
        taught = [teacher(view) for view in views[:2]]
        return criterion(taught, [student(view) for view in views], epoch=MOMENT.epoch)

    return nn.ModuleList([student, teacher]).train(), loss


def their_moco3(size: str, images: int) -> Parts:
    """stable-pretraining's, as its training calls it; the projection of patches learns nothing."""
    from stable_pretraining.methods import MoCov3

    recipe = recipe_of("moco3", size)
    spec = recipe.objective
    vit = timm_vit(recipe.encoder, recipe.image_size, dynamic_img_size=True)
    vit.patch_embed.requires_grad_(False)
    vit.pos_embed.requires_grad_(False)
    model = MoCov3(
        vit, (spec.hidden_dim, spec.hidden_dim, spec.out_dim), spec.hidden_dim, spec.temperature
    ).train()
    first, second = to_floats(draw_views(recipe, images))

    def loss() -> Tensor:
        for pair in (model.backbone, model.projector):
            pair.update_teacher()
        return model(first, second).loss

    return model, loss


def their_aim(size: str, images: int) -> Parts:
    """lightly's documented AIM."""
    recipe = recipe_of("aim", size)
    spec, encoder = recipe.objective, recipe.encoder
    vit = timm_vit(
        encoder, recipe.image_size, MaskedCausalVisionTransformer,
        class_token=False, no_embed_class=True, global_pool="avg",
    )  # fmt: skip
    lightly_utils.initialize_2d_sine_cosine_positional_embedding(
        vit.pos_embed, has_class_token=False
    )
    vit.pos_embed.requires_grad_(False)
    head = AIMPredictionHead(
        encoder.embed_dim, 3 * encoder.patch_size**2, spec.head_dim, spec.head_depth
    )
    patches = vit.patch_embed.num_patches
    (view,) = to_floats(draw_views(recipe, images))

    def loss() -> Tensor:
        mask = lightly_utils.random_prefix_mask((images, patches), max_prefix_length=patches - 1)
        tokens = vit._pos_embed(vit.forward_features(view, mask=mask))
        guesses = head(tokens)
        truth = lightly_utils.normalize_mean_var(lightly_utils.patchify(view, encoder.patch_size))
        errors = F.mse_loss(guesses[:, :-1], truth[:, 1:], reduction="none").mean(-1)
        scored = mask[:, 1:]
        return (errors * scored).sum() / scored.sum()

    return nn.ModuleList([vit, head]).train(), loss


def their_simmim(size: str, images: int) -> Parts:
    """lightly's documented SimMIM, which predicts only where something is hidden."""
    recipe = recipe_of("simmim", size)
    encoder = recipe.encoder
    backbone = MaskedVisionTransformerTIMM(timm_vit(encoder, recipe.image_size))
    decoder = nn.Linear(encoder.embed_dim, 3 * encoder.patch_size**2)
    (view,) = to_floats(draw_views(recipe, images))
    drawn = (images, backbone.sequence_length)

    def loss() -> Tensor:
        _, hidden = lightly_utils.random_token_mask(drawn, mask_ratio=0.6)
        tokens = backbone.encode(images=view, idx_mask=hidden)
        guesses = decoder(lightly_utils.get_at_index(tokens, hidden))
        patches = lightly_utils.patchify(view, encoder.patch_size)
        return F.l1_loss(guesses, lightly_utils.get_at_index(patches, hidden - 1))

    return nn.ModuleList([backbone, decoder]).train(), loss


THEIRS = {
    "dino": their_dino,
    "moco3": their_moco3,
    "aim": their_aim,
    "simmim": their_simmim,
}


# Measuring


def contestant(method: str, size: str, who: str) -> Contestant:
    """unmask, or its peer."""
    images = BATCH[size]
    model, loss = ours(method, size, images) if who == "unmask" else THEIRS[method](size, images)
    return Contestant(who, model, fused_adamw(model), loss)


def learned(model: nn.Module) -> int:
    """How many weights learn."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def memory_of(method: str, size: str, who: str, threads: int) -> float:
    """MiB that a few steps add to the built model, in a fresh process."""
    command = [sys.executable, __file__, "--threads", str(threads), "--memory", method, size, who]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(result.stdout.splitlines()[-1])


def measure_memory(method: str, size: str, who: str) -> float:
    """What `memory_of` asks for."""
    one = contestant(method, size, who)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of imports and building
    before = resident("VmRSS")
    for _ in range(MEMORY_STEPS):
        time_step(one)
    return resident("VmHWM") - before


def summary(seconds: dict[str, list[float]]) -> dict[str, float]:
    """unmask over its peer: of the medians, and over the rounds."""
    mine, other = seconds.values()
    pairs = [a / b for a, b in zip(mine, other, strict=True)]
    low, middle, high = statistics.quantiles(pairs, n=4, method="inclusive")
    of_medians = statistics.median(mine) / statistics.median(other)
    return {"of_medians": of_medians, "of_pairs": middle, "low": low, "high": high}


def run(method: str, size: str, rounds: int, threads: int, clock: Clock) -> dict[str, Any] | None:
    """One method at one size; None where the peer is missing."""
    peer = PEERS.get(method, "lightly")
    try:
        both = [contestant(method, size, who) for who in ("unmask", peer)]
    except ImportError as error:
        print(f"\n{method}-{size}: {peer} is absent ({error.name})", flush=True)
        return None
    weights = {one.name: learned(one.model) for one in both}
    timings: Timings = whole_steps(take_turns(both, rounds, 2, clock))
    seconds = {name: parts["step"] for name, parts in timings.items()}
    del both
    memory = {who: memory_of(method, size, who, threads) for who in ("unmask", peer)}
    return {
        "batch": BATCH[size], "learned": weights, "seconds": seconds, "memory_mib": memory,
        "ratio": summary(seconds),
    }  # fmt: skip


def report(name: str, found: dict[str, Any]) -> str:
    """A method in words."""
    lines = [f"\n{name}, batch {found['batch']}"]
    for who, seconds in found["seconds"].items():
        spread = Spread.of(seconds)
        low, high = (1e3 * value for value in spread.quartiles)
        lines.append(
            f"  {who:20} {1e3 * spread.median:8.1f} ms ({low:.1f} to {high:.1f})  "
            f"{found['batch'] / spread.median:7.2f} images/s  {found['memory_mib'][who]:7.0f} MiB  "
            f"{found['learned'][who]:,} learned weights"
        )
    ratio = found["ratio"]
    lines.append(
        f"  unmask / peer: {ratio['of_medians']:.3f} of medians, {ratio['of_pairs']:.3f} "
        f"({ratio['low']:.3f} to {ratio['high']:.3f}) of pairs (goal {GOAL})"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    parser.add_argument("--sizes", nargs="+", choices=ROUNDS, default=["ti4"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--rounds", type=int, help="timed rounds; each size has its own default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        print(measure_memory(*options.memory))
        return
    results: dict[str, Any] = {"environment": environment(options.threads, options.clock)}
    with suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("stable-pretraining")
        results["environment"]["stable-pretraining"] = version
    print(", ".join(f"{key} {value}" for key, value in results["environment"].items()))
    for size in options.sizes:
        for method in options.methods:
            rounds = options.rounds or ROUNDS[size]
            found = run(method, size, rounds, options.threads, CLOCKS[options.clock])
            if found:
                results[f"{method}-{size}"] = found
                print(report(f"{method}-{size}", found), flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
