"""What vectors are good for: neighbours of the same class, near-duplicates, and odd images.

    python studies/vectors.py --retrieval runs/cifar:cifar10 runs/scenes:scenes --duplicates runs/scenes:scenes \\
        --odd runs/boards:boards/templates/train:boards --squares runs/steel:steel --out studies/vectors

--retrieval RUN:DATA: labelled images. Vectors of the training and test images are whitened to 128 components, as in `unmask
search`; then k-NN, the share of test images whose nearest training image has their class (R@1), and mAP at R.
--duplicates RUN:DATA: pairs among the training pictures as they are, and how many changed copies of some of them are found.
--odd RUN:NORMAL:TEST: images as for `unmask odd`. --squares RUN:DATA: boxes around defects; squares without any are normal.
The encoder stands beside the same with random weights and raw pixels; seeds draw random weights and held-out images. OUT.csv
gets every score, OUT.md the tables. --most limits the images of each split.
"""

import argparse
import csv
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
import torch
from features import map_at_r, spread
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torch.nn import functional as F

from unmask.annotations import ClassLabels, ObjectLabels, Objects
from unmask.commands import embed as embed_command
from unmask.contracts import ImageSource, Size
from unmask.data.annotated import pictures_alone
from unmask.data.kinds import find_source
from unmask.data.labelled import open_labelled, with_channels
from unmask.encoders.vit import VisionTransformer
from unmask.evaluation.features import labels_of, whole_images
from unmask.evaluation.frozen import PRETRAINED, RANDOM, RAW
from unmask.evaluation.odd import OddRule
from unmask.evaluation.odd_run import Look, arms, find, learn, measured
from unmask.evaluation.odd_truth import Truth
from unmask.evaluation.raw import averaged_size, raw_pixels
from unmask.evaluation.vectors import VectorRule
from unmask.files import write_text
from unmask.formats.model import ModelSpec
from unmask.runs.model import Model, load
from unmask.tasks.neighbors import knn_votes
from unmask.vectors.duplicates import near_duplicates
from unmask.vectors.matrix import open_vectors

CPU = torch.device("cpu")
RULE = VectorRule(pooling="mean", whitened=128)
COPIES = 15  # pictures that are copied with each change
SIDE = 64  # pixels of a square


class Scored(NamedTuple):
    """A row of the CSV file."""

    part: str
    data: str
    encoder: str
    seed: int
    measure: str
    score: float


class Vectors(NamedTuple):
    """A vector of each image, before whitening, and its class."""

    vectors: Tensor
    labels: Tensor


@torch.inference_mode()
def means(encoder: VisionTransformer, spec: ModelSpec, source: ImageSource) -> Vectors:
    """The mean patch token of each image."""
    seen: list[int] = []
    batches = whole_images(source, spec.image_size, spec.statistics, CPU, 0, seen, [])
    vectors = [RULE.pool(encoder, images) for _, images in batches]
    return Vectors(torch.cat(vectors), labels_of(source, seen))


def pixels(spec: ModelSpec, source: ImageSource, images: int) -> Vectors:
    """The pixels of each image."""
    size = averaged_size(spec.image_size, spec.channels, images)
    found = raw_pixels(spec, source, size).features
    return Vectors(found.vectors, found.labels)


def every_encoder(
    model: Model, seeds: int, parts: Sequence[ImageSource]
) -> Iterator[tuple[str, int, list[Vectors]]]:
    """The pretrained encoder, random weights for each seed, and raw pixels: their vectors of each part."""
    spec = model.spec
    yield PRETRAINED, 0, [means(model.encoder, spec, part) for part in parts]
    for seed in range(seeds):
        untrained = spec.build_encoder(seed).eval()
        yield RANDOM, seed, [means(untrained, spec, part) for part in parts]
    yield RAW, 0, [pixels(spec, part, len(parts[0])) for part in parts]


def retrieval(pair: str, most: int, seeds: int) -> Iterator[Scored]:
    """Neighbours of test images among training images."""
    path, data = pair.rsplit(":", 1)
    model = load(path)
    labelled = open_labelled(find_source(data), 0, (ClassLabels,))
    parts = [
        spread(with_channels(part, model.spec.channels, f"{path} was trained on"), most)
        for part in (labelled.train, labelled.test)
    ]
    for encoder, seed, (train, test) in every_encoder(model, seeds, parts):
        fitted = RULE.fit(train.vectors)
        known, asked = (F.normalize(fitted.of(part.vectors), dim=1) for part in (train, test))
        votes = knn_votes(known, train.labels, asked, int(train.labels.max()) + 1)
        nearest = torch.cat([(part @ known.T).argmax(1) for part in asked.split(1000)])
        scores = {
            "k-NN": float((votes.argmax(1) == test.labels).double().mean()),
            "R@1": float((train.labels[nearest] == test.labels).double().mean()),
            "mAP@R": map_at_r(known, train.labels, asked, test.labels),
        }
        for measure, score in scores.items():
            yield Scored("retrieval", Path(data).name, encoder, seed, measure, score)


