"""The objective of places against a literal version, and what may be a negative."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import problems
from torch import Tensor

from unmask.contracts import Batch, Moment, Size
from unmask.data.multi_views import TwoCrops
from unmask.data.place_views import TwoLooks
from unmask.errors import SettingsError
from unmask.geo.overlap import overlapping, shared
from unmask.objectives.place import Place, PlaceContrast
from unmask.recipes.place import PLACE_TI16

SPEC = Place(temperature=0.2, memory=7, hardest=2)
COUNT = 4


def build(spec: Place = SPEC) -> PlaceContrast:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return spec.build(problems.build_encoder()).train()


def batch_of(seed: int = 0) -> Batch:
    """Two looks of each of four tiles in a row that overlap by half: neighbours may not be negatives."""
    views = tuple(problems.pictures(problems.Problem(), COUNT, 2 * seed + i) for i in range(2))
    looks = torch.stack([TwoLooks().footprints(seed, row) for row in range(COUNT)])
    left = torch.tensor([[0.5 * row + 3 * seed, 0.0] for row in range(COUNT)])
    numbers = torch.arange(COUNT)
    return Batch(views, numbers, numbers, 0, footprints=looks + left[:, None, None])


def unit_vectors(model: PlaceContrast, batch: Batch) -> list[list[Tensor]]:
    """Of each view and image: the mean patch token, with mean 0 and variance 1 over all looks, then of length 1."""
    tokens = [
        [model.encoder.encode(v[i : i + 1]).patches[0].mean(0) for i in range(COUNT)]
        for v in batch.views
    ]
    together = torch.stack(tokens[0] + tokens[1])
    mean = together.mean(0)
    deviation = ((together - mean) ** 2).mean(0).add(1e-5).sqrt()
    return [
        [(t - mean) / deviation / ((t - mean) / deviation).norm() for t in row] for row in tokens
    ]


def literal(model: PlaceContrast, batch: Batch, past: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Look by look: the other look against all others of other ground, and the two most similar ones of the past."""
    assert batch.footprints is not None
    vectors, places = unit_vectors(model, batch), batch.footprints
    weights = [float(shared(places[i, :1], places[i, 1:])) for i in range(COUNT)]
    total = torch.zeros(())
    for view in (0, 1):
        for i in range(COUNT):
            own = vectors[view][i]

            def apart(other: Tensor, here: Tensor = places[i, view]) -> bool:
                return not bool(overlapping(here[None], other[None]))

            alike = [own @ vectors[1 - view][i] / 0.2]
            for j in range(COUNT):
                if j != i and apart(places[j, 1 - view]):
                    alike.append(own @ vectors[1 - view][j] / 0.2)
            old = sorted(
                (float((own @ v).detach()), n) for n, (v, place) in enumerate(past) if apart(place)
            )
            alike += [own @ past[n][0] / 0.2 for _, n in old[-2:]]
            missed = torch.logsumexp(torch.stack(alike), 0) - alike[0]
            total = total + missed * weights[i] / sum(weights) / 2
    return total


def test_loss_and_gradient_are_those_of_the_literal_version() -> None:
    """Over three steps, so that the memory is filled and its oldest looks are replaced."""
    model = build()
    past: list[tuple[Tensor, Tensor]] = []
    for step in range(3):
        batch = batch_of(step)
        weight = model.encoder.patch_embed.proj.weight
        expected = literal(model, batch, past)
        (slope,) = torch.autograd.grad(expected, weight)
        loss = model(batch, problems.random(0))
        (ours,) = torch.autograd.grad(loss.total, weight)
        torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours, slope, rtol=1e-3, atol=1e-6)
        vectors = unit_vectors(model, batch)
        assert batch.footprints is not None
        past += [
            (vectors[v][i].detach(), batch.footprints[i, v]) for v in (0, 1) for i in range(COUNT)
        ]
        past = past[-7:]
        model.after_step(Moment(step, 3, 0))


