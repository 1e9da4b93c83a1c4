"""What the tests of pages share."""

import pytest
from docs.stand_ins import with_tiny_recipes


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes of a page's runs in Python: those of the tests."""
    with_tiny_recipes(monkeypatch)
