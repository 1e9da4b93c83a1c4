"""Draw the pictures of studies again, from the tables beside them.

    python studies/pictures.py            # all
    python studies/pictures.py mask-ratio

A study writes NAME.md, NAME.csv and NAME.png; this needs the first two, so a better drawing does not need the runs again.
"""

import csv
import sys
from pathlib import Path

from unmask.pictures.study import Panel, study_picture
from unmask.study.ablations import STUDIES
from unmask.study.plan import RANDOM
from unmask.study.report import panel_of
from unmask.study.table import NAMES

HERE = Path(__file__).parent


def panels_of(rows: list[dict[str, str]]) -> tuple[list[str], list[Panel]]:
    """The variations of a table, and a panel for each measure in it."""
    names = list(dict.fromkeys(row["variation"] for row in rows if row["draw"]))
    names = [name for name in names if name != RANDOM]
    panels: list[Panel] = []
    for score in NAMES:
        values: dict[str, list[float]] = {}
        for row in rows:
            if row["measure"] == score:
                values.setdefault(row["variation"], []).append(float(row["value"]))
        drawn = values.pop(RANDOM, None)
        published = {
            row["variation"]: float(row["value"])
            for row in rows
            if row["measure"] == f"paper: {score}"
        }
        if values:
            panels.append(panel_of(score, values, published, drawn, "accuracy"))
    return names, panels


def draw(table: Path) -> None:
    """The picture of one table."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names, panels = panels_of(rows)
    if not panels:
        return  # a study of time alone
    title = table.with_suffix(".md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    study = STUDIES.get(table.stem)
    picture = table.with_suffix(".png")
    study_picture(names, panels, title, picture, curve=study is not None and study.curve)
    print(f"drawn: {picture}")


def main() -> None:
    """Draw the pictures of the tables that are named, or of all."""
    known = {
        table.stem: table
        for table in sorted(HERE.glob("*.csv"))
        if table.read_text(encoding="utf-8").startswith("variation,measure,draw,value\n")
    }
    wanted = sys.argv[1:] or list(known)
    if unknown := set(wanted) - set(known):
        raise SystemExit(f"no such study: {', '.join(unknown)}; there are {', '.join(known)}")
    for name in wanted:
        draw(known[name])


if __name__ == "__main__":
    main()
