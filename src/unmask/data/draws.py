"""Random draws of labelled images: a share of each class, a few labels of each class, or a share of all."""

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from unmask.errors import SettingsError
from unmask.randomness import derive


def draw_share(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """A random share of each class; of a class with two or more images at least one, and never all.

    `labels` is [n], or [n classes] of 0 and 1 (`_draw_multilabel_share`).
    """
    if labels.ndim > 1:
        return _draw_multilabel_share(labels, share, seed)
    random = np.random.default_rng(derive("split", seed))
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        count = min(len(rows) - 1, max(1, round(share * len(rows))))
        chosen[rows[:count]] = True
    return chosen


def _draw_multilabel_share(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """A random share of images with several labels, with about the same share of each class.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011): take the class with the fewest images that are
    not yet assigned, and assign them one by one to the part that needs most images of this class. Unlike the paper, we
    aim at one image or more in each part for every class with at least two.
    """
    random = np.random.default_rng(derive("split", seed))
    counts = labels.sum(0)
    testing = np.where(counts > 1, np.maximum(1.0, share * counts), 0.0)
    needed = np.stack([counts - testing, testing])  # [part class]: images that parts still need
    room = np.array([(1 - share) * len(labels), share * len(labels)])
    chosen = np.zeros(len(labels), dtype=bool)
    waiting = np.ones(len(labels), dtype=bool)
    while waiting.any():
        remaining = labels[waiting].sum(0)
        rarest = int(np.where(remaining > 0, remaining, len(labels) + 1).argmin())
        of_class = labels[:, rarest] > 0 if remaining.any() else waiting
        for row in random.permutation(np.flatnonzero(waiting & of_class)):
            need = needed[:, rarest] if remaining.any() else room
            part = int(np.lexsort((-room, -need))[0])
            chosen[row] = part == 1
            needed[part] -= labels[row]
            room[part] -= 1
            waiting[row] = False
    return chosen


def draw_few(
    labels: NDArray[np.int64], names: tuple[str, ...], amount: str, seed: int
) -> NDArray[np.int64]:
    """The rows of a few labelled images, drawn from the seed: "5" or "10%" of each class, or "all".

    `labels` is [n], or [n classes] of 0 and 1; then "10%" is a share of all images, which show every class if they can
    (`_rarest_first`), and numbers are refused. With the same seed, a larger amount includes the images of a smaller one.

    Raises:
        SettingsError: if a class has fewer images, or the amount is not valid.
    """
    check_amount(amount)
    if amount == "all":
        return np.arange(len(labels))
    number = int(amount.removesuffix("%"))
    share = amount.endswith("%")
    if labels.ndim > 1:
        if not share:
            raise SettingsError(
                f"{amount} labels of each class cannot be drawn, because each of these images may show several classes at "
                "once; use a percentage of the images, such as 10%, or all"
            )
        return np.sort(_rarest_first(labels > 0, seed)[: max(1, round(len(labels) * number / 100))])
    random = np.random.default_rng(derive("few labels", seed))
    chosen: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        count = max(1, round(len(rows) * number / 100)) if share else number
        if count > len(rows):
            raise SettingsError(
                f"{amount} labels need {count} training images of each class, but {names[label]!r} has {len(rows)}; choose "
                "fewer, or all"
            )
        chosen.append(rows[:count])
    return np.sort(np.concatenate(chosen))


def check_amount(amount: str) -> None:
    """Refuse what is no amount of labels, see `draw_few`; raises SettingsError."""
    number = amount.removesuffix("%")
    is_valid = number.isdecimal() and int(number) > 0 and (number == amount or int(number) <= 100)
    if amount != "all" and not is_valid:
        raise SettingsError(
            "amounts of labels must be numbers of labels per class, percentages or all, such as 1,5,10,1%,10%,all, "
            f"got {amount!r}"
        )


def _rarest_first(shown: Bool[NDArray[np.bool_], "n classes"], seed: int) -> NDArray[np.int64]:
    """All rows in random order, after a few that show every class.

    These are drawn one by one: a random image with the rarest class that is still missing. So rare classes come first, and an
    image is not preferred because it shows many.
    """
    order = np.random.default_rng(derive("few labels", seed)).permutation(len(shown))
    counts = shown.sum(0)
    missing, first = counts > 0, list[int]()
    while missing.any():
        rarest = int(np.where(missing, counts, len(shown) + 1).argmin())
        row = next(int(row) for row in order if shown[row, rarest])
        first.append(row)
        missing &= ~shown[row]
    return np.array([*first, *order[~np.isin(order, first)]], np.int64)


def held_out_rows(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """A random share of the images, for choosing thresholds; `labels` has a row for each image."""
    order = np.random.default_rng(derive("thresholds", seed)).permutation(len(labels))
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[order[: round(share * len(labels))]] = True
    return chosen
