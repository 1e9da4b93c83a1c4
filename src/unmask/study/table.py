"""What a study found, beside what was published: Markdown and CSV."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from unmask.study.cost import StepCost
from unmask.study.study import Published, Study
from unmask.study.verdicts import Pair, compared, differ, informative, spread

NAMES = {
    "finetune": "fine-tuned",
    "linear": "linear",
    "attentive": "attentive",
    "knn": "k-NN",
}
"""Scores as a table says them."""

_IMAGENET = 1_281_167  # images
_EPOCHS = 800
_BATCH = 4096


class Line(NamedTuple):
    """One variation: what it scored with each seed, and what it costs."""

    name: str
    beside: str
    """What it is compared with."""
    scores: Mapping[str, Sequence[float]]
    """Test accuracies, as shares, by protocol."""
    learned: Sequence[float]
    """Accuracies on the images that fine-tuning learned from."""
    published: Published
    cost: StepCost | None
    seen: float
    """Images shown in pretraining; 0 where nothing is trained."""
    failures: Sequence[str]
    """Trainings that diverged, one message each."""
    collapses: Sequence[str] = ()
    """Trainings at whose end the embedding had collapsed, with the reason."""
    tokenizer_flops: float = 0.0
    """Of the training of the tokenizer whose codes are predicted; 0 where there is none."""

    @property
    def flops(self) -> float:
        """Of the pretraining, and of the tokenizer that went before."""
        assert self.cost is not None
        return self.seen * self.cost.flops + self.tokenizer_flops

    @property
    def hours(self) -> float:
        """Of 800 epochs of ImageNet-1K at this speed: forward and backward passes, and updates of 4,096 images."""
        assert self.cost is not None
        passes = _EPOCHS * _IMAGENET * self.cost.seconds / self.cost.batch
        updates = _EPOCHS * math.ceil(_IMAGENET / _BATCH) * self.cost.update_seconds
        return (passes + updates) / 3600


class Found(NamedTuple):
    """All that a study found."""

    study: Study
    seeds: int
    setting: Sequence[str]
    """What was studied on what, in sentences."""
    lines: Sequence[Line]
    random: Line | None
    """The base with drawn weights."""


def markdown(found: Found) -> str:
    """The whole result as a page."""
    study = found.study
    parts = [f"# {study.title}", f"{study.source}.", *found.setting]
    if study.scores:
        parts += ["\n".join(_scores(found)), *_missing(found), *_meaning(found)]
    if study.timed:
        parts += ["\n".join(_costs(found))]
    return "\n\n".join(parts) + "\n"


def told(values: Sequence[float]) -> str:
    """Accuracies in per cent: mean, and deviation of several; nothing if there is none."""
    if not values:
        return ""
    several = f" ± {100 * spread(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{several}"


def _scores(found: Found) -> Iterator[str]:
    scores = found.study.scores
    learned = any(line.learned for line in found.lines)
    head = ["variation"]
    for score in scores:
        head.append(f"{NAMES[score]}, %")
        if any(score in line.published for line in found.lines):
            head.append("paper")
    if learned:
        head.append("on training images, %")
    yield _row(head)
    yield "|---|" + "---:|" * (len(head) - 1)
    for line in [*found.lines, *([found.random] if found.random else [])]:
        cells = [f"**{line.name}**" if line.name == found.study.base else line.name]
        for score in scores:
            cells.append(told(line.scores.get(score, [])))
            if any(score in other.published for other in found.lines):
                cells.append(f"{line.published[score]:.1f}" if score in line.published else "")
        if learned:
            cells.append(told(line.learned))
        yield _row(cells)


def _missing(found: Found) -> Iterator[str]:
    """Which variations have fewer answers than there are seeds, and no failure that would say why."""
    lines = [*found.lines, *([found.random] if found.random else [])]
    there = {
        line.name: min((len(values) for values in line.scores.values() if values), default=0)
        for line in lines
        if not line.failures
    }
    few = [f"{name} {count}" for name, count in there.items() if count < found.seeds]
    if few:
        yield f"Not all runs have ended; of {found.seeds} seeds: {', '.join(few)}."


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _meaning(found: Found) -> Iterator[str]:
    """Sentences on what may be concluded."""
    by_name = {line.name: line for line in found.lines}
    base = by_name[found.study.base]
    for score in found.study.scores:
        ours = [line for line in found.lines if line.scores.get(score)]
        random = found.random.scores.get(score, []) if found.random else []
        yield f"**{NAMES[score][0].upper() + NAMES[score][1:]}.** {_worth(base.scores.get(score, []), random)}"
        pairs = compared(
            {line.name: line.scores[score] for line in ours},
            {line.name: line.published[score] for line in ours if score in line.published},
        )
        if pairs:
            yield _order(pairs)
        if found.seeds > 1 and len(ours) > 1:
            yield _best({line.name: line.scores[score] for line in ours})
    for line in found.lines:
        for failure in line.failures:
            yield f"{line.name} failed: {failure}"
        for reason in line.collapses:
            yield f"{line.name} collapsed: {reason}"


def _worth(base: Sequence[float], random: Sequence[float]) -> str:
    if not base or not random:
        return "The base was not scored."
    gain = f"The base gains {100 * (mean(base) - mean(random)):.1f} points on its own random initialisation"
    match informative(base, random):
        case None:
            return f"{gain}; with one seed nothing is concluded from it."
        case True:
            return f"{gain}, more than three standard errors."
        case False:
            return f"{gain}, less than three standard errors: these figures are uninformative."


def _best(scores: Mapping[str, Sequence[float]]) -> str:
    """Which is ahead, and which may be as good."""
    first = max(scores, key=lambda name: mean(scores[name]))
    same = [name for name in scores if name != first and not differ(scores[first], scores[name])]
    told = f"Highest here: {first}"
    return f"{told}; not told apart from it: {', '.join(same)}." if same else f"{told}, alone."


def _order(pairs: Sequence[Pair]) -> str:
    """How many pairs have the paper's order, and which have not."""
    if pairs[0].verdict == "one seed":
        same = sum(pair.ours > 0 for pair in pairs)
        return (
            f"Pairs that the paper puts in an order: {len(pairs)}; {same} have it here, shown and not concluded (one "
            "seed)."
        )
    by = {v: [p for p in pairs if p.verdict == v] for v in ("agree", "disagree", "within noise")}
    words = (
        f"Pairs that the paper puts in an order: {len(pairs)}; here {len(by['agree'])} agree, {len(by['disagree'])} "
        f"disagree, {len(by['within noise'])} within noise (Welch's test of each pair at 5 %)."
    )
    for verdict in ("agree", "disagree"):
        if by[verdict]:
            listed = "; ".join(
                f"{p.better} above {p.worse} ({p.published:+.1f} in the paper, {p.ours:+.1f} here)"
                for p in by[verdict]
            )
            words += f" {verdict.capitalize()}: {listed}."
    return words


