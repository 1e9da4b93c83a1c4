"""The recipes that compare views, number by number."""

from dataclasses import replace

import pytest
import torch

from unmask.channels import Statistics
from unmask.contracts import Size
from unmask.data.multi_views import MultiCrop, TwoCrops, sizes_of
from unmask.errors import SettingsError
from unmask.objectives import DINO, MoCo3
from unmask.recipes import find_recipe
from unmask.training.optimizers import AdamW, ClipEach
from unmask.training.parameter_groups import set_rates


def test_dino_is_as_published() -> None:
    """Caron and others (2021), sections 3.1 and 3.2, and the defaults of their code."""
    recipe = find_recipe("dino-s16")
    assert recipe.objective == DINO(
        prototypes=65536,
        hidden_dim=2048,
        bottleneck_dim=256,
        last_layer_scale="learned",
        frozen_epochs=1,
        student_temperature=0.1,
        first_temperature=0.04,
        temperature=0.07,
        temperature_epochs=30,
        center_momentum=0.9,
        teacher_momentum=0.996,
        drop_path=0.1,
    )
    assert recipe.views == MultiCrop(
        small_count=8,
        small_size=Size(96, 96),
        smallest_share=0.05,
        middle_share=0.4,
        flip_probability=0.5,
        jitter_probability=0.8,
        gray_probability=0.2,
        blur_probabilities=(1.0, 0.1, 0.5),
        solarize_probability=0.2,
    )
    assert recipe.optimizer == AdamW(
        beta1=0.9,
        beta2=0.999,
        weight_decay=0.04,
        last_weight_decay=0.4,
        clipping=ClipEach(norm=3.0),
    )
    assert recipe.schedule.peak(1024) == pytest.approx(2e-3)
    assert (recipe.schedule.warmup_epochs, recipe.schedule.min_lr) == (10, 1e-6)


def test_the_published_run_of_dinos_base_model() -> None:
    recipe = find_recipe("dino-b16")
    assert (recipe.epochs, recipe.batch_size) == (400, 1024)
    assert recipe.schedule.peak(recipe.batch_size) == pytest.approx(7.5e-4)
    assert recipe.schedule.min_lr == 2e-6
    assert recipe.optimizer.clipping == ClipEach(norm=0.3)
    assert (recipe.objective.frozen_epochs, recipe.objective.temperature_epochs) == (3, 50)
    assert recipe.objective.last_layer_scale == "fixed"
    assert (recipe.views.small_count, recipe.views.middle_share) == (10, 0.25)


def test_small_dino_is_what_it_says() -> None:
    recipe = find_recipe("dino-ti4")
    sizes = sizes_of(recipe.views, recipe.image_size)
    assert sizes == (Size(32, 32),) * 2 + (Size(16, 16),) * 6
    assert (recipe.objective.prototypes, recipe.batch_size) == (4096, 256)
    assert recipe.encoder == find_recipe("mae-ti4").encoder


@pytest.mark.parametrize(
    ("epoch", "rate", "decay"),
    [
        (0, 0.0, 0.04),
        (5, 2.5e-4, 0.04024668),
        (10, 5e-4, 0.04098606),
        (150, 2.640077e-4, 0.22),
        (300, 1e-6, 0.4),
    ],
)
def test_rate_and_decay_at_named_epochs(epoch: float, rate: float, decay: float) -> None:
    """Of 300: ten straight up to 5e-4, half a cosine down to 1e-6; the decay half a cosine up, 0.04 to 0.4."""
    recipe = find_recipe("dino-ti4")
    found = recipe.schedule.rate(epoch, recipe.epochs, recipe.batch_size)
    assert found == pytest.approx(rate, rel=1e-4, abs=1e-12)
    optimizer = recipe.optimizer.build(torch.nn.Linear(2, 2))
    set_rates(optimizer, found, epoch / recipe.epochs)
    assert optimizer.param_groups[1]["weight_decay"] == pytest.approx(decay, abs=1e-7)


def test_head_and_encoder_of_the_small_one() -> None:
    recipe = find_recipe("dino-ti4")
    with torch.device("meta"):
        statistics = Statistics(torch.zeros(3), torch.ones(3))
        model = recipe.objective.build(recipe.encoder.build(recipe.image_size, 3, statistics))
    width, hidden, bottleneck = 192, 1024, 128
    mlp = (width + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * bottleneck
    head = mlp + 4096 * bottleneck + 4096
    assert sum(parameter.numel() for parameter in model.head.parameters()) == head
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 1}, "a batch needs at least 2, got 1"),
        ({"views": find_recipe("mae-ti4").views}, "use views:multi-crop"),
        (
            {"image_size": Size(8, 8)},
            "small crops of 16 pixels are larger than the image size 8",
        ),
        (
            {"views": MultiCrop(small_size=Size(18, 18))},
            "18 x 18 pixels cannot be divided into patches",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        replace(find_recipe("dino-ti4"), **change)  # pyright: ignore[reportArgumentType]


def test_moco_is_as_published() -> None:
    """Chen, Xie and He (2021), section 4, and their commands."""
    base, small = find_recipe("moco3-b16"), find_recipe("moco3-s16")
    for recipe in (base, small):
        assert recipe.objective == MoCo3(
            hidden_dim=4096, out_dim=256, temperature=0.2, momentum=0.99
        )
        assert recipe.views == TwoCrops(
            smallest_share=0.08,
            flip_probability=0.5,
            jitter_probability=0.8,
            gray_probability=0.2,
            blur_probabilities=(1.0, 0.1),
            solarize_probability=0.2,
        )
        assert recipe.optimizer == AdamW(beta1=0.9, beta2=0.999, weight_decay=0.1)
        assert recipe.schedule.peak(4096) == pytest.approx(2.4e-3)
        assert (recipe.batch_size, recipe.epochs, recipe.schedule.warmup_epochs) == (4096, 300, 40)
    assert (small.encoder.embed_dim, small.encoder.num_heads) == (384, 12)


def test_small_moco_is_what_it_says() -> None:
    recipe = find_recipe("moco3-ti4")
    assert recipe.objective == MoCo3(hidden_dim=1024, out_dim=128)
    assert sizes_of(recipe.views, recipe.image_size) == (Size(32, 32),) * 2
    assert recipe.encoder == find_recipe("mae-ti4").encoder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 1}, "a batch needs at least 2, got 1"),
        (
            {"views": find_recipe("dino-ti4").views},
            "of the same size, and these views are .*use views:two-crops",
        ),
    ],
)
def test_what_moco_cannot_compare_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        replace(find_recipe("moco3-ti4"), **change)  # pyright: ignore[reportArgumentType]


def test_one_view_is_all_that_a_masked_autoencoder_takes() -> None:
    with pytest.raises(SettingsError, match="uses one view of each image, and these views are 8"):
        replace(find_recipe("mae-ti4"), views=find_recipe("dino-ti4").views)
