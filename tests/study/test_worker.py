"""Runs of a study: made once, known again, resumed, and recorded when they fail."""

import errno
import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from runs import tiny, tiny_transfer

from unmask.data.kinds import find_source
from unmask.data.labelled import open_labelled
from unmask.data.statistics import measure
from unmask.encoders.vit import VIT_TI16
from unmask.errors import ResourceError
from unmask.masking import RandomMasking
from unmask.spec import EARLIER_DEFAULT
from unmask.study import Study, Trial, Variation
from unmask.study.claims import claimed
from unmask.study.plan import Job, Plan, Setting, essence, jobs
from unmask.study.report import collected, write
from unmask.study.table import markdown
from unmask.study.worker import work
from unmask.training.hardware import Hardware
from unmask.training.logbook import read_log

BASE = Trial(
    recipe=replace(tiny.RECIPE, schedule=replace(tiny.RECIPE.schedule, base_lr=0.01)),
    transfer=tiny_transfer.TRANSFER,
)
STUDY = Study(
    title="Share of hidden patches",
    source="a test",
    base="75 %",
    variations=(
        Variation(name="75 %", change=lambda trial: trial, published={"knn": 60.0}),
        Variation(
            name="50 %",
            change=lambda trial: trial.objective(masking=RandomMasking(ratio=0.5)),
            published={"knn": 50.0},
        ),
    ),
    scores=("knn", "finetune"),
    timed=False,
)


def setting_of(data: Path) -> Setting:
    source = find_source(str(data))
    labelled = open_labelled(source, 0)
    hardware = Hardware(device="cpu", precision="float32", workers=0, threads=1, micro_batch=64)
    return Setting(
        data=source, labelled=labelled, statistics=measure(labelled.train), hardware=hardware
    )


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return setting_of(tiny.write_classes(tmp_path_factory.mktemp("study") / "data"))


def plan_in(root: Path, study: Study = STUDY, **changes: Any) -> Plan:
    plan = Plan(
        study=study,
        name="share",
        trials=study.trials(BASE),
        costs={},
        seeds=[0],
        root=root,
        words=(),
    )
    return replace(plan, **changes)


def jobs_in(root: Path, setting: Setting, seeds: int = 1) -> list[Job]:
    return jobs(plan_in(root, seeds=range(seeds)), setting)


def run(root: Path, setting: Setting, seeds: int = 1) -> dict[str, dict[str, object]]:
    """Make everything; the answers by variation, without times."""
    every = jobs_in(root, setting, seeds)
    for _ in work(every, setting, Event()):
        pass
    assert not any(job.left() for job in every)
    return {
        f"{job.name} {job.seed}": {
            key: {k: v for k, v in answer.items() if k != "seconds"}
            for key, answer in job.answers().items()
            if key != "seconds"
        }
        for job in every
    }


@pytest.fixture(scope="module")
def made(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    run(root, setting)
    return root


def test_every_question_is_answered(made: Path, setting: Setting) -> None:
    pretrained, half, random = jobs_in(made, setting)
    assert [job.name for job in (pretrained, half, random)] == [
        "75 %",
        "50 %",
        "random initialisation",
    ]
    for job in (pretrained, half, random):
        answers = [job.answers()[item.key] for item in job.measurements]
        assert all(0 <= answer["test"] <= 1 for answer in answers)
        assert "train" in answers[1]
    assert (pretrained.folder / "pretrained" / "spec.json").exists()
    assert not (random.folder / "pretrained").exists()


def test_what_is_made_is_not_made_again_even_elsewhere(
    made: Path, setting: Setting, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(made, moved)
    before = {path: path.stat().st_mtime_ns for path in moved.rglob("*")}
    run(moved, setting)
    assert {path: path.stat().st_mtime_ns for path in moved.rglob("*")} == before


def test_variations_of_fine_tuning_share_a_pretraining(setting: Setting, tmp_path: Path) -> None:
    one = Variation(
        name="one block",
        change=lambda t: t.tuned(task=replace(t.transfer.task, trained_blocks="0")),
    )
    both = replace(STUDY, variations=(*STUDY.variations, one))
    every = jobs(plan_in(tmp_path, both, seeds=range(2)), setting)
    assert len(every) == 2 * 3
    assert [len({item.key for item in job.measurements}) for job in every[:3]] == [3, 2, 2]


def test_runs_are_known_by_data_seed_and_recipe(
    made: Path, setting: Setting, tmp_path: Path
) -> None:
    other = setting_of(tiny.write_classes(tmp_path / "data", count=11))
    folders = [job.folder.name for job in jobs_in(made, setting, seeds=2)]
    folders += [job.folder.name for job in jobs_in(made, other, seeds=2)]
    assert len(set(folders)) == len(folders)


def test_a_new_field_leaves_old_runs_known() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Spec:
        size: int
        ratio: float = 0.75

    old = essence(Spec(size=1))

    @dataclass(frozen=True, kw_only=True)
    class Newer:
        size: int
        ratio: float = 0.75
        extra: str = "none"

    assert {**essence(Newer(size=1)), "kind": "Spec"} == old
    assert essence(Spec(size=1, ratio=0.5)) != old
    assert json.dumps(essence(BASE.recipe)), "all of it is JSON"


def test_runs_from_before_a_new_default_are_not_joined_with_new_ones() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Spec:
        size: int
        rule: str = "old"

    old, same_as_old = essence(Spec(size=1)), essence(Spec(size=1, rule="old"))

    @dataclass(frozen=True, kw_only=True)
    class Newer:
        size: int
        rule: str = field(default="new", metadata={EARLIER_DEFAULT: "old"})

    assert old == same_as_old == {**essence(Newer(size=1, rule="old")), "kind": "Spec"}
    assert essence(Newer(size=1))["rule"] == "new"
    antialiased = essence(replace(VIT_TI16, position_resampling="antialiased"))
    assert "position_resampling" not in antialiased
    assert essence(VIT_TI16)["position_resampling"] == "bicubic"


@pytest.mark.parametrize(
    "after", [1, 4, 7, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 5, 6))]
)
def test_stopped_anywhere_it_ends_with_the_same_scores(
    made: Path, setting: Setting, tmp_path: Path, after: int
) -> None:
    stop = Event()
    for number, _ in enumerate(work(jobs_in(tmp_path, setting), setting, stop), start=1):
        if number == after:
            stop.set()
    assert any(job.left() for job in jobs_in(tmp_path, setting))
    assert run(tmp_path, setting) == run(made, setting)


