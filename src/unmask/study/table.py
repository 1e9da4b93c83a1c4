"""The results of a study next to the published ones, as Markdown and CSV, and what they allow to conclude."""

import csv
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple

from unmask.study.cost import StepCost
from unmask.study.study import Published, Study

NAMES = {
    "finetune": "fine-tuned",
    "linear": "linear",
    "attentive": "attentive",
    "knn": "k-NN",
}
"""Names of scores in tables."""

_SIGNIFICANCE = 0.05
_STANDARD_ERRORS = 3.0
_IMAGENET = 1_281_167  # images
_EPOCHS = 800
_BATCH = 4096


Verdict = Literal["agree", "disagree", "within noise", "one seed"]


class Line(NamedTuple):
    """One variation: its scores with each seed, and its cost."""

    name: str
    beside: str
    """The variation that it is compared with."""
    scores: dict[str, list[float]]
    """Test accuracies, as shares, by protocol."""
    train_scores: list[float]
    """Accuracies of fine-tuning on its training images."""
    published: Published
    published_epochs: Mapping[str, int]
    """Epochs behind the published values, by protocol; empty if all lines were trained alike."""
    cost: StepCost | None
    seen: float
    """Images shown in pretraining."""
    failures: list[str]
    """A message for each training that diverged."""
    collapses: list[str]
    """The reason for each training whose embedding collapsed."""
    tokenizer_flops: float
    """FLOPs to train the tokenizer; 0 without one."""

    @property
    def flops(self) -> float:
        """FLOPs of the pretraining, its tokenizer included."""
        assert self.cost is not None
        return self.seen * self.cost.flops + self.tokenizer_flops

    @property
    def hours(self) -> float:
        """Hours of 800 epochs of ImageNet-1K at this speed, with one update for each 4,096 images."""
        assert self.cost is not None
        passes = _EPOCHS * _IMAGENET * self.cost.seconds / self.cost.batch
        updates = _EPOCHS * math.ceil(_IMAGENET / _BATCH) * self.cost.update_seconds
        return (passes + updates) / 3600


class StudyResult(NamedTuple):
    """All results of a study."""

    study: Study
    seeds: int
    setting: Sequence[str]
    """Sentences that describe the images and the base."""
    lines: Sequence[Line]
    random: Line | None
    """The base with random weights."""
    majority: float | None
    """The share of the largest class among the test images; None without images, or if a score is no accuracy."""
    measure: str = "accuracy"
    """What the scores are: accuracy, mIoU, box AP or mask AP."""

    def heading(self, score: str) -> str:
        """The heading of a column."""
        measure = "" if self.measure == "accuracy" else f" {self.measure}"
        return f"{NAMES[score]}{measure}, %"

    @property
    def every_line(self) -> list[Line]:
        """The lines, and that of random weights."""
        return [*self.lines, *([self.random] if self.random else [])]


class Pair(NamedTuple):
    """Two variations with different results in the paper, and our results."""

    better: str
    """The better one in the paper."""
    worse: str
    published: float
    """The paper's difference, in points."""
    ours: float
    """Our difference, in points; negative if the order is reversed."""
    verdict: Verdict


def markdown(result: StudyResult) -> str:
    """The results as a Markdown page."""
    study = result.study
    parts = [f"# {study.title}", f"{study.source}.", *result.setting]
    if study.scores:
        parts += ["\n".join(_scores(result)), *_missing(result), *_conclusions(result)]
    if study.timed:
        parts += ["\n".join(_costs(result))]
    return "\n\n".join(parts) + "\n"


def percent(values: Sequence[float]) -> str:
    """Mean of accuracies in per cent, with the standard deviation if there are several; empty without values."""
    if not values:
        return ""
    deviation = f" ± {100 * spread(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{deviation}"


def _scores(result: StudyResult) -> Iterator[str]:
    scores = result.study.scores
    has_train_scores = any(line.train_scores for line in result.lines)
    head = ["variation"]
    for score in scores:
        head.append(result.heading(score))
        if any(score in line.published for line in result.lines):
            has_epochs = any(score in line.published_epochs for line in result.lines)
            head.append("paper (epochs)" if has_epochs else "paper")
    if has_train_scores:
        head.append("on training images, %")
    yield _row(head)
    yield "|---|" + "---:|" * (len(head) - 1)
    for line in result.every_line:
        cells = [f"**{line.name}**" if line.name == result.study.base else line.name]
        for score in scores:
            cells.append(percent(line.scores.get(score, [])))
            if any(score in other.published for other in result.lines):
                cells.append(_published(line, score))
        if has_train_scores:
            cells.append(percent(line.train_scores))
        yield _row(cells)
    if result.majority is not None:
        shares = {result.heading(score): percent([result.majority]) for score in scores}
        yield _row(["largest class", *(shares.get(name, "") for name in head[1:])])


