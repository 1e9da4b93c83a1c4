"""Pages in Markdown on a terminal of 80 columns."""

import io

import pytest
from rich.console import Console

from unmask.console.pages import drawn_page, say_page
from unmask.console.screen import console

PAGE = """# Ways to pretrain

Three seeds; mean ± standard deviation.

| variation | fine-tuned, % | paper (epochs) | linear, % | attentive, % | k-NN, % | on training images, % |
|---|---:|---:|---:|---:|---:|---:|
| **mae** | 67.0 ± 1.1 | 83.6 (1600) | 67.1 ± 4.7 | 65.6 ± 0.9 | 58.7 ± 0.7 | 75.0 ± 1.0 |
| random initialisation | 69.0 ± 2.3 |  | 60.6 ± 2.3 | 62.5 ± 1.9 | 53.9 ± 1.3 | 77.4 ± 1.5 |

Highest here: mae, alone.

![Ways to pretrain](comparison.png)
"""


@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_cell_is_there_and_nothing_is_cut(width: int) -> None:
    memory = io.StringIO()
    terminal = Console(file=memory, width=width, force_terminal=True, color_system=None)
    for part in drawn_page(PAGE, width):
        terminal.print(part)
    shown = memory.getvalue()
    assert max(len(line.rstrip()) for line in shown.split("\n")) <= width
    assert not {"|", "…", "**", "comparison.png"} & {
        sign for sign in ("|", "…", "**", "comparison.png") if sign in shown
    }
    for cell in (
        "67.0 ± 1.1",
        "83.6 (1600)",
        "77.4 ± 1.5",
        "random initialisation",
        "Highest here: mae",
    ):
        assert cell in shown
    # a table that is split repeats the names
    assert (shown.count("random initialisation") == 1) == (width == 200)


def test_a_pipe_gets_the_page_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say_page(PAGE, console)
    assert capsys.readouterr().out == PAGE + "\n"
