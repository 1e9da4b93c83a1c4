"""One training step of detection and of segmentation beside torchvision and transformers, on a CPU.

    python benchmarks/dense.py --threads 1 --clock processor --out benchmarks/dense.json
    python benchmarks/dense.py detect --size b16 --pixels 512 --rounds 3

Detection: torchvision's Mask R-CNN around timm's ViT, with unmask's own simple pyramid, the same widths, anchors and numbers of
samples, and layer norms. Its attention is global in all blocks, so unmask's is too in the row that is compared; the rows below
add windows and relative positions one after the other. Segmentation: transformers' UperNet with an auxiliary head on its plain
ViT (BEiT without relative positions and layer scale, with the neck of MAE's recipe), batch normalisation as published.
Whole steps, forward, backward and fused AdamW; turns in one process, in rotating order. Memory is that of two steps in a process of its own.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

import timm
import torch
import torchvision
import transformers
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator, RPNHead
from transformers import BeitConfig, UperNetConfig, UperNetForSemanticSegmentation

from unmask.annotations import ClassMaps, ObjectLabels, Objects
from unmask.channels import IMAGENET
from unmask.contracts import Batch, Size
from unmask.encoders import ViT
from unmask.encoders.vit import VIT_B16, VIT_S16, VIT_TI16
from unmask.tasks.detect import Detect
from unmask.tasks.map_layers import BatchNorms
from unmask.tasks.pyramid import SimplePyramid
from unmask.tasks.segment import Segment
from unmask.tasks.upernet import UperNet

SIZES = {"ti16": VIT_TI16, "s16": VIT_S16, "b16": VIT_B16}
CLASSES, OBJECTS, CHANNELS, SAMPLED, WINDOW = 20, 8, 256, 512, 14
GOAL = 1.05
CLOCKS = {"wall": perf_counter, "processor": process_time}
MEMORY_STEPS = 2


class Case(NamedTuple):
    """What is measured."""

    task: str
    size: str
    pixels: int
    images: int


class Contestant(NamedTuple):
    """A model with its optimizer, and what computes its loss."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[], Tensor]


def contestant(model: nn.Module, loss: Callable[[], Tensor]) -> Contestant:
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    return Contestant(model, torch.optim.AdamW(learned, lr=1e-9, fused=True), loss)


def draw_images(case: Case) -> Tensor:
    """Random bytes [b c h w]."""
    shape = (case.images, 3, case.pixels, case.pixels)
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def encoder_of(case: Case) -> Any:
    torch.manual_seed(0)
    return SIZES[case.size].build(Size(case.pixels, case.pixels), 3, IMAGENET.tensors())


# Detection


