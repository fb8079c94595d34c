"""Fixtures of the campaigns: the campaign itself, and a service of its own."""

import pytest

from tests.reliability.campaign import Campaign
from tests.service.conftest import models, start_service

__all__ = ["models", "start_service"]


@pytest.fixture
def campaign(request: pytest.FixtureRequest) -> Campaign:
    """The campaign that the test is, short or whole."""
    return Campaign(request.node, whole=request.config.getoption("--whole"))
