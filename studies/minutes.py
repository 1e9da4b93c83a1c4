"""Which recipe gives the best frozen features for a given amount of computing: candidates for `recipes/by_time.py`.

    python studies/minutes.py costs cifar10 --costs costs.json
    python studies/minutes.py train cifar10 --costs costs.json --seconds 240 --seeds 1 --out studies/minutes.csv
    python studies/minutes.py table studies/minutes.csv
    python studies/minutes.py versus studies/minutes.csv --seconds 600 --first by-time-small --second exact

Every candidate gets the same processor time of one thread, counted by the cost of its images: `costs` measures all
candidates in turns, with loading and optimizer, and `train` divides the time by that. So other work on the machine changes
nothing. Features are those of whole images from the first 10,000 training and test images (`--most`): k-NN (cosine, k = 20,
temperature 0.07), the same after PCA-whitening to 128 dimensions fitted on the training images, and logistic regression
(standardised, C = 0.05). A row that OUT already has is not made again.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from threading import Event
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from unmask.contracts import Size
from unmask.data.kinds import find_source
from unmask.data.labelled import Subset, open_labelled
from unmask.data.sizes import RisingSize, SteadySize
from unmask.data.statistics import measure
from unmask.data.views import RandomCrop
from unmask.encoders.vit import ViT
from unmask.evaluation.features import Tokens, patch_tokens
from unmask.masking import NoiseMasking, PartitionMasking, RandomMasking, SquareMasking
from unmask.objectives import MAE
from unmask.objectives.decoders import CrossAttentionDecoder, SelfAttentionDecoder
from unmask.recipes import RECIPES, Recipe, choose_recipe
from unmask.recipes.by_time import BATCH, encoders_for, peak, recipe_for
from unmask.recipes.mae import MAE_TI4
from unmask.runs.folder import RunFolder
from unmask.runs.pretrain import Pretrain
from unmask.runs.run import new_run
from unmask.runs.training import training
from unmask.tasks.neighbors import knn_votes
from unmask.training.hardware import Hardware
from unmask.training.schedules import WarmupCosine

HARDWARE = Hardware(device="cpu", precision="float32", workers=0, threads=1, micro_batch=1024)
WHITENED = 128
ROUNDS, WARMING, TIMED = 3, 3, 8

Change = Callable[[Recipe], Recipe]


def scheduled(
    batch: int, peak: float, warmup: float = 0.05, cooldown: float | None = None
) -> Change:
    """This batch and peak rate; the warm-up is a share of the run, and is set with the epochs."""
    return lambda recipe: replace(
        recipe,
        batch_size=batch,
        schedule=WarmupCosine(base_lr=peak * 256 / batch, warmup_epochs=warmup, cooldown=cooldown),
    )


def objective(**changes: Any) -> Change:
    """Other fields of the objective."""
    return lambda recipe: replace(recipe, objective=replace(recipe.objective, **changes))


def encoder(width: int, depth: int, heads: int, **changes: Any) -> Change:
    """Another encoder."""
    return lambda recipe: replace(
        recipe,
        encoder=ViT(
            patch_size=recipe.encoder.patch_size,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            **changes,
        ),
    )


def crop(smallest_share: float) -> Change:
    """Random crops of at least this share of an image, and flips."""
    return lambda recipe: replace(
        recipe, views=RandomCrop(smallest_share=smallest_share, flip_probability=0.5)
    )


def batches_of(images: int) -> Change:
    """Smaller batches, with the rate that the rule gives them; the rest of the schedule stays."""
    return lambda recipe: replace(
        recipe,
        batch_size=images,
        schedule=replace(recipe.schedule, base_lr=peak(images) * 256 / images),
    )


BUDGET = MAE(
    masking=RandomMasking(ratio=0.875),
    decoder=SelfAttentionDecoder(depth=1, embed_dim=128, num_heads=4),
)
CROSS = CrossAttentionDecoder(depth=2, embed_dim=128, num_heads=4)

CANDIDATES: dict[str, list[Change]] = {
    "exact-256": [
        objective(masking=RandomMasking(), decoder=MAE_TI4.objective.decoder),
        scheduled(256, 1e-3),
    ],
    "exact-64": [objective(masking=RandomMasking(), decoder=MAE_TI4.objective.decoder)],
    "base": [],
    "batch-32": [scheduled(32, 0.7e-3)],
    "batch-32-high": [scheduled(32, 1e-3)],
    "batch-128": [scheduled(128, 1.4e-3)],
    "rate-half": [scheduled(64, 0.5e-3)],
    "rate-double": [scheduled(64, 2e-3)],
    "wsd-0.2": [scheduled(64, 1e-3, cooldown=0.2)],
    "wsd-0.4": [scheduled(64, 1e-3, cooldown=0.4)],
    "ratio-0.75": [objective(masking=RandomMasking(ratio=0.75))],
    "cross": [objective(decoder=CROSS, predicted=1 / 3)],
    "cross-all": [objective(decoder=CROSS)],
    "cross-half": [objective(decoder=CROSS, predicted=1 / 3), scheduled(64, 0.5e-3)],
    "cross-32": [objective(decoder=CROSS, predicted=1 / 3), scheduled(32, 0.5e-3)],
    "cross-0.75": [
        objective(decoder=CROSS, predicted=1 / 3, masking=RandomMasking(ratio=0.75)),
    ],
    "cross-1": [objective(decoder=replace(CROSS, depth=1), predicted=1 / 3)],
    "cross-4": [objective(decoder=replace(CROSS, depth=4), predicted=1 / 3)],
    "cross-rising": [
        objective(decoder=CROSS, predicted=1 / 3),
        lambda recipe: replace(recipe, sizes=rising(recipe)),
    ],
    "partition-4": [objective(masking=PartitionMasking(masks=4, ratio=0.75)), scheduled(16, 1e-3)],
    "rising": [lambda recipe: replace(recipe, sizes=rising(recipe))],
    "squares-0.75": [objective(masking=SquareMasking(masking=RandomMasking(ratio=0.75)))],
    "squares-0.875": [objective(masking=SquareMasking(masking=RandomMasking(ratio=0.875)))],
    "noise": [objective(masking=NoiseMasking(ratio=0.875))],
    "noise-0.75": [objective(masking=NoiseMasking(ratio=0.75))],
    "visible-0.1": [objective(visible_weight=0.1)],
    "classes-4": [encoder(192, 6, 3, class_tokens=4)],
    "narrow-128x4": [encoder(128, 4, 4)],
    "narrow-128x6": [encoder(128, 6, 4)],
    "wide-256x6": [encoder(256, 6, 4)],
    "deep-192x12": [encoder(192, 12, 3)],
    "cross-crop-0.7": [objective(decoder=CROSS, predicted=1 / 3), crop(0.7)],
    "cross-crop-0.2": [objective(decoder=CROSS, predicted=1 / 3), crop(0.2)],
    "cross-wide": [encoder(256, 6, 4), objective(decoder=CROSS, predicted=1 / 3)],
    "cross-deep": [encoder(192, 12, 3), objective(decoder=CROSS, predicted=1 / 3)],
    "cross-narrow": [encoder(128, 4, 4), objective(decoder=CROSS, predicted=1 / 3)],
    "cross-squares": [
        objective(
            decoder=CROSS,
            predicted=1 / 3,
            masking=SquareMasking(masking=RandomMasking(ratio=0.75)),
        ),
    ],
    "by-time-small": [lambda recipe: by_time(recipe, 0)],
    "by-time-medium": [lambda recipe: by_time(recipe, 1)],
    "by-time-small-16": [lambda recipe: by_time(recipe, 0), batches_of(16)],
    "exact": [lambda recipe: exact(recipe)],
}


def by_time(recipe: Recipe, number: int) -> Recipe:
    """What `--minutes` takes for images of this size, with the first or second of its encoders."""
    encoder = encoders_for(recipe.image_size)[number]
    return recipe_for(encoder, recipe.image_size, 8 * BATCH)


def exact(recipe: Recipe) -> Recipe:
    """What `pretrain` takes for some hundred to thousand images of this size; its warm-up as a share of its epochs."""
    name, _ = choose_recipe(recipe.image_size, 1000)
    found = RECIPES[name].recipe
    share = found.schedule.warmup_epochs / found.epochs
    return replace(found, schedule=replace(found.schedule, warmup_epochs=share))


def rising(recipe: Recipe) -> RisingSize:
    """Half the size, then three quarters, then all."""
    unit, last = recipe.encoder.patch_size, recipe.image_size.height
    return RisingSize(first=Size(last // 2 // unit * unit, last // 2 // unit * unit), stages=3)


def recipe_of(name: str, side: int, patch: int) -> Recipe:
    """A candidate for images of this side."""
    recipe = replace(
        MAE_TI4,
        encoder=ViT(patch_size=patch, embed_dim=192, depth=6, num_heads=3),
        objective=BUDGET,
        image_size=Size(side, side),
    )
    for change in [scheduled(64, 1e-3), *CANDIDATES[name]]:
        recipe = change(recipe)
    return recipe


def lasting(recipe: Recipe, epochs: float) -> Recipe:
    """The recipe with so many epochs; its warm-up was a share of them."""
    schedule = replace(recipe.schedule, warmup_epochs=recipe.schedule.warmup_epochs * epochs)
    return replace(recipe, epochs=epochs, schedule=schedule)


class Set:
    """Images, and their division into training and test images."""

    def __init__(self, data: str, side: int, patch: int) -> None:
        self.spec, self.side, self.patch = find_source(data), side, patch
        self.labelled = open_labelled(self.spec, 0)
        self.statistics = measure(self.labelled.train)

    def run(self, name: str, epochs: float, seed: int) -> Any:
        """The run of a candidate."""
        job = Pretrain(recipe=lasting(recipe_of(name, self.side, self.patch), epochs))
        return new_run(
            name, job, self.spec, self.labelled.train, self.statistics, HARDWARE, seed=seed,
            save_every_minutes=1000,
        )  # fmt: skip

    def steps(self, run: Any, root: Path) -> Any:
        """Train; yields a report after each step."""
        folder, module = RunFolder(root), run.build()
        folder.create(run)
        self.module = module
        return training(run, folder, self.labelled.train, module, Event())


def cost(images: Set, name: str) -> float:
    """Processor seconds for an image; of rising sizes the mean over them."""
    sizes = recipe_of(name, images.side, images.patch).every_size()
    return mean(_cost(images, name, size) for size in sizes)


def _cost(images: Set, name: str, size: Size) -> float:
    """The median over some steps, with crops of one size."""
    with tempfile.TemporaryDirectory() as root:
        run, seconds = images.run(name, 30.0, 0), list[float]()
        steady = replace(run.recipe, image_size=size, sizes=SteadySize())
        run = replace(run, job=Pretrain(recipe=steady))
        before = time.process_time()
        for report in images.steps(run, Path(root) / "run"):
            now = time.process_time()
            seconds.append(now - before)
            before = now
            if report.step == WARMING + TIMED:
                break
    return float(np.median(seconds[WARMING:])) / run.recipe.batch_size


def scores(images: Set, run: Any, trained: torch.nn.Module | None, most: int) -> dict[str, float]:
    """Scores of frozen features in per cent; random weights if nothing is given."""
    network = run.model.build_encoder(run.seed)
    if trained is not None:
        network.load_state_dict(trained.get_submodule("encoder").state_dict())
    network.eval()
    parts: list[Tokens] = []
    for source in (images.labelled.train, images.labelled.test):
        rows = np.arange(min(most, len(source)))
        if len(set(source.labels()[rows].tolist())) < len(source.annotations.names):
            raise SystemExit(
                f"the first {most:,} images of {source.where} lack classes, as in class folders; give the shuffled Parquet files, or "
                "a larger --most"
            )
        parts.append(
            patch_tokens(
                network,
                Subset(source, rows),
                run.recipe.image_size,
                run.statistics,
                torch.device("cpu"),
                0,
            )
        )
    found: dict[str, float] = {}
    for pooling, pool in POOLINGS.items():
        train, test = (pool(part.tokens) for part in parts)
        labels, truth = parts[0].labels, parts[1].labels
        classes = int(labels.max()) + 1
        found[f"knn {pooling}"] = share(knn_votes(train, labels, test, classes).argmax(1), truth)
        white = whitened(train, WHITENED)
        votes = knn_votes(white(train), labels, white(test), classes)
        found[f"white {pooling}"] = share(votes.argmax(1), truth)
        scale = StandardScaler().fit(train.numpy())
        model = LogisticRegression(C=0.05, max_iter=300).fit(scale.transform(train.numpy()), labels)
        guessed = torch.from_numpy(model.predict(scale.transform(test.numpy())))
        found[f"logistic {pooling}"] = share(guessed, truth)
    return found


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "cls": lambda tokens: tokens[:, 0],
    "mean": lambda tokens: tokens[:, 1:].mean(1),
}


def share(guessed: Tensor, truth: Tensor) -> float:
    """Right answers, in per cent."""
    return round(100 * float((guessed == truth).double().mean()), 2)


def whitened(train: Tensor, width: int) -> Callable[[Tensor], Tensor]:
    """PCA-whitening fitted on training features."""
    center = train.mean(0)
    _, values, axes = torch.linalg.svd(train - center, full_matrices=False)
    width = min(width, int((values > 1e-5 * values[0]).sum()))
    turn = axes[:width].T / values[:width] * len(train) ** 0.5
    return lambda features: (features - center) @ turn


def do_costs(args: argparse.Namespace) -> None:
    """Measure the cost of all candidates, in turns."""
    images = Set(args.data, args.side, args.patch)
    known: dict[str, float] = json.loads(args.costs.read_text()) if args.costs.exists() else {}
    names = [name for name in args.only or CANDIDATES if name not in known]
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            found[name].append(cost(images, name))
    known |= {name: min(each) for name, each in found.items()}
    args.costs.write_text(json.dumps(known, indent=1) + "\n")
    for name, each in known.items():
        print(f"{name:16} {1000 * each:6.2f} ms an image, {each / known['base']:.2f} of base")


def do_train(args: argparse.Namespace) -> None:
    """Train and score the candidates that OUT lacks."""
    costs: dict[str, float] = json.loads(args.costs.read_text())
    images = Set(args.data, args.side, args.patch)
    torch.set_num_threads(1)
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in args.only or costs:
            key = {
                "data": Path(args.data).name,
                "recipe": name,
                "seconds": f"{args.seconds:g}",
                "seed": str(seed),
            }
            if any(all(row[k] == v for k, v in key.items()) for row in rows_of(args.out)):
                continue
            epochs = args.seconds / costs[name] / len(images.labelled.train)
            run, began = images.run(name, epochs, seed), time.process_time()
            with tempfile.TemporaryDirectory() as root:
                kept = args.keep and args.keep / f"{key['data']}-{name}-{seed}"
                *_, last = images.steps(run, kept or Path(root) / "run")
                spent = time.process_time() - began
            row = {
                **key,
                "steps": last.step,
                "images": last.step * run.recipe.batch_size,
                "spent": round(spent),
                **scores(images, run, images.module, args.most),
            }
            write(args.out, row)
            print(json.dumps(row), flush=True)


def do_untrained(args: argparse.Namespace) -> None:
    """Score random weights of the candidates' encoders."""
    images = Set(args.data, args.side, args.patch)
    for name in args.only or ["base"]:
        run = images.run(name, 1.0, args.first_seed)
        row = {
            "data": Path(args.data).name,
            "recipe": f"{name}, untrained",
            "seconds": "0",
            "seed": str(args.first_seed),
        }
        row |= {"steps": 0, "images": 0, "spent": 0, **scores(images, run, None, args.most)}
        write(args.out, row)
        print(json.dumps(row), flush=True)


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, row: dict[str, Any]) -> None:
    """Add a row."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def do_table(args: argparse.Namespace) -> None:
    """Print a Markdown table: means over seeds, and their deviations where there are several."""
    rows = rows_of(args.data_file)
    names = [name for name in rows[0] if " " in name]
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["data"], row["seconds"], row["recipe"]), []).append(row)
    print(f"| set | seconds | recipe | seeds | images | {' | '.join(names)} |")
    print("|" + "---|" * (5 + len(names)))
    for (data, seconds, name), each in groups.items():
        cells = [spread([float(row[score]) for row in each]) for score in names]
        shown = f"{int(each[0]['images']) / 1000:,.0f}k"
        print(f"| {data} | {seconds} | {name} | {len(each)} | {shown} | {' | '.join(cells)} |")


def do_versus(args: argparse.Namespace) -> None:
    """Print a Markdown table of two recipes: scores on each set, and the difference in standard errors of the seeds."""
    rows = [row for row in rows_of(args.data_file) if row["seconds"] == f"{args.seconds:g}"]
    for recipe in (args.first, args.second):
        if not any(row["recipe"] == recipe for row in rows):
            raise SystemExit(f"{args.data_file} has no row of {recipe} at {args.seconds:g} seconds")
    names = [name for name in rows[0] if " " in name]
    print(f"| set | seeds | score | {args.first} | {args.second} | difference | standard errors |")
    print("|" + "---|" * 7)
    for data in dict.fromkeys(row["data"] for row in rows):
        both = [
            [row for row in rows if (row["data"], row["recipe"]) == (data, recipe)]
            for recipe in (args.first, args.second)
        ]
        if not all(both):
            continue
        seeds = " and ".join(str(len(each)) for each in both)
        for name in names:
            first, second = ([float(row[name]) for row in each] for each in both)
            gain, errors = mean(first) - mean(second), "-"
            if min(len(first), len(second)) > 1:
                error = (stdev(first) ** 2 / len(first) + stdev(second) ** 2 / len(second)) ** 0.5
                errors = f"{gain / error:+.1f}" if error else "all seeds alike"
            print(
                f"| {data} | {seeds} | {name} | {spread(first)} | {spread(second)} | {gain:+.1f} | {errors} |"
            )


def spread(values: list[float]) -> str:
    """Mean, and standard deviation of several."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, work in (("costs", do_costs), ("train", do_train), ("untrained", do_untrained)):
        each = commands.add_parser(name)
        each.set_defaults(work=work)
        each.add_argument("data")
        each.add_argument("--side", type=int, default=32)
        each.add_argument("--patch", type=int, default=4)
        each.add_argument("--costs", type=Path, default=Path("costs.json"))
        each.add_argument("--only", type=lambda text: text.split(","))
        each.add_argument("--seconds", type=float, default=240)
        each.add_argument("--seeds", type=int, default=1)
        each.add_argument("--first-seed", type=int, default=0)
        each.add_argument("--keep", type=Path, help="folder for the runs; none: they are deleted")
        each.add_argument("--most", type=int, default=10_000, help="training and test images")
        each.add_argument("--out", type=Path, default=Path("studies/minutes.csv"))
    table = commands.add_parser("table")
    table.set_defaults(work=do_table)
    versus = commands.add_parser("versus")
    versus.set_defaults(work=do_versus)
    versus.add_argument("--seconds", type=float, default=600)
    versus.add_argument("--first", default="by-time-small")
    versus.add_argument("--second", default="exact")
    for each in (table, versus):
        each.add_argument("data_file", type=Path)
    args = parser.parse_args()
    args.work(args)


if __name__ == "__main__":
    main()
