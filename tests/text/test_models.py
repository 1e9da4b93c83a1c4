"""Characters: no look ahead, BERT's 80, 10 and 10 per cent, and the loss of the places asked for alone."""

import math

import pytest
import torch
from reference import problems

from unmask.contracts import Batch, Part
from unmask.errors import SettingsError
from unmask.randomness import seeded
from unmask.text.models import (
    CharacterTransformer,
    HiddenCharacters,
    HiddenCharactersModel,
    NextCharacter,
    Reader,
)

SYMBOLS = 11
READER = Reader(length=16, embed_dim=12, depth=2, num_heads=2)


def reader() -> CharacterTransformer:
    with seeded("test words"):
        return READER.build(SYMBOLS)


def passages(count: int, length: int = 16) -> torch.Tensor:
    return torch.randint(SYMBOLS, (count, length), generator=problems.random(1))


def batch_of(rows: torch.Tensor) -> Batch:
    return Batch((rows,), torch.zeros(len(rows)), torch.arange(len(rows)), 0)


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(4, *shape, generator=problems.random(2))


def surprise(scores: torch.Tensor, truth: int) -> float:
    """Minus the logarithm of the probability of the truth."""
    values = scores.tolist()
    return math.log(sum(map(math.exp, values))) - values[truth]


def test_the_next_character_is_said_without_looking_ahead() -> None:
    model = NextCharacter().build(reader())
    rows = passages(3)
    before = model.scores(rows)
    for place in (1, 7, 15):
        changed = rows.clone()
        changed[:, place:] = (changed[:, place:] + 1) % SYMBOLS
        after = model.scores(changed)
        assert after[:, :place].equal(before[:, :place])
        assert not after[:, place].equal(before[:, place])


def test_the_loss_of_the_next_character() -> None:
    model = NextCharacter().build(reader())
    rows = passages(2)
    loss = model(batch_of(rows), problems.random(0))
    scores = model.scores(rows)
    literal = [
        surprise(scores[row, place], int(rows[row, place + 1]))
        for row in range(2)
        for place in range(15)
    ]
    assert loss.total.item() == pytest.approx(sum(literal) / len(literal), abs=1e-5)


@pytest.mark.parametrize(("last", "kept"), [("kept", 0.1), ("same-passage", 0.1 / SYMBOLS)])
def test_what_stands_at_the_places_asked_for(last: str, kept: float) -> None:
    spec = HiddenCharacters(ratio=0.15, last=last)  # pyright: ignore[reportArgumentType]
    model = HiddenCharactersModel(spec, reader())
    rows = passages(4000, length=40)
    seen, asked = model.hide(rows, drawn(4000, 40))
    assert (asked.sum(1) == 6).all()
    assert seen[~asked].equal(rows[~asked])
    shown, truth = seen[asked], rows[asked]
    masked = shown == SYMBOLS
    spread = 4 * 0.5 / math.sqrt(len(shown))  # four deviations of a share, at most
    assert masked.float().mean().item() == pytest.approx(0.8, abs=spread)
    assert (shown == truth).float().mean().item() == pytest.approx(kept, abs=spread)
    assert (~masked & (shown != truth)).float().mean().item() == pytest.approx(
        0.2 - kept, abs=spread
    )
    often = asked.float().mean(0)
    assert (often - 0.15).abs().max() < 4 * math.sqrt(0.15 * 0.85 / 4000)


def test_another_character_of_the_passage_is_from_another_place_of_it() -> None:
    spec = HiddenCharacters(ratio=0.9, last="same-passage")
    model = HiddenCharactersModel(spec, CharacterTransformer(READER, 16))
    row = torch.arange(16).flip(0)[None]  # every symbol once
    numbers = drawn(1, 16)
    numbers[1] = 0.95  # the last tenth everywhere
    seen, asked = model.hide(row, numbers)
    assert asked.sum() == 14
    assert (seen[asked] != row[asked]).all()
    assert seen.max() < 16


def test_the_loss_counts_the_places_asked_for_alone() -> None:
    model = HiddenCharacters(ratio=0.25).build(reader())
    rows, random = passages(2), problems.random(3)
    numbers = torch.rand(4, 2, 16, generator=problems.random(3))
    loss = model(batch_of(rows), random)
    seen, asked = model.hide(rows, numbers)
    scores = model.reader(seen, None)
    literal = [
        surprise(scores[row, place], int(rows[row, place]))
        for row, place in asked.nonzero().tolist()
    ]
    assert len(literal) == 8
    assert loss.total.item() == pytest.approx(sum(literal) / 8, abs=1e-5)


def test_parts_of_a_batch_are_asked_as_the_whole_is() -> None:
    model = HiddenCharacters().build(reader())
    whole = batch_of(passages(6))
    parts = [
        whole._replace(views=(whole.views[0][rows],), index=rows, part=Part(rows, 6))
        for rows in (torch.arange(2), torch.arange(2, 6))
    ]
    total = model(whole, problems.random(4)).total.item()
    few, many = (model(part, problems.random(4)).total.item() for part in parts)
    assert total == pytest.approx((2 * few + 4 * many) / 6, abs=1e-5)


def test_gaps_are_filled_and_nothing_else_is_changed() -> None:
    model = HiddenCharacters().build(reader())
    rows = passages(2)
    gaps = torch.zeros(2, 16, dtype=torch.bool)
    gaps[:, 5] = True
    filled = model.filled(rows, gaps)
    assert filled[~gaps].equal(rows[~gaps])
    other = rows.clone()
    other[:, 5] = (other[:, 5] + 1) % SYMBOLS
    assert model.filled(other, gaps).equal(filled)  # what is hidden is not read


def test_writing_goes_on_beyond_the_length_of_a_passage() -> None:
    model = NextCharacter().build(reader())
    start = passages(1)[0, :5]
    written = model.continued(start, 20, problems.random(5))
    assert len(written) == 25
    assert written[:5].equal(start)
    assert written.max() < SYMBOLS


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(SettingsError, match=r"ratio must lie between 0 and 1, got 1.5"):
        HiddenCharacters(ratio=1.5)
    with pytest.raises(SettingsError, match="length must be at least 8, got 3"):
        Reader(length=3)
