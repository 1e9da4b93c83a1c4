"""What a run is expected to need, and how it is cut to fit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference import problems
from runs import tiny

from unmask.errors import ResourceError, SettingsError
from unmask.objectives import MoCo3
from unmask.runs import plan
from unmask.runs.plan import check_whole, fitting_micro_batch, make_plan, trial
from unmask.runs.run import parameter_count
from unmask.training.step_cost import Cost

CPU = torch.device("cpu")
MIB = 2**20
COST = Cost(
    seconds_per_image=0.01,
    seconds_per_micro_batch=0.1,
    seconds_per_update=0.5,
    bytes_per_image=10 * MIB,
    bytes_fixed=100 * MIB,
    bytes_process=0,
)


def free(monkeypatch: pytest.MonkeyPatch, images: float) -> None:
    """Let there be room for this many images beside the weights, 15 % left over."""
    room = (COST.bytes_fixed + images * COST.bytes_per_image) / 0.85
    monkeypatch.setattr(plan, "memory_available", lambda device: round(room))


@pytest.mark.parametrize(
    ("batch", "room", "chosen"),
    [(64, 64.5, 64), (64, 63.5, 32), (64, 31.5, 16), (64, 1.5, 1), (6, 4.5, 3), (5, 4.5, 3), (1, 1.5, 1)],
)  # fmt: skip
def test_chosen_by_halves(
    monkeypatch: pytest.MonkeyPatch, batch: int, room: float, chosen: int
) -> None:
    free(monkeypatch, room)
    assert fitting_micro_batch(COST, batch, None, CPU) == chosen


def test_as_wanted_if_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 20.5)
    assert fitting_micro_batch(COST, 64, 20, CPU) == 20
    assert fitting_micro_batch(COST, 8, 20, CPU) == 8


def test_names_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 20.5)
    with pytest.raises(ResourceError, match=r"21 images .* 0\.3 GiB.* --micro-batch 20 would fit"):
        fitting_micro_batch(COST, 64, 21, CPU)


def test_not_one_image_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 0.5)
    for wanted in (None, 1):
        with pytest.raises(ResourceError, match=r"one image .*--recipe or a smaller --image-size"):
            fitting_micro_batch(COST, 64, wanted, CPU)


def test_time_of_a_step() -> None:
    assert COST.step_seconds(10, 10) == pytest.approx(0.01 * 10 + 0.1 * 1 + 0.5)
    assert COST.step_seconds(10, 4) == pytest.approx(0.01 * 10 + 0.1 * 3 + 0.5)


def test_weights_that_do_not_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = tiny.make_run(tiny.write_images(tmp_path / "images"))
    objective = run.build()
    monkeypatch.setattr(plan, "memory_available", lambda device: 4)
    with pytest.raises(ResourceError, match=r"weights, gradients and optimizer need .*--recipe"):
        trial(objective, run.recipe, run.data.open("train"), run.hardware)


def test_trial_leaves_no_trace(tmp_path: Path) -> None:
    """Weights, gradients and global random numbers are as before; so a run begins as if unmeasured."""
    run = tiny.make_run(tiny.write_images(tmp_path / "images"))
    objective = run.build()
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    state = torch.get_rng_state()
    cost = trial(objective, run.recipe, run.data.open("train"), run.hardware)
    tiny.assert_same_tensors(objective.state_dict(), before)
    assert all(p.grad is None or not p.grad.any() for p in objective.parameters())
    assert torch.get_rng_state().equal(state)
    assert cost.seconds_per_image > 0
    assert cost.bytes_per_image > 0
    learning = sum(p.nbytes for p in objective.parameters() if p.requires_grad)
    fixed = parameter_count(objective) * 4 - learning
    assert (
        4 * learning + fixed <= cost.bytes_fixed <= 4 * learning + fixed + 2**12
    )  # and step counts


def test_plan_of_a_run(tmp_path: Path) -> None:
    run = tiny.make_run(tiny.write_images(tmp_path / "images"), micro_batch=2)
    source = run.data.open("train")
    objective = run.build()
    found = make_plan(run, tiny.RECIPE, objective, source, COST)
    assert (found.kept, found.patches) == (4, 16)
    assert found.encoder_parameters == parameter_count(objective.encoder)
    assert found.decoder_parameters == parameter_count(objective.decoder)
    assert found.step_seconds > COST.step_seconds(4, 2)  # loading counts where no worker does it
    with_workers = replace(run, hardware=replace(run.hardware, workers=2))
    assert make_plan(with_workers, tiny.RECIPE, objective, source, COST).step_seconds > 0


def test_what_cannot_be_added_up_is_not_computed_in_parts() -> None:
    module = MoCo3(hidden_dim=8, out_dim=4).build(problems.build_encoder())
    check_whole(module, 4, 4)
    check_whole(problems.build(), 2, 4)
    with pytest.raises(
        SettingsError, match="cannot be computed 2 at a time, because MoCo v3 compares each image"
    ):
        check_whole(module, 2, 4)
