"""The README tells people every setting of the service."""

import pytest

from service.settings import Documented, documentation
from tests.service.running import ROOT


@pytest.mark.parametrize("setting", documentation(), ids=lambda setting: setting.variable)
def test_readme_tells_every_setting(setting: Documented) -> None:
    """Each setting stands in one line of the README, in code type, together with its default."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    mine = [line for line in lines if f"`{setting.variable}`" in line]
    assert mine, f"README.md does not name `{setting.variable}`"
    assert any(setting.default in line for line in mine), f"README.md does not give {setting.default} as its default"
