"""The parts of `gpu.py`: what is measured of a GPU, each a function of the bed that keeps the figures."""

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bare  # before unmask
import torch
from gpu_bed import Bed, Row
from torch import Tensor, nn

from unmask.annotations import ClassLabels, ClassMaps, ObjectLabels, Objects
from unmask.channels import IMAGENET
from unmask.contracts import Batch, Size
from unmask.data.cpu_feed import CpuFeed
from unmask.data.in_memory import noise_images
from unmask.data.loader import example_of
from unmask.data.views import CenterCrop, RandomCrop
from unmask.randomness import generator, seeded
from unmask.recipes import RECIPES, TRANSFERS, Recipe
from unmask.training.hardware import autocast, wait_for
from unmask.training.kernels import (
    FUSED,
    Preference,
    attention_seconds,
    attention_shapes,
    compile_parts,
    fastest_attention,
    preferred,
)
from unmask.training.step_cost import (
    copy_ceiling,
    flops_per_image,
    forget_peak,
    matrix_ceiling,
    peak_memory,
)

NOMINAL = {"mae-b16": 58.7e9, "mae-l16": 124.5e9, "mae-h14": 291.4e9}
"""FLOPs an image of the published model, every product counted; tests hold them against the formula."""

TARGETS = {"mae-b16": 5000, "mae-l16": 2900, "mae-h14": 1300}
"""Images/s on one H200 that count as reached."""

ROUNDING = 2.0**-9
"""Relative error of rounding to bfloat16, at most: 8 bits of mantissa, the first of them implied."""

LOSS_TOLERANCE = 2 * ROUNDING
"""The loss is a mean over so many values that their errors cancel: twice one rounding."""


def gradient_tolerance(blocks: int) -> float:
    """Of the whole gradient, relative in norm.

    8 rounded products a block, there and back, whose errors add like a random walk. On a CPU a whole ViT-B/16
    comes to a fifth of that.
    """
    return math.sqrt(8 * 2 * blocks) * ROUNDING


def build(recipe: Recipe, bed: Bed) -> nn.Module:
    """A recipe's objective on the device."""
    with seeded("benchmark"):
        encoder = recipe.encoder.build(recipe.image_size, 3, IMAGENET.tensors())
        return recipe.objective.build(encoder).to(bed.device).train()


def noise(size: Size, bed: Bed) -> Callable[[int], Batch]:
    """Batches of so many images of noise, all of class 0."""
    feed = CpuFeed(noise_images(size, 3), CenterCrop(), size, seed=0)
    example = example_of(feed, size, bed.device)
    return lambda images: example(images)._replace(
        annotations=torch.zeros(images, dtype=torch.long, device=bed.device)
    )


def ready(module: nn.Module, example: Callable[[int], Batch], images: int, bed: Bed) -> Preference:
    """Compile the blocks if that can be done here; the attention kernels to prefer."""
    shapes = attention_shapes(module, example, bed.device, bed.precision)
    if bed.compiles:
        compile_parts(module)
    return fastest_attention(shapes, images, bed.device, bed.precision)


