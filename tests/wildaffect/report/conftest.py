import pytest


@pytest.fixture(autouse=True)
def undrawn() -> None:
    """Here figures are drawn."""