def _published(line: Line, score: str) -> str:
    """The paper's value, with its epochs if they are not those of every line."""
    if score not in line.published:
        return ""
    epochs = f" ({line.published_epochs[score]})" if score in line.published_epochs else ""
    return f"{line.published[score]:.1f}{epochs}"


def _missing(result: StudyResult) -> Iterator[str]:
    """A sentence on variations with fewer results than seeds and without a failure."""
    counts = {
        line.name: min((len(values) for values in line.scores.values() if values), default=0)
        for line in result.every_line
        if not line.failures
    }
    missing = [f"{name} {count}" for name, count in counts.items() if count < result.seeds]
    if missing:
        yield f"Not all runs have ended; of {result.seeds} seeds: {', '.join(missing)}."


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _conclusions(result: StudyResult) -> Iterator[str]:
    """Sentences with the conclusions that the results support."""
    by_name = {line.name: line for line in result.lines}
    base = by_name[result.study.base]
    for score in result.study.scores:
        ours = [line for line in result.lines if line.scores.get(score)]
        random = result.random.scores.get(score, []) if result.random else []
        gain = _gain(base.scores.get(score, []), random)
        yield f"**{NAMES[score][0].upper() + NAMES[score][1:]}.** {gain}"
        yield from _pairs(ours, score)
        if result.seeds > 1 and len(ours) > 1:
            yield _best({line.name: line.scores[score] for line in ours})
    for line in result.lines:
        for failure in line.failures:
            yield f"{line.name} failed: {failure}"
        for reason in line.collapses:
            yield f"{line.name} collapsed: {reason}"


def _pairs(lines: Sequence[Line], score: str) -> Iterator[str]:
    """Which pairs of the paper have the same order here, and how many are not comparable."""
    scores = {line.name: line.scores[score] for line in lines}
    published = {line.name: line.published[score] for line in lines if score in line.published}
    epochs = {
        line.name: line.published_epochs[score] for line in lines if score in line.published_epochs
    }
    pairs = compared(scores, published, epochs)
    if pairs:
        yield _order(pairs)
    left_out = len(compared(scores, published, {})) - len(pairs)
    if left_out:
        noun = "pair is" if left_out == 1 else "pairs are"
        yield f"{left_out} {noun} not compared, because the paper's values come from different numbers of epochs."


def _gain(base: Sequence[float], random: Sequence[float]) -> str:
    if not base or not random:
        return "The base was not scored."
    gain = f"The base gains {100 * (mean(base) - mean(random)):.1f} points over its random initialisation"
    match informative(base, random):
        case None:
            return f"{gain}; one seed does not allow a conclusion."
        case True:
            return f"{gain}, more than three standard errors."
        case False:
            return f"{gain}, less than three standard errors: these results are not informative."


def _best(scores: Mapping[str, Sequence[float]]) -> str:
    """The best variation, and those that do not differ significantly from it."""
    best = max(scores, key=lambda name: mean(scores[name]))
    same = [name for name in scores if name != best and not differ(scores[best], scores[name])]
    others = f"no significant difference to {', '.join(same)}" if same else "better than all others"
    return f"Best here: {best}; {others}."


def _order(pairs: Sequence[Pair]) -> str:
    """How many pairs have the same order as in the paper, and which do not."""
    if pairs[0].verdict == "one seed":
        same = sum(pair.ours > 0 for pair in pairs)
        return (
            f"Pairs with different results in the paper: {len(pairs)}; {same} have the same order here (one seed, so this "
            "is not a conclusion)."
        )
    by = {v: [p for p in pairs if p.verdict == v] for v in ("agree", "disagree", "within noise")}
    words = (
        f"Pairs with different results in the paper: {len(pairs)}; here {len(by['agree'])} agree, "
        f"{len(by['disagree'])} disagree, {len(by['within noise'])} within noise (Welch's test of each pair at 5 %)."
    )
    for verdict in ("agree", "disagree"):
        if by[verdict]:
            listed = "; ".join(
                f"{p.better} above {p.worse} ({p.published:+.1f} in the paper, {p.ours:+.1f} here)"
                for p in by[verdict]
            )
            words += f" {verdict.capitalize()}: {listed}."
    return words


