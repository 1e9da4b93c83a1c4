"""The surest mistakes of a classifier, against a literal search."""

import torch

from unmask.runs.mistakes import SHOWN, Mistake, mistakes_of, surest


def test_wrong_answers_by_falling_probability() -> None:
    outputs = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    truth = torch.arange(200) % 3
    truth[7] = -1
    positions = list(range(1000, 1200))
    found = surest(mistakes_of(outputs, truth, positions))
    wrong = []
    for row in range(200):
        shares = outputs[row].exp() / outputs[row].exp().sum()
        guess = int(shares.argmax())
        if truth[row] >= 0 and guess != truth[row]:
            wrong.append((float(shares[guess]), 1000 + row, int(truth[row]), guess))
    wrong.sort(reverse=True)
    assert len(found) == SHOWN
    assert [one[1:] for one in found] == [one[1:] for one in wrong[:SHOWN]]
    torch.testing.assert_close([one[0] for one in found], [one[0] for one in wrong[:SHOWN]])


def test_parts_of_the_images_give_the_same_as_all() -> None:
    outputs = torch.randn(90, 4, generator=torch.Generator().manual_seed(1))
    truth = torch.zeros(90, dtype=torch.long)
    kept: list[Mistake] = []
    for rows in torch.arange(90).split(7):
        kept = surest([*kept, *mistakes_of(outputs[rows], truth[rows], rows.tolist())])
    whole = surest(mistakes_of(outputs, truth, list(range(90))))
    assert [one.position for one in kept] == [one.position for one in whole]


def test_several_classes_an_image_have_none() -> None:
    assert mistakes_of(torch.randn(2, 3), torch.zeros(2, 3), [0, 1]) == []
    assert mistakes_of(torch.randn(2, 3), None, [0, 1]) == []
