"""Frozen protocols on class maps, against loops over patches and pixels."""

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from reference.problems import random
from reference.sources import Annotated
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as V

from unmask.annotations import ClassMaps
from unmask.contracts import Size
from unmask.data.draws import held_out_rows
from unmask.data.statistics import IMAGENET
from unmask.encoders import ViT
from unmask.errors import DataError, ResourceError
from unmask.evaluation import dense, patch_classes, patches
from unmask.evaluation.dense import dense_rows, scored
from unmask.evaluation.dense_protocols import (
    CAPI_KNN,
    CAPI_LOGISTIC,
    DENSE_PROTOCOLS,
    KNN,
    LINEAR,
    DenseProtocol,
)
from unmask.evaluation.patch_classes import (
    Logistic,
    commonest,
    nearest,
    pixel_votes,
    weighted_votes,
)
from unmask.evaluation.patches import (
    Patches,
    colours_of_patches,
    pixels_of_patches,
    read_patches,
)
from unmask.formats.model import FORMAT, ModelSpec
from unmask.spec import from_json, to_json

NAMES = ("red", "green", "blue")
KIND = ClassMaps(names=NAMES, ignored=255)
SIDE = 4
SIZE = Size(8, 12)
CPU = torch.device("cpu")
SPEC = ModelSpec(
    format=FORMAT,
    encoder=ViT(patch_size=SIDE, embed_dim=8, depth=2, num_heads=2),
    objective=None,
    image_size=SIZE,
    channels=3,
    statistics=IMAGENET,
    origin="test",
)


def coloured(count: int, seed: int) -> Annotated:
    """Pictures of 16 x 24 pixels whose class maps follow their colours, in cells of 8 x 8; a few cells are ignored."""
    generator = random(seed)
    images, maps = [], []
    for _ in range(count):
        cells = torch.randint(3, (2, 3), generator=generator)
        classes = cells.repeat_interleave(8, 0).repeat_interleave(8, 1)
        noise = torch.randint(0, 60, (3, 16, 24), generator=generator)
        images.append((F.one_hot(classes, 3).permute(2, 0, 1) * 180 + noise).to(torch.uint8))
        hidden = torch.rand(2, 3, generator=generator) < 0.1
        hidden = hidden.repeat_interleave(8, 0).repeat_interleave(8, 1)
        maps.append(classes.masked_fill(hidden, 255))
    return Annotated(images, KIND, maps)


def read(source: Annotated, ignored: tuple[int, ...] = (255,)) -> Patches:
    vectors = pixels_of_patches(SIDE, IMAGENET)
    return read_patches(source, SIZE, SIDE, IMAGENET, vectors, ignored=ignored, device=CPU)


def drawn(images: int, seed: int) -> Patches:
    """Vectors that hardly tell the classes of pixels."""
    generator = random(seed)
    vectors = torch.randn(images, 6, 5, generator=generator)
    classes = torch.randint(-1, 3, (images, 6, 16), generator=generator).short()
    return Patches(vectors, classes, Size(2, 3), [])


@pytest.mark.parametrize("name", DENSE_PROTOCOLS)
def test_patches_of_one_class_answer_with_it_everywhere(name: str) -> None:
    """Of all training pictures, and of those that settings are chosen with."""
    train, test = drawn(20, 0), drawn(3, 1)
    only = train._replace(classes=torch.full_like(train.classes, 2))
    (score, _), _ = scored(DENSE_PROTOCOLS[name], only, test, KIND, 0)
    share = (test.classes == 2).sum() / (test.classes >= 0).sum()
    assert score.pixel_accuracy == pytest.approx(float(share))
    held = torch.from_numpy(held_out_rows(np.arange(20), DENSE_PROTOCOLS[name].held_out, 0))
    few = only._replace(classes=torch.where(held[:, None, None], train.classes, only.classes))
    (score, _), _ = scored(DENSE_PROTOCOLS[name], few, test, KIND, 0)
    assert 0 < score.pixel_accuracy < 1


@pytest.mark.parametrize("name", DENSE_PROTOCOLS)
def test_labels_too_sparse_for_any_patch_are_refused(name: str) -> None:
    train, test = drawn(20, 0), drawn(3, 1)
    classes = torch.full_like(train.classes, -1)
    classes[..., :8] = 1
    sparse = train._replace(classes=classes)
    words = r"none of the \d+ patches of the training pictures has a class, .* label larger areas"
    with pytest.raises(DataError, match=words):
        scored(DENSE_PROTOCOLS[name], sparse, test, KIND, 0)


