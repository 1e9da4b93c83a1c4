"""Which features of an encoder find images of the same class: pooling, block, centring and whitening.

    python studies/features.py runs/cifar:cifar10 runs/scenes:scenes runs/steel:steel --out studies/features

Each argument is RUN:DATA: a pretrained encoder and labelled images. Every encoder is measured beside the same encoder with
random weights and beside raw pixels. A variant is chosen on a fifth of the training images, which nothing is fitted to: means,
whitening, neighbours and classifiers see the other four fifths. The winner, and the plain class token and mean, are then scored
once on the test images, fitted to all training images (position means stay those of the four fifths). OUT.csv gets every score, OUT.md the tables.
"""

import argparse
import csv
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unmask.annotations import ClassLabels
from unmask.contracts import ImageSource
from unmask.data.draws import draw_share
from unmask.data.kinds import find_source
from unmask.data.labelled import Subset, open_labelled, with_channels
from unmask.encoders.vit import VisionTransformer
from unmask.evaluation.features import labels_of, whole_images
from unmask.evaluation.raw import averaged_size, raw_pixels
from unmask.evaluation.vectors import VectorRule, gem
from unmask.files import write_text
from unmask.formats.model import ModelSpec
from unmask.runs.model import load
from unmask.tasks.logistic import logistic_classes
from unmask.tasks.neighbors import knn_votes

WIDTHS = (32, 64, 128, 256)
MEASURES = ("knn", "map", "logistic")
NAMES = {"knn": "k-NN", "map": "mAP at R", "logistic": "logistic"}
STRENGTH = 0.05  # of the logistic classifier, on standardised vectors
LOGISTIC_IMAGES = 3000  # training images of the logistic classifier, at most
HELD_OUT = 0.2
CHUNK = 1000  # queries at a time
CPU = torch.device("cpu")


class Part(NamedTuple):
    """Vectors of a set of images before centring, by (pooling, block, whether position means are subtracted)."""

    vectors: dict[tuple[str, str, bool], Tensor]
    labels: Tensor


class Scored(NamedTuple):
    """A score: one row of the CSV file."""

    stage: str
    data: str
    encoder: str
    variant: str
    measure: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to make a vector."""

    pooling: str
    block: str
    centred: str
    whitened: int

    @property
    def rule(self) -> VectorRule:
        """Centring and whitening; pooling was done before."""
        centred = "none" if self.centred == "none" and not self.whitened else "mean"
        return VectorRule(centred=centred, whitened=self.whitened)

    @property
    def key(self) -> tuple[str, str, bool]:
        """The vectors that it starts from."""
        return self.pooling, self.block, self.centred == "positions"

    @property
    def words(self) -> str:
        """The variant in words."""
        start = (
            self.pooling if self.block in ("", "last") else f"{self.pooling}, {self.block} block"
        )
        centred = {"none": "plain", "mean": "centred", "positions": "position means subtracted"}
        how = centred[self.centred]
        if self.whitened:
            whitened = f"whitened to {self.whitened}"
            how = f"{how}, {whitened}" if self.centred == "positions" else whitened
        return f"{start}: {how}"


def ways(pooling: str, block: str) -> Iterator[Variant]:
    """All ways to centre and whiten; position means matter only where pooling is not linear."""
    one = Variant(pooling=pooling, block=block, centred="none", whitened=0)
    yield one
    for centred in ("mean", "positions") if pooling == "gem" else ("mean",):
        for width in (0, *WIDTHS):
            yield replace(one, centred=centred, whitened=width)


VARIANTS = [
    way
    for block in ("last", "middle")
    for pooling in ("class", "mean", "gem")
    for way in ways(pooling, block)
]
RAW_VARIANTS = list(ways("pixels", ""))
PLAIN = [Variant(pooling=p, block="last", centred="none", whitened=0) for p in ("class", "mean")]


@torch.inference_mode()
def tokens_of(encoder: VisionTransformer, images: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Class token [b d] and patch tokens [b n d] of the last and of the middle block, after the final norm."""
    middle = (len(encoder.blocks) + 1) // 2
    encoded = encoder.encode(images, taps=(middle,))
    yield "last", encoded.cls.mean(1), encoded.patches
    tokens, count = encoder.norm(encoded.taps[0]), encoder.class_tokens
    yield "middle", tokens[:, :count].mean(1), tokens[:, count:]


