"""What judging an encoder costs: frozen features and their probes, and fine-tuning steps beside timm's.

    python benchmarks/transfer.py --images cifar10 --out benchmarks/transfer.json
    python benchmarks/transfer.py --sizes ti4 b16 --threads 1 --out benchmarks/transfer.json

Table 1: features of all images of a folder of classes once, then `linear` and `knn` on them; with `--drawn`, on
vectors of that width that are no features, where the encoder need not be timed. Table 2: a step of
full fine-tuning and one of `--trained-blocks 1`, beside a bare timm VisionTransformer with the same weights,
cross-entropy, drop path and fused AdamW; rounds interleaved in one process, the order rotating.
Wall clock and processor time, since machines are shared; a ratio is the median over rounds of ratios within
a round, and the ratio of the medians.
"""

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.annotations import ClassLabels
from unmask.channels import IMAGENET
from unmask.contracts import Batch, Size
from unmask.data import Folder
from unmask.data.labelled import open_labelled
from unmask.encoders import ViT
from unmask.encoders.vit import VIT_B16
from unmask.evaluation.features import Features, features
from unmask.evaluation.frozen import evaluate
from unmask.recipes.mae import MAE_TI4
from unmask.tasks import Classify
from unmask.tasks.heads import MeanHead
from unmask.training.optimizers import AdamW

CPU = torch.device("cpu")
CLASSES = 10
DROP_PATH = 0.1
TINY_RATE = 1e-9  # the weights hardly move, so all keep computing the same thing
GOALS = {"full": 1.05, "one block": 0.5}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One size of model and batch."""

    encoder: ViT
    image: int
    batch: int
    rounds: int


SHAPES = {
    "ti4": Shape(encoder=MAE_TI4.encoder, image=32, batch=128, rounds=15),
    "b16": Shape(encoder=VIT_B16, image=224, batch=8, rounds=8),
}


@dataclass(frozen=True)
class Contestant:
    """A model with its optimizer, and a closure that computes a loss."""

    name: str
    optimizer: torch.optim.Optimizer
    loss: Callable[[], Tensor]

    def step(self) -> dict[str, float]:
        """Seconds of a step, by both clocks."""
        wall, processor = perf_counter(), process_time()
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"wall": perf_counter() - wall, "processor": process_time() - processor}


def ours(shape: Shape, trained_blocks: str) -> nn.Module:
    """The classifier of `unmask finetune`."""
    torch.manual_seed(0)
    encoder = shape.encoder.build(Size(shape.image, shape.image), 3, IMAGENET.tensors())
    task = Classify(head=MeanHead(), trained_blocks=trained_blocks, drop_path=DROP_PATH)
    return task.build(encoder, ClassLabels(names=tuple(map(str, range(CLASSES)))))


def theirs(shape: Shape, weights: dict[str, Tensor]) -> VisionTransformer:
    """timm's, with the same weights."""
    spec = shape.encoder
    model = VisionTransformer(
        img_size=shape.image,
        patch_size=spec.patch_size,
        embed_dim=spec.embed_dim,
        depth=spec.depth,
        num_heads=spec.num_heads,
        num_classes=CLASSES,
        global_pool="avg",
        drop_path_rate=DROP_PATH,
    )
    renamed = {
        name.removeprefix("encoder.").replace("head.fc_norm", "fc_norm").replace("head.linear", "head"): t
        for name, t in weights.items()
        if name not in ("encoder.mean", "encoder.std") and not name.startswith("encoder.norm.")
    }  # fmt: skip
    model.load_state_dict(renamed)
    return model