def _costs(found: Found) -> Iterator[str]:
    """What steps cost, relative to what each is compared with."""
    lines = [line for line in found.lines if line.cost is not None]
    by_name = {line.name: line for line in lines}
    hours = any("hours" in line.published for line in lines)
    trained = any(line.seen for line in lines)
    head = ["variation", "GFLOP an image", "x", "ms an image (least to most)", "x", "MiB an image"]
    if trained:
        head += ["images seen", "PFLOP in all"]
    if hours:
        head += ["hours of 800 epochs", "speed-up", "paper's hours", "paper's speed-up"]
    yield _row(head)
    yield "|---|" + "---:|" * (len(head) - 1)
    for line in lines:
        cost, base = line.cost, by_name.get(line.beside, line).cost
        assert cost is not None
        assert base is not None
        low, middle, high = (1000 * s / cost.batch for s in (cost.least, cost.seconds, cost.most))
        cells = [
            line.name,
            _figures(cost.flops / 1e9),
            f"{cost.flops / base.flops:.2f}",
            f"{_figures(middle)} ({_figures(low)} to {_figures(high)})",
            f"{cost.seconds / base.seconds:.2f}",
            f"{cost.bytes_kept / 2**20:.2f}",
        ]
        if trained:
            cells += [f"{line.seen:,.0f}", f"{line.flops / 1e15:.3g}"]
        if hours:
            reference = by_name[line.beside]
            cells += [f"{line.hours:,.0f}", f"{reference.hours / line.hours:.2f}"]
            cells += [
                f"{line.published['hours']:.1f}",
                f"{reference.published['hours'] / line.published['hours']:.1f}",
            ]
        yield _row(cells)
    yield ""
    batch = lines[0].cost.batch if lines and lines[0].cost else 0
    yield (
        f"Forward and backward passes of {batch} random images, the median of rounds in which all have their turn; x is "
        "relative to what a variation is compared with. FLOPs of matrix products by torch's counter. MiB is what a forward "
        "pass keeps." + (" Hours count updates of 4,096 images; on this machine." if hours else "")
    )
    tokenizers = [line for line in lines if line.tokenizer_flops]
    if tokenizers:
        told = ", ".join(f"{line.tokenizer_flops / 1e15:.3g} of {line.name}" for line in tokenizers)
        yield ""
        yield f"PFLOP in all count the training of a tokenizer: {told}."


def _figures(value: float) -> str:
    """Three figures, and no exponent."""
    return f"{float(f'{value:.3g}'):,.10g}"


def csv_text(found: Found) -> str:
    """A row for every variation, protocol and seed, and for every cost and published number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variation", "measure", "draw", "value"])
    for line in [*found.lines, *([found.random] if found.random else [])]:
        rows: list[tuple[str, Any, float]] = []
        for score, values in line.scores.items():
            rows += [(score, draw, value) for draw, value in enumerate(values)]
        rows += [("finetune, training images", d, v) for d, v in enumerate(line.learned)]
        rows += [(f"paper: {name}", "", value) for name, value in line.published.items()]
        if line.cost is not None:
            rows += [(f"cost: {name}", "", value) for name, value in line.cost._asdict().items()]
            if line.tokenizer_flops:
                rows.append(("cost: flops of the tokenizer's training", "", line.tokenizer_flops))
        writer.writerows([line.name, *row] for row in rows)
    return text.getvalue()