def _costs(result: StudyResult) -> Iterator[str]:
    """A table of the costs of steps, relative to the variation that each is compared with."""
    lines = [line for line in result.lines if line.cost is not None]
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
        f"Forward and backward passes of {batch} random images, the median over rounds in which each has one turn; x is "
        "relative to the variation that it is compared with. FLOPs of matrix products by torch's counter. MiB are kept by "
        "a forward pass."
        + (" Hours on this machine, with one update for each 4,096 images." if hours else "")
    )
    tokenizers = [line for line in lines if line.tokenizer_flops]
    if tokenizers:
        shares = ", ".join(
            f"{line.tokenizer_flops / 1e15:.3g} of {line.name}" for line in tokenizers
        )
        yield ""
        yield f"PFLOP in all include the training of a tokenizer: {shares}."


def _figures(value: float) -> str:
    """A number with three significant digits and without an exponent."""
    return f"{float(f'{value:.3g}'):,.10g}"


def csv_text(result: StudyResult) -> str:
    """A row for every variation, protocol and seed, and for every cost and published number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variation", "measure", "draw", "value"])
    for line in result.every_line:
        rows: list[tuple[str, Any, float]] = []
        for score, values in line.scores.items():
            rows += [(score, draw, value) for draw, value in enumerate(values)]
        rows += [("finetune, training images", d, v) for d, v in enumerate(line.train_scores)]
        rows += [(f"paper: {name}", "", value) for name, value in line.published.items()]
        rows += [(f"paper, epochs: {name}", "", n) for name, n in line.published_epochs.items()]
        if line.cost is not None:
            rows += [(f"cost: {name}", "", value) for name, value in line.cost._asdict().items()]
            if line.tokenizer_flops:
                rows.append(("cost: flops of the tokenizer's training", "", line.tokenizer_flops))
        writer.writerows([line.name, *row] for row in rows)
    if result.majority is not None:
        writer.writerow(["largest class", "share", "", result.majority])
    return text.getvalue()


def spread(values: Sequence[float]) -> float:
    """Standard deviation; 0 for one value."""
    return stdev(values) if len(values) > 1 else 0.0


def differ(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two means differ by Welch's test at 5 %, without correction for several pairs; False with one value each."""
    if min(len(one), len(other)) < 2:
        return False
    if spread(one) == spread(other) == 0.0:
        return mean(one) != mean(other)
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one of the two may have equal values
        test: Any = stats.ttest_ind(one, other, equal_var=False)
    return bool(test.pvalue < _SIGNIFICANCE)


def compared(
    ours: Mapping[str, Sequence[float]], published: Mapping[str, float], epochs: Mapping[str, int]
) -> list[Pair]:
    """All pairs with different results in the paper after equally many epochs.

    Our results are shares, the paper's are per cent. Two results without `epochs` were trained alike.
    """
    pairs: list[Pair] = []
    both = [name for name in ours if name in published]
    for one, other in combinations(both, 2):
        if published[one] == published[other] or epochs.get(one) != epochs.get(other):
            continue
        better, worse = (one, other) if published[one] > published[other] else (other, one)
        difference = 100 * (mean(ours[better]) - mean(ours[worse]))
        pairs.append(
            Pair(
                better=better,
                worse=worse,
                published=published[better] - published[worse],
                ours=difference,
                verdict=_verdict(ours[better], ours[worse], difference),
            )
        )
    return pairs


def _verdict(better: Sequence[float], worse: Sequence[float], difference: float) -> Verdict:
    if min(len(better), len(worse)) < 2:
        return "one seed"
    if not differ(better, worse):
        return "within noise"
    return "agree" if difference > 0 else "disagree"


def informative(base: Sequence[float], random: Sequence[float]) -> bool | None:
    """Whether a base is better than its random initialisation by three standard errors; None with one seed."""
    if min(len(base), len(random)) < 2:
        return None
    error = math.sqrt(spread(base) ** 2 / len(base) + spread(random) ** 2 / len(random))
    return mean(base) - mean(random) > _STANDARD_ERRORS * error
