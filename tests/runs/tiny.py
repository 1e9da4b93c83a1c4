"""Runs so small that a step takes milliseconds, and how to go through them and compare their ends."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unmask.contracts import Size
from unmask.data.kinds import find_source
from unmask.data.place_views import TwoLooks
from unmask.data.statistics import IMAGENET, measure
from unmask.data.views import RandomCrop
from unmask.encoders import ViT
from unmask.objectives import MAE, Place
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.randomness import seeded
from unmask.recipes import Recipe, Tokenizing
from unmask.runs.folder import RunFolder
from unmask.runs.pretrain import Pretrain
from unmask.runs.run import Run, new_run
from unmask.runs.saving import Saver
from unmask.runs.tokenize import Tokenize
from unmask.runs.training import Progress, training
from unmask.runs.weights import find_weights, save_start, start_from
from unmask.targets import DalleCodes, ScalarTokenizer
from unmask.targets.dalle import DalleEncoder
from unmask.training.checkpoint import COMPANIONS, Checkpoint
from unmask.training.hardware import Hardware
from unmask.training.logbook import TIMES, read_log
from unmask.training.optimizers import AdamW
from unmask.training.schedules import WarmupCosine

RECIPE = Recipe(
    encoder=ViT(patch_size=2, embed_dim=8, depth=1, num_heads=2),
    objective=MAE(decoder=SelfAttentionDecoder(embed_dim=8, depth=1, num_heads=2)),
    views=RandomCrop(),
    optimizer=AdamW(),
    schedule=WarmupCosine(base_lr=0.3, warmup_epochs=0.5),
    image_size=Size(8, 8),
    batch_size=4,
    epochs=2.0,
)

PLACE = replace(RECIPE, objective=Place(memory=9, hardest=3), views=TwoLooks())

TOKENIZING = Tokenizing(
    tokenizer=ScalarTokenizer(codes=16, width=8, depth=1),
    patch_size=2,
    views=RandomCrop(),
    optimizer=AdamW(),
    schedule=WarmupCosine(base_lr=0.3, warmup_epochs=0.1),
    image_size=Size(8, 8),
    batch_size=4,
    epochs=2.0,
)


def write_images(
    folder: Path,
    count: int = 12,
    size: tuple[int, int] = (12, 10),
    channels: int = 3,
    seed: int = 0,
) -> Path:
    """PNGs 00.png, 01.png, ... in a folder: each a ramp of its own slope, with noise on it."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    for number in range(count):
        slopes = random.uniform(-8, 8, (2, 1, 1, channels))
        levels = 128 + slopes[0] * rows[..., None] + slopes[1] * columns[..., None]
        levels = levels + random.normal(0, 10, levels.shape)
        pixels = levels.clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(
            folder / f"{number:02}.png"
        )
    return folder


def write_classes(folder: Path, names: tuple[str, ...] = ("cats", "dogs"), count: int = 10) -> Path:
    """A folder of images for each class, the classes told apart by their brightness."""
    for place, name in enumerate(names):
        write_images(folder / name, count, seed=place)
        for file in (folder / name).iterdir():
            with Image.open(file) as image:
                levels = np.asarray(image) // len(names) + 255 * place // len(names)
            Image.fromarray(levels.astype(np.uint8)).save(file)
    return folder


def make_run(
    data: Path | str,
    *,
    recipe: Recipe = RECIPE,
    init: str | None = None,
    seed: int = 0,
    **changes: Any,
) -> Run:
    """A run on a folder of images, or on digits; the hardware's fields are given by their names."""
    spec = find_source(str(data))
    source = spec.open("train")
    hardware = {
        "device": "cpu",
        "precision": "float32",
        "workers": 0,
        "threads": 1,
        "micro_batch": recipe.batch_size,
    }
    hardware |= {name: changes.pop(name) for name in list(changes) if name in hardware}
    statistics = IMAGENET if source.channels == 3 else measure(source)
    job = Pretrain(recipe=recipe, init=init)
    run = new_run("tiny", job, spec, source, statistics, Hardware(**hardware), seed=seed)
    return replace(run, **{"save_every_minutes": 60.0, **changes})


