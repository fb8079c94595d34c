"""docs/settings.md tells people every setting of the service."""

import pytest

from service.settings import Documented, documentation
from tests.service.running import ROOT


@pytest.mark.parametrize("setting", documentation(), ids=lambda setting: setting.variable)
def test_the_page_of_settings_has_every_one(setting: Documented) -> None:
    """Each setting is a row of the table, with its default, what is allowed and what it does, as --help has them."""
    rows = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").splitlines()
    default = f"`{setting.default}`" if setting.default != "unset" else "unset"
    row = f"| `{setting.variable}` | {default} | {setting.allowed} | {setting.description} |"
    assert row in rows, f"docs/settings.md lacks the row\n{row}"