def step_of(module: nn.Module, loss: Callable[[], Tensor], bed: Bed) -> Callable[[], None]:
    """A whole step; the same for everybody."""
    wanted = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(wanted, lr=1e-9, fused=True)

    def step() -> None:
        with autocast(bed.device, bed.precision):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def timed(step: Callable[[], None], bed: Bed) -> float:
    """Median seconds of a step."""
    step()
    step()
    forget_peak(bed.device)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < bed.scale.seconds:
        wait_for(bed.device)
        started = time.perf_counter()
        step()
        wait_for(bed.device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure(
    what: str, step: Callable[[], None], images: int, flops: float, bed: Bed, note: str = ""
) -> None:
    """Time a step and add its row."""
    seconds = timed(step, bed)
    rate = images / seconds
    bed.add(
        Row(
            what, images, 1e3 * seconds, rate, rate * flops, rate * flops / bed.ceiling,
            peak_memory(bed.device), note,
        )
    )  # fmt: skip


def ours(name: str, recipe: Recipe, images: int, bed: Bed) -> None:
    """unmask's step of a recipe."""
    module = build(recipe, bed)
    target = f"; passes at {TARGETS[name]:,} on an H200" if name in TARGETS else ""
    measure_ours(name, module, noise(recipe.image_size, bed), images, bed, target)


def measure_ours(
    name: str,
    module: nn.Module,
    example: Callable[[int], Batch],
    images: int,
    bed: Bed,
    target: str = "",
) -> None:
    """Measure unmask's step of a module, compiled and with the fastest attention."""
    torch.compiler.reset()
    counted = flops_per_image(module, example, bed.device, bed.precision)
    kernels = ready(module, example, images, bed)
    batch, drawn = example(images), generator(bed.device, "drawn")
    step = step_of(module, lambda: module(batch, drawn).total, bed)
    taken = " and ".join(sorted({order[0].name.lower() for order in kernels.values()}))
    note = f"{counted / 1e9:.4g} GFLOP an image done, {taken}{target}"
    with preferred(kernels):
        measure(f"unmask {name}", step, images, NOMINAL.get(name, counted), bed, note)


# Parts


def ceilings(bed: Bed) -> None:
    """Matrix products and copies alone."""
    bed.ceiling = matrix_ceiling(bed.device, bed.precision)
    bed.say("matrix products, TFLOP/s", round(bed.ceiling / 1e12, 3))
    bed.say("float32 products, TFLOP/s", round(matrix_ceiling(bed.device, "float32") / 1e12, 3))
    bed.say("copies, GB/s", round(copy_ceiling(bed.device) / 1e9, 1))


def parity(bed: Bed) -> None:
    """Loss and gradient of one mask: compiled bfloat16 as it trains, against plain float32."""
    recipe, images = RECIPES[bed.scale.parity].recipe, bed.scale.parity_batch
    batch = noise(recipe.image_size, bed)(images)
    found: list[tuple[float, Tensor]] = []
    for precision in ("float32", "bfloat16"):
        torch.compiler.reset()
        module = build(recipe, bed)
        if precision == "bfloat16" and bed.compiles:
            compile_parts(module)
        with autocast(bed.device, precision):
            loss = module(batch, generator(bed.device, "masks")).total
        assert loss.dtype == torch.float32
        loss.backward()
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        found.append((loss.item(), torch.cat([g.flatten() for g in gradients]).double()))
    (loss, gradient), (other_loss, other) = found
    blocks = recipe.encoder.depth + recipe.objective.decoder.depth
    off = abs(other_loss - loss) / loss
    turned = float((other - gradient).norm() / gradient.norm())
    bed.say("loss, relative difference", f"{off:.2e} (tolerance {LOSS_TOLERANCE:.2e})")
    allowed = gradient_tolerance(blocks)
    bed.say("gradient, relative difference", f"{turned:.2e} (tolerance {allowed:.2e})")
    if not (off < LOSS_TOLERANCE and turned < allowed):
        raise RuntimeError("compiled bfloat16 does not agree with plain float32")


def waiting(bed: Bed) -> None:
    """A step in which the program may not wait for the GPU: torch raises where it does."""
    recipe, images = RECIPES[bed.scale.parity].recipe, bed.scale.parity_batch
    module = build(recipe, bed)
    batch = noise(recipe.image_size, bed)(images)
    step = step_of(module, lambda: module(batch, generator(bed.device, "masks")).total, bed)
    step()
    if bed.device.type != "cuda":
        step()
        bed.say("waits within a step", "not measured: no GPU")
        return
    wait_for(bed.device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    bed.say("waits within a step", "none")


def attention(bed: Bed) -> None:
    """Every kernel at the sequence lengths in use."""
    for name, batches in bed.scale.batches.items():
        recipe = RECIPES[name].recipe
        module = build(recipe, bed)
        example = noise(recipe.image_size, bed)
        for shape in attention_shapes(module, example, bed.device, bed.precision):
            times: dict[str, str] = {}
            for kernel in FUSED:
                try:
                    args = (kernel, shape, batches[0], bed.device, bed.precision)
                    times[kernel.name.lower()] = f"{1e6 * attention_seconds(*args):.0f}"
                except RuntimeError:
                    times[kernel.name.lower()] = "none"
            sizes = f"{shape.queries} of {shape.keys} tokens, {shape.heads} x {shape.width}"
            bed.say(f"{name}, {sizes}, microseconds", times)


def steps(name: str) -> Callable[[Bed], None]:
    """A recipe at several batch sizes."""

    def part(bed: Bed) -> None:
        for images in bed.scale.batches[name]:
            ours(name, RECIPES[name].recipe, images, bed)

    return part


def transformers(bed: Bed) -> None:
    """The same model by transformers, plain and compiled."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    recipe, images = RECIPES[bed.scale.peers].recipe, bed.scale.peer_batch
    encoder, decoder = recipe.encoder, recipe.objective.decoder
    config = ViTMAEConfig(
        hidden_size=encoder.embed_dim, num_hidden_layers=encoder.depth,
        num_attention_heads=encoder.num_heads, intermediate_size=4 * encoder.embed_dim,
        image_size=recipe.image_size.height, patch_size=encoder.patch_size,
        decoder_hidden_size=decoder.embed_dim, decoder_num_hidden_layers=decoder.depth,
        decoder_num_attention_heads=decoder.num_heads,
        decoder_intermediate_size=4 * decoder.embed_dim, mask_ratio=0.75, norm_pix_loss=True,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    pixels = noise(recipe.image_size, bed)(images).images / 255
    _peer("transformers", ViTMAEForPreTraining(config), pixels, lambda out: out.loss, bed)


def lightly(bed: Bed) -> None:
    """The same model of lightly's parts, as its documented example puts them together."""
    import peers  # beside this file; needs lightly and transformers

    recipe, images = RECIPES[bed.scale.peers].recipe, bed.scale.peer_batch
    encoder, decoder = recipe.encoder, recipe.objective.decoder
    shape = peers.Shape(
        image=recipe.image_size.height, patch=encoder.patch_size, batch=images,
        dim=encoder.embed_dim, depth=encoder.depth, heads=encoder.num_heads,
        decoder_dim=decoder.embed_dim, decoder_depth=decoder.depth,
        decoder_heads=decoder.num_heads, rounds=0, warmup=0,
    )  # fmt: skip
    pixels = noise(recipe.image_size, bed)(images).images / 255
    _peer("lightly", peers.LightlyMAE(shape, normalize_target=True), pixels, lambda out: out, bed)


def _peer(
    name: str, model: nn.Module, pixels: Tensor, loss_of: Callable[[Any], Tensor], bed: Bed
) -> None:
    model = model.to(bed.device).train()
    flops = NOMINAL.get(bed.scale.peers, 0.0)
    label = f"{name} {bed.scale.peers}"
    step = step_of(model, lambda: loss_of(model(pixels)), bed)
    measure(f"{label}, plain", step, len(pixels), flops, bed)
    if bed.compiles:
        torch.compiler.reset()
        compiled: Any = torch.compile(model)
        step = step_of(model, lambda: loss_of(compiled(pixels)), bed)
        measure(f"{label}, compiled", step, len(pixels), flops, bed)


def others(bed: Bed) -> None:
    """Recipes that do with less, or other, arithmetic."""
    names = [
        name
        for name in RECIPES
        if name.startswith(("fast", "budget", "dense")) and name.endswith(bed.scale.others)
    ]
    if not names:
        bed.say("fast, budget and dense recipes", "absent")
    for name in names:
        ours(name, RECIPES[name].recipe, bed.scale.other_batch, bed)


def finetuning(bed: Bed) -> None:
    """Full fine-tuning with labels."""
    recipe, images = TRANSFERS[bed.scale.finetune].recipe, bed.scale.finetune_batch
    with seeded("benchmark"):
        encoder = recipe.encoder.build(recipe.image_size, 3, IMAGENET.tensors())
        module = (
            recipe.task.build(encoder, ClassLabels(names=tuple(map(str, range(1000)))))
            .to(bed.device)
            .train()
        )
    measure_ours(bed.scale.finetune, module, noise(recipe.image_size, bed), images, bed)


def dense(name: str, side: int, images: int) -> Callable[[Bed], None]:
    """A part: fine-tuning on class maps, or on objects with masks."""

    def part(bed: Bed) -> None:
        recipe = replace(TRANSFERS[name].recipe, image_size=Size(side, side))
        names = tuple(map(str, range(20)))
        maps = issubclass(recipe.task.needs, ClassMaps)
        kind = ClassMaps(names=names) if maps else ObjectLabels(names=names, masks=True)
        with seeded("benchmark"):
            encoder = recipe.encoder.build(recipe.image_size, 3, IMAGENET.tensors())
            module = recipe.task.build(encoder, kind).to(bed.device).train()
        pixels = noise(recipe.image_size, bed)

        def example(count: int) -> Batch:
            labels = (
                class_maps(recipe.image_size, count) if maps else boxes(recipe.image_size, count)
            )
            return pixels(count)._replace(annotations=labels).to(bed.device)

        measure_ours(name, module, example, images, bed)

    return part


def class_maps(size: Size, images: int) -> Tensor:
    """Class maps of 8 x 8 cells, each of one of 20 classes [images h w]."""
    cells = torch.arange(64).view(1, 1, 8, 8).expand(images, -1, -1, -1) % 20
    return torch.nn.functional.interpolate(cells.float(), tuple(size))[:, 0].long()


def boxes(size: Size, images: int) -> tuple[Objects, ...]:
    """Eight boxes of several sizes in each picture, with masks that fill them."""
    corners = torch.tensor([[0.1 * n, 0.05 * n, 0.1 * n + 0.03 * (n + 1), 0.8] for n in range(8)])
    pixels = (corners * torch.tensor([size.width, size.height] * 2)).round().clamp(min=0)
    pixels[:, 2:] = torch.maximum(pixels[:, 2:], pixels[:, :2] + 2)
    masks = torch.zeros(8, *size, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, pixels.int().tolist(), strict=True):
        mask[top:bottom, left:right] = True
    return (Objects(pixels, torch.arange(8), masks),) * images


def graphs(bed: Bed) -> None:
    """Blocks compiled with CUDA graphs, which unmask does not use; to see what they would bring."""
    if not bed.compiles:
        bed.say("CUDA graphs", "not measured: nothing is compiled here")
        return
    torch.compiler.reset()
    recipe, images = RECIPES[bed.scale.peers].recipe, bed.scale.peer_batch
    module = build(recipe, bed)
    compile_parts(module, "cudagraphs")
    batch = noise(recipe.image_size, bed)(images)
    masks = generator(bed.device, "masks")
    step = step_of(module, lambda: module(batch, masks).total, bed)
    flops = NOMINAL.get(bed.scale.peers, 0.0)
    measure(f"unmask {bed.scale.peers}, CUDA graphs, not fused", step, images, flops, bed)


def pictures(count: int) -> list[Tensor]:
    """JPEGs of 500 x 375 pixels, smooth and coloured, as bytes."""
    from torchvision.io import encode_jpeg

    noise = generator("cpu", "pictures")
    coarse = torch.randint(0, 256, (count, 3, 47, 63), generator=noise, dtype=torch.uint8)
    smooth = nn.functional.interpolate(coarse, size=(375, 500), mode="bilinear")
    return [encode_jpeg(picture, 90) for picture in smooth]


def jpeg(bed: Bed) -> None:
    """Decoding of photographs of 500 x 375 pixels: a CPU core with the crop, and nvJPEG."""
    from torchvision.io import decode_jpeg

    files = pictures(bed.scale.pictures)
    crop, size = RandomCrop(), Size(224, 224)
    torch.set_num_threads(1)
    began = time.perf_counter()
    for index, data in enumerate(files):
        crop(decode_jpeg(data), size, 0, 0, index)
    rate = len(files) / (time.perf_counter() - began)
    bed.add(Row("decode and crop, one CPU core", len(files), images_per_second=rate))
    if bed.device.type != "cuda":
        bed.say("nvJPEG", "not measured: no GPU")
        return
    decode_jpeg(files[:8], device=bed.device)
    wait_for(bed.device)
    began = time.perf_counter()
    decode_jpeg(files, device=bed.device)
    wait_for(bed.device)
    rate = len(files) / (time.perf_counter() - began)
    bed.add(Row("nvJPEG decode", len(files), images_per_second=rate))


def loading(bed: Bed) -> None:
    """Batches from a folder of such photographs, decoded by loading processes and by the device; and whether they agree."""
    bare.need("pyarrow")  # of which names of files are made
    import torchcodec

    from unmask.data.folder import Folder
    from unmask.data.gpu_decode import GpuDecode
    from unmask.data.loader import SetAside, batches

    bed.say("torchcodec", torchcodec.__version__)
    images = bed.scale.pictures
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        folder.mkdir()
        for index, data in enumerate(pictures(images)):
            (folder / f"{index}.jpg").write_bytes(data.numpy().tobytes())
        about = (Folder(path=str(folder)).open(), RandomCrop(), Size(224, 224), 0)
        noted = SetAside(Path(name) / "set_aside.csv", images, 1.0)
        settings = {"batch_size": images, "first_step": 0, "device": bed.device, "set_aside": noted}
        first: list[Tensor] = []
        for what, workers in bed.scale.loaders:
            source = GpuDecode(*about) if what == "gpu" else CpuFeed(*about)
            stream = batches(source, **settings, steps=10**6, workers=workers)
            first.append(next(stream).images)
            wait_for(bed.device)
            began, count = time.perf_counter(), 0
            while not count or time.perf_counter() - began < bed.scale.seconds:
                next(stream)
                count += 1
            wait_for(bed.device)
            rate = count * images / (time.perf_counter() - began)
            label = f"{workers} processes load, {what.upper()} decodes"
            bed.add(Row(label, images, images_per_second=rate))
            del stream
        off = (first[0].int() - first[-1].int()).abs().float()
        bed.say("grey levels between the two, mean and most", f"{off.mean():.3f}, {off.max():.0f}")
