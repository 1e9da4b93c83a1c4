"""Multi-label classification: loss, average precision, thresholds and F1 against literal loops."""

import itertools
from dataclasses import replace

import pytest
import torch
from reference import problems
from torch import Tensor

from unmask.annotations import ClassLabels, ClassMaps, MultiLabels, ObjectLabels, Unlabelled
from unmask.errors import SettingsError
from unmask.tasks import Classify, Detect, MultiLabel, Segment, task_for
from unmask.tasks.classify import Counting
from unmask.tasks.multilabel import MeanAveragePrecision, Ranking

NAMES = ("wheat", "maize", "grass")


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Outputs of three classes, some of them equal, and which classes each image belongs to."""
    random = problems.random(seed)
    outputs = torch.randn(count, 3, generator=random).mul(4).round() / 4  # ties occur
    truth = (torch.rand(count, 3, generator=random) < torch.tensor([0.5, 0.2, 0.05])).float()
    return outputs, truth


def scored(outputs: Tensor, truth: Tensor, thresholds: tuple[float, ...]) -> MeanAveragePrecision:
    ranking = Ranking(NAMES, thresholds)
    ranking.add(outputs, truth)
    return ranking.result()


def average_precision(scores: list[float], truth: list[bool]) -> float:
    """Sum over falling thresholds of precision times the rise of recall (scikit-learn's definition)."""
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [t for s, t in zip(scores, truth, strict=True) if s >= threshold]
        recall = sum(chosen) / sum(truth)
        area += sum(chosen) / len(chosen) * (recall - recall_before)
        recall_before = recall
    return area


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_and_f1_equal_loops(seed: int) -> None:
    outputs, truth = drawn(80, seed)
    limits = (0.3, 0.5, 0.6)
    score = scored(outputs, truth, limits)
    areas = []
    for column, one in enumerate(score.classes):
        scores, known = outputs[:, column].tolist(), (truth[:, column] > 0).tolist()
        areas.append(average_precision(scores, known))
        assert one.average_precision == pytest.approx(areas[-1])
        said = [p >= limits[column] for p in outputs[:, column].sigmoid().tolist()]
        hits = sum(s and k for s, k in zip(said, known, strict=True))
        assert one.images == sum(known)
        assert one.precision == pytest.approx(hits / max(1, sum(said)))
        assert one.recall == pytest.approx(hits / sum(known))
        assert one.f1 == pytest.approx(2 * hits / (sum(said) + sum(known)))
    assert score.value == score.mean_average_precision == pytest.approx(sum(areas) / 3)
    assert score.chance == pytest.approx(truth.mean().item())
    assert score.line().startswith("mAP ")


def test_a_class_without_images_does_not_count() -> None:
    outputs, truth = drawn(40, 0)
    truth[:, 2] = 0
    score = scored(outputs, truth, (0.5,) * 3)
    assert score.classes[2].average_precision is None
    known = [one.average_precision for one in score.classes[:2]]
    assert score.value == pytest.approx(sum(value for value in known if value) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_parts_of_several_processes_make_one_score(seed: int) -> None:
    """Average precision is no sum: the parts are ranked together."""
    outputs, truth = drawn(60, seed)
    whole, parts = Ranking(NAMES), [Ranking(NAMES) for _ in range(2)]
    whole.add(outputs, truth)
    for rank, part in enumerate(parts):
        part.add(outputs[rank::2], truth[rank::2])
    ours, theirs = parts[0].merged(parts).result(), whole.result()
    assert ours.value == pytest.approx(theirs.value, abs=1e-12)
    assert ours.f1_of_all == pytest.approx(theirs.f1_of_all, abs=1e-12)


def test_thresholds_maximise_f1() -> None:
    """No other threshold between two neighbouring probabilities does better."""
    outputs, truth = drawn(50, 4)
    limits = MultiLabel().thresholds(outputs, truth)
    for column, limit in enumerate(limits):
        shares, known = outputs[:, column].sigmoid().double(), truth[:, column] > 0

        def f1(threshold: float, shares: Tensor = shares, known: Tensor = known) -> float:
            said = shares >= threshold
            return 2 * int((said & known).sum()) / max(1, int(said.sum() + known.sum()))

        ordered = shares.unique().tolist()
        between = [(a + b) / 2 for a, b in itertools.pairwise([0.0, *ordered])]
        assert f1(limit) == max(map(f1, between))


def test_a_class_that_no_held_out_image_has_keeps_an_even_threshold() -> None:
    outputs, truth = drawn(20, 0)
    truth[:, 1], truth[:, 2] = 0, 1
    assert MultiLabel().thresholds(outputs, truth)[1:] == (0.5, 0.5)


def test_predictions_are_those_above_their_threshold() -> None:
    outputs = torch.tensor([[2.0, -1.0, 0.5], [-3.0, -3.0, -3.0]])
    first, second = MultiLabel().predictions(outputs, (0.5, 0.2, 0.9))
    assert first.classes == [0, 2, 1]
    assert first.probabilities == pytest.approx(outputs[0, [0, 2, 1]].sigmoid().tolist())
    assert first.chosen == [0, 1]
    assert second.chosen == []


def test_loss_equals_a_loop_and_trains() -> None:
    torch.manual_seed(0)
    model = MultiLabel().build(problems.build_encoder(), MultiLabels(names=NAMES))
    batch = problems.batch_of(problems.pictures(problems.Problem(), count=4))
    truth = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
    batch = batch._replace(annotations=truth)
    loss = model(batch, problems.random(0)).total
    terms = []
    for row, known in zip(model.predict(batch.images).tolist(), truth.tolist(), strict=True):
        for x, t in zip(row, known, strict=True):
            p = 1 / (1 + torch.tensor(-x, dtype=torch.double).exp().item())
            terms.append(-torch.tensor(p if t else 1 - p, dtype=torch.double).log().item())
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    loss.backward()
    assert model.head.linear.weight.grad.abs().sum() > 0


def test_a_task_follows_from_the_annotations() -> None:
    task = Classify(trained_blocks="1", label_smoothing=0.1, drop_path=0.2)
    assert task_for(task, ClassLabels(names=NAMES)) == task
    assert task_for(task, Unlabelled()) == task
    several = task_for(task, MultiLabels(names=NAMES))
    assert several == MultiLabel(trained_blocks="1", drop_path=0.2)
    assert task_for(task, ClassMaps(names=NAMES)) == Segment(trained_blocks="1", drop_path=0.2)
    all_blocks = replace(task, trained_blocks="all")
    assert task_for(all_blocks, ObjectLabels(names=NAMES)) == Detect(drop_path=0.2)
    with pytest.raises(SettingsError, match="a detector trains the encoder as a whole or not"):
        task_for(task, ObjectLabels(names=NAMES))


def test_too_many_held_out_images_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"holds_out must lie between 0 and 0.5, got 0.9"):
        MultiLabel(holds_out=0.9)


def test_accuracy_counts_classes_apart() -> None:
    """Balanced accuracy is the mean of recalls; a class without images does not count."""
    counting = Counting((*NAMES, "none"))
    outputs = torch.eye(4)[torch.tensor([0, 0, 1, 1, 2])]
    counting.add(outputs, torch.tensor([0, 0, 0, 1, 2]))
    score = counting.result()
    assert score.top1 == pytest.approx(4 / 5)
    assert score.balanced == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert score.majority == pytest.approx(3 / 5)
    assert [one.recall for one in score.classes] == pytest.approx([2 / 3, 1, 1, 0])
    assert [one.precision for one in score.classes] == pytest.approx([1, 1 / 2, 1, 0])
    merged = counting.merged([counting, counting]).result()
    assert (merged.images, merged.top1) == (10, score.top1)
