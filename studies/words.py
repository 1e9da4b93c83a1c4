"""Masking ratio against loss, on words and on pixels: how much is left unsaid of what there is to say.

    python studies/words.py IMAGES --out studies/words

Words: characters of the stored docstrings of `unmask words` under BERT's objective; the bits of a hidden character, as a share of what it
has if one knows how often each occurs and looks at nothing. Pixels: a masked autoencoder on IMAGES at 32 pixels in patches of 4; the squared error
of hidden pixels, as a share of their variance. Beside each model stands the simplest guess from what is visible: a trigram of
the two neighbours where both are visible (and of how often each occurs where not), and linear interpolation. All on what was
held out.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask.contracts import Batch, Size
from unmask.data.kinds import find_source
from unmask.data.statistics import measure
from unmask.data.views import center_crop
from unmask.encoders import ViT
from unmask.formats.model import FORMAT, ModelSpec
from unmask.masking import RandomMasking
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.patches import pixels_of
from unmask.pictures.figure import new_figure
from unmask.randomness import generator
from unmask.runs.reconstruct import interpolated
from unmask.targets import Pixels
from unmask.text.models import HiddenCharacters, Reader
from unmask.text.training import (
    BASE_LR,
    Counts,
    Text,
    built,
    learn,
    passages_of,
    read_text,
    score_of,
)
from unmask.training.loop import Planned, train
from unmask.training.optimizers import AdamW
from unmask.training.schedules import WarmupCosine

RATIOS = (0.15, 0.5, 0.75, 0.9)
READER = Reader()
SIZE, IMAGES, TESTED, BATCH = Size(32, 32), 4000, 100, 64


def words(text: Text, ratio: float, steps: int) -> dict[str, float]:
    reader, objective = READER, HiddenCharacters(ratio=ratio)
    model: Any = built(reader, objective, text, 0)
    for _ in learn(model, reader, text, steps, BASE_LR, 0):
        pass
    counts = Counts(text)
    passages = passages_of(text.test, reader.length, 600, 5)
    drawn = torch.rand(4, *passages.shape, generator=generator("cpu", "study", 0))
    _, asked = model.ask(passages, drawn)
    hidden = passages.masked_fill(asked, len(text.symbols))  # all of them show the mask
    with torch.inference_mode():
        expected = model.eval().reader(hidden, None).softmax(-1)
    inner = asked.clone()
    inner[:, 0], inner[:, -1] = False, False
    rows, columns = inner.nonzero(as_tuple=True)
    truth = passages[inner]
    visible = ~(asked[rows, columns - 1] | asked[rows, columns + 1])
    alone = counts.alone(len(truth))
    between = counts.between(passages[rows, columns - 1], passages[rows, columns + 1])
    nothing = score_of(alone, truth).bits
    guess = score_of(torch.where(visible[:, None], between, alone), truth).bits
    said = score_of(expected[inner], truth)
    return {
        "model": said.bits / nothing,
        "guess": guess / nothing,
        "bits": said.bits,
        "right": said.right,
    }


def pixels(
    images: Tensor, tested: Tensor, spec: ModelSpec, ratio: float, steps: int
) -> dict[str, float]:
    objective = MAE(
        masking=RandomMasking(ratio=ratio),
        target=Pixels(),
        decoder=SelfAttentionDecoder(embed_dim=64, depth=1, num_heads=2),
    )
    model = replace(spec, objective=objective).build_objective(0)
    schedule = WarmupCosine(base_lr=2e-3, warmup_epochs=steps / 10)
    optimizer = AdamW().build(model)
    for _ in train(
        model.train(),
        batches(images),
        optimizer,
        Planned(steps, lambda step: schedule.rate(step, steps, 256)),
        first_step=0,
        seed=0,
        device=torch.device("cpu"),
        precision="float32",
        micro_batch=BATCH,
    ):
        pass
    with torch.inference_mode():
        mask = model.eval().sample(tested, generator("cpu", "study", 1))
        errors = model.errors(tested, mask).mean()
        truth = model.target(tested, mask, model.encoder.statistics)
        hidden = pixels_of(mask.removed, 4, Size(8, 8))
        off = [
            interpolated(i / 255, h) - i / 255 for i, h in zip(tested.float(), hidden, strict=True)
        ]
        std = model.encoder.statistics.std[:, None]
        missed = torch.cat([(o[:, h] / std).flatten() for o, h in zip(off, hidden, strict=True)])
    variance = truth.var()
    return {"model": float(errors / variance), "guess": float(missed.square().mean() / variance)}


def batches(images: Tensor) -> Iterator[Batch]:
    step = 0
    while True:
        rows = torch.randint(len(images), (BATCH,), generator=generator("cpu", "rows", step))
        yield Batch((images[rows],), torch.zeros(BATCH), rows, 0)
        step += 1


def looked_at(data: str) -> tuple[Tensor, Tensor, ModelSpec]:
    source = find_source(data).open("train")
    rows = torch.linspace(0, len(source) - 1, IMAGES + TESTED).long().tolist()
    stack = torch.stack([center_crop(source[row].image, SIZE) for row in rows])
    held_out = torch.arange(len(stack)) % (len(stack) // TESTED) == 0
    encoder = ViT(patch_size=4, embed_dim=64, depth=2, num_heads=2)
    spec = ModelSpec(
        format=FORMAT, encoder=encoder, objective=None, image_size=SIZE, channels=source.channels,
        statistics=measure(source), origin="studies/words.py",
    )  # fmt: skip
    return stack[~held_out], stack[held_out][:TESTED], spec


def draw(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    figure = new_figure(8, 3.6)
    names = {"words": ("trigram of the two neighbours", "bits of a hidden character left"),
             "pixels": ("linear interpolation", "variance of hidden pixels left")}  # fmt: skip
    for place, (kind, (guess, what)) in enumerate(names.items(), start=1):
        axes = figure.add_subplot(1, 2, place)
        for key, label, style in (("model", "trained model", "-"), ("guess", guess, "--")):
            shares = [100 * row[key] for row in found[kind]]
            axes.plot([100 * ratio for ratio in RATIOS], shares, style, marker="o", label=label)
        axes.set_ylim(0, 105)
        axes.set_title(kind)
        axes.set_xlabel("hidden (%)")
        axes.set_ylabel(f"{what} (%)")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images")
    parser.add_argument(
        "--out", default="studies/words", help="name of the .json and .png to write"
    )
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    text = read_text(None)
    images, tested, spec = looked_at(args.images)
    found: dict[str, list[dict[str, float]]] = {"words": [], "pixels": []}
    for ratio in RATIOS:
        found["words"].append(words(text, ratio, args.steps))
        found["pixels"].append(pixels(images, tested, spec, ratio, args.steps))
        print(ratio, {kind: rows[-1] for kind, rows in found.items()}, flush=True)
    out = Path(args.out)
    draw(found, out.with_suffix(".png"))
    record = {"ratios": RATIOS, "steps": args.steps, **found}
    assert all(math.isfinite(row["model"]) for rows in found.values() for row in rows)
    out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
