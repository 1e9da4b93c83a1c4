"""Exact search, conditions, and indexes: against literal loops and scikit-learn."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn import functional as F

from unmask.errors import ResourceError, SettingsError
from unmask.vectors import approximate
from unmask.vectors.approximate import KINDS, Approximate, built, recall
from unmask.vectors.filters import matching, parse_condition
from unmask.vectors.nearest import nearest


@pytest.fixture(scope="module")
def matrix() -> Tensor:
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(20, 16, generator=random)
    noise = 0.3 * torch.randn(2000, 16, generator=random)
    return F.normalize(centres[torch.arange(2000) % 20] + noise, dim=1)


class TestNearest:
    def test_is_that_of_scikit_learn(self, matrix: Tensor) -> None:
        exact = NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(matrix)
        distances, rows = exact.kneighbors(matrix[:30])
        for query, expected, distance in zip(matrix[:30], rows, distances, strict=True):
            found = nearest(matrix, query, 10)
            assert found.rows.tolist() == expected.tolist()
            assert found.scores.numpy() == pytest.approx(1 - distance, abs=1e-5)

    @pytest.mark.parametrize("share", [0.02, 0.9])
    def test_among_some_rows_is_a_scan_of_them(self, matrix: Tensor, share: float) -> None:
        random = torch.Generator().manual_seed(1)
        rows = (torch.rand(2000, generator=random) < share).nonzero().flatten()
        query = matrix[5]
        scores = {row: float(matrix[row].double() @ query.double()) for row in rows.tolist()}
        expected = sorted(scores, key=lambda row: -scores[row])[:10]
        assert nearest(matrix, query, 10, rows).rows.tolist() == expected

    def test_equal_scores_come_in_the_order_of_the_folder(self) -> None:
        matrix = F.normalize(torch.ones(50, 4), dim=1)
        matrix[7] = F.normalize(torch.tensor([1.0, 1.0, 1.0, 0.9]), dim=0)
        assert nearest(matrix, matrix[0], 5).rows.tolist() == [0, 1, 2, 3, 4]
        assert nearest(matrix, matrix[0], 50).rows.tolist()[-1] == 7

    def test_fewer_rows_than_wanted_are_all(self, matrix: Tensor) -> None:
        rows = torch.tensor([3, 9])
        assert sorted(nearest(matrix, matrix[0], 10, rows).rows.tolist()) == [3, 9]


COLUMNS = pa.table(
    {
        "name": ["a.png", "b.png", "c.png", "d.png"],
        "split": ["train", "train", "test", "test"],
        "label": ["wheat", None, "rye", "wheat"],
        "width": pa.array([100, 200, 300, 400], pa.int32()),
        "height": pa.array([50, 50, 60, 60], pa.int32()),
        "hash": ["1", "2", "3", "4"],
    }
)


class TestConditions:
    @pytest.mark.parametrize(
        ("texts", "rows"),
        [
            (["label=wheat"], [0, 3]),
            (["label = wheat", "split=test"], [3]),
            (["width>200"], [2, 3]),
            (["width<200"], [0]),
            (["height=60", "width>300"], [3]),
            (["name=b.png"], [1]),
        ],
    )
    def test_choose_rows(self, texts: list[str], rows: list[int]) -> None:
        found = matching(COLUMNS, [parse_condition(text) for text in texts])
        assert found is not None
        assert found.tolist() == rows

    def test_one_of_several_labels_is_enough(self) -> None:
        lists = pa.array([["wheat", "rye"], None, [], ["oats"]], pa.list_(pa.string()))
        columns = COLUMNS.set_column(2, "label", lists)
        found = matching(columns, [parse_condition("label=rye")])
        assert found is not None
        assert found.tolist() == [0]

    def test_without_conditions_all_rows_are_searched(self) -> None:
        assert matching(COLUMNS, []) is None

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("label", "is no condition; write COLUMN=VALUE"),
            ("lable=wheat", "there is no column 'lable'; did you mean 'label'"),
            ("width=broad", "width is a number of pixels, got 'broad'"),
            ("label<wheat", "label is text, and only = compares text"),
        ],
    )
    def test_that_mean_nothing_are_refused(self, text: str, message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            parse_condition(text)

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            (["label=wheet"], "no picture has label=wheet; did you mean 'wheat'.*wheat, rye"),
            (["width>400"], "no picture has width>400; width is from 100 to 400 there"),
            (["label=rye", "split=train"], "no picture meets all of label=rye, split=train"),
        ],
    )
    def test_that_nothing_meets_say_what_there_is(self, texts: list[str], message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            matching(COLUMNS, [parse_condition(text) for text in texts])


def ready(matrix: Tensor, kind: str) -> Approximate:
    return Approximate(KINDS[kind], built(KINDS[kind], matrix), 0.0)


@pytest.mark.parametrize("kind", ["hnsw", "ivf-pq"])
class TestIndexes:
    @pytest.fixture(autouse=True)
    def _needs_faiss(self) -> None:
        pytest.importorskip("faiss")

    def test_recall_is_that_of_a_loop(self, matrix: Tensor, kind: str) -> None:
        index = ready(matrix, kind)
        share = recall(KINDS[kind], index.index, matrix)
        hits = total = 0
        for row in np.unique(np.linspace(0, 1999, 200).astype(int)).tolist():
            scores = (matrix @ matrix[row]).tolist()
            order = sorted(range(2000), key=lambda other, s=scores: -s[other])
            exact = [other for other in order if other != row][:10]
            found = set(index.nearest(matrix, matrix[row], 11).rows.tolist())
            hits += len(found & set(exact))
            total += 10
        assert share == pytest.approx(hits / total)
        assert share >= 0.95

    def test_all_come_where_fewer_exist_than_are_asked_for(self, matrix: Tensor, kind: str) -> None:
        found = ready(matrix, kind).nearest(matrix, matrix[0], 5000)
        assert sorted(found.rows.tolist()) == list(range(2000))


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ResourceError, match=r'pip install "unmask\[search\]"'):
        approximate.KINDS["hnsw"].check()