def draw_objects(case: Case) -> list[Objects]:
    """Boxes of all sizes in each picture, with masks that fill them."""
    random = torch.Generator().manual_seed(1)
    drawn: list[Objects] = []
    for _ in range(case.images):
        sides = (case.pixels * (0.05 + 0.5 * torch.rand(OBJECTS, 2, generator=random))).round()
        corners = (torch.rand(OBJECTS, 2, generator=random) * (case.pixels - sides)).floor()
        boxes = torch.cat([corners, corners + sides], 1)
        masks = torch.zeros(OBJECTS, case.pixels, case.pixels, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = True
        drawn.append(Objects(boxes, torch.arange(OBJECTS) % CLASSES, masks))
    return drawn


def our_detector(case: Case, window: int | None, relative: bool) -> Contestant:
    task = Detect(
        window=window,
        positions="relative" if relative else "absolute",
        drop_path=0.0,
        channels=CHANNELS,
        sampled=SAMPLED,
    )
    names = tuple(map(str, range(CLASSES)))
    model = task.build(encoder_of(case), ObjectLabels(names=names, masks=True)).train()
    images, objects = draw_images(case), draw_objects(case)
    batch = Batch((images,), tuple(objects), torch.arange(case.images), 0)
    random = torch.Generator().manual_seed(2)
    return contestant(model, lambda: model(batch, random).total)


class Backbone(nn.Module):
    """timm's ViT without class token and final norm, and the simple pyramid."""

    out_channels = CHANNELS

    def __init__(self, spec: ViT, pixels: int) -> None:
        super().__init__()
        self.vit = VisionTransformer(
            img_size=pixels, patch_size=spec.patch_size, embed_dim=spec.embed_dim, depth=spec.depth,
            num_heads=spec.num_heads, num_classes=0, class_token=False, global_pool="",
        )  # fmt: skip
        self.vit.norm = nn.Identity()
        self.pyramid = SimplePyramid(spec.embed_dim, CHANNELS)
        self.side = pixels // spec.patch_size

    def forward(self, images: Tensor) -> "OrderedDict[str, Tensor]":
        """The levels by name, as torchvision wants them."""
        maps = self.vit.forward_features(images).mT.unflatten(2, (self.side, self.side))
        return OrderedDict(zip(("0", "1", "2", "3", "pool"), self.pyramid(maps), strict=True))


def their_detector(case: Case) -> Contestant:
    """torchvision's parts with the numbers of ViTDet; its losses and pooling are its own."""
    torch.manual_seed(0)
    sizes = tuple((side,) for side in (32, 64, 128, 256, 512))
    model = MaskRCNN(
        Backbone(SIZES[case.size], case.pixels),
        min_size=case.pixels,
        max_size=case.pixels,
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5),
        rpn_head=RPNHead(CHANNELS, 3, conv_depth=2),
        rpn_post_nms_top_n_train=1000,
        box_head=FastRCNNConvFCHead((CHANNELS, 7, 7), [CHANNELS] * 4, [4 * CHANNELS], LayerNorm2d_),
        box_predictor=FastRCNNPredictor(4 * CHANNELS, CLASSES + 1),
        mask_head=MaskRCNNHeads(CHANNELS, [CHANNELS] * 4, 1, LayerNorm2d_),
        mask_predictor=MaskRCNNPredictor(CHANNELS, CHANNELS, CLASSES + 1),
        box_batch_size_per_image=SAMPLED,
        _skip_resize=True,
    ).train()
    images = list(draw_images(case).float() / 255)
    targets = [
        {"boxes": one.boxes, "labels": one.classes + 1, "masks": one.masks.byte()}
        for one in draw_objects(case)
    ]
    return contestant(model, lambda: torch.stack(list(model(images, targets).values())).sum())


class LayerNorm2d_(LayerNorm2d):
    """torchvision's channel-first norm, which its heads call with the width alone."""

    def __init__(self, channels: int) -> None:
        super().__init__([channels], eps=1e-6)


# Segmentation


