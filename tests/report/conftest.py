"""Images for the tests of reports."""

from pathlib import Path

import pytest
from runs import tiny


@pytest.fixture(scope="session")
def images_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve colour images."""
    return tiny.write_images(tmp_path_factory.mktemp("report") / "photos")
