"""What a newcomer types wrongly is answered at once, in one sentence, by the names that were typed."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands.said import Unmask
from PIL import Image

import unmask as package
from unmask import cli
from unmask.console.wrapping import wrapped_error
from unmask.runs.folder import RunFolder

AT_ONCE = {
    "pretrain gone": "gone does not exist; DATA is a folder of images",
    "pretrain ''": "a word of the command line is empty",
    "evaluate run ' '": "a word of the command line is empty",
    "pretrain photos --out ''": "--out needs a value, and got an empty one: --out PATH",
    "pretrain photos --init=": "--init needs a value, and got an empty one",
    "pretrain https://x.y/z": "https://x.y/z is an address, and unmask reads from disk",
    "pretrain photos --init gone.pth": "--init: there is no file or folder gone.pth",
    "pretrain photos --init s3://x/y.pth": "--init: s3://x/y.pth is an address",
    "pretrain --resume gone": "--resume: there is no file or folder gone",
    "pretrain photos --like photos": "--like: photos holds no run (no spec.json)",
    "pretrain photos --device gpux": "--device must be cpu, cuda (or gpu), cuda:1 for the second GPU, mps",
    "pretrain photos second": "`unmask pretrain` reads one folder, and got 2; put their images into one folder",
    "pretrain notes.txt": "notes.txt is a text; give the folder of its images as DATA",
    "bench --data gone": "--data: gone does not exist",
    "finetune gone photos": "there is no file or folder gone",
    "finetune run photos --labels-file gone": "--labels-file: gone does not exist",
    "finetune digits run": "DATA came first; did you mean: unmask finetune run digits",
    "evaluate digits run --labels 1": "DATA came first; did you mean: unmask evaluate run digits --labels 1",
    "predict digits run": "IMAGES came first; did you mean: unmask predict run digits",
    "reconstruct photos run": "IMAGES came first; did you mean: unmask reconstruct run photos",
    "convert out run --to timm": "came first; did you mean: unmask convert run out --to timm",
    "evaluate run": "which images? `unmask evaluate run FOLDER`",
    "reconstruct run notes.txt": "notes.txt is not a picture; pictures end in .jpg, .png",
    "predict run model.pth": "model.pth is not a picture",
    "reconstruct run --mask gone photos": "--mask: gone does not exist",
    "reconstruct run photos --mask-ratio 0.5": "did you mean --ratio?",
    "report gone": "there is no file or folder gone; give the folder of a run; runs nearby: run",
    "doctor gone": "gone does not exist",
    "words gone": "gone does not exist",
    "convert run out": "needs --to unmask|fair|timm|huggingface|onnx: the layout to write",
    "convert run out --to hf": "did you mean huggingface?",
    "report run --out page.txt": "--out page.txt: the report is a page; give it the ending .html",
    "reconstruct run photos --out sheet.txt": "sheet.txt has no ending of a picture; use .png",
    "pretrain photos --out /proc/x": "--out /proc/x cannot be written: no file can be created in /proc",
    "pretrain photos --mask-ratio 1.5": "--mask-ratio must lie between 0 and 1, got 1.5; MAE uses 0.75",
    "pretrain photos --epochs -3": "--epochs must be above 0, got -3",
    "pretrain photos --lr -1": "--lr must not be negative, got -1",
    "pretrain photos --image-size 99999": "--image-size must be at most 65,536, got 99999",
    "pretrain photos --recipe mae-ti4 --optimizer.beta1 1": "--optimizer.beta1 must be at least 0 and below 1",
    "pretrain photos --minutes 0": "--minutes must be above 0, got 0",
    "pretrain photos --threads 0": "--threads must be at least 1, got 0",
    "pretrain photos --schedule.milestones 2": "--schedule.milestones must lie between 0 and 1, got 2",
    "predict run photos --top 0": "--top must be at least 1, got 0",
    "pack photos out --quality 101": "--quality must lie between 1 and 100, got 101",
    "study target photos --seeds 0": "--seeds must be at least 1, got 0",
    "pretrain photos --precision bf16": "did you mean bfloat16?",
    "pretrain photos -q --verbose": "-q and --verbose contradict each other",
    "--epochs 3 pretrain photos": "did you mean: unmask pretrain --epochs 3 photos",
}
"""What is typed, and what is answered before torch is imported."""

SCRIPT = """
import io, json, shlex, sys
sys.modules["torch"] = None  # importing it is an error
from unmask.cli import main
answers = {}
for line in json.load(sys.stdin):
    sys.argv, sys.stderr = ["unmask", *shlex.split(line)], io.StringIO()
    try:
        main()
        status = 0
    except SystemExit as ended:
        status = ended.code
    answers[line] = status, sys.stderr.getvalue()
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """The exit status and the error of each line."""
    root = tmp_path_factory.mktemp("wrong")
    for name in ("photos", "second", "run"):
        (root / name).mkdir()
    Image.new("RGB", (4, 4)).save(root / "photos" / "a.png")
    (root / "run" / "spec.json").write_text("{}")
    for name in ("notes.txt", "model.pth"):
        (root / name).write_text("words")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(list(AT_ONCE)),
        cwd=root,
        env={"PYTHONPATH": str(Path(package.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("line", AT_ONCE)
def test_it_is_answered_before_torch_is_imported(
    line: str, answers: dict[str, tuple[int, str]]
) -> None:
    status, said = answers[line]
    assert status == 1
    assert AT_ONCE[line] in said
    assert said.startswith("unmask: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--lr -1", "--lr must not be negative, got -1"),
        ("--schedule.base-lr -1", "--schedule.base-lr must not be negative, got -1"),
        ("--mask-ratio 75", "--mask-ratio must lie between 0 and 1, got 75; 75 % is 0.75"),
        ("--patch-size 0", "--patch-size must be at least 1, got 0"),
        ("--encoder.mlp-ratio 0", "--encoder.mlp-ratio must be above 0"),
        ("objective.masking:block --mask-ratio 2", "--mask-ratio must lie between 0 and 1, got 2"),
    ],
)
def test_a_range_is_told_by_the_flag_as_it_was_typed(
    unmask: Unmask, images: Path, recipe: list[str], flags: str, words: str
) -> None:
    said = unmask("pretrain", images, *recipe, *flags.split())
    assert said.status == 1
    assert said.err.startswith(f"unmask: {words}")


def test_a_finished_run_names_the_way_to_train_longer(
    unmask: Unmask, trained: RunFolder, images: Path
) -> None:
    said = unmask("pretrain", "--resume", trained.root)
    assert said.status == 0
    before, _, command = said.out.partition("to train it longer, start from its weights: unmask ")
    assert "is finished: 6 of 6 steps are done" in before
    assert command == f"pretrain {images} --like {trained.root} --init {trained.root} --epochs N"
    said = unmask(*shlex.split(command.replace("N", "1")), "--out", "longer", "-q")
    assert said.status == 0, said.err
    assert Path("longer/checkpoints").is_dir()
    said = unmask("pretrain", "--resume", trained.root, "--epochs", "200")
    assert said.status == 1
    assert f"--init {trained.root} --epochs 200" in said.err


@pytest.mark.parametrize("line", ["demo", "study mask-ratio digits", "compare digits"])
def test_a_folder_of_other_things_is_no_place_for_results(
    unmask: Unmask, images: Path, line: str
) -> None:
    before = sorted(images.iterdir())
    said = unmask(*line.split(), "--out", images)
    assert said.status == 1
    assert f"{images} exists and is not empty; choose another folder with --out" in said.err
    assert sorted(images.iterdir()) == before


def test_a_second_demo_does_not_replace_the_first(unmask: Unmask, trained: RunFolder) -> None:
    Path("old").mkdir()
    Path("old/run").symlink_to(trained.root)
    said = unmask("demo", "--out", "old")
    assert said.status == 1
    assert said.err == "unmask: old holds a demo already; choose another folder with --out"


def test_wrong_encoders_of_a_comparison_are_said_once(unmask: Unmask, classes: Path) -> None:
    said = unmask("compare", classes, "--encoders", "x")
    assert said.status == 1
    assert said.err.count("each of --encoders must be one of xs, ti, s, b and a patch size") == 1


def test_more_and_less_may_stand_before_the_command(unmask: Unmask, trained: RunFolder) -> None:
    said = unmask("-q", "pretrain", "--resume", trained.root)
    assert (said.status, said.out, said.err) == (0, "", "")


def test_gpu_means_cuda(unmask: Unmask, trained: RunFolder, images: Path) -> None:
    said = unmask("reconstruct", trained.root, images, "--device", "gpu:7")
    assert said.status == 1
    assert "--device cuda:7 cannot be used here" in said.err


def test_of_several_processes_the_first_tells_what_is_wrong(
    unmask: Unmask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.time, "sleep", lambda _: None)
    monkeypatch.setenv("MASTER_ADDR", "first")
    for rank, words in (("0", "--epoch is not a flag"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        said = unmask("pretrain", "digits", "--epoch", "3")
        assert said.status == 1
        assert words in said.err
        assert bool(said.err) is bool(words)


def test_an_error_is_broken_between_words_and_never_within_a_command() -> None:
    words = "unmask: which encoder? `unmask finetune runs/NAME FOLDER`; FOLDER holds a folder for each class"
    assert wrapped_error(words, 48) == (
        "unmask: which encoder?\n"
        "        `unmask finetune runs/NAME FOLDER`;\n"
        "        FOLDER holds a folder for each class"
    )
    swapped = "unmask: DATA came first; did you mean: unmask evaluate runs/NAME digits --labels 1"
    assert wrapped_error(swapped, 60) == (
        "unmask: DATA came first; did you mean:\n"
        "        unmask evaluate runs/NAME digits --labels 1"
    )