def _jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def change(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert(picture.mode)

    return change


def _cut(share: float) -> Callable[[Image.Image], Image.Image]:
    def change(picture: Image.Image) -> Image.Image:
        x, y = (round(share * side) for side in picture.size)
        return picture.crop((x, y, picture.width - x, picture.height - y))

    return change


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "another file": lambda picture: picture,
    "JPEG 50": _jpeg(50),
    "JPEG 20": _jpeg(20),
    "half the size": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "10 % brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
    "2 % cut off each side": _cut(0.02),
    "10 % cut off each side": _cut(0.1),
    "mirrored": ImageOps.mirror,
    "rotated by 90 degrees": lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
}


def picture_of(source: ImageSource, position: int) -> Image.Image:
    """An image of uint8, as a picture."""
    channels = source[position].image
    one = channels[0] if len(channels) == 1 else channels.permute(1, 2, 0)
    return Image.fromarray(one.numpy())


def duplicates(pair: str, most: int) -> Iterator[Scored]:
    """Near-duplicates among the training pictures, and changed copies that are planted as a test split."""
    path, data = pair.rsplit(":", 1)
    source = spread(pictures_alone(find_source(data)), most)
    names: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for split in ("train", "test"):
            (root / "data" / split).mkdir(parents=True)
        for position in range(len(source)):
            picture_of(source, position).save(root / "data" / "train" / f"{position:06}.png")
        chosen = np.linspace(0, len(source) - 1, min(COPIES, len(source))).astype(int).tolist()
        for number, change in enumerate(CHANGES.values()):
            for position in chosen:
                file = f"{number}-{position:06}.png"
                changed = change(picture_of(source, position))
                changed.save(root / "data" / "test" / file, compress_level=1)
                names[file] = position
        words = [path, str(root / "data"), "--out", str(root / "vectors"), "--workers", "0"]
        embed_command.main(words)
        searched = open_vectors(root / "vectors")
    columns = {c: searched.columns[c].to_pylist() for c in ("name", "split", "hash")}
    linked, _ = near_duplicates(searched.matrix, columns["hash"], columns["split"])
    keys = {
        frozenset((columns["split"][row], columns["name"][row]) for row in pair[:2])
        for pair in linked
    }
    data_name = Path(data).name
    originals = sum(all(split == "train" for split, _ in key) for key in keys)
    yield Scored("duplicates", data_name, PRETRAINED, 0, "pairs among pictures", originals)
    for number, change in enumerate(CHANGES):
        wanted = {name: p for name, p in names.items() if name.startswith(f"{number}-")}
        hits = sum(
            frozenset((("test", name), ("train", f"{position:06}.png"))) in keys
            for name, position in wanted.items()
        )
        yield Scored("duplicates", data_name, PRETRAINED, 0, change, hits / len(wanted))


def odd(
    path: str, normal: ImageSource, test: ImageSource, name: str, seeds: int, size: Size | None
) -> Iterator[Scored]:
    """Odd images and pixels among those of `test`."""
    model = load(path)
    trained_on = f"{path} was trained on"
    normal, test = (with_channels(part, model.spec.channels, trained_on) for part in (normal, test))
    for seed in range(seeds):
        look = Look(
            encoder=model.encoder,
            spec=model.spec,
            size=size or model.spec.image_size,
            rule=OddRule(),
            seed=seed,
            device=CPU,
        )
        for arm, vectors in arms(look, "auto"):
            memory, _ = learn(normal, look, vectors)
            measures = measured(
                find(memory, test, look, vectors, Truth(test), []), memory, look.size
            )
            scores = {
                "image AUROC": measures.image_auroc,
                "image AP": measures.image_precision,
                "pixel AUROC": measures.pixel_auroc,
                "pixel AP": measures.pixel_precision,
                "PRO": measures.region_overlap,
            }
            for measure, score in scores.items():
                if score is not None:
                    yield Scored("odd", name, arm, seed, measure, score)


def odd_folders(triple: str, most: int, seeds: int, size: Size | None) -> Iterator[Scored]:
    """Images as for `unmask odd`."""
    path, normal_data, data = triple.rsplit(":", 2)
    source = find_source(data)
    normal = spread(pictures_alone(find_source(normal_data)), most)
    test = spread(source.open(source.splits()[-1]), most)
    yield from odd(path, normal, test, Path(data).name, seeds, size)