def draw_maps(case: Case) -> Tensor:
    random = torch.Generator().manual_seed(1)
    small = torch.randint(0, CLASSES, (case.images, 8, 8), generator=random)
    return small.repeat_interleave(case.pixels // 8, 1).repeat_interleave(case.pixels // 8, 2)


def our_segmenter(case: Case) -> Contestant:
    width = SIZES[case.size].embed_dim
    head = UperNet(channels=width, norm=BatchNorms(), dropout=0.1)
    kind = ClassMaps(names=tuple(map(str, range(CLASSES))))
    model = Segment(head=head, auxiliary_weight=0.4).build(encoder_of(case), kind).train()
    batch = Batch((draw_images(case),), draw_maps(case), torch.arange(case.images), 0)
    random = torch.Generator().manual_seed(2)
    return contestant(model, lambda: model(batch, random).total)


def their_segmenter(case: Case) -> Contestant:
    spec = SIZES[case.size]
    torch.manual_seed(0)
    blocks = [spec.depth * part // 4 for part in (1, 2, 3, 4)]
    backbone = BeitConfig(
        image_size=case.pixels, patch_size=spec.patch_size, hidden_size=spec.embed_dim,
        num_hidden_layers=spec.depth, num_attention_heads=spec.num_heads,
        intermediate_size=4 * spec.embed_dim, use_absolute_position_embeddings=True,
        use_relative_position_bias=False, use_shared_relative_position_bias=False,
        layer_scale_init_value=0.0, drop_path_rate=0.0, add_fpn=True, reshape_hidden_states=True,
        out_features=[f"stage{block}" for block in blocks],
    )  # fmt: skip
    backbone._attn_implementation = "sdpa"
    config = UperNetConfig(
        backbone_config=backbone, hidden_size=spec.embed_dim, pool_scales=[1, 2, 3, 6],
        use_auxiliary_head=True, auxiliary_loss_weight=0.4, auxiliary_channels=256,
        auxiliary_num_convs=1, num_labels=CLASSES,
    )  # fmt: skip
    model = UperNetForSemanticSegmentation(config).train()
    mean, std = (values.view(3, 1, 1) for values in IMAGENET.tensors())
    images, maps = (draw_images(case).float() / 255 - mean) / std, draw_maps(case)
    return contestant(model, lambda: model(pixel_values=images, labels=maps).loss)


DETECTORS: dict[str, Callable[[Case], Contestant]] = {
    "unmask, global attention": lambda case: our_detector(case, None, False),
    "torchvision": their_detector,
    "unmask, windows": lambda case: our_detector(case, WINDOW, False),
    "unmask, windows and relative positions": lambda case: our_detector(case, WINDOW, True),
}
SEGMENTERS: dict[str, Callable[[Case], Contestant]] = {
    "unmask": our_segmenter,
    "transformers": their_segmenter,
}
TASKS = {"detect": DETECTORS, "segment": SEGMENTERS}
DEFAULTS = {"detect": ("ti16", 512, 1), "segment": ("ti16", 256, 4)}


# Measuring


def step(one: Contestant) -> None:
    one.loss().backward()
    one.optimizer.step()
    one.optimizer.zero_grad(set_to_none=True)


def take_turns(
    all_of: dict[str, Contestant], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of whole steps, after one round for warming up; the order rotates."""
    seconds: dict[str, list[float]] = {name: [] for name in all_of}
    names = list(all_of)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = clock()
            step(all_of[name])
            if number:
                seconds[name].append(clock() - started)
    return seconds


def resident(word: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(word))


def memory_here(case: Case, name: str) -> float:
    """MiB that steps add to the built model."""
    one = TASKS[case.task][name](case)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far
    before = resident("VmRSS")
    for _ in range(MEMORY_STEPS):
        step(one)
    return resident("VmHWM") - before


def memory_of(case: Case, name: str, threads: int) -> float:
    """`memory_here` in a fresh process."""
    command = [
        *(sys.executable, __file__, case.task, "--size", case.size, "--pixels", str(case.pixels)),
        *("--images", str(case.images), "--threads", str(threads), "--memory", name),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def measured(case: Case, rounds: int, threads: int, clock: str) -> dict[str, Any]:
    """All contestants of a task at one size."""
    built = {name: build(case) for name, build in TASKS[case.task].items()}
    weights = {name: sum(p.numel() for p in one.model.parameters()) for name, one in built.items()}
    seconds = take_turns(built, rounds, CLOCKS[clock])
    del built
    memory = {name: memory_of(case, name, threads) for name in seconds}
    mine, peer = list(seconds.values())[:2]
    pairs = [a / b for a, b in zip(mine, peer, strict=True)]
    return {
        **case._asdict(),
        "seconds": seconds,
        "memory_mib": memory,
        "weights": weights,
        "ratio_of_medians": statistics.median(mine) / statistics.median(peer),
        "ratio_of_pairs": statistics.median(pairs),
        "pairs": [min(pairs), max(pairs)],
    }


def report(found: dict[str, Any]) -> str:
    lines = [
        f"\n{found['task']}, {found['size']} at {found['pixels']} pixels, {found['images']} images"
    ]
    for name, seconds in found["seconds"].items():
        lines.append(
            f"  {name:40} {1e3 * statistics.median(seconds):8.0f} ms ({1e3 * min(seconds):.0f} to "
            f"{1e3 * max(seconds):.0f})  {found['memory_mib'][name]:6.0f} MiB  {found['weights'][name]:,} weights"
        )
    low, high = found["pairs"]
    lines.append(
        f"  first / second: {found['ratio_of_medians']:.3f} of medians, {found['ratio_of_pairs']:.3f} ({low:.3f} to "
        f"{high:.3f}) of pairs (goal {GOAL})"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=list(TASKS), help="detect, segment")
    parser.add_argument("--size", choices=SIZES)
    parser.add_argument("--pixels", type=int)
    parser.add_argument("--images", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: list[dict[str, Any]] = []
    for task in options.tasks:
        size, pixels, images = DEFAULTS[task]
        case = Case(task, options.size or size, options.pixels or pixels, options.images or images)
        if options.memory:
            print(memory_here(case, options.memory))
            return
        results.append(measured(case, options.rounds, options.threads, options.clock))
        print(report(results[-1]), flush=True)
    if options.out:
        machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
        versions = {m.__name__: m.__version__ for m in (torch, torchvision, timm, transformers)}
        content = {"machine": machine, "threads": options.threads, "clock": options.clock}
        options.out.write_text(
            json.dumps(content | versions | {"results": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
