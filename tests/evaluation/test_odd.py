"""Odd images: distances, the coreset, the threshold, the measures and the file, against literal versions."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reference.sources import Memory as Images
from scipy.spatial.distance import cdist

from unmask.annotations import ClassLabels, ClassMaps, ObjectLabels, Objects
from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.evaluation.odd import Memory, OddRule, Threshold, remember
from unmask.evaluation.odd_run import Finding, measured
from unmask.evaluation.odd_scores import region_overlap, separation
from unmask.evaluation.odd_truth import Odd, Truth
from unmask.evaluation.patch_index import PatchIndex

GRID = Size(3, 4)
PLAIN: dict[str, Any] = {"around": 1, "positions": False}


def tokens(images: int = 9, width: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(images, 12, width, generator=torch.Generator().manual_seed(seed))


def held_out(rule: OddRule, normal: torch.Tensor, seed: int = 0) -> tuple[Memory, list[int]]:
    """The memory, and the images whose patches it does not hold."""
    memory = remember(normal, GRID, rule, seed)
    rows = [
        number
        for number, image in enumerate(normal)
        if torch.cdist(image, memory.vectors).min() > 1e-3
    ]
    return memory, rows


def test_distances_are_those_to_the_nearest_patch_of_all() -> None:
    normal, new = tokens(), tokens(4, seed=1)
    memory, held = held_out(OddRule(**PLAIN), normal)
    kept = np.delete(normal.numpy(), held, axis=0)
    expected = cdist(new.flatten(0, 1).numpy(), kept.reshape(-1, 5), "euclidean").min(1)
    assert len(held) == 2  # a fifth of nine
    assert len(memory.vectors) == 7 * 12
    assert memory.distances(new).flatten().numpy() == pytest.approx(expected, abs=1e-5)


def test_patches_are_averaged_over_neighbours_that_exist_after_the_mean_of_their_position() -> None:
    normal, new = tokens(), tokens(1, seed=1)
    plain, held = held_out(OddRule(**PLAIN), normal)
    memory = remember(normal, GRID, OddRule(around=3, positions=True), 0)
    kept = torch.from_numpy(np.delete(normal.numpy(), held, axis=0))
    means = kept.mean(0)

    def averaged(images: torch.Tensor) -> np.ndarray:
        found = np.zeros_like(images.numpy())
        for number, image in enumerate((images - means).numpy()):
            for row in range(3):
                for column in range(4):
                    near = [
                        image[r * 4 + c]
                        for r in range(row - 1, row + 2)
                        for c in range(column - 1, column + 2)
                        if 0 <= r < 3 and 0 <= c < 4
                    ]
                    found[number, row * 4 + column] = np.mean(near, 0)
        return found.reshape(-1, 5)

    expected = cdist(averaged(new), averaged(kept), "euclidean").min(1)
    assert memory.distances(new).flatten().numpy() == pytest.approx(expected, abs=1e-5)
    assert not np.allclose(plain.distances(new).flatten().numpy(), expected, atol=1e-3)


def test_one_list_finds_what_the_exact_search_does() -> None:
    pytest.importorskip("faiss")
    exact, indexed = (
        remember(tokens(), GRID, OddRule(index=kind, **PLAIN), 0) for kind in ("exact", "ivf")
    )
    assert indexed.search is not None
    new = tokens(4, seed=1)
    assert indexed.distances(new).numpy() == pytest.approx(exact.distances(new).numpy(), abs=1e-5)
    assert indexed.threshold == pytest.approx(exact.threshold, abs=1e-5)


def test_an_index_is_never_nearer_than_the_exact_search_and_rarely_farther() -> None:
    pytest.importorskip("faiss")
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(50, 16, generator=random)
    memory, new = (
        centres[torch.randint(50, (count,), generator=random)]
        + 0.3 * torch.randn(count, 16, generator=random)
        for count in (5000, 600)
    )
    expected = cdist(new.numpy(), memory.numpy()).min(1)
    ready = PatchIndex.of(memory)
    assert ready.index.nlist == 70
    found = ready.distances(new.view(6, 100, 16)).flatten().numpy()
    assert (found > expected - 1e-4).all()
    assert np.mean(found > expected + 1e-4) < 0.02


def test_an_index_and_aligned_images_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match="leave out one of the two"):
        OddRule(index="ivf", aligned=1)


def test_aligned_images_are_compared_with_nearby_places_only() -> None:
    normal, new = tokens(), tokens(2, seed=1)
    _, held = held_out(OddRule(**PLAIN), normal)
    kept = np.delete(normal.numpy(), held, axis=0)
    memory = remember(normal, GRID, OddRule(aligned=1, **PLAIN), 0)
    for image, found in zip(new.numpy(), memory.distances(new).numpy(), strict=True):
        for place in range(12):
            near = [
                other
                for other in range(12)
                if abs(other // 4 - place // 4) <= 1 and abs(other % 4 - place % 4) <= 1
            ]
            expected = cdist(
                image[place : place + 1], kept[:, near].reshape(-1, 5), "euclidean"
            ).min()
            assert found[place] == pytest.approx(expected, abs=1e-5)


def test_aligned_memories_keep_equally_many_patches_of_each_place() -> None:
    memory = remember(tokens(), GRID, OddRule(aligned=0, memory=30, **PLAIN), 0)
    assert torch.bincount(memory.places).tolist() == [2] * 12


def test_the_coreset_takes_the_farthest_patch_again_and_again() -> None:
    normal = tokens(40)
    _, held = held_out(OddRule(**PLAIN), normal)
    flat = np.delete(normal.numpy(), held, axis=0).reshape(-1, 5)
    chosen = remember(normal, GRID, OddRule(memory=40, **PLAIN), 0).vectors.numpy()
    assert len(chosen) == 40
    covered = cdist(flat, chosen).min(1).max()
    between = cdist(chosen, chosen) + np.eye(40) * 99
    assert between.min() >= covered - 1e-4  # else a farther patch would have been taken instead
    random = np.random.default_rng(0)
    others = [cdist(flat, flat[random.permutation(len(flat))[:40]]).min(1).max() for _ in range(20)]
    assert covered < min(others)


@given(st.integers(1, 60), st.sampled_from([0.05, 0.1, 0.3]))
@settings(max_examples=30, deadline=None)
def test_a_new_normal_image_is_above_the_threshold_as_seldom_as_promised(
    count: int, alarms: float
) -> None:
    # of count + 1 exchangeable scores each is the new one equally often
    scores = torch.arange(count + 1.0)
    above, limit, rest = 0, Threshold(0, 0, 0), scores
    for new in range(count + 1):
        rest = torch.cat([scores[:new], scores[new + 1 :]])
        limit = Threshold.chosen(rest[torch.randperm(count)], alarms)
        above += float(scores[new]) > limit.score
    assert above / (count + 1) <= limit.alarms + 1e-9
    assert limit.alarms <= alarms + 1e-9 or limit.score == float(rest.max())
    assert limit.images == count


def literal_overlap(
    maps: list[Any], truths: list[Any], most: float, ignored: list[Any] | None = None
) -> float:
    """PRO by a threshold at each score, and regions by filling."""
    ignored = ignored or [np.zeros_like(truth) for truth in truths]
    out = [truth | other for truth, other in zip(truths, ignored, strict=True)]
    regions: list[tuple[int, list[tuple[int, int]]]] = []
    for number, truth in enumerate(truths):
        left = {(int(r), int(c)) for r, c in zip(*np.nonzero(truth), strict=True)}
        while left:
            waiting, region = [left.pop()], []
            while waiting:
                row, column = waiting.pop()
                region.append((row, column))
                for near in [(row + a, column + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]:
                    if near in left:
                        left.remove(near)
                        waiting.append(near)
            regions.append((number, region))
    normal = [float(m[~t].size) for m, t in zip(maps, out, strict=True)]
    points = [(0.0, 0.0)]
    for limit in sorted({float(v) for m in maps for v in m.ravel()}, reverse=True):
        false = sum(int((m[~t] >= limit).sum()) for m, t in zip(maps, out, strict=True))
        shares = [np.mean([maps[n][place] >= limit for place in region]) for n, region in regions]
        points.append((false / sum(normal), float(np.mean(shares))))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= most:
            break
        if x1 > most:
            y1 = y0 + (y1 - y0) * (most - x0) / (x1 - x0)
            x1 = most
        area += (x1 - x0) * (y0 + y1) / 2
    return area / most


@pytest.mark.parametrize("seed", range(4))
def test_the_overlap_with_regions_equals_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    truths = [random.random((9, 7)) < share for share in (0.1, 0.3, 0.0)]
    maps = [random.integers(0, 12, (9, 7)).astype(np.float32) + 3 * t for t in truths]
    maps = [each.astype(np.float32) for each in maps]
    expected = literal_overlap(maps, truths, 0.3)
    assert region_overlap(maps, truths) == pytest.approx(expected, abs=1e-9)
    ignored = [(random.random((9, 7)) < 0.3) & ~truth for truth in truths]
    expected = literal_overlap(maps, truths, 0.3, ignored)
    assert region_overlap(maps, truths, ignored=ignored) == pytest.approx(expected, abs=1e-9)


def test_the_overlap_of_perfect_and_of_missing_truth() -> None:
    truth = np.zeros((4, 4), bool)
    truth[1:3, 1:3] = True
    assert region_overlap([truth.astype(np.float32)], [truth]) == pytest.approx(1)
    assert math.isnan(region_overlap([truth.astype(np.float32)], [np.zeros((4, 4), bool)]))


def test_separation_counts_pairs() -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 9, 60).astype(np.float32)
    odd = random.random(60) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[odd] for b in scores[~odd]]
    found = separation(scores, odd)
    assert found.auroc == pytest.approx(np.mean(pairs))
    precision, before = 0.0, 0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        above = scores >= threshold
        hits = int(odd[above].sum())
        precision += (hits - before) / odd.sum() * hits / above.sum()
        before = hits
    assert found.precision == pytest.approx(precision)
    assert math.isnan(separation(scores, np.ones(60, bool)).auroc)


class Source(Images):
    """Images of which only annotations and names matter."""

    def __init__(self, annotations: Any, where: Path | str = "x") -> None:
        super().__init__(torch.zeros(5, 3, 2, 2, dtype=torch.uint8))
        self.annotations, self.where = annotations, str(where)

    def name(self, position: int) -> str:
        return f"scratch/{position}.png"


def test_what_is_odd_follows_from_the_annotations() -> None:
    whole, half = Size(8, 8), Size(4, 4)
    boxes = Truth(Source(ObjectLabels(names=("dent",), masks=False)))
    none = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    one = Objects(torch.tensor([[2.0, 0, 6, 4]]), torch.tensor([0]))
    assert boxes.of(0, none, whole, half) is not None
    assert not boxes.of(0, none, whole, half).image  # type: ignore[union-attr]
    odd = boxes.of(0, one, whole, half)
    assert odd is not None
    assert odd.image
    assert odd.pixels is not None
    assert odd.pixels.nonzero().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    maps = Truth(Source(ClassMaps(names=("background", "dent"))))
    drawn = torch.tensor([[0, 1], [255, 0]])
    odd = maps.of(0, drawn, Size(2, 2), Size(2, 2))
    assert odd is not None
    assert odd.pixels is not None
    assert odd.pixels.tolist() == [[False, True], [False, False]]
    assert odd.ignored is not None
    assert odd.ignored.tolist() == [[False, False], [True, False]]
    assert maps.of(0, torch.full((2, 2), 255), Size(2, 2), Size(2, 2)) is None


def test_crowds_are_neither_odd_nor_normal() -> None:
    truth = Truth(Source(ObjectLabels(names=("dent",), masks=False)))
    places = torch.tensor([[0.0, 0, 2, 2], [1, 1, 4, 4]])
    size, classes = Size(4, 4), torch.tensor([0, 0])
    odd = truth.of(0, Objects(places, classes, crowd=torch.tensor([False, True])), size, size)
    assert odd is not None
    assert odd.pixels is not None
    assert odd.ignored is not None
    assert odd.pixels.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    expected = [[r, c] for r in (1, 2, 3) for c in (1, 2, 3) if (r, c) != (1, 1)]
    assert odd.ignored.nonzero().tolist() == expected
    crowds = truth.of(0, Objects(places, classes, crowd=torch.tensor([True, True])), size, size)
    assert crowds.image
    assert not crowds.pixels.any()
    assert crowds.ignored.sum() == 4 + 9 - 1


def test_ignored_pixels_change_no_measure() -> None:
    """Whatever the distances at them are."""
    size = Size(3, 4)
    memory = remember(tokens(), GRID, OddRule(**PLAIN), 0)
    pixels = torch.zeros(3, 4, dtype=torch.bool)
    pixels[0, :2] = True
    ignored = torch.zeros(3, 4, dtype=torch.bool)
    ignored[2] = True
    random = torch.Generator().manual_seed(0)
    distances = torch.rand(12, generator=random)
    found = []
    for value in (0.0, 9.0):
        changed = torch.where(ignored.flatten(), value, distances)
        one = Finding(0, "a", 1.0, True, Odd(True, pixels, ignored), changed)
        measures = measured([one], memory, size)
        found.append([measures.pixel_auroc, measures.pixel_precision, measures.region_overlap])
    kept = ~ignored.flatten().numpy()
    expected = separation(distances.numpy()[kept], pixels.flatten().numpy()[kept])
    assert found[0] == pytest.approx(found[1])
    assert found[0][:2] == pytest.approx(list(expected))


def test_classes_are_odd_unless_good(tmp_path: Path) -> None:
    kind = ClassLabels(names=("Good", "scratch"))
    masks = tmp_path / "ground_truth" / "scratch"
    masks.mkdir(parents=True)
    Image.fromarray(np.array([[0, 255], [0, 0]], np.uint8)).save(masks / "3_mask.png")
    truth = Truth(Source(kind, tmp_path / "test"))
    size = Size(2, 2)
    good, odd, other = (
        truth.of(n, torch.tensor(c), size, size) for n, c in ((1, 0), (3, 1), (4, 1))
    )
    assert good is not None
    assert (good.image, good.pixels.any().item()) == (False, False)  # type: ignore[union-attr]
    assert odd is not None
    assert odd.pixels is not None
    assert odd.pixels.tolist() == [[False, True], [False, False]]
    assert other is not None
    assert other.pixels is None
    unknown = Truth(Source(ClassLabels(names=("a", "b"))))
    assert not unknown.known
    with pytest.raises(SettingsError, match="did you mean 'scratch'"):
        Truth(Source(kind), "scrach")


@pytest.mark.parametrize(
    ("field", "value"), [("around", 2), ("alarms", 1.0), ("memory", 0), ("top", 0.0), ("block", 0)]
)
def test_impossible_rules_are_refused(field: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=field):
        OddRule(**{field: value})


def test_one_normal_image_is_not_enough() -> None:
    with pytest.raises(SettingsError, match="at least 2 normal images"):
        remember(tokens(1), GRID, OddRule(), 0)
