"""All orderings of the paper's ablations on one page: its numbers, ours, and what a paired test says.

    python studies/orderings.py

Reads the CSV files of `unmask study` in this folder and writes README.md between its marks. Seeds are shared between the
variations of a study, so differences are paired by seed: the t-test is that of the differences (5 %, two-sided). `needs` is the
number of seeds at which such a test would see the paper's difference in four of five cases, given the deviation of the
differences that was measured (of all studies together where there is one seed), and the hours of one core for the runs still
missing; nothing is said beyond 200 seeds.
"""

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from unmask.files import write_text
from unmask.study.ablations import STUDIES

HERE = Path(__file__).parent
BEGIN, END = "<!-- orderings -->", "<!-- end of orderings -->"
MEASURES = {"finetune": "fine-tuned", "linear": "linear", "knn": "k-NN"}
SIGNIFICANCE, MOST_SEEDS = 0.05, 200
MINUTES = 4.0  # of a run at scale tiny, as its pages say

Scores = Mapping[tuple[str, str], Mapping[str, float]]
"""By variation and measure the score of each seed, in per cent."""


class Ordering(NamedTuple):
    """A claim of the paper: one variation is better than another."""

    claim: str
    study: str
    file: str
    better: str
    worse: str


ORDERINGS = [
    Ordering("deep decoders, not one block", "decoder-depth", "decoder-depth", "8", "1"),
    Ordering("a decoder of half the width, not an eighth", "decoder-width", "decoder-width", "1/2", "1/8"),
    Ordering("no mask tokens in the encoder", "mask-token", "mask-token", "without", "with"),
    Ordering("normalised pixels, not plain ones", "target", "target", "normalised pixels", "pixels"),
    Ordering("pixels, not PCA", "target", "target", "pixels", "PCA"),
    Ordering("codes, not pixels (linear: the reverse)", "target", "target-tokenizer", "tokenizer's codes", "pixels"),
    Ordering("random crops, not none", "augmentation", "augmentation", "random crop", "none"),
    Ordering("no colour jitter", "augmentation", "augmentation", "random crop", "and colour jitter"),
    Ordering("random masks, not blocks (75 %)", "mask-sampling", "mask-sampling", "random 75 %", "block 75 %"),
    Ordering("random masks, not a grid", "mask-sampling", "mask-sampling", "random 75 %", "grid 75 %"),
    Ordering("75 % hidden, not 30 %", "mask-ratio", "mask-ratio", "75 %", "30 %"),
    Ordering("longer training", "schedule", "schedule", "1", "1/8"),
    Ordering("more tuned blocks", "partial", "partial", "all", "1"),
]  # fmt: skip


def scores_of(file: Path) -> Scores:
    """The scores in a CSV file of `unmask study`."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    with file.open(newline="", encoding="utf-8") as text:
        for row in csv.DictReader(text):
            if row["measure"] in MEASURES:
                key = row["variation"], row["measure"]
                found.setdefault(key, {})[row["draw"]] = 100 * float(row["value"])
    return found


def differences(scores: Scores, ordering: Ordering, measure: str) -> list[float]:
    """The better variation minus the worse, for each seed that both have."""
    better, worse = (scores.get((name, measure), {}) for name in (ordering.better, ordering.worse))
    return [better[seed] - worse[seed] for seed in sorted(better.keys() & worse.keys())]


def paired(values: list[float], sign: float) -> str:
    """The verdict of a paired t-test on the differences; `sign` is that of the paper's."""
    from scipy.stats import ttest_1samp

    if len(values) < 2:
        return "one seed"
    test: Any = ttest_1samp(values, 0)
    if float(test.pvalue) >= SIGNIFICANCE:
        return "within noise"
    return "agree" if mean(values) * sign > 0 else "disagree"


def seeds_needed(difference: float, deviation: float) -> int | None:
    """The least number of seeds whose paired t-test finds a difference in four of five cases; None beyond `MOST_SEEDS`."""
    from scipy.stats import nct, t

    for count in range(2, MOST_SEEDS + 1):
        limit = t.ppf(1 - SIGNIFICANCE / 2, count - 1)
        power = 1 - nct.cdf(limit, count - 1, abs(difference) / deviation * math.sqrt(count))
        if power >= 0.8:
            return count
    return None


def published(ordering: Ordering, measure: str) -> float | None:
    """The paper's difference in points; None where it gives none."""
    columns = {each.name: each.published for each in STUDIES[ordering.study].variations}
    better, worse = (columns[name].get(measure) for name in (ordering.better, ordering.worse))
    return None if better is None or worse is None else better - worse


def pooled_deviation(every: Mapping[str, Scores], measure: str) -> float:
    """The deviation of paired differences over all orderings with several seeds, as the root of the mean variance."""
    variances = [
        stdev(values) ** 2
        for each in ORDERINGS
        if len(values := differences(every[each.file], each, measure)) > 1
    ]
    return math.sqrt(mean(variances))


def cells(every: Mapping[str, Scores], ordering: Ordering) -> Iterator[str]:
    """The cells of a row."""
    scores = every[ordering.file]
    yield f"[{ordering.claim}]({ordering.file}.md)"
    needs: list[str] = []
    for measure, name in MEASURES.items():
        paper, values = published(ordering, measure), differences(scores, ordering, measure)
        if measure != "knn":
            yield "" if paper is None else f"{paper:+.1f}"
        if not values:
            yield ""
            continue
        own = f"{mean(values):+.1f}"
        if len(values) > 1:
            own += f" ± {stdev(values) / math.sqrt(len(values)):.1f}"
        direction = paper if paper is not None else published(ordering, "linear") or 1.0
        verdict = paired(values, direction)
        yield f"{own}, {verdict}"
        if verdict in ("one seed", "within noise") and paper:
            deviation = stdev(values) if len(values) > 1 else pooled_deviation(every, measure)
            count = seeds_needed(paper, max(deviation, 0.05))
            if count is None:
                needs.append(f"{name}: over {MOST_SEEDS} seeds")
            elif count > len(values):
                hours = 2 * (count - len(values)) * MINUTES / 60
                needs.append(f"{name}: {count} seeds, {hours:.1f} h")
    yield "; ".join(needs)


def table() -> str:
    """The page's table."""
    every = {each.file: scores_of(HERE / f"{each.file}.csv") for each in ORDERINGS}
    lines = [
        "| the paper's claim | paper, fine-tuned | ours | paper, linear | ours | k-NN, ours | to see the paper's difference |",
        "|---|---:|---|---:|---|---|---|",
    ]
    lines += [f"| {' | '.join(cells(every, each))} |" for each in ORDERINGS]
    return "\n".join(lines)


def main() -> None:
    """Write the table into the page."""
    page = HERE / "README.md"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    write_text(page, f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}")
    print(f"written: {page}")


if __name__ == "__main__":
    main()
