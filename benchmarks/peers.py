"""One training step of a masked autoencoder: unmask beside transformers and lightly, on a CPU.

    python benchmarks/peers.py --out benchmarks/peers.json --sizes b16 ti4 --threads 2

Table 1, "same configuration", gives the same weights, images, shapes and fused AdamW to all; before
anything is timed, the losses for one and the same mask must agree. Table 2, "as it ships", leaves
each library its own defaults. Table 3 is the peak memory of each, in a process of its own.
All take turns in one process, and the order rotates, so that a noisy machine is noisy to all alike.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.channels import Statistics
from unmask.contracts import Batch, Size
from unmask.encoders import ViT
from unmask.encoders.positions import sine_cosine
from unmask.masking import RandomMasking
from unmask.masking.random import mask_from_noise
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.objectives.mae import MaskedAutoencoder

try:
    from lightly.models import utils as lightly_utils
    from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
    from timm.models.vision_transformer import VisionTransformer
    from transformers import TrainingArguments, ViTMAEConfig, ViTMAEForPreTraining
except ImportError as error:
    raise SystemExit(
        f"a peer is missing ({error.name}); install with uv sync --group bench"
    ) from error

warnings.filterwarnings("ignore", message=".*MAEDecoderTIMM.*")  # deprecated, still what 1.5 has

MASK_RATIO = 0.75
TINY_RATE = 1e-9  # the weights hardly move, so all keep computing the same thing
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GOALS = {"b16": 0.95, "ti4": 0.97, "ti4-6": 0.97}  # of the whole step over the best peer's
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": perf_counter, "processor": process_time}
MEMORY_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One size of model and batch."""

    image: int
    patch: int
    batch: int
    dim: int
    depth: int
    heads: int
    decoder_dim: int
    decoder_depth: int
    decoder_heads: int
    rounds: int
    warmup: int

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.image // self.patch) ** 2


_TI4: dict[str, int] = {
    "image": 32, "patch": 4, "batch": 128, "dim": 192, "depth": 12, "heads": 3,
    "decoder_dim": 128, "decoder_depth": 2, "decoder_heads": 4, "rounds": 25, "warmup": 3,
}  # fmt: skip
SHAPES = {
    "b16": Shape(
        image=224, patch=16, batch=8, dim=768, depth=12, heads=12,
        decoder_dim=512, decoder_depth=8, decoder_heads=16, rounds=8, warmup=2,
    ),
    "ti4": Shape(**_TI4),
    "ti4-6": Shape(**{**_TI4, "depth": 6}),
}  # fmt: skip


@dataclass(frozen=True)
class Contestant:
    """A model with its optimiser, and a closure that computes the loss of one fresh mask."""

    name: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[], Tensor]


@dataclass(frozen=True)
class Spread:
    """Seconds over the rounds."""

    median: float
    least: float
    quartiles: tuple[float, float]

    @classmethod
    def of(cls, seconds: list[float]) -> "Spread":
        """Summarise one list of timings."""
        low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(middle, min(seconds), (low, high))


Timings = dict[str, dict[str, list[float]]]
"""Seconds by contestant and part ("forward+backward", "optimizer"), one entry a round."""


# Images


def draw_images(shape: Shape) -> Tensor:
    """A uint8 batch [b c h w], the same on every call."""
    generator = torch.Generator().manual_seed(0)
    size = (shape.batch, 3, shape.image, shape.image)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)


def to_float(images: Tensor) -> Tensor:
    """The images as a peer's loader hands them over: float32, normalised per channel."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images.float() / 255 - mean) / std


# Models


def build_unmask(
    shape: Shape, mean: tuple[float, ...], std: tuple[float, ...]
) -> MaskedAutoencoder:
    """unmask's own, normalising with these statistics."""
    vit = ViT(patch_size=shape.patch, embed_dim=shape.dim, depth=shape.depth, num_heads=shape.heads)
    decoder = SelfAttentionDecoder(
        embed_dim=shape.decoder_dim, depth=shape.decoder_depth, num_heads=shape.decoder_heads
    )
    encoder = vit.build(
        Size(shape.image, shape.image), 3, Statistics(torch.tensor(mean), torch.tensor(std))
    )
    return MAE(masking=RandomMasking(ratio=MASK_RATIO), decoder=decoder).build(encoder).train()