def odd_squares(pair: str, most: int, seeds: int) -> Iterator[Scored]:
    """Squares of pictures with boxes around defects: those without are normal."""
    path, data = pair.rsplit(":", 1)
    source = find_source(data)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for split in (source.splits()[0], source.splits()[-1]):
            write_squares(spread(source.open(split), most), root, split == source.splits()[-1])
        normal = pictures_alone(find_source(str(root / "normal")))
        test = find_source(str(root / "test")).open("train")
        yield from odd(path, normal, test, f"{Path(data).name}, squares", seeds, None)


def write_squares(source: ImageSource, root: Path, testing: bool) -> None:
    """Write a grid of squares: those without defects, and for testing those with defects, with masks of their boxes."""
    good, bad, masks = root / "test/good", root / "test/defect", root / "ground_truth/defect"
    for folder in (root / "normal", good, bad, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for position in range(len(source)):
        objects = source[position].annotation
        assert isinstance(objects, Objects)
        picture = picture_of(source, position)
        defects = np.zeros((picture.height, picture.width), bool)
        for left, top, right, bottom in objects.boxes.round().long().tolist():
            defects[top:bottom, left:right] = True
        for top in range(0, picture.height - SIDE + 1, SIDE):
            for left in range(0, picture.width - SIDE + 1, SIDE):
                mask = defects[top : top + SIDE, left : left + SIDE]
                square = picture.crop((left, top, left + SIDE, top + SIDE))
                name = f"{position:05}-{top}-{left}"
                if not mask.any():
                    square.save((good if testing else root / "normal") / f"{name}.png")
                elif testing:
                    square.save(bad / f"{name}.png")
                    Image.fromarray(255 * mask.astype(np.uint8)).save(masks / f"{name}_mask.png")


def page(rows: Sequence[Scored]) -> str:
    """The tables in Markdown: the mean over seeds, and the standard deviation where there are several."""
    lines = [
        "# Vectors",
        "",
        "Scores in per cent; pairs are counted. Made by `studies/vectors.py`.",
    ]
    for part in dict.fromkeys(row.part for row in rows):
        measures = list(dict.fromkeys(row.measure for row in rows if row.part == part))
        lines += ["", f"## {part.capitalize()}", "", f"| data | encoder | {' | '.join(measures)} |"]
        lines += ["|---|---|" + "---:|" * len(measures)]
        for data, encoder in dict.fromkeys((r.data, r.encoder) for r in rows if r.part == part):
            cells = [
                _cell(
                    [r.score for r in rows if r[:3] == (part, data, encoder) and r.measure == m], m
                )
                for m in measures
            ]
            lines.append(f"| {data} | {encoder} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(scores: Sequence[float], measure: str) -> str:
    if not scores:
        return ""
    if measure.startswith("pairs"):
        return f"{mean(scores):.0f}"
    spread_over = f" ± {100 * stdev(scores):.1f}" if len(scores) > 1 else ""
    return f"{100 * mean(scores):.1f}{spread_over}"


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("retrieval", "duplicates", "odd", "squares"):
        parser.add_argument(f"--{flag}", nargs="*", default=[])
    parser.add_argument("--odd-size", type=Size.parse, help="such as 448")
    parser.add_argument("--most", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("vectors"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    steps: list[Iterator[Scored]] = [
        *(retrieval(pair, args.most, args.seeds) for pair in args.retrieval),
        *(duplicates(pair, args.most) for pair in args.duplicates),
        *(odd_folders(triple, args.most, args.seeds, args.odd_size) for triple in args.odd),
        *(odd_squares(pair, args.most, args.seeds) for pair in args.squares),
    ]
    for pair in args.squares:
        data = pair.rsplit(":", 1)[1]
        source = find_source(data)
        if not isinstance(source.open(source.splits()[0]).annotations, ObjectLabels):
            raise SystemExit(f"--squares needs boxes, and {data} has none; name a folder with COCO")
    rows: list[Scored] = []
    with args.out.with_suffix(".csv").open("w", newline="") as file:  # as they come
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Scored._fields)
        for step in steps:
            for row in step:
                print(*row[:-1], f"{row.score:.4f}", flush=True)
                writer.writerow([*row[:-1], f"{row.score:.4f}"])
                file.flush()
                rows.append(row)
            write_text(args.out.with_suffix(".md"), page(rows))
    print(f"written: {args.out}.csv, {args.out}.md")


if __name__ == "__main__":
    main()
