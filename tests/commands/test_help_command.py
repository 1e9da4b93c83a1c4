"""Help in two layers, aliases, one sentence for each wrong flag, and completion; all of it without torch."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands.said import Unmask

from unmask.cli import COMMANDS, GROUPS, UNLISTED
from unmask.console.command_line import split
from unmask.console.completion import candidates
from unmask.console.everyday import EVERYDAY
from unmask.console.flag_table import Flag, every_flag, table
from unmask.console.flag_values import check, read
from unmask.recipes import RECIPES

_HEAVY = """
import json, sys
from unmask import cli
found = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["unmask", *words]
    try:
        cli.main()
    except SystemExit:
        pass
    found += [words for name in ("torch", "tyro", "rich", "numpy") if name in sys.modules]
print(found, file=sys.stderr)
"""


def test_help_errors_and_completion_need_no_torch(tmp_path: Path) -> None:
    lines = [
        "--help",
        "help recipes",
        "pretrain --epoch 3",
        "pretrain photos --epochs ten",
        "pretrain photos --recipe mae-vitb",
        "pretrain photos --recipe dino-ti4 --mask-ratio 0.5",
        "evaluate a b --protocol knnn",
        "reconstruct",
        "convert a b",
        "study",
        "study --list",
        "pretrain photos --mask-ratio 1.5",
        "embed",
        "completion --shell fish",
        "_complete bash 'unmask pretrain --re'",
        *(f"{command} {flag}" for command in COMMANDS for flag in ("--help", "--help-all")),
        *(f"pretrain --recipe {name} --help" for name in RECIPES),
    ]
    words = json.dumps([shlex.split(line) for line in lines])
    ended = subprocess.run(
        [sys.executable, "-c", _HEAVY, words], capture_output=True, text=True, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_short_help_is_one_page(unmask: Unmask, command: str) -> None:
    said = unmask(command, "--help")
    lines = said.raw.splitlines()
    assert said.status == 0
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"usage: unmask {command}")
    assert sum(line.startswith("  unmask ") for line in lines) == 4
    assert unmask("help", command).raw == said.raw


@pytest.mark.parametrize("command", COMMANDS)
def test_the_whole_help_lists_every_flag(unmask: Unmask, command: str) -> None:
    said = unmask(command, "--help-all")
    assert said.status == 0
    flags = [each for each in every_flag(command) if isinstance(each, Flag)]
    assert all(each.metavar if each.positional else f"--{each.path}" in said.out for each in flags)
    assert max(map(len, said.raw.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_have_flags_that_exist(command: str) -> None:
    for example in EVERYDAY[command].examples:
        program, name, *words = shlex.split(example.replace("\\\n", " "), comments=True)
        assert program == "unmask"
        check(name, split(words[:-2] if ">" in words else words))


def test_defaults_are_those_that_apply(unmask: Unmask) -> None:
    assert "--epochs X Number of epochs: how often each image is shown. (recipe's)" in (
        unmask("pretrain", "--help").out
    )
    said = unmask("pretrain", "--recipe", "dino-ti4", "--help").out
    assert "(default: 300)" in said
    assert "--lr X Base learning rate (--schedule.base-lr). (default: 0.0005)" in said
    assert "--mask-ratio" not in said


@pytest.mark.parametrize("command", ["evaluate", "doctor", "compare"])
def test_only_settings_of_a_recipe_are_the_recipes(unmask: Unmask, command: str) -> None:
    assert "(recipe's)" not in unmask(command, "--help-all").out


def test_the_help_of_a_recipe_in_a_file(unmask: Unmask, recipe: list[str]) -> None:
    said = unmask("pretrain", *recipe[:2], "--help").out
    assert "--image-size SIZE Size of a crop in pixels: one number for a square, or" in said
    assert "HEIGHTxWIDTH. (default: 8)" in said


def test_top_help_has_four_groups(unmask: Unmask) -> None:
    said = unmask("--help")
    assert list(GROUPS) == ["learn", "use", "measure", "exchange"]
    for group, names in GROUPS.items():
        assert f"\n{group}:\n" in said.raw
        assert all(f"\n  {name} " in said.raw for name in names)
    assert "words" in UNLISTED
    assert "\n  words" not in said.raw
    assert unmask("help").raw == said.raw


def test_recipes_are_listed_in_a_line_each(unmask: Unmask) -> None:
    lines = unmask("help", "recipes").raw.splitlines()
    for name in table()["recipes"]:
        assert sum(line.split()[:1] == [name] for line in lines) == 1
    assert max(map(len, lines)) <= 80


WRONG = [
    ("pretrain p --objective.masking.ration 0.6", "did you mean --objective.masking.ratio?"),
    ("pretrain p --imgsz 64", "did you mean --image-size?"),
    ("pretrain p --epoch 3", "did you mean --epochs?"),
    ("pretrain p --learning-rate 3", "did you mean --lr?"),
    ("pretrain p --weight-decay 3", "did you mean --optimizer.weight-decay?"),
    ("pretrain p --epochs ten", "--epochs must be a number, got 'ten'"),
    ("pretrain p --seed 1.5", "--seed must be a whole number, got '1.5'"),
    ("pretrain p --image-size 12y", "--image-size must be one number or HEIGHTxWIDTH"),
    ("pretrain p --epochs", "--epochs needs a value: --epochs X"),
    ("pretrain p --epochs --lr 3", "--epochs needs a value"),
    ("pretrain p --shard=3", "--shard is a switch: --shard, or --shard=false to turn it off"),
    ("pretrain p -e 3", "-e is not a flag; flags have two dashes"),
    ("pretrain --data ../p", "DATA is given without a flag: unmask pretrain ../p"),
    ("evaluate --data ../p", "DATA is given without a flag: unmask evaluate RUN ../p"),
    ("predict --run r", "RUN is given without a flag: unmask predict r IMAGES"),
    ("pretrain data=../p epochs=3", "not with =: unmask pretrain ../p --epochs 3"),
    ("pretrain p batch_size=3", "not with =: unmask pretrain p --batch-size 3"),
    ("pretrain https://example.com/images.zip", "download it first"),
    ("pretrain nowhere", "nowhere does not exist; DATA is a folder of images, tar shards, Parquet"),
    ("pretrain p --recipe mae-vitb", "did you mean 'mae-b16'?"),
    ("pretrain p --recipe finetune-b16", "is a recipe for `unmask finetune`, not for pretraining"),
    ("pretrain p --objective dino", "write objective:dino"),
    ("pretrain p objective.masking:blok", "did you mean objective.masking:block?"),
    ("pretrain p masking:block", "did you mean objective.masking:block?"),
    ("pretrain p --masking blok", "did you mean 'block'?"),
    ("pretrain p --model vit-small", "did you mean vit-s?"),
    (
        "pretrain p --recipe mae-ti4 --objective.masking.side 3",
        "--objective.masking.side belongs to objective.masking:inverse-block",
    ),
    ("pretrain p q", "unexpected argument 'q'; `unmask pretrain` takes DATA"),
    ("bench p", "give images as --data p"),
    ("reconstruct", "RUN is missing: unmask reconstruct RUN IMAGES..."),
    ("convert a b", "needs --to unmask|fair|timm|huggingface|onnx: the layout to write; fair is that of"),
    ("pretrain p objective.target:tokenizer", "objective.target:tokenizer needs --objective.target.path"),
    ("embed p", "which encoder? `unmask embed runs/NAME p`"),
    ("encode p", "unknown command 'encode'; did you mean 'embed'?"),
    ("search", "VECTORS is missing: unmask search VECTORS IMAGES..."),
    ("export p", "unknown command 'export'; did you mean 'convert'?"),
    ("study gone.py:study p", "'gone.py:study' is not a study"),
    ("evaluate run:a p", "run:a"),
    ("help nothing", "unknown command 'nothing'"),
]  # fmt: skip
"""What is typed, and what is said."""


@pytest.mark.parametrize(("line", "words"), WRONG, ids=[line for line, _ in WRONG])
def test_a_wrong_line_gets_one_sentence(
    unmask: Unmask, images: Path, recipe: list[str], line: str, words: str
) -> None:
    Path("p").symlink_to(images)
    small = recipe[:2] if "objective.target:tokenizer" in line else []
    said = unmask(*line.split(), *small)
    assert said.status == 1
    assert said.err.startswith("unmask: ")
    assert words in said.err
    assert (
        "\n".join(line for line in said.out.splitlines() if not line.startswith("reading ")) == ""
    )


def test_swapped_words_get_their_order(unmask: Unmask, images: Path) -> None:
    said = unmask("study", images, "mask-ratio")
    assert said.status == 1
    assert f"DATA came first; did you mean: unmask study mask-ratio {images}" in said.err
    Path("run").mkdir()
    Path("run/spec.json").write_text("{}")
    said = unmask("evaluate", images, "run")
    assert f"DATA came first; did you mean: unmask evaluate run {images}" in said.err


def test_a_place_that_cannot_be_written_is_refused_first(unmask: Unmask, images: Path) -> None:
    Path("file").write_text("")
    said = unmask("pretrain", images, "--out", "file/run")
    assert said.status == 1
    assert "--out file/run cannot be written: " in said.err
    assert "file is not a writable folder" in said.err


@pytest.mark.parametrize("word", ["a" * 300, "a:" + "b" * 300, f"--{'a' * 300}", "a=" + "b" * 300])
def test_words_too_long_for_a_file(unmask: Unmask, word: str) -> None:
    said = unmask("pretrain", word)
    assert said.status == 1
    assert said.err.startswith("unmask: ")
    assert unmask("pretrain", "p", "--out", word).status == 1


def spec_of(folder: str) -> dict[str, object]:
    return json.loads((Path(folder) / "spec.json").read_text())["job"]["recipe"]


def test_aliases_set_what_they_stand_for(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    aliases = "--lr 1e-2 --mask-ratio 0.6 --masking block --patch-size 4 --epochs 2"
    dotted = "--schedule.base-lr 1e-2 objective.masking:block --objective.masking.ratio 0.6 --encoder.patch-size 4"
    for out, words in (("a", aliases), ("b", f"{dotted} --epochs 2")):
        said = unmask("pretrain", images, *recipe, *words.split(), "--out", out)
        assert said.status == 0, said.err
    assert spec_of("a") == spec_of("b")


def test_an_alias_goes_with_dotted_flags_of_the_same_part(unmask: Unmask) -> None:
    line = "photos --model vit-s8 --encoder.mlp-ratio 3 --masking squares --mask-ratio 0.5"
    start = {"recipe": table()["recipes"]["mae-b16"]["values"]}
    recipe = read("pretrain", split(line.split()), start)["recipe"]
    encoder = recipe["encoder"]
    assert (encoder["embed_dim"], encoder["num_heads"], encoder["depth"]) == (384, 6, 12)
    assert (encoder["patch_size"], encoder["mlp_ratio"]) == (8, 3.0)
    assert recipe["objective"]["masking"]["masking"] == {"kind": "random", "ratio": 0.5}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--lr 1 --schedule.base-lr 1", "--lr and --schedule.base-lr set the same value"),
        ("--mask-ratio 0.6 --objective.masking.ratio 0.5", "set the same value; leave out one"),
        ("--masking grid objective.masking:block", "--masking and objective.masking:block set"),
        ("--model vit-s16 --patch-size 8", "--patch-size and --model set the same value"),
        ("--model vit-s --encoder.depth 6", "--model and --encoder.depth set the same value"),
        ("--masking grid --mask-ratio 0.5", "objective.masking:grid has no ratio to set"),
        (
            "objective:dino --mask-ratio 0.5",
            "the objective dino hides no patches, so it has no masking; objective:latent and objective:mae have one",
        ),
        ("objective:moco3 --masking block", "the objective moco3 hides no patches"),
    ],
)
def test_an_alias_that_cannot_be_says_why(
    unmask: Unmask, images: Path, flags: str, words: str
) -> None:
    said = unmask("pretrain", images, "--recipe", "mae-ti4", *flags.split())
    assert said.status == 1
    assert words in said.err


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("pre", ["pretrain", "predict"]),
        ("help rec", ["reconstruct", "recipes"]),
        ("pretrain --ep", ["--epochs"]),
        ("pretrain photos --recipe dino-", ["dino-s16", "dino-b16", "dino-ti4"]),
        ("pretrain --recipe=moco3-t", ["--recipe=moco3-ti4"]),
        ("pretrain objective.masking:b", ["objective.masking:block"]),
        ("pretrain --masking in", ["inverse-block"]),
        ("pretrain --model vit-h", ["vit-h14"]),
        ("bench --precision b", ["bfloat16"]),
        ("pretrain objective:dino --objective.masking", []),
        ("pretrain pho", []),
        ("pretrain --out ", []),
    ],
)
def test_tab_completes(line: str, found: list[str]) -> None:
    assert candidates(line.split(" "), COMMANDS) == found


def test_bash_gets_only_what_follows_a_colon(unmask: Unmask) -> None:
    line = "unmask pretrain objective.masking:b"
    assert unmask("_complete", "bash", line).out == "block"
    assert unmask("_complete", "zsh", line).out == "objective.masking:block"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_once(
    unmask: Unmask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    first, second = unmask("completion", "--install"), unmask("completion", "--install")
    assert first.status == second.status == 0
    script = next(file for file in tmp_path.rglob("*") if "unmask _complete" in _text(file))
    assert f"wrote {script}" in first.out
    assert f"to undo: rm {script}" in first.out
    start = tmp_path / f".{shell}rc"
    assert start.exists() == (shell != "fish")
    if shell != "fish":
        assert start.read_text() == f"source {script}  # completion of unmask\n"


def _text(file: Path) -> str:
    return file.read_text() if file.is_file() else ""


def test_an_unknown_shell(unmask: Unmask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/dash")
    said = unmask("completion", "--install")
    assert said.status == 1
    assert "completion is for bash, zsh, fish, and $SHELL is dash" in said.err


def test_bash_completes_with_the_script(unmask: Unmask, tmp_path: Path) -> None:
    command = tmp_path / "bin" / "unmask"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m unmask "$@"\n')
    command.chmod(0o755)
    (tmp_path / "script").write_text(unmask("completion", "--shell", "bash").raw)
    ask = (
        f"source {tmp_path}/script; COMP_LINE='unmask pretrain --recipe dino-'; COMP_POINT=${{#COMP_LINE}}; "
        'COMP_WORDS=(unmask); _unmask; echo "${COMPREPLY[@]}"'
    )
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-c", ask], capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert ended.stdout == "dino-s16 dino-b16 dino-ti4\n", ended.stderr


@pytest.mark.parametrize("words", [["help"], ["help", "-q"], ["help", "-h"], ["help", "--help"]])
def test_help_alone_is_the_general_help(unmask: Unmask, words: list[str]) -> None:
    said = unmask(*words)
    assert said.status == 0
    assert said.raw == unmask("--help").raw