def test_looks_of_overlapping_ground_are_never_negatives() -> None:
    """Neighbours in the batch, and the same tile in the memory: however similar, they do not change the loss."""
    model, batch = build(replace(SPEC, memory=2 * COUNT, hardest=2 * COUNT)), batch_of()
    assert batch.footprints is not None
    here = torch.zeros(COUNT, 2, 4, 2) + batch.footprints[:1]  # all of the same ground
    same = batch._replace(footprints=here)
    for _ in range(2):  # the second time, the memory is full of the same ground
        assert float(model(same, problems.random(0)).total.detach()) == pytest.approx(0, abs=1e-6)
        model.after_step(Moment(0, 2, 0))
    assert int(model.past.count) == 4 * COUNT
    apart = batch._replace(footprints=here + 10 * torch.arange(COUNT)[:, None, None, None])
    assert float(model(apart, problems.random(0)).total.detach()) > 0.5


def test_a_measurement_leaves_the_memory_as_it_is() -> None:
    """Forward passes without a step after them, as of plans, are not remembered."""
    model = build()
    model(batch_of(), problems.random(0))
    assert int(model.past.count) == 0


def test_images_without_places_lie_apart() -> None:
    """Those of a folder, of which the loader says that they lie apart; the same image twice is no negative of itself."""
    model, batch = build(replace(SPEC, memory=0)), batch_of()
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    left = torch.tensor([[4.0 * row, 0.0] for row in range(COUNT)])
    batch = batch._replace(footprints=(square + left[:, None])[:, None].expand(-1, 2, -1, -1))
    loss = float(model(batch, problems.random(0)).total.detach())
    vectors = unit_vectors(model, batch)
    expected = 0.0
    for one, other in [(0, 1), (1, 0)]:
        table = (torch.stack(vectors[one]) @ torch.stack(vectors[other]).T).detach() / 0.2
        expected += float(torch.nn.functional.cross_entropy(table, torch.arange(COUNT))) / 2
    assert loss == pytest.approx(expected, rel=1e-5)
    assert batch.footprints is not None
    twice = batch._replace(footprints=batch.footprints[:1].expand(COUNT, -1, -1, -1))
    assert float(model(twice, problems.random(0)).total.detach()) == pytest.approx(0, abs=1e-6)


def test_other_weights_start_without_a_memory() -> None:
    model = build()
    model(batch_of(), problems.random(0))
    model.after_step(Moment(0, 2, 0))
    model.begin()
    assert int(model.past.count) == 0
    before: Any = model(batch_of(1), problems.random(0)).total
    fresh: Any = build()(batch_of(1), problems.random(0)).total
    assert before.equal(fresh)


def test_looks_of_a_tile_come_closer_than_those_of_others() -> None:
    model, batch = build(replace(SPEC, memory=0)), batch_of()
    assert batch.footprints is not None
    apart = batch._replace(
        footprints=batch.footprints + 10 * torch.arange(COUNT)[:, None, None, None]
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses: list[float] = []
    for _ in range(25):
        loss = model(apart, problems.random(0)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_other_views_are_refused_with_those_to_take() -> None:
    with pytest.raises(SettingsError, match="use views:two-looks"):
        SPEC.check_views(TwoLooks(), (Size(8, 8),))
    with pytest.raises(SettingsError, match="these do not; use views:two-looks"):
        replace(PLACE_TI16, views=TwoCrops())
    with pytest.raises(SettingsError, match="temperature"):
        Place(temperature=0.0)


def test_similarities_and_ground_do_not_depend_on_precision() -> None:
    """In bfloat16 only the encoder computes: from its tokens on, all is as in 32 bits, also far from the map's corner."""
    model, batch = build(), batch_of()
    assert batch.footprints is not None
    far = batch._replace(footprints=200 * batch.footprints + 20_000)
    tokens = model.encoder.encode(torch.cat(batch.views))
    model.encoder.encode = lambda images: tokens  # type: ignore[method-assign,assignment]
    expected = model(batch, problems.random(0))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(far, problems.random(0))
    torch.testing.assert_close(loss.total, expected.total, atol=1e-4, rtol=0)
    torch.testing.assert_close(loss.parts["overlap"], expected.parts["overlap"], atol=2e-3, rtol=0)  # fmt: skip