def position_means(
    encoder: VisionTransformer, spec: ModelSpec, source: ImageSource
) -> dict[str, Tensor]:
    """The mean patch token of each position, by block."""
    sums: dict[str, Tensor] = {}
    seen: list[int] = []
    for _, images in whole_images(source, spec.image_size, spec.statistics, CPU, 0, seen, []):
        for block, _, patches in tokens_of(encoder, images):
            sums[block] = sums.get(block, 0) + patches.double().sum(0)
    return {block: (total / len(seen)).float() for block, total in sums.items()}


def pooled(
    encoder: VisionTransformer, spec: ModelSpec, source: ImageSource, means: dict[str, Tensor]
) -> Part:
    """All pooled vectors of a source."""
    parts: dict[tuple[str, str, bool], list[Tensor]] = {}
    seen: list[int] = []
    for _, images in whole_images(source, spec.image_size, spec.statistics, CPU, 0, seen, []):
        for block, cls, patches in tokens_of(encoder, images):
            made = {
                ("class", block, False): cls,
                ("mean", block, False): patches.mean(1),
                ("gem", block, False): gem(patches),
                ("gem", block, True): gem(patches - means[block]),
            }
            for key, vectors in made.items():
                parts.setdefault(key, []).append(vectors)
    return Part({key: torch.cat(some) for key, some in parts.items()}, labels_of(source, seen))


def raw(spec: ModelSpec, source: ImageSource, images: int) -> Part:
    """Pixels in the same form."""
    size = averaged_size(spec.image_size, spec.channels, images)
    found = raw_pixels(spec, source, size).features
    return Part({("pixels", "", False): found.vectors}, found.labels)


def rows_of(part: Part, chosen: Tensor) -> Part:
    """The vectors of some images."""
    return Part({key: some[chosen] for key, some in part.vectors.items()}, part.labels[chosen])


