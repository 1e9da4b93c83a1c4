"""Commands where the locale knows only ASCII, and names are Cyrillic."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import tiny

_COMMANDS = """
import json, sys
from unmask import cli
for words in json.loads(sys.argv[1]):
    sys.argv = ["unmask", *(word.encode().decode("ascii", "surrogateescape") for word in words)]
    try:
        cli.main()
    except SystemExit as ended:
        assert not ended.code, words
"""


@pytest.mark.slow
def test_cyrillic_names_in_an_ascii_locale(tmp_path: Path) -> None:
    tiny.write_classes(tmp_path / "кошки", ("белые", "чёрные"), 8)
    machine = ["--epochs", "1", "--batch-size", "8", "--threads", "1", "--workers", "0"]
    words = [
        ["pretrain", "кошки", "--recipe", "mae-digits", *machine, "--out", "опыт"],
        ["evaluate", "опыт", "кошки"],
        ["finetune", "опыт", "кошки", *machine, "--out", "классы"],
        ["predict", "классы", "кошки", "--out", "ответы.csv"],
        ["reconstruct", "опыт", "кошки", "--out", "лист.png"],
        ["pack", "кошки", "пакет", "--workers", "1"],
        ["convert", "опыт", "веса", "--to", "unmask"],
    ]
    locale = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", _COMMANDS, json.dumps(words)],
        cwd=tmp_path,
        env={**os.environ, **locale},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    assert b"could not be drawn" not in ended.stderr
    written = ["опыт/evaluations/knn-кошки.png", "ответы.png", "лист.png", "веса/README.md"]
    for name in written:
        assert (tmp_path / name).stat().st_size > 0
    classes = json.loads((tmp_path / "классы" / "results.json").read_text())
    assert classes