def test_killed_while_pretraining_it_goes_on_where_it_was_saved(
    made: Path, setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unmask.study import worker as module

    whole = module.training

    def killed(*args: object) -> object:
        for report in whole(*args):  # pyright: ignore[reportArgumentType]
            yield report
            if report.step == 2:
                args[4].set()  # pyright: ignore - saves and ends
                raise KeyboardInterrupt

    monkeypatch.setattr(module, "training", killed)
    with pytest.raises(KeyboardInterrupt):
        list(work(jobs_in(tmp_path, setting), setting, Event()))
    monkeypatch.undo()
    assert run(tmp_path, setting) == run(made, setting)


def test_a_variation_that_diverges_is_told_and_the_others_go_on(
    setting: Setting, tmp_path: Path
) -> None:
    wild = Variation(
        name="wild",
        change=lambda t: t.pretrained(schedule=replace(t.recipe.schedule, base_lr=1e30)),
    )
    study = replace(STUDY, variations=(wild, *STUDY.variations), scores=("knn",))
    every = jobs(plan_in(tmp_path, study), setting)
    doing = [(step.job.name, step.doing) for step in work(every, setting, Event())]
    assert ("wild", "failed") in doing
    assert ("50 %", "done") in doing
    found = collected(plan_in(tmp_path, study), setting)
    page = write(found, "wild", tmp_path, pytest.fail)[0].read_text()
    assert "wild failed: seed 0: " in page
    assert "the warm-up too short" in page


def test_another_process_s_run_is_left_to_it(made: Path, setting: Setting, tmp_path: Path) -> None:
    every = jobs_in(tmp_path, setting)
    with claimed(every[0].folder) as mine:
        assert mine
        steps = work(every, setting, stop := Event())
        for step in steps:
            if step.doing == "waiting":
                break
            assert step.job is not every[0]
        stop.set()
        assert not list(steps)
    assert [bool(job.left()) for job in every] == [True, False, False]
    assert run(tmp_path, setting) == run(made, setting)


def test_a_claim_left_in_a_finished_run_is_cleared(made: Path, setting: Setting) -> None:
    left = jobs_in(made, setting)[0].folder / "claim-0"
    left.write_text(json.dumps({"host": socket.gethostname(), "process": 2**30}))
    assert not list(work(jobs_in(made, setting), setting, Event()))
    assert not left.exists()


def test_a_full_disk_is_told_and_loses_nothing(
    made: Path, setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full: Callable[..., None] = _no_space
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(ResourceError, match="No space left"):
            list(work(jobs_in(tmp_path, setting)[2:], setting, Event()))
    assert run(tmp_path, setting) == run(made, setting)


def _no_space(self: Path, target: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_run_that_ended_collapsed_is_named_under_the_table(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "unmask.study.worker.collapse", lambda line, steps: f"rank 1 at step {line['step']}"
    )
    job = jobs_in(tmp_path, setting)[0]
    list(work([job], setting, Event()))
    last = read_log(job.folder / "pretrained" / "log.jsonl")[-1]["step"]
    found = collected(plan_in(tmp_path), setting)
    assert f"75 % collapsed: seed 0: rank 1 at step {last}" in markdown(found)
    assert markdown(found).count("collapsed") == 1


def test_the_table_and_the_rows(made: Path, setting: Setting, tmp_path: Path) -> None:
    found = collected(plan_in(made, words=("On a test.",)), setting)
    page, rows, picture = write(found, "share", tmp_path, pytest.fail)
    text = page.read_text()
    known = {line.name: line.scores["knn"][0] for line in found.lines}
    assert f"| **75 %** | {100 * known['75 %']:.1f} | 60.0 |" in text
    assert f"| 50 % | {100 * known['50 %']:.1f} | 50.0 |" in text
    assert "one seed does not allow a conclusion" in text
    assert "one seed, so this is not a conclusion" in text
    assert f"75 %,knn,0,{known['75 %']}" in rows.read_text().splitlines()
    assert "75 %,paper: knn,,60.0" in rows.read_text().splitlines()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_runs_that_have_not_ended_are_told(made: Path, setting: Setting, tmp_path: Path) -> None:
    def told(seeds: list[int]) -> str:
        return markdown(collected(plan_in(made, seeds=seeds), setting))

    assert "Not all runs" not in told([0])
    assert "of 2 seeds: 75 % 1, 50 % 1, random initialisation 1." in told([0, 1])