def map_at_r(gallery: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Mean average precision at R, the number of gallery images of the query's class (Musgrave and others, 2020)."""
    gallery, queries = F.normalize(gallery, dim=1), F.normalize(queries, dim=1)
    counts = torch.bincount(labels, minlength=int(truth.max()) + 1)[truth]  # R of each query
    most = int(counts.max())
    precisions: list[Tensor] = []
    for some, own, r in zip(
        queries.split(CHUNK), truth.split(CHUNK), counts.split(CHUNK), strict=True
    ):
        nearest = (some @ gallery.T).topk(most, dim=1).indices
        places = torch.arange(1, most + 1)
        right = (labels[nearest] == own[:, None]) & (places <= r[:, None])
        precision = right.cumsum(1) / places
        precisions.append((precision * right).sum(1) / r.clamp(min=1))
    return float(torch.cat(precisions).mean())


def scores(train: Part, test: Part, variant: Variant) -> Iterator[tuple[str, float]]:
    """The measures of a variant; fitted to the training vectors."""
    fitted = variant.rule.fit(train.vectors[variant.key])
    known, asked = (fitted.of(part.vectors[variant.key]) for part in (train, test))
    classes = int(train.labels.max()) + 1
    votes = knn_votes(known, train.labels, asked, classes)
    yield "knn", float((votes.argmax(1) == test.labels).double().mean())
    yield "map", map_at_r(known, train.labels, asked, test.labels)
    if variant.centred == "mean" and not variant.whitened:
        return  # standardised vectors are the same as without centring
    few = torch.linspace(0, len(known) - 1, min(LOGISTIC_IMAGES, len(known))).long()
    guesses = logistic_classes(known[few], train.labels[few], asked, STRENGTH)
    yield "logistic", float((guesses == test.labels).double().mean())


class Measured(NamedTuple):
    """An encoder, its control or raw pixels, and the vectors of the training and test images."""

    data: str
    encoder: str
    train: Part
    test: Part
    variants: Sequence[Variant]
    held_out: Tensor
    """Which training images choose the variant."""

    def held_out_scores(self) -> Iterator[Scored]:
        """All variants, on held-out training images."""
        fit, validation = (rows_of(self.train, part) for part in (~self.held_out, self.held_out))
        for variant in self.variants:
            for measure, score in scores(fit, validation, variant):
                yield Scored("held out", self.data, self.encoder, variant.words, measure, score)

    def test_scores(self, variants: Sequence[Variant]) -> Iterator[Scored]:
        """Some variants, on the test images."""
        for variant in variants:
            for measure, score in scores(self.train, self.test, variant):
                yield Scored("test", self.data, self.encoder, variant.words, measure, score)


def measured(pair: str, name: str, most: int, variants: Sequence[Variant]) -> Iterator[Measured]:
    """The encoder of a RUN:DATA, the same with random weights, and raw pixels."""
    path, _, data = pair.rpartition(":")
    model = load(path)
    labelled = open_labelled(find_source(data), 0, (ClassLabels,))
    train, test = (
        spread(with_channels(part, model.spec.channels, f"{path} was trained on"), most)
        for part in (labelled.train, labelled.test)
    )
    spec = model.spec
    held_out = torch.from_numpy(draw_share(train.labels(), HELD_OUT, 0))
    fit = Subset(train, np.flatnonzero(~held_out.numpy()))
    untrained = spec.build_encoder(model.run.seed if model.run else 0).eval()
    for encoder, which in ((model.encoder, "trained"), (untrained, "random weights")):
        started = time.perf_counter()
        means = position_means(encoder, spec, fit)
        known, asked = (pooled(encoder, spec, part, means) for part in (train, test))
        print(f"{name}, {which}: features in {time.perf_counter() - started:.0f} s", flush=True)
        yield Measured(name, which, known, asked, variants, held_out)
    known, asked = (raw(spec, part, len(train)) for part in (train, test))
    yield Measured(name, "raw pixels", known, asked, RAW_VARIANTS, held_out)


def spread(source: ImageSource, most: int) -> ImageSource:
    """At most `most` images, evenly from the whole source."""
    if len(source) <= most:
        return source
    return Subset(source, np.linspace(0, len(source) - 1, most).astype(np.int64))


def average(rows: Sequence[Scored], encoder: str, variant: Variant, measure: str) -> float | None:
    """The mean over the sets; None if the variant has no such score."""
    values = [
        row.score
        for row in rows
        if (row.encoder, row.variant, row.measure) == (encoder, variant.words, measure)
    ]
    return mean(values) if values else None


def overall(rows: Sequence[Scored], encoder: str, variant: Variant) -> float:
    """The mean over sets and measures; logistic of centred vectors is that of plain ones."""
    plain = (
        replace(variant, centred="none")
        if variant.centred == "mean" and not variant.whitened
        else variant
    )
    values = [
        average(rows, encoder, plain if measure == "logistic" else variant, measure)
        for measure in MEASURES
    ]
    return mean(value for value in values if value is not None)


def names_of(pairs: Sequence[str]) -> list[str]:
    """The names of the sets; several encoders on one set are told apart by their runs."""
    split = [
        (Path(run).name, Path(data).name) for run, _, data in (p.rpartition(":") for p in pairs)
    ]
    sets = [data for _, data in split]
    return [data if sets.count(data) == 1 else f"{data}, {run}" for run, data in split]


def study(pairs: Sequence[str], most: int, out: Path, variants: Sequence[Variant]) -> None:
    """Choose on held-out training images, confirm on test images, and write both."""
    named = zip(pairs, names_of(pairs), strict=True)
    every = [one for pair, name in named for one in measured(pair, name, most, variants)]
    rows: list[Scored] = []
    for one in every:
        started = time.perf_counter()
        rows += one.held_out_scores()
        print(
            f"{one.data}, {one.encoder}: scored in {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    best = max(variants, key=lambda variant: overall(rows, "trained", variant))
    best_raw = max(RAW_VARIANTS, key=lambda variant: overall(rows, "raw pixels", variant))
    tested: list[Scored] = []
    for one in every:
        chosen = [RAW_VARIANTS[0], best_raw] if one.encoder == "raw pixels" else [*PLAIN, best]
        tested += one.test_scores(list(dict.fromkeys(chosen)))
    with out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Scored._fields)
        writer.writerows([*row[:-1], f"{row.score:.4f}"] for row in [*rows, *tested])
    write_text(out.with_suffix(".md"), page(every, rows, tested, best, variants))
    print(f"chosen: {best.words}; written: {out}.csv, {out}.md")


def page(
    every: Sequence[Measured],
    rows: Sequence[Scored],
    tested: Sequence[Scored],
    best: Variant,
    variants: Sequence[Variant],
) -> str:
    """The tables in Markdown."""
    sets = {one.data: (len(one.train.labels), len(one.test.labels)) for one in every}
    counted = "; ".join(
        f"{name}: {a:,} training and {b:,} test images" for name, (a, b) in sets.items()
    )
    lines = [
        "# Which features",
        "",
        f"{counted}. Scores in per cent. Chosen: **{best.words}**, by the mean of the three measures for trained encoders. "
        "The logistic classifier standardises, so centred vectors have the score of plain ones.",
        "",
        f"## Held-out training images, mean of {len(sets)} sets",
        "",
        f"| vector | {' | '.join(f'trained: {NAMES[m]}' for m in MEASURES)} | "
        f"{' | '.join(f'random weights: {NAMES[m]}' for m in MEASURES)} |",
        "|---|" + "---:|" * 6,
    ]
    for variant in sorted(variants, key=lambda v: -overall(rows, "trained", v)):
        cells = [
            percent(average(rows, encoder, variant, measure))
            for encoder in ("trained", "random weights")
            for measure in MEASURES
        ]
        lines.append(f"| {variant.words} | {' | '.join(cells)} |")
    lines += [
        "",
        f"| raw vector | {' | '.join(NAMES[m] for m in MEASURES)} |",
        "|---|" + "---:|" * 3,
    ]
    for variant in RAW_VARIANTS:
        cells = [percent(average(rows, "raw pixels", variant, measure)) for measure in MEASURES]
        lines.append(f"| {variant.words} | {' | '.join(cells)} |")
    heading = " | ".join(NAMES[measure] for measure in MEASURES)
    lines += [
        "",
        "## Test images",
        "",
        f"| set | encoder | vector | {heading} |",
        "|---|---|---|---:|---:|---:|",
    ]
    for key in dict.fromkeys((row.data, row.encoder, row.variant) for row in tested):
        found = {row.measure: row.score for row in tested if row[1:4] == key}
        cells = [percent(found.get(measure)) for measure in MEASURES]
        lines.append(f"| {' | '.join([*key, *cells])} |")
    return "\n".join(lines) + "\n"


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description="which features of an encoder to use")
    parser.add_argument(
        "pairs", nargs="+", metavar="RUN:DATA", help="an encoder and labelled images"
    )
    parser.add_argument(
        "--images", type=int, default=10_000, help="training and test images, at most"
    )
    parser.add_argument(
        "--only",
        default="",
        help="pattern of the vectors' names, such as 'mean.*whitened to (64|128)'",
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument(
        "--out", type=Path, default=Path("studies/features"), help="without an ending"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    variants = [variant for variant in VARIANTS if re.search(args.only, variant.words)]
    if not variants:
        parser.error(f"--only {args.only} fits no vector, such as {VARIANTS[0].words!r}")
    study(args.pairs, args.images, args.out, variants)


if __name__ == "__main__":
    main()
