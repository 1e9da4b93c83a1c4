"""`unmask words`: what it says, and texts that teach nothing; the models of counts beside it."""

import hashlib
from pathlib import Path

import pytest
import torch
from commands.said import Unmask

from unmask.text.models import (
    AnyReading,
    HiddenCharacters,
    HiddenCharactersModel,
    NextCharacter,
    NextCharacterModel,
    Reader,
)
from unmask.text.training import (
    Counts,
    Text,
    built,
    hidden_scores,
    learn,
    next_scores,
    own_text,
    read_text,
)

TEXT_LINES = 3240
TEXT_HASH = "627db6a015b373ca7f8d369a0b5aa2501962c3a2fe8856fda1de8abd08e9d0a8"
TINY = ["--steps", "3", "--threads", "1", "--embed-dim", "12", "--depth", "1", "--num-heads", "2"]


def story(words: int = 6000) -> str:
    return " ".join(("the cat sat on the mat", "a dog ran")[n % 3 % 2] for n in range(words // 4))


def test_says_what_each_sees_and_how_good_it_is(unmask: Unmask) -> None:
    Path("story.txt").write_text(story())
    said = unmask("words", "story.txt", *TINY, "--length", "16")
    assert said.status == 0
    for words in (
        "symbols, in story.txt",
        "next character, as in GPT: each position sees the text before it",
        "next: step 3 of 3,",
        "trigram: the two before",
        "the model continues",
        "hidden characters, as in BERT: 15% of the positions are predicted; 80 % of these show the mask",
        "10 % stay unchanged (BERT's rule)",
        "trigram: one on either side",
        "the model fills gaps",
    ):
        assert words in said.out
    lines = said.raw.splitlines()
    filled = [place for place, line in enumerate(lines) if line.startswith("  fills ")]
    assert filled
    for place in filled:
        guesses = zip(lines[place][8:], lines[place + 1][8:], strict=False)
        assert all(letter != " " for letter, mark in guesses if mark in "^x"), "a guess is seen"
    other = unmask("words", "story.txt", *TINY, "--objective", "hidden", "--last", "same-passage")
    assert "unlike BERT, which keeps them" in other.out
    assert "as in GPT" not in other.out


def test_texts_that_cannot_be_read(unmask: Unmask) -> None:
    assert "nothing.txt does not exist; give a file" in unmask("words", "nothing.txt").err
    Path("short.txt").write_text("too short")
    assert (
        "short.txt has 9 characters, but training needs at least 20,000"
        in unmask("words", "short.txt").err
    )
    Path("bytes.txt").write_bytes(bytes(range(128, 256)) * 200)
    assert "bytes.txt is not UTF-8 text" in unmask("words", "bytes.txt").err
    Path("same.txt").write_text("a" * 30_000)
    assert (
        "same.txt has 1 characters that occur at least 20 times" in unmask("words", "same.txt").err
    )
    assert "steps must be at least 1, got 0" in unmask("words", "--steps", "0").err
    assert "ratio must lie between 0 and 1" in unmask("words", "--ratio", "2").all


def test_the_text_stays_the_same() -> None:
    """The figures in studies/words.md are of these 284,629 characters."""
    text = own_text()
    assert (len(text), text.count("\n")) == (284_629, TEXT_LINES)
    assert hashlib.sha256(text.encode()).hexdigest() == TEXT_HASH


@pytest.fixture(scope="module")
def counted() -> tuple[Text, Counts]:
    random = torch.Generator().manual_seed(0)
    pieces = list(torch.randint(4, (3, 60), generator=random))
    text = Text("abcd", pieces, pieces, "here")
    return text, Counts(text)


def test_counts_by_hand(counted: tuple[Text, Counts]) -> None:
    """Witten and Bell's mixture, written out with loops."""
    text, counts = counted
    threes = [tuple(p[i : i + 3].tolist()) for p in text.train for i in range(len(p) - 2)]

    def mixed(seen: list[int], shorter: list[float]) -> list[float]:
        kinds = max(1, len(set(seen)))
        return [(seen.count(s) + kinds * shorter[s]) / (len(seen) + kinds) for s in range(4)]

    alone = mixed([c for _, _, c in threes], [0.25] * 4)
    middle, right = 2, 1
    pairs = mixed([c for _, b, c in threes if b == middle], alone)
    expected = mixed([c for a, b, c in threes if (a, b) == (3, middle)], pairs)
    found = counts.after(torch.tensor([3]), torch.tensor([middle]))[0]
    assert found.tolist() == pytest.approx(expected)
    assert found.sum().item() == pytest.approx(1)
    pairs = mixed([b for a, b, _ in threes if a == 3], alone)
    expected = mixed([b for a, b, c in threes if (a, c) == (3, right)], pairs)
    assert counts.between(torch.tensor([3]), torch.tensor([right]))[0].tolist() == pytest.approx(
        expected
    )


def test_a_tenth_is_held_out_and_rare_characters_are_one(tmp_path: Path) -> None:
    omega = "\N{GREEK SMALL LETTER OMEGA}"
    path = tmp_path / "text.txt"
    path.write_text(story() + omega, encoding="utf-8")
    text = read_text(path)
    assert omega not in text.symbols
    pieces = len(story() + omega) // 1000
    assert (len(text.train), len(text.test)) == (pieces - pieces // 10, pieces // 10)


@pytest.mark.slow
@pytest.mark.parametrize("objective", [NextCharacter(), HiddenCharacters()])
def test_both_learn_what_a_trigram_cannot_see(tmp_path: Path, objective: AnyReading) -> None:
    """Triples of eight characters, drawn at random and each said eight times over: what is three places away tells all."""
    random = torch.Generator().manual_seed(0)
    triples = torch.randint(8, (1200, 3), generator=random).repeat(1, 8).flatten()
    path = tmp_path / "triples.txt"
    path.write_text("".join("abcdefgh"[number] for number in triples.tolist()))
    text, reader = read_text(path), Reader(length=16, embed_dim=32, depth=2, num_heads=2)
    model = built(reader, objective, text, 0)
    for _ in learn(model, reader, text, 300, 6e-3, 0):
        pass
    if isinstance(model, NextCharacterModel):
        scores = next_scores(model, text, reader.length)
    else:
        assert isinstance(model, HiddenCharactersModel)
        scores = hidden_scores(model, text, reader.length)
    *counts, found = [score.bits for score in scores.values()]
    assert found < min(counts) - 0.5