def build_transformers(shape: Shape, **settings: Any) -> ViTMAEForPreTraining:
    """transformers' ViTMAE in this shape; `settings` override its defaults."""
    config = ViTMAEConfig(
        hidden_size=shape.dim, num_hidden_layers=shape.depth, num_attention_heads=shape.heads,
        intermediate_size=4 * shape.dim, image_size=shape.image, patch_size=shape.patch,
        decoder_hidden_size=shape.decoder_dim, decoder_num_hidden_layers=shape.decoder_depth,
        decoder_num_attention_heads=shape.decoder_heads,
        decoder_intermediate_size=4 * shape.decoder_dim, mask_ratio=MASK_RATIO, **settings,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    return ViTMAEForPreTraining(config).train()


class LightlyMAE(nn.Module):
    """lightly's building blocks, put together as its documented MAE example does."""

    def __init__(self, shape: Shape, normalize_target: bool) -> None:
        super().__init__()
        self.patch, self.normalize_target = shape.patch, normalize_target
        vit = VisionTransformer(
            img_size=shape.image, patch_size=shape.patch, embed_dim=shape.dim,
            depth=shape.depth, num_heads=shape.heads, num_classes=0,
        )  # fmt: skip
        self.backbone = MaskedVisionTransformerTIMM(vit=vit)
        self.decoder = MAEDecoderTIMM(
            num_patches=shape.patches, patch_size=shape.patch, embed_dim=shape.dim,
            decoder_embed_dim=shape.decoder_dim, decoder_depth=shape.decoder_depth,
            decoder_num_heads=shape.decoder_heads,
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """The loss of a fresh mask."""
        size = (len(images), self.backbone.sequence_length)
        drawn = lightly_utils.random_token_mask(size, mask_ratio=MASK_RATIO, device=images.device)
        return self.score(images, *drawn)

    def score(self, images: Tensor, kept: Tensor, removed: Tensor) -> Tensor:
        """The loss of this mask; places count from the class token, which is 0."""
        seen = self.decoder.embed(self.backbone.encode(images=images, idx_keep=kept))
        size = (len(images), self.backbone.sequence_length)
        tokens = lightly_utils.repeat_token(self.decoder.mask_token, size)
        tokens = lightly_utils.set_at_index(tokens, kept, seen.type_as(tokens))
        hidden = lightly_utils.get_at_index(self.decoder.decode(tokens), removed)
        patches = lightly_utils.patchify(images, self.patch)
        target = lightly_utils.get_at_index(patches, removed - 1)
        if self.normalize_target:
            target = lightly_utils.normalize_mean_var(target)
        return F.mse_loss(self.decoder.predict(hidden), target)


# The same weights for all


def shared_weights(shape: Shape) -> dict[str, Tensor]:
    """One initialisation; the head is scaled down so that the loss starts near 1."""
    torch.manual_seed(0)
    weights = build_unmask(shape, (0.0,) * 3, (1.0,) * 3).state_dict()
    for name in ("decoder.pred.weight", "decoder.pred.bias"):
        weights[name] *= 0.1
    return {name: value for name, value in weights.items() if not name.endswith((".mean", ".std"))}


def to_lightly(name: str) -> str:
    """unmask's name of a weight in lightly's words; encoders of both use timm's."""
    if name.startswith("encoder."):
        return name.replace("encoder.", "backbone.vit.", 1)
    part = name.removeprefix("decoder.")
    return f"decoder.{part}" if part == "mask_token" else f"decoder.decoder_{part}"


_BLOCK_WORDS = {
    "norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip
_OUTER_WORDS = {
    "encoder.cls_token": "vit.embeddings.cls_token",
    "encoder.pos_embed": "vit.embeddings.position_embeddings",
    "encoder.patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "encoder.norm": "vit.layernorm", "decoder.mask_token": "decoder.mask_token",
    "decoder.pos_embed": "decoder.decoder_pos_embed", "decoder.embed": "decoder.decoder_embed",
    "decoder.norm": "decoder.decoder_norm", "decoder.pred": "decoder.decoder_pred",
}  # fmt: skip


def to_transformers(name: str, value: Tensor) -> dict[str, Tensor]:
    """A weight of unmask in transformers' words; the fused projection becomes three."""
    stem, _, kind = name.rpartition(".")
    if ".blocks." not in name:
        word = _OUTER_WORDS.get(name) or f"{_OUTER_WORDS[stem]}.{kind}"
        return {word: value}
    side, rest = stem.split(".blocks.")
    number, part = rest.split(".", 1)
    layer = f"{'vit.layers' if side == 'encoder' else 'decoder.decoder_layers'}.{number}"
    if part != "attn.qkv":
        return {f"{layer}.{_BLOCK_WORDS[part]}.{kind}": value}
    thirds = zip("qkv", value.chunk(3), strict=True)
    return {f"{layer}.attention.{letter}_proj.{kind}": third for letter, third in thirds}


def load(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Fill the model; only weights that MAE never uses may stay as they are."""
    result = model.load_state_dict(weights, strict=False)
    left = set(result.missing_keys) - {"encoder.mean", "encoder.std", "backbone.mask_token"}
    if left or result.unexpected_keys:
        raise RuntimeError(f"weights do not match: {left}, {result.unexpected_keys}")


def check_positions(model: ViTMAEForPreTraining, shape: Shape) -> None:
    """From scratch, transformers 5 leaves both tables zero; here they must be sines and cosines."""
    grid = Size(shape.image // shape.patch, shape.image // shape.patch)
    for table in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
        torch.testing.assert_close(table[0], sine_cosine(table.shape[-1], grid).float())


# Contestants


def fused_adamw(model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of table 1."""
    wanted = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.optim.AdamW(wanted, lr=TINY_RATE, fused=True)


def unmask_contestant(
    name: str, images: Tensor, model: MaskedAutoencoder, optimizer: torch.optim.Optimizer
) -> Contestant:
    """unmask on a batch as its loader gives it."""
    generator = torch.Generator().manual_seed(1)
    batch = Batch((images,), torch.zeros(len(images)).long(), torch.arange(len(images)), 0)
    return Contestant(name, model, optimizer, lambda: model(batch, generator).total)


def same_unmask(shape: Shape) -> Contestant:
    """unmask on the float images of its peers."""
    model = build_unmask(shape, (0.0,) * 3, (1.0,) * 3)
    load(model, shared_weights(shape))
    return unmask_contestant("unmask", to_float(draw_images(shape)), model, fused_adamw(model))


def same_unmask_bytes(shape: Shape) -> Contestant:
    """unmask on uint8 images, which it normalises itself."""
    model = build_unmask(shape, MEAN, STD)
    load(model, shared_weights(shape))
    return unmask_contestant("unmask (uint8)", draw_images(shape), model, fused_adamw(model))


def same_transformers(shape: Shape) -> Contestant:
    """transformers with the paper's epsilon, target and positions."""
    model = build_transformers(shape, layer_norm_eps=1e-6, norm_pix_loss=True)
    pairs = (to_transformers(*item) for item in shared_weights(shape).items())
    load(model, {name: value for pair in pairs for name, value in pair.items()})
    check_positions(model, shape)
    images = to_float(draw_images(shape))
    return Contestant("transformers", model, fused_adamw(model), lambda: model(images).loss)


def same_lightly(shape: Shape) -> Contestant:
    """lightly with the paper's target."""
    model = LightlyMAE(shape, normalize_target=True).train()
    load(model, {to_lightly(name): value for name, value in shared_weights(shape).items()})
    images = to_float(draw_images(shape))
    return Contestant("lightly", model, fused_adamw(model), lambda: model(images))


def default_unmask(shape: Shape) -> Contestant:
    """unmask from uint8, with its fused AdamW."""
    model = build_unmask(shape, MEAN, STD)
    return unmask_contestant("unmask", draw_images(shape), model, fused_adamw(model))


def default_transformers(shape: Shape) -> Contestant:
    """ViTMAEConfig's defaults (plain pixels, epsilon 1e-12) and the Trainer's optimiser.

    The Trainer also clips the gradient; that is left out, in its favour.
    """
    model = build_transformers(shape)
    optim = str(TrainingArguments.__dataclass_fields__["optim"].default)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=TINY_RATE, weight_decay=0.0, fused="fused" in optim.lower()
    )
    images = to_float(draw_images(shape))
    return Contestant("transformers", model, optimizer, lambda: model(images).loss)


def default_lightly(shape: Shape) -> Contestant:
    """lightly's documented example: plain pixels and torch's own default of AdamW."""
    model = LightlyMAE(shape, normalize_target=False).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=TINY_RATE)
    images = to_float(draw_images(shape))
    return Contestant("lightly", model, optimizer, lambda: model(images))


SAME = {
    "unmask": same_unmask,
    "unmask (uint8)": same_unmask_bytes,
    "transformers": same_transformers,
    "lightly": same_lightly,
}
DEFAULT = {
    "unmask": default_unmask,
    "transformers": default_transformers,
    "lightly": default_lightly,
}
PEERS = ("transformers", "lightly")


# Do they compute the same?


@torch.no_grad()
def losses_of_one_mask(contestants: list[Contestant], shape: Shape) -> dict[str, float]:
    """Everybody's loss for one mask of the shared weights, near 1 and alike, or an error."""
    noise = torch.rand(shape.batch, shape.patches, generator=torch.Generator().manual_seed(2))
    losses = {one.name: float(_loss_of(one, noise, shape)) for one in contestants}
    least, most = min(losses.values()), max(losses.values())
    if not (least > 0.9 and most < 1.1 and most - least < 1e-5):
        raise RuntimeError(f"the implementations disagree on one and the same mask: {losses}")
    return losses


def _loss_of(contestant: Contestant, noise: Tensor, shape: Shape) -> Tensor:
    model, pixels = contestant.model, draw_images(shape)
    if isinstance(model, MaskedAutoencoder):
        images = pixels if "uint8" in contestant.name else to_float(pixels)
        mask = mask_from_noise(noise, MASK_RATIO)
        truth = model.target(images, mask, model.encoder.statistics)
        return model.target.loss(model.predict(images, mask), truth).mean()
    if isinstance(model, LightlyMAE):
        order = F.pad(noise.argsort(dim=1) + 1, (1, 0))  # the class token, 0, always stays
        kept = 1 + int(shape.patches * (1 - MASK_RATIO))
        return model.score(to_float(pixels), order[:, :kept], order[:, kept:])
    return model(to_float(pixels), noise=noise).loss


# Timing


def time_step(contestant: Contestant, clock: Clock = perf_counter) -> tuple[float, float]:
    """Seconds of forward+backward, and of the optimiser (the gradients' disposal included)."""
    start = clock()
    contestant.loss().backward()
    middle = clock()
    contestant.optimizer.step()
    contestant.optimizer.zero_grad(set_to_none=True)
    return middle - start, clock() - middle


def take_turns(contestants: list[Contestant], rounds: int, warmup: int, clock: Clock) -> Timings:
    """Time everybody once a round, in an order that rotates; warm-up rounds are dropped."""
    timings: Timings = {one.name: {"forward+backward": [], "optimizer": []} for one in contestants}
    for number in range(warmup + rounds):
        cycle, shift = divmod(number, len(contestants))
        order = contestants[shift:] + contestants[:shift]
        for one in order[:: -1 if cycle % 2 else 1]:  # neighbours change sides as well
            both = time_step(one, clock)
            if number >= warmup:
                for part, seconds in zip(timings[one.name].values(), both, strict=True):
                    part.append(seconds)
        print(f"\rround {number + 1} of {warmup + rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return timings


def whole_steps(timings: Timings) -> Timings:
    """Forward, backward and optimiser added up."""
    return {
        name: {"step": [sum(both) for both in zip(*parts.values(), strict=True)]}
        for name, parts in timings.items()
    }


def ratios(timings: Timings, part: str, name: str) -> dict[str, Any]:
    """`name` over the best peer: of the medians, and the median over the rounds."""
    best = min(PEERS, key=lambda peer: statistics.median(timings[peer][part]))
    ours, theirs = timings[name][part], timings[best][part]
    paired = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return {
        "best_peer": best,
        "of_medians": statistics.median(ours) / statistics.median(theirs),
        "of_pairs": statistics.median(paired),
    }


def matrix_rate() -> float:
    """GFLOP/s of a 2048 x 2048 x 2048 float32 product: how fast the machine is just now."""
    left, right = torch.rand(2048, 2048), torch.rand(2048, 2048)
    seconds = []
    for _ in range(12):
        start = perf_counter()
        torch.mm(left, right)
        seconds.append(perf_counter() - start)
    return 2 * 2048**3 / statistics.median(seconds[2:]) / 1e9


# Memory


def resident(field: str) -> float:
    """MiB of this process: "VmRSS" now, "VmHWM" at its highest.

    Not getrusage's ru_maxrss: Linux carries that over from the parent when a process starts.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def measure_memory(size: str, name: str) -> dict[str, float]:
    """Memory with the model built, and at the peak of a few steps; for a process of its own."""
    contestant = SAME[name](SHAPES[size])
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of imports and building
    before = resident("VmRSS")
    for _ in range(MEMORY_STEPS):
        time_step(contestant)
    peak = resident("VmHWM")
    return {"before_mib": before, "peak_mib": peak, "added_mib": peak - before}


def memory_of(size: str, name: str, threads: int) -> dict[str, float]:
    """Run `measure_memory` in a fresh process."""
    command = [sys.executable, __file__, "--threads", str(threads), "--memory", size, name]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


# Report


def run_size(size: str, rounds: int | None, threads: int, clock: Clock) -> dict[str, Any]:
    """All that is measured at one size."""
    shape = SHAPES[size]
    rounds = rounds or shape.rounds
    result: dict[str, Any] = {"shape": asdict(shape), "rounds": rounds}
    result["memory"] = {name: memory_of(size, name, threads) for name in SAME}
    result["gflops_before"] = matrix_rate()
    same = [build(shape) for build in SAME.values()]
    result["losses"] = losses_of_one_mask(same, shape)
    result["same"] = take_turns(same, rounds, shape.warmup, clock)
    del same
    default = [build(shape) for build in DEFAULT.values()]
    result["default"] = whole_steps(take_turns(default, rounds, shape.warmup, clock))
    result["gflops_after"] = matrix_rate()
    result["ratios"] = {
        "unmask": ratios(result["same"], "forward+backward", "unmask"),
        "unmask (uint8)": ratios(result["same"], "forward+backward", "unmask (uint8)"),
        "whole": ratios(whole_steps(result["same"]), "step", "unmask"),
        "whole (uint8)": ratios(whole_steps(result["same"]), "step", "unmask (uint8)"),
        "as it ships": ratios(result["default"], "step", "unmask"),
    }
    return result


def environment(threads: int, clock: str) -> dict[str, Any]:
    """What the figures depend on."""
    packages = ("torch", "transformers", "lightly", "timm")
    return {
        "threads": threads,
        "clock": clock,
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **{package: importlib.metadata.version(package) for package in packages},
    }


def timing_table(timings: Timings) -> list[str]:
    """A Markdown table of milliseconds, a row for each contestant and part."""
    lines = ["| | part | median ms | least ms | quartiles ms |", "|---|---|---:|---:|---:|"]
    for name, parts in timings.items():
        for part, seconds in parts.items():
            spread = Spread.of(seconds)
            low, high = (1e3 * value for value in spread.quartiles)
            lines.append(
                f"| {name} | {part} | {1e3 * spread.median:.1f} | {1e3 * spread.least:.1f} "
                f"| {low:.1f} to {high:.1f} |"
            )
    return lines


def memory_table(memory: dict[str, dict[str, float]]) -> list[str]:
    """A Markdown table of MiB."""
    lines = ["| | model built MiB | peak MiB | added MiB |", "|---|---:|---:|---:|"]
    for name, row in memory.items():
        cells = " | ".join(f"{row[key]:.0f}" for key in ("before_mib", "peak_mib", "added_mib"))
        lines.append(f"| {name} | {cells} |")
    return lines


def ratio_line(what: str, ratio: dict[str, Any]) -> str:
    """One comparison in words."""
    return (
        f"{what} / {ratio['best_peer']}: {ratio['of_medians']:.3f} of medians, "
        f"{ratio['of_pairs']:.3f} median of pairs"
    )


def report(size: str, result: dict[str, Any]) -> str:
    """The Markdown of one size."""
    first, second, whole, whole_bytes, shipped = result["ratios"].values()
    losses = ", ".join(f"{name} {loss:.6f}" for name, loss in result["losses"].items())
    lines = [
        f"\n## mae-{size}: {result['rounds']} rounds, matrix product "
        f"{result['gflops_before']:.0f} GFLOP/s before, {result['gflops_after']:.0f} after",
        "\n### 1. Same configuration\n",
        *timing_table(result["same"]),
        f"\nForward+backward, {ratio_line('unmask', first)}; "
        f"{ratio_line('unmask (uint8)', second)}.",
        f"Whole step (optimizer too), {ratio_line('unmask', whole)}; "
        f"{ratio_line('unmask (uint8)', whole_bytes)} (goal {GOALS[size]}).",
        f"Loss of one mask: {losses}.",
        "\n### 2. As it ships\n",
        *timing_table(result["default"]),
        f"\nWhole step, {ratio_line('unmask', shipped)}.",
        "\n### 3. Peak memory of a step, same configuration\n",
        *memory_table(result["memory"]),
    ]
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=["b16", "ti4"])
    parser.add_argument("--rounds", type=int, help="timed rounds; each size has its own default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="processor suits a machine shared with other work, at one thread: idle ones spin",
    )
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.memory:
        print(json.dumps(measure_memory(*options.memory)))
        return
    results: dict[str, Any] = {
        "environment": environment(options.threads, options.clock),
        "sizes": {},
    }
    print(", ".join(f"{key} {value}" for key, value in results["environment"].items()))
    for size in options.sizes:
        results["sizes"][size] = run_size(
            size, options.rounds, options.threads, CLOCKS[options.clock]
        )
        print(report(size, results["sizes"][size]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