def begin(root: Path, data: Path | str, **changes: Any) -> RunFolder:
    """The folder of a run that has not taken a step."""
    folder = RunFolder(root)
    folder.create(make_run(data, **changes))
    return folder


def begin_from(root: Path, data: Path | str, weights: Path, **changes: Any) -> RunFolder:
    """The folder of a run that starts from given weights and has not taken a step."""
    run = make_run(data, **changes)
    start = start_from(find_weights(weights), run.recipe, run.statistics)
    folder = begin(root, data, init=start.words, **changes)
    objective = run.build(start.weights)
    save_start(folder, Run.read(folder, "pretrain"), run.data.open("train"), objective)
    return folder


def go_on(
    folder: RunFolder, *, stop: Event | None = None, save_every_minutes: float = 60, **hardware: Any
) -> Iterator[Progress]:
    """Continue a run as the command does, with other hardware if wanted."""
    run = Run.read(folder, "pretrain")
    run = replace(
        run,
        hardware=replace(run.hardware, **hardware),
        save_every_minutes=float(save_every_minutes),
    )
    source = run.data.open("train")
    start, _ = folder.newest()
    with folder.lock():
        yield from training(run, folder, source, run.build(), stop or Event(), start)


def tokenizer_run(data: Path | str, recipe: Tokenizing = TOKENIZING) -> Run:
    """A run of a tokenizer on all of some images."""
    spec = find_source(str(data))
    source = spec.open("train")
    hardware = Hardware(device="cpu", precision="float32", workers=0, threads=1, micro_batch=4)
    return new_run("tiny", Tokenize(recipe=recipe), spec, source, measure(source), hardware)


def write_tokenizer(root: Path, data: Path | str, shape: ScalarTokenizer) -> Path:
    """The folder of a tokenizer with drawn weights, made once."""
    folder = RunFolder(root)
    if not folder.spec.exists():
        run = tokenizer_run(data, replace(TOKENIZING, tokenizer=shape))
        folder.create(run)
        module = run.build()
        Saver(run, folder, module, run.recipe.optimizer.build(module)).save_first()
    return root


def write_dalle(file: Path, shape: DalleCodes) -> Path:
    """A file of tensors as DALL-E's encoder has them, of this shape, drawn and made once."""
    if not file.exists():
        with seeded("test dalle"):
            encoder = DalleEncoder(shape.codes, shape.width, shape.depth)
        torch.save(encoder.state_dict(), file)
    return file


def finish(folder: RunFolder, **settings: Any) -> RunFolder:
    """Train to the end."""
    for _ in go_on(folder, **settings):
        pass
    return folder


def one_step(folder: RunFolder, **settings: Any) -> int:
    """Take one step, save and stop, as after a signal; the step."""
    stop = Event()
    stop.set()
    return [progress.step for progress in go_on(folder, stop=stop, **settings)][-1]


def finished_run(root: Path, data: Path | str, **changes: Any) -> RunFolder:
    """A run from its first to its last step."""
    return finish(begin(root, data, **changes))


def newest(folder: RunFolder) -> Checkpoint:
    """Its newest checkpoint, which must be there."""
    found, damaged = folder.newest()
    assert found is not None, damaged
    return found


def assert_same_end(one: RunFolder, other: RunFolder) -> None:
    """Same step, weights, optimizer and log, bit for bit; only the times in the log may differ."""
    ours, theirs = newest(one), newest(other)
    assert ours.info.step == theirs.info.step
    assert ours.info.checksums.keys() == theirs.info.checksums.keys()
    for part in ("encoder", "model", "training/optimizer"):
        assert_same_tensors(ours.read(part), theirs.read(part))
    assert_same_tensors(ours.read_if_there(COMPANIONS), theirs.read_if_there(COMPANIONS))
    assert timeless(one) == timeless(other)


def assert_same_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Same names and equal to the last bit; NaN is not equal to anything."""
    assert sorted(one) == sorted(other)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def timeless(folder: RunFolder) -> list[dict[str, float]]:
    """The lines of the log without the times."""
    lines = read_log(folder.log)
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]
