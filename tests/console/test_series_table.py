"""The table of a series: means and deviations, and sentences that agree with Welch's test."""

from statistics import mean, stdev

import pytest
from scipy.stats import ttest_ind

from unmask.console.series_table import Figures, Member, say_table

GOOD, NOISY, POOR = (0.71, 0.72, 0.70), (0.60, 0.80, 0.40), (0.50, 0.51, 0.49)


def said(
    capsys: pytest.CaptureFixture[str], pretrained: tuple[float, ...], scratch: tuple[float, ...]
) -> str:
    """What is printed for these scores of one amount of labels."""
    scores: dict[Member, Figures] = {}
    for arm, values in (("pretrained", pretrained), ("from scratch", scratch)):
        for seed, value in enumerate(values):
            scores[Member("10%", seed, arm)] = {"mIoU": value}
    say_table(scores, {"10%": 12})
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("pretrained", "scratch", "words"),
    [
        (GOOD, POOR, "a gain beyond the noise of the seeds"),
        (POOR, GOOD, "worse beyond the noise of the seeds"),
        (NOISY, POOR, "within the noise of the seeds"),
    ],
)
def test_the_verdict_is_that_of_welchs_test(
    capsys: pytest.CaptureFixture[str],
    pretrained: tuple[float, ...],
    scratch: tuple[float, ...],
    words: str,
) -> None:
    text = said(capsys, pretrained, scratch)
    significant = ttest_ind(pretrained, scratch, equal_var=False).pvalue < 0.05
    assert significant == ("beyond" in words)
    gain = 100 * (mean(pretrained) - mean(scratch))
    assert f"verdict labels 10%: {gain:+.1f} points of mIoU by pretraining" in text
    assert words in text
    for arm, values in (("pretrained", pretrained), ("from scratch", scratch)):
        assert f"10% 12 {arm} {100 * mean(values):.1f} ± {100 * stdev(values):.1f}" in text
    assert "mean ± standard deviation over 3 seeds" in text


def test_one_seed_allows_no_conclusion(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, (0.7,), (0.5,))
    assert "+20.0 points of mIoU by pretraining; one seed does not allow a conclusion" in text
    assert "±" not in text