def contestants(shape: Shape) -> list[Contestant]:
    """Full fine-tuning, timm's, and the last block alone; the first two must agree before they are timed."""
    random = torch.Generator().manual_seed(0)
    size = (shape.batch, 3, shape.image, shape.image)
    pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=random)
    labels = torch.arange(shape.batch) % CLASSES
    mean, std = (values.view(3, 1, 1) for values in IMAGENET.tensors())
    floats = (pixels.float() / 255 - mean) / std  # as timm's loader hands them over
    batch = Batch((pixels,), labels, torch.arange(shape.batch), 0)

    full, one = ours(shape, "all"), ours(shape, "1")
    other = theirs(shape, full.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(
            full.eval().logits(pixels), other.eval()(floats), rtol=1e-4, atol=1e-4
        )

    def of(model: nn.Module) -> Callable[[], Tensor]:
        return lambda: model(batch, random).total

    losses = {
        "timm": (other, lambda: F.cross_entropy(other(floats), labels)),
        "full": (full, of(full)),
        "one block": (one, of(one)),
    }
    found: list[Contestant] = []
    for name, (model, loss) in losses.items():
        optimizer = AdamW(beta2=0.999).build(model.train())
        for group in optimizer.param_groups:
            group["lr"] = TINY_RATE
        found.append(Contestant(name, optimizer, loss))
    return found


def race(shape: Shape) -> dict[str, Any]:
    """Seconds of each, and the ratios that have a goal."""
    found = contestants(shape)
    for contestant in found:
        contestant.step()
    seconds: dict[str, dict[str, list[float]]] = {
        c.name: {"wall": [], "processor": []} for c in found
    }
    for number in range(shape.rounds):
        turn = number % len(found)
        for contestant in found[turn:] + found[:turn]:
            for clock, value in contestant.step().items():
                seconds[contestant.name][clock].append(value)
    ratios = {
        "full": {clock: ratio(seconds, "full", "timm", clock) for clock in ("wall", "processor")},
        "one block": {
            clock: ratio(seconds, "one block", "full", clock) for clock in ("wall", "processor")
        },
    }
    return {
        "seconds": {
            name: {clock: spread(values) for clock, values in clocks.items()}
            for name, clocks in seconds.items()
        },
        "ratios": ratios,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": round(middle, 4), "lower": round(low, 4), "upper": round(high, 4)}


def ratio(seconds: Any, one: str, other: str, clock: str) -> dict[str, float]:
    """Of the medians, and the spread of the ratios within a round."""
    ours, theirs = seconds[one][clock], seconds[other][clock]
    pairs = spread([a / b for a, b in zip(ours, theirs, strict=True)])
    return {
        "of_medians": round(statistics.median(ours) / statistics.median(theirs), 4),
        **pairs,
    }


def judge(folder: Path | None) -> dict[str, Any]:
    """Time of features, by an encoder of drawn weights of `ti4`, and of both protocols on them; or on drawn ones."""
    result: dict[str, Any] = {}

    def timed(name: str, act: Callable[[], Any]) -> Any:
        wall, processor = perf_counter(), process_time()
        found = act()
        seconds = {"wall": perf_counter() - wall, "processor": process_time() - processor}
        result[name] = {clock: round(value, 2) for clock, value in seconds.items()}
        print(f"{name}: {result[name]}", flush=True)
        return found

    if folder is None:
        train, test = drawn(50_000, 0), drawn(10_000, 1)
        classes = CLASSES
    else:
        labelled = open_labelled(Folder(path=str(folder)), 0)
        torch.manual_seed(0)
        encoder = MAE_TI4.encoder.build(Size(32, 32), 3, IMAGENET.tensors()).eval()
        size = Size(32, 32)
        train, test = timed(
            "features",
            lambda: [
                features(encoder, part, size, IMAGENET, CPU)
                for part in (labelled.train, labelled.test)
            ],
        )
        classes = labelled.train.annotations
    result["images"] = len(train.labels) + len(test.labels)
    for protocol in ("knn", "linear"):
        scores = timed(protocol, lambda: evaluate(train, test, protocol, classes))  # noqa: B023
        result[protocol]["accuracy"] = {s.feature: s.score.value for s in scores}
        result[protocol]["setting"] = scores[0].setting
    return result


def drawn(count: int, seed: int) -> Features:
    """Features as wide as those of `ti4`, each near a corner of its class."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=random)
    cls = torch.randn(count, MAE_TI4.encoder.embed_dim, generator=random)
    cls += 3 * torch.eye(CLASSES, cls.shape[1])[labels]
    return Features(cls, cls.flip(1).contiguous(), labels, torch.arange(count), [])


def table(races: dict[str, Any]) -> str:
    """The races as Markdown."""
    lines = ["| | clock | timm, ms | full, ms | one block, ms | full / timm | one block / full |"]
    lines.append("|---|---|---:|---:|---:|---:|---:|")
    for name, found in races.items():
        for clock in ("wall", "processor"):
            times = [
                f"{1e3 * s['median']:.0f} ({1e3 * s['lower']:.0f} to {1e3 * s['upper']:.0f})"
                for s in (found["seconds"][who][clock] for who in ("timm", "full", "one block"))
            ]
            ratios = [
                f"{r['of_medians']:.3f} (pairs {r['median']:.3f}, {r['lower']:.3f} to {r['upper']:.3f})"
                for r in (found["ratios"][what][clock] for what in GOALS)
            ]
            lines.append(f"| `{name}` | {clock} | {' | '.join(times)} | {' | '.join(ratios)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="a folder of classes, such as CIFAR-10")
    parser.add_argument(
        "--drawn", action="store_true", help="time protocols on drawn vectors in place of features"
    )
    parser.add_argument("--sizes", nargs="*", choices=SHAPES, default=[])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON; what it holds of other parts stays")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    found |= {"torch": torch.__version__, "python": platform.python_version()}
    if args.images or args.drawn:
        found["judging"] = {"threads": args.threads, **judge(args.images)}
    races = {name: race(SHAPES[name]) for name in args.sizes}
    if races:
        print(table(races))
        found["steps"] = {**found.get("steps", {}), **races}
        found["steps_threads"] = args.threads
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
