"""Studies: grids of recipes that can be interrupted and resumed, with tables that compare them with the paper."""

from unmask.study.study import Scale, Study, Trial, Variation

__all__ = ["Scale", "Study", "Trial", "Variation"]