def test_held_out_pictures_without_labels_choose_nothing() -> None:
    train, test = drawn(20, 0), drawn(3, 1)
    held = held_out_rows(np.arange(20), LINEAR.held_out, 0)
    train.classes[torch.from_numpy(held)] = -1
    for protocol in DENSE_PROTOCOLS.values():
        (score, _), _ = scored(protocol, train, test, KIND, 0)
        assert 0 < score.pixel_accuracy < 1


def test_patches_are_those_of_squashed_pictures() -> None:
    source = coloured(3, 0)
    found = read(source, (0, 255))
    assert found.grid == Size(2, 3)
    for number in range(3):
        image, truth = source[number]
        image = V.resize(image, list(SIZE), V.InterpolationMode.BICUBIC, antialias=True)
        truth = V.resize(truth[None], list(SIZE), V.InterpolationMode.NEAREST_EXACT)[0]
        for row, column in itertools.product(range(2), range(3)):
            place = 3 * row + column
            cut = (slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
            expected = truth[cut].flatten()
            expected = expected.masked_fill((expected == 0) | (expected == 255), -1)
            assert torch.equal(found.classes[number, place].long(), expected)
            pixels = image[:, cut[0], cut[1]].permute(1, 2, 0) / 255
            pixels = (pixels - torch.tensor(IMAGENET.mean)) / torch.tensor(IMAGENET.std)
            torch.testing.assert_close(
                found.vectors[number, place], pixels.flatten(), atol=1e-5, rtol=1e-5
            )


def test_colours_are_means_of_patches() -> None:
    images = torch.randint(256, (2, 3, 8, 12), generator=random(0), dtype=torch.uint8)
    found = colours_of_patches(SIDE, IMAGENET)(images)
    cut = images[1, :, 4:8, 8:12].double() / 255
    mean, std = (torch.tensor(part, dtype=torch.double) for part in (IMAGENET.mean, IMAGENET.std))
    truth = ((cut.mean((1, 2)) - mean) / std).float()
    torch.testing.assert_close(found[1, 5], truth, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("most", [1, 7, 2**25])
@pytest.mark.parametrize("distance", ["cosine", "L2"])
def test_nearest_equals_a_full_sort(
    distance: Any, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch_classes, "_MOST_SIMILARITIES", most)
    train, test = torch.randn(20, 5, generator=random(0)), torch.randn(9, 5, generator=random(1))
    _, found = nearest(train, test, 6, distance)
    for row, query in zip(found, test, strict=True):
        if distance == "L2":
            order = (train - query).norm(dim=1).argsort()
        else:
            order = F.cosine_similarity(train, query[None]).argsort(descending=True)
        assert torch.equal(row, order[:6])
    assert nearest(train, test, 50, distance)[1].shape == (9, 20)


@pytest.mark.parametrize("most", [1, 2**25])
def test_votes_at_each_pixel_equal_loops(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_classes, "_MOST_VOTES", most)
    labels = torch.randint(-1, 3, (12, 6), generator=random(2)).short()
    neighbors = torch.randint(12, (5, 7), generator=random(3))
    found = pixel_votes(neighbors, labels, 3)
    for query, pixel in itertools.product(range(5), range(6)):
        votes = Counter(int(labels[n, pixel]) for n in neighbors[query] if labels[n, pixel] >= 0)
        most_votes = max(votes.values())
        assert int(found[query, pixel]) == min(c for c, n in votes.items() if n == most_votes)
    assert pixel_votes(neighbors[:1], torch.full((12, 6), -1), 3).tolist() == [[0] * 6]


def test_weighted_votes_equal_loops() -> None:
    similarities, neighbors = torch.tensor([[0.9, 0.5, 0.4]]), torch.tensor([[3, 0, 1]])
    labels = torch.tensor([2, 2, 0, 1])
    (found,) = weighted_votes(similarities, neighbors, labels, 3, 0.1)
    weights = np.exp(np.array([9.0, 5.0, 4.0]))
    truth = np.array([0.0, weights[0], weights[1] + weights[2]]) / weights.sum()
    assert found.tolist() == pytest.approx(truth.tolist(), rel=1e-5)


def test_commonest_class_of_a_patch() -> None:
    labels = torch.tensor([[0, 1, 1, 2], [-1, -1, 2, 2], [2, 2, 0, 0], [-1, 2, 2, 2]])
    assert commonest(labels.short(), 3).tolist() == [1, -1, 0, 2]


def test_logistic_regression_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    train, labels = torch.randn(60, 4, generator=random(0)), torch.arange(60) % 2 * 2
    test = torch.randn(9, 4, generator=random(1))
    found = Logistic(train, labels, 0.3, 500).probabilities(test, 4)
    model = LogisticRegression(C=0.3, max_iter=500).fit(train.numpy(), labels.numpy())
    truth = torch.from_numpy(model.predict_proba(test.numpy())).float()
    torch.testing.assert_close(found[:, [0, 2]], truth, atol=1e-5, rtol=1e-4)
    assert not found[:, [1, 3]].any()


def capi_by_loops(
    train: Patches, test: Patches, neighbors: int, distance: str
) -> dict[int, tuple[int, int]]:
    """Hits and union of each class: k-NN on standardised patches, voting pixel by pixel."""
    rows, pixels = train.vectors.flatten(0, 1).double(), train.classes.flatten(0, 1)
    mean, std = rows.mean(0), rows.std(0, correction=0)
    ours, theirs = (rows - mean) / std, (test.vectors.flatten(0, 1).double() - mean) / std
    usual = [Counter(p.tolist()) for p in pixels]
    usable = [i for i, c in enumerate(usual) if c[-1] < max(n for k, n in c.items() if k >= 0)]
    counts = {number: [0, 0] for number in range(3)}
    for query, truth in zip(theirs, test.classes.flatten(0, 1), strict=True):
        if distance == "L2":
            far = [float((ours[i] - query).norm()) for i in usable]
        else:
            far = [-float(F.cosine_similarity(ours[i], query, dim=0)) for i in usable]
        near = [usable[i] for i in np.argsort(far, kind="stable")[:neighbors]]
        for place, actual in enumerate(truth.tolist()):
            votes = Counter(int(pixels[i, place]) for i in near if pixels[i, place] >= 0)
            best = max(votes.values(), default=0)
            said = min((c for c, n in votes.items() if n == best), default=0)
            for number in range(3):
                if actual >= 0:
                    counts[number][0] += actual == said == number
                    counts[number][1] += number in (actual, said)
    return {number: (hits, union) for number, (hits, union) in counts.items()}


@pytest.mark.parametrize(("neighbors", "distance"), [(1, "cosine"), (3, "L2"), (10, "cosine")])
def test_capi_knn_equals_loops(neighbors: int, distance: Any) -> None:
    protocol = replace(CAPI_KNN, neighbors=(neighbors,), distances=(distance,))
    train, test = drawn(8, 0), drawn(3, 1)
    (score, counts), _ = scored(protocol, train, test, KIND, 0)
    expected = capi_by_loops(train, test, neighbors, distance)
    for one, (hits, union) in zip(score.classes, expected.values(), strict=True):
        assert one.iou == pytest.approx(hits / union)
    assert len(counts) == 3
    for picture in range(3):
        alone = capi_by_loops(train, test.rows(torch.tensor([picture])), neighbors, distance)
        right, true, predicted = counts[picture].tolist()
        for number, (hits, union) in alone.items():
            assert (right[number], true[number] + predicted[number] - hits) == (hits, union)


def test_settings_are_chosen_on_held_out_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """All candidates on the same held-out pictures, with nothing of the test pictures; then all pictures are used."""
    seen: list[tuple[int, int, list[Any]]] = []
    scores = dense._scores

    def noted(protocol: Any, candidates: Any, train: Any, test: Any, *others: Any) -> Any:
        seen.append((len(train.vectors), len(test.vectors), candidates))
        return scores(protocol, candidates, train, test, *others)

    monkeypatch.setattr(dense, "_scores", noted)
    _, chosen = scored(CAPI_KNN, drawn(20, 0), drawn(7, 1), KIND, 0)
    (fit, held, candidates), (train, test, last) = seen
    assert (fit, held, train, test) == (18, 2, 20, 7)
    assert len(candidates) == 8
    assert last == [chosen]
    assert chosen in candidates


@pytest.mark.parametrize("name", DENSE_PROTOCOLS)
def test_colours_tell_the_classes_of_coloured_pictures(name: str) -> None:
    """Cells and patches lie on one another, so every protocol solves it; the encoder is not needed."""
    protocol = replace(DENSE_PROTOCOLS[name], image_size=SIZE)
    encoder = SPEC.build_encoder().eval()
    rows = list(dense_rows(protocol, encoder, SPEC, coloured(20, 0), coloured(6, 1)))
    arms = [(row.arm, row.feature) for row in rows]
    assert arms == [
        ("pretrained", "patches"),
        ("random initialisation", "patches"),
        ("raw pixels", "pixels"),
        ("raw pixels", "colours"),
    ]
    assert rows[3].score.images == 6
    assert rows[3].score.mean_iou > (0.99 if protocol.spread != "bilinear" else 0.6)
    assert rows[3].score.mean_iou > rows[3].score.chance
    alone = list(
        dense_rows(protocol, encoder, SPEC, coloured(20, 0), coloured(6, 1), controls="none")
    )
    assert [row[:-2] for row in alone] == [rows[0][:-2]]
    assert torch.equal(alone[0].counts, rows[0].counts)


def test_interpolated_scores_equal_torchs() -> None:
    test = drawn(2, 5)
    scores = torch.randn(12, 3, generator=random(6))
    found = dense._spread(KNN, scores, test)
    for image in range(2):
        maps = scores[6 * image : 6 * image + 6].mT.reshape(1, 3, 2, 3)
        truth = F.interpolate(maps, (8, 12), mode="bilinear")[0].argmax(0)
        for row, column in itertools.product(range(2), range(3)):
            cut = truth[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            assert torch.equal(found[6 * image + 3 * row + column], cut.flatten())


def test_ignored_pixels_change_nothing() -> None:
    train, test = drawn(8, 0), drawn(3, 1)
    changed = test._replace(vectors=test.vectors.clone())
    changed.classes[:, 0] = -1  # a patch that does not count
    (score, counts), chosen = scored(LINEAR, train, changed, KIND, 0)
    changed.vectors[:, 0] += 9
    (same, equal), still = scored(LINEAR, train, changed, KIND, 0)
    assert (same, still) == (score, chosen)
    assert torch.equal(equal, counts)


def test_few_patches_are_drawn_from_the_seed() -> None:
    rows = torch.arange(100)
    first, again, other = (dense._drawn(rows, 10, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.unique()) == 10
    assert dense._drawn(rows, None, 0) is rows


def test_the_stamp_says_everything_that_decides_the_score() -> None:
    words = CAPI_KNN.words(SPEC, (0, 255), 3)
    assert words == (
        "capi-knn: pictures and maps squashed to 224 x 224 and scored there, one crop, ignored 0, 255; patch tokens of the "
        "last block after the final norm, standardised; knn on all patches, spread by votes; settings chosen on 10% of the "
        "training pictures; seed 3"
    )
    assert "8 x 12" in LINEAR.words(SPEC, (255,), 0)
    assert "at most 50,000 patches" in LINEAR.words(SPEC, (255,), 0)
    assert CAPI_LOGISTIC.strengths[0] == pytest.approx(1e-6)
    assert CAPI_LOGISTIC.strengths[-1] == pytest.approx(1e5)
    assert len(CAPI_LOGISTIC.strengths) == 8


@pytest.mark.parametrize("name", DENSE_PROTOCOLS)
def test_protocols_go_to_json(name: str) -> None:
    protocol = DENSE_PROTOCOLS[name]
    assert from_json(DenseProtocol, to_json(protocol)) == protocol


def test_too_many_patches_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "memory_available", lambda device: 1000)
    with pytest.raises(ResourceError, match=r"the patches of 3 images take .* use fewer images"):
        read(coloured(3, 0))


def test_state_of_the_encoder_stays() -> None:
    encoder = SPEC.build_encoder().eval()
    before: dict[str, Tensor] = {n: t.clone() for n, t in encoder.state_dict().items()}
    list(dense_rows(KNN, encoder, SPEC, coloured(12, 0), coloured(2, 1), controls="none"))
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
