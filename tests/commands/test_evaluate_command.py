"""`unmask evaluate`: scores for people and for programs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from commands.said import Unmask
from PIL import Image
from runs import tiny, tiny_transfer

import unmask as package
from unmask.data import Folder
from unmask.data.cache import cache_folder
from unmask.errors import SettingsError
from unmask.evaluation.frozen import PROBES
from unmask.evaluation.vectors import load_fitted
from unmask.runs.folder import RunFolder


@pytest.mark.parametrize("protocol", ["knn", "logistic"])
def test_json_holds_all_figures(
    unmask: Unmask, trained: RunFolder, classes: Path, protocol: str
) -> None:
    said = unmask("evaluate", trained.root, classes, "--protocol", protocol, "--json")
    assert said.status == 0
    figures = json.loads(said.raw)
    about = {key: value for key, value in figures.items() if key not in ("scores", "verdicts")}
    assert about == {
        "command": f"unmask evaluate {trained.root} {classes} --protocol {protocol} --json",
        "run": str(trained.root),
        "weights": "tiny, step 6",
        "step": 6,
        "method": "mae",
        "parameters": figures["parameters"],
        "shape": "1 block of 8 with 2 heads, MLPs of 32 and patches of 2",
        "data": str(classes),
        "split": "20% of each class for testing, drawn from seed 0",
        "train_images": 16,
        "test_images": 4,
        "classes": 2,
        "measure": "top-1",
        "chance": 0.5,
        "largest_class": 0.5,
        "left_out": 0,
    }
    verdicts = figures["verdicts"]
    assert [one["control"] for one in verdicts] == ["random initialisation", "raw pixels"]
    assert all(one["low"] <= one["difference"] <= one["high"] for one in verdicts)
    assert {(one["images"], one["outcome"]) for one in verdicts} == {(4, "no difference shown")}
    whitened = [("mean", "whitened to 128")] if protocol == "knn" else []
    features = [("cls", "plain"), ("mean", "plain"), *whitened]
    pixels = [("pixels", vectors) for vectors in dict(whitened).values()]
    rows = figures["scores"]
    assert {row["protocol"] for row in rows} == {protocol}
    assert [(row["arm"], row["feature"], row["vectors"]) for row in rows] == [
        *(("pretrained", *feature) for feature in features),
        *(("random initialisation", *feature) for feature in features),
        *(("raw pixels", *feature) for feature in [("pixels", "plain"), *pixels]),
    ]
    assert figures["parameters"] == sum(
        tensor.numel()
        for name, tensor in tiny.newest(trained).read("encoder").items()
        if name not in ("mean", "std")
    )
    # dark against bright, which whitening of two classes need not keep
    assert all(0.5 <= row["accuracy"] <= 1 for row in rows if row["vectors"] == "plain")
    assert "pixels at 8 x 8, normalised as for the encoder" in rows[-1]["setting"]


def test_the_function_gives_the_same_scores_and_writes_no_file(
    unmask: Unmask, trained: RunFolder, classes: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained.root, tmp_path / "run")
    shutil.rmtree(RunFolder(run).evaluations, ignore_errors=True)
    found = package.evaluate(run, classes, labels=("2", "all"), control="random")
    assert not RunFolder(run).evaluations.exists()
    assert (found.measure, found.chance) == ("top-1", 0.5)
    assert (found.train_images, found.test_images, found.unreadable) == (16, 4, [])
    words = ("evaluate", trained.root, classes, "--labels", "2,all", "--control", "random")
    rows = json.loads(unmask(*words, "--json").raw)["scores"]
    assert [(row.arm, row.feature, row.labels, row.values) for row in found.rows] == [
        (row["arm"], row["feature"], row["labels"], row["accuracies"]) for row in rows
    ]
    assert package.evaluate(run, Folder(path=str(classes))).rows[0].values == rows[3]["accuracies"]


def test_a_labels_file_belongs_to_a_path(trained: RunFolder, classes: Path) -> None:
    with pytest.raises(SettingsError, match=r"for the spec of a source use LabelsFile"):
        package.evaluate(trained.root, Folder(path=str(classes)), labels_file="labels.csv")


def test_table_for_people(unmask: Unmask, trained: RunFolder, classes: Path) -> None:
    said = unmask("evaluate", trained.root, classes, "--control", "random")
    assert said.status == 0
    for words in (
        f"encoder {trained.root} (tiny, step 6; 1 block of 8 with 2 heads, MLPs of 32 and patches of 2, ",
        f"M parameters) images {classes}: 16 for training, 4 for testing",
        "20% of each class for testing, drawn from seed 0",
        "pretrained class token",
        "random",
        "chance 50.0%",
        "protocol knn; cosine, k = 20, temperature 0.07",
        "s for scores",
    ):
        assert words in said.out


def test_control_is_the_encoder_before_training(
    unmask: Unmask, trained: RunFolder, classes: Path
) -> None:
    words = ("evaluate", trained.root, classes, "--control", "random", "--json")
    first, second = (json.loads(unmask(*words).raw)["scores"] for _ in range(2))
    assert [row["accuracies"] for row in first] == [row["accuracies"] for row in second]
    assert {row["arm"] for row in first} == {
        "pretrained",
        "random initialisation",
        "raw pixels",
    }


def test_raw_pixels_and_random_weights_stand_beside_every_frozen_score(
    unmask: Unmask, trained: RunFolder, classes: Path
) -> None:
    said = unmask("evaluate", trained.root, classes, "--out", "here/both.json")
    assert said.status == 0, said.err
    for words in (
        "whitened to",  # the table may be too narrow for more in one line
        "random weights: the same encoder",
        "raw pixels as they are",
        "raw pixels: the image without an encoder",
        "temperature 0.07; raw pixels: pixels at 8 x 8, normalised as for the encoder",
    ):
        assert words in said.out
    rows = json.loads(Path("here/both.json").read_text())["scores"]
    assert [row["arm"] for row in rows if row["vectors"] == "whitened to 128"] == [
        "pretrained", "random initialisation", "raw pixels",
    ]  # fmt: skip
    assert picture_of(Path("here/both.png"))[0] > 400
    alone = unmask("evaluate", trained.root, classes, "--control", "none", "--json")
    assert {row["arm"] for row in json.loads(alone.raw)["scores"]} == {"pretrained"}
    assert (trained.evaluations / "knn-animals-none.json").exists()


def test_whitened_vectors_can_be_made_again_and_plain_ones_are_a_flag_away(
    unmask: Unmask, classes: Path, tmp_path: Path
) -> None:
    run = tiny.begin(tmp_path / "run", classes)
    tiny.one_step(run)
    plain = unmask("evaluate", run.root, classes, "--vectors", "plain", "--json")
    rows = json.loads(plain.raw)["scores"]
    assert {row["vectors"] for row in rows} == {"plain"}
    assert (run.evaluations / "knn-animals-plain.json").exists()
    assert not run.vectors.exists()
    said = unmask("evaluate", run.root, classes)
    path = run.vectors / "animals.safetensors"
    assert f"written: {path}" in said.out
    about = json.loads(path.with_suffix(".json").read_text())
    assert (about["images"], about["rule"]["whitened"]) == (16, 128)  # training images only
    fitted = load_fitted(path, package.load(run.root).encoder)
    assert fitted.directions is not None
    assert fitted.directions.shape == (8, 8)


def test_split_of_the_data_is_taken(
    unmask: Unmask, trained: RunFolder, classes: Path, tmp_path: Path
) -> None:
    shutil.copytree(classes, tmp_path / "data" / "train")
    tiny.write_classes(tmp_path / "data" / "val", count=3)
    said = unmask("evaluate", trained.root, tmp_path / "data", "--json")
    figures = json.loads(said.raw)
    assert figures["split"] == "the data's own train and test folders"
    assert (figures["train_images"], figures["test_images"]) == (20, 6)


def test_unlabelled_images(unmask: Unmask, trained: RunFolder, images: Path) -> None:
    said = unmask("evaluate", trained.root, images)
    assert said.status == 1
    assert "put each class in its own folder" in said.err


def test_other_channels(unmask: Unmask, trained: RunFolder) -> None:
    said = unmask("evaluate", trained.root, "digits", "--control", "none")
    assert said.status == 0, said.err
    assert (
        f"note: grey images are repeated in 3 channels, because {trained.root} was trained on colour"
        in said.err
    )


def test_misspelt_protocol(unmask: Unmask, trained: RunFolder, classes: Path) -> None:
    said = unmask("evaluate", trained.root, classes, "--protocol", "knnn")
    assert said.status == 1
    assert "--protocol must be one of knn, logistic," in said.err
    assert "did you mean knn?" in said.err


def test_missing_words(unmask: Unmask, trained: RunFolder, classes: Path) -> None:
    both = "which encoder, and which images? `unmask evaluate runs/NAME FOLDER`"
    for words, answer in (
        ([], both),
        (["--encoders", trained.root], both),
        ([trained.root], f"which images? `unmask evaluate {trained.root} FOLDER`; FOLDER holds"),
        ([classes], f"which encoder? `unmask evaluate runs/NAME {classes}`"),
        (["digits"], "which encoder? `unmask evaluate runs/NAME digits`"),
    ):
        said = unmask("evaluate", *words)
        assert said.status == 1
        assert answer in said.err
    said = unmask("evaluate", trained.root, classes, "--encoders", trained.root)
    assert said.status == 1
    assert "an encoder is named twice" in said.err


def test_unreadable_images_are_left_out_and_counted(
    unmask: Unmask, trained: RunFolder, classes: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(classes, tmp_path / "data")
    cut = data / "cats" / "03.png"
    cut.write_bytes(cut.read_bytes()[:60])
    said = unmask("evaluate", trained.root, data, "--json")
    assert json.loads(said.raw)["left_out"] == 1
    assert (
        "1 unreadable images skipped; the first is cats/03.png"
        in unmask("evaluate", trained.root, data).err
    )


def test_json_stays_json_beside_a_damaged_checkpoint(
    unmask: Unmask, classes: Path, tmp_path: Path
) -> None:
    folder = tiny.begin(tmp_path / "run", classes)
    tiny.one_step(folder), tiny.one_step(folder)
    (tiny.newest(folder).folder / "info.json").write_text("{")
    said = unmask("evaluate", folder.root, classes, "--json")
    assert json.loads(said.raw)["step"] == 1


def test_very_few_images_for_the_logistic_classifier(
    unmask: Unmask, trained: RunFolder, tmp_path: Path
) -> None:
    data = tiny.write_classes(tmp_path / "data", count=2)
    said = unmask("evaluate", trained.root, data, "--protocol", "logistic")
    assert "nan" not in said.all


def test_nothing_to_test_on(unmask: Unmask, trained: RunFolder, tmp_path: Path) -> None:
    data = tiny.write_classes(tmp_path / "data", count=1)
    said = unmask("evaluate", trained.root, data)
    assert said.status == 1
    assert "nan" not in said.all


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "feature"), [("linear", "cls"), ("attentive", "patches")])
def test_probes_have_a_mean_and_a_spread(
    unmask: Unmask,
    trained: RunFolder,
    classes: Path,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
    feature: str,
) -> None:
    probe, name = PROBES[protocol]
    monkeypatch.setitem(PROBES, protocol, (replace(probe, least_steps=40), name))
    words = ("evaluate", trained.root, classes, "--protocol", protocol, "--seeds", "2")
    said = unmask(*words, "--labels", "2,all", "--json")
    assert said.status == 0, said.err
    rows = json.loads(said.raw)["scores"]
    raw = "patches" if protocol == "attentive" else "pixels"
    assert [(row["arm"], row["feature"], row["labels"]) for row in rows] == [
        (arm, name, labels)
        for arm, name in (
            ("pretrained", feature), ("random initialisation", feature), ("raw pixels", raw)
        )
        for labels in ("2", "all")
    ]  # fmt: skip
    for row in rows:
        assert len(row["accuracies"]) == 2
        assert row["accuracy"] == pytest.approx(sum(row["accuracies"]) / 2)
        first, second = row["accuracies"]
        assert row["spread"] == pytest.approx(abs(first - second) / 2**0.5)
        assert "features not augmented" in row["setting"]
        assert row["images_per_second"] > 0


def test_few_labels_are_drawn_anew_for_every_seed(
    unmask: Unmask, trained: RunFolder, classes: Path
) -> None:
    said = unmask("evaluate", trained.root, classes, "--labels", "1,50%,all", "--json")
    counts = [(row["labels"], len(row["accuracies"])) for row in json.loads(said.raw)["scores"]]
    assert counts[:9] == [(n, 3) for n in ("1", "50%") for _ in range(3)] + [("all", 1)] * 3
    assert len(counts) == 9 + 9 + 6  # random weights and raw pixels


def picture_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        picture.load()
        return picture.size


@pytest.mark.slow
def test_a_ladder_draws_its_curve_beside_both_controls(
    unmask: Unmask, trained: RunFolder, classes: Path
) -> None:
    words = ("evaluate", trained.root, classes, "--protocol", "ladder", "--seeds", "1")
    said = unmask(*words, "--epochs", "1", "--control", "both", "--out", "here/ladder.json")
    assert said.status == 0, said.err
    rows = json.loads(Path("here/ladder.json").read_text())["scores"]
    rungs = ["0", "half", "all"]
    assert [(row["arm"], row["feature"]) for row in rows] == [
        *(("pretrained", rung) for rung in rungs),
        *(("random initialisation", rung) for rung in rungs),
        ("from scratch", "all"),
    ]
    assert picture_of(Path("here/ladder.png"))[0] > 400
    assert "all blocks trained" in said.out
    assert "random weights: the same encoder with random weights" in said.out
    assert "from scratch: all blocks trained from random weights" in said.out


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--protocol", "knn"], "knn-animals"),
        (["--labels", "2,50%", "--control", "random"], "knn-animals-2-50pct-random"),
    ],
)
def test_every_answer_lies_beside_the_run(
    unmask: Unmask, trained: RunFolder, classes: Path, flags: list[str], name: str
) -> None:
    said = unmask("evaluate", trained.root, classes, *flags, "--json")
    path = trained.evaluations / f"{name}.json"
    assert json.loads(path.read_text()) == json.loads(said.raw)
    assert picture_of(path.with_suffix(".png"))[0] > 400


def test_answers_about_foreign_weights_lie_here(
    unmask: Unmask, trained: RunFolder, classes: Path, tmp_path: Path
) -> None:
    file = shutil.copy(
        tiny.newest(trained).folder / "model.safetensors", tmp_path / "some.safetensors"
    )
    said = unmask("evaluate", file, classes)
    assert said.status == 0, said.err
    assert Path("evaluations/some/knn-animals.json").exists()
    assert str(cache_folder() / "features") in unmask("evaluate", file, classes).out


def test_features_are_kept_and_it_is_said(unmask: Unmask, classes: Path, tmp_path: Path) -> None:
    run = tiny.begin(tmp_path / "run", classes)
    tiny.one_step(run), tiny.one_step(run)  # the first has a rate of 0
    data = shutil.copytree(classes, tmp_path / "data")
    words = ("evaluate", run.root, data, "--control", "random")
    first, again = unmask(*words), unmask(*words)
    assert "features reused from disk" not in first.out
    assert f"(pretrained and random initialisation): {run.features}" in again.out
    figures = json.loads(unmask(*words, "--json").raw)
    assert {row["features"] for row in figures["scores"]} == {"kept"}
    shutil.copy(data / "cats" / "00.png", data / "cats" / "new.png")
    figures = json.loads(unmask(*words, "--json").raw)
    assert {row["features"] for row in figures["scores"]} == {"computed"}
    tiny.one_step(run)
    rows = json.loads(unmask(*words, "--json").raw)["scores"]
    assert [row["features"] for row in rows] == ["computed"] * 3 + ["kept"] * 5


def test_damaged_features_are_told_and_mended(
    unmask: Unmask, classes: Path, tmp_path: Path
) -> None:
    run = tiny.begin(tmp_path / "run", classes)
    tiny.one_step(run)
    words = ("evaluate", run.root, classes, "--json")
    whole = json.loads(unmask(*words).raw)["scores"]
    for path in run.features.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    said = unmask(*words)
    assert "is damaged" in said.err
    assert [row["accuracies"] for row in json.loads(said.raw)["scores"]] == [
        row["accuracies"] for row in whole
    ]


@pytest.mark.slow
def test_encoders_are_compared_by_size(
    unmask: Unmask, trained: RunFolder, classes: Path, images: Path, tmp_path: Path
) -> None:
    wide = replace(tiny.RECIPE, encoder=replace(tiny.RECIPE.encoder, embed_dim=16))
    larger = tiny.begin(tmp_path / "larger", images, recipe=wide)
    tiny.one_step(larger)
    twin = tiny.begin(tmp_path / "twin", images, seed=1)
    tiny.one_step(twin)
    names = f"{trained.root},{larger.root},{twin.root}"
    said = unmask("evaluate", classes, "--encoders", names, "--control", "random", "--json")
    assert said.status == 0, said.err
    encoders = json.loads(said.raw)["encoders"]
    assert [one["run"] for one in encoders] == names.split(",")
    alone = json.loads(
        unmask("evaluate", larger.root, classes, "--control", "random", "--json").raw
    )
    assert [row["accuracies"] for row in encoders[1]["scores"]] == [
        row["accuracies"] for row in alone["scores"]
    ]
    text = Path("evaluations/compared-knn-animals-random.md").read_text()
    score = next(row["accuracy"] for row in alone["scores"] if row["feature"] == "mean")
    part = text.partition("## mean of patches")[2]
    sizes = [one["parameters"] for one in encoders]
    assert part.index(f"{sizes[0] / 1e6:.3g} M") < part.index(f"{sizes[1] / 1e6:.3g} M")
    assert f"| mae |  | {score:.1%} |" in part
    assert f"| mae ({twin.root}) |" in part  # another of the same method and size
    assert picture_of(Path("evaluations/compared-knn-animals-random.png"))[0] > 400
    table = unmask("evaluate", trained.root, classes, "--encoders", str(larger.root)).out
    assert "by number of parameters of the encoder" in table


@pytest.mark.parametrize(("protocol", "feature"), [("linear", "cls"), ("attentive", "patches")])
def test_augmented_probes(
    unmask: Unmask, trained: RunFolder, classes: Path, protocol: str, feature: str
) -> None:
    words = ("evaluate", trained.root, classes, "--protocol", protocol, "--augment", "--json")
    said = unmask(*words, "--seeds", "1", "--epochs", "2", "--control", "random")
    assert said.status == 0, said.err
    rows = json.loads(said.raw)["scores"]
    assert [(row["arm"], row["feature"], row["features"]) for row in rows] == [
        ("pretrained", feature, "trained"),
        ("random initialisation", feature, "trained"),
    ]
    assert "2 steps of 16 (2 epochs)" in rows[0]["setting"]
    assert "new crops and flips at every step" in rows[0]["setting"]


@pytest.mark.parametrize("protocol", ["partial", "finetune"])
def test_trained_protocols(
    unmask: Unmask, trained: RunFolder, classes: Path, protocol: str
) -> None:
    words = ("evaluate", trained.root, classes, "--protocol", protocol, "--epochs", "1")
    said = unmask(*words, "--labels", "4", "--seeds", "2", "--json")
    assert said.status == 0, said.err
    (row,) = json.loads(said.raw)["scores"]
    assert len(row["accuracies"]) == 2
    assert row["feature"] == {"partial": "1", "finetune": "all"}[protocol]
    assert "recipe finetune-digits" in said.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--labels", "9"], "9 labels need 9 training images of each class, but 'cats' has 8"),
        (["--labels", "few"], "such as 1,5,10,1%,10%,all, got 'few'"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--epochs", "3"], "--epochs is for partial, finetune, ladder, --augment and --control"),
        (["--recipe", "finetune-b16"], "--recipe is for partial, finetune, ladder and --control"),
        (["--protocol", "partial", "--epochs", "0"], "--epochs must be above 0, got 0"),
        (["--augment"], "--augment is only for linear and attentive, which train a head; knn uses"),
        (["--protocol", "partial", "--augment"], "which train a head; partial always augments"),
        (["--labels", "1,1"], "--labels has an amount twice: 1,1"),
        (["--encoders", "runs/nothing"], "--encoders: there is no file or folder runs/nothing"),
        (
            ["--protocol", "finetune", "--recipe", "finetune-b16"],
            "recipe finetune-b16 is for 12 blocks of 768",
        ),
    ],
)
def test_what_makes_no_sense(
    unmask: Unmask, trained: RunFolder, classes: Path, flags: list[str], message: str
) -> None:
    said = unmask("evaluate", trained.root, classes, *flags)
    assert said.status == 1
    assert message in said.err


@pytest.mark.slow
def test_fine_tuning_with_a_head_of_ones_own_recipe(
    unmask: Unmask, trained: RunFolder, classes: Path
) -> None:
    Path("mine.py").write_text(
        "from dataclasses import replace\n"
        "from runs.tiny_transfer import TRANSFER\n"
        "from unmask.tasks.heads import ClassTokenHead\n"
        "MINE = replace(TRANSFER, task=replace(TRANSFER.task, head=ClassTokenHead()))\n"
    )
    words = ("--protocol", "finetune", "--recipe", "mine.py:MINE", "--device", "cpu", "--json")
    said = unmask("evaluate", trained.root, classes, *words)
    assert said.status == 0, said.err
    (row,) = json.loads(said.raw)["scores"]
    assert row["feature"] == "all"
    assert 0 <= row["accuracy"] <= 1


class TestCorrupt:
    """`--corrupt`, on corrupted test pictures."""

    def test_an_encoder_beside_its_controls(
        self, trained: RunFolder, classes: Path, tmp_path: Path, unmask: Unmask
    ) -> None:
        out = tmp_path / "r.json"
        said = unmask(
            "evaluate", trained.root, classes, "--corrupt", "--out", out, "--threads", "1"
        )
        assert said.status == 0, said.err
        assert "4 test pictures (20% of each class for testing" in said.out
        assert "mCE beside random weights" in said.out
        figures = json.loads(out.read_text())
        assert [one["model"] for one in figures["models"]] == [
            "pretrained",
            "random initialisation",
            "raw pixels",
        ]
        plain = unmask("evaluate", trained.root, classes, "--json", "--threads", "1")
        clean = {
            row["arm"]: row["accuracy"]
            for row in json.loads(plain.raw)["scores"]
            if row["vectors"] != "plain"
        }
        assert {one["model"]: one["clean"] for one in figures["models"]} == clean
        for one in figures["models"]:
            assert len(one["corrupted"]) == 15
            values = [value for each in one["corrupted"].values() for value in each]
            assert len(values) == 75
            assert one["mean"] == pytest.approx(sum(values) / 75)
        with Image.open(out.with_suffix(".png")) as picture:
            assert picture.width > 1000

        # on the page of the run
        folder = RunFolder(shutil.copytree(trained.root, tmp_path / "run"))
        folder.evaluations.mkdir(exist_ok=True)
        shutil.copy(out, folder.evaluations / "corrupted-animals.json")
        assert unmask("report", folder.root).status == 0
        page = folder.report.read_text()
        cells = [f"{one['mean']:.1%}" for one in figures["models"]]
        assert f'<th scope="row">mean</th><td>{"</td><td>".join(cells)}</td>' in page
        assert page.count('<th scope="row">gaussian noise</th>') == 1
        assert "mCE beside random initialisation" in page

    def test_fine_tuned_runs_beside_one_from_scratch(
        self, trained: RunFolder, classes: Path, tmp_path: Path, unmask: Unmask
    ) -> None:
        words = ("--epochs", "1", "--threads", "1", "--workers", "0")
        for name, start in (
            ("tuned", (trained.root, classes)),
            ("scratch", ("scratch", classes)),
        ):
            recipe = ("--recipe", f"{tiny_transfer.__file__}:TRANSFER")
            said = unmask("finetune", *start, *recipe, *words, "--out", tmp_path / name)
            assert said.status == 0, said.err
        runs = [tmp_path / "tuned", tmp_path / "scratch"]
        said = unmask(
            "evaluate", classes, "--encoders", ",".join(map(str, runs)), "--corrupt", "--json",
            "--out", tmp_path / "r.json", "--threads", "1",
        )  # fmt: skip
        assert said.status == 0, said.err
        figures = json.loads(said.raw)
        assert figures["control"] == str(runs[1])
        tuned, scratch = figures["models"]
        errors = [[5 - sum(each) for each in one["corrupted"].values()] for one in (tuned, scratch)]
        ratios = [a / b for a, b in zip(*errors, strict=True) if b > 0]
        expected = sum(ratios) / 15 if len(ratios) == 15 else None
        assert tuned["relative_errors"] == (expected and pytest.approx(expected))
        assert scratch["relative_errors"] is None
        tested = json.loads((runs[0] / "results.json").read_text())
        assert figures["models"][0]["clean"] == pytest.approx(tested["top1"])
        mixed = unmask("evaluate", trained.root, classes, "--encoders", runs[0], "--corrupt")
        assert mixed.status == 1
        assert "give only one of the two kinds" in mixed.err
        others = tiny.write_classes(tmp_path / "others", ("cats", "newts"), count=4)
        said = unmask("evaluate", runs[0], others, "--corrupt")
        assert said.status == 1
        assert "give pictures of the same classes" in said.err

    def test_flags_that_do_nothing_are_refused(
        self, trained: RunFolder, classes: Path, unmask: Unmask
    ) -> None:
        for flag in (
            "--labels=1",
            "--protocol=linear",
            "--epochs=1",
            "--seeds=1",
            "--control=both",
        ):
            said = unmask("evaluate", trained.root, classes, "--corrupt", flag)
            assert said.status == 1
            assert f"leave out {flag.partition('=')[0]}" in said.err
