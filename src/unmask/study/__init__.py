"""Studies: grids of recipes, run once and resumed at will, into tables beside the paper's."""

from unmask.study.study import Scale, Study, Trial, Variation

__all__ = ["Scale", "Study", "Trial", "Variation"]
