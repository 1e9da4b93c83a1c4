"""Accuracy on corrupted pictures: the counting, and the errors beside those of a control."""

from dataclasses import replace

import pytest
import torch
from reference.sources import Annotated

from unmask.annotations import ClassLabels
from unmask.channels import IMAGENET
from unmask.contracts import Size
from unmask.data.corruptions import CORRUPTIONS, corrupted
from unmask.data.views import CenterCrop
from unmask.evaluation.robustness import Answering, Look, Robustness, robustness


class Deep(Annotated):
    """A source that scales 16-bit pictures, of which it has none."""

    levels = None

    def with_levels(self, levels: tuple[float, float] | None) -> "Deep":
        return self


def even(values: list[float], clean: float = 1.0) -> Robustness:
    corrupted = {name: tuple([value] * 5) for name, value in zip("abc", values, strict=True)}
    return Robustness(clean=clean, corrupted=corrupted)


def test_the_control_itself_makes_all_of_its_errors() -> None:
    """AlexNet's own errors give an mCE of 100 %."""
    control = even([0.1, 0.5, 0.8])
    assert control.relative(control) == 1.0
    assert control.mean == pytest.approx((0.1 + 0.5 + 0.8) / 3)


def test_relative_errors_are_means_of_ratios_and_not_ratios_of_means() -> None:
    control, model = even([0.2, 0.6, 0.9]), even([0.6, 0.6, 0.8])
    assert model.relative(control) == pytest.approx((0.4 / 0.8 + 1.0 + 0.2 / 0.1) / 3)
    perfect = even([1.0, 1.0, 1.0])
    assert perfect.relative(perfect) is None
    assert model.errors_of(perfect, "a") is None


def test_every_picture_is_counted_once_under_each_condition() -> None:
    """Beside a literal loop; the model answers by the brightness of the picture."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (9, 3, 16, 16), generator=random).to(torch.uint8)
    images[::2] = images[::2] // 2
    labels = torch.arange(9) % 2
    kind = ClassLabels(names=("dark", "bright"))
    source = Deep(list(images), kind, list(labels), labels.numpy())

    def scores(batch: torch.Tensor) -> torch.Tensor:
        bright = batch.float().mean((1, 2, 3)) / 255
        return torch.stack([1 - bright, bright + 0.2], 1)

    # levels, as of a model of 16-bit pictures: the source is opened again with them
    statistics = replace(IMAGENET, levels=(0.0, 65535.0))
    look = Look(CenterCrop(), Size(16, 16), statistics, torch.device("cpu"))
    found = robustness([Answering("brightness", scores)], source, look, 3, [])["brightness"]
    clean = [
        int(scores(image[None]).argmax()) == int(label)
        for image, label in zip(images, labels, strict=True)
    ]
    assert found.clean == pytest.approx(sum(clean) / 9)
    for name in CORRUPTIONS:
        for severity in (1, 5):
            right = [
                int(scores(corrupted(image, name, severity, 3, row)[None]).argmax())
                == int(labels[row])
                for row, image in enumerate(images)
            ]
            assert found.corrupted[name][severity - 1] == pytest.approx(sum(right) / 9)
