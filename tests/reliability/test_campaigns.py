"""The campaigns and the document that lists them say the same."""

import importlib
import json
from pathlib import Path

from tests.reliability import campaign


def test_the_document_lists_every_campaign(root: Path) -> None:
    """Each campaign has a row with what it does and its bar; a new one gets it by running with --write-found."""
    files = (root / "tests" / "reliability").glob("test_*.py")
    functions = [
        value
        for file in files
        for value in vars(importlib.import_module(f"tests.reliability.{file.stem}")).values()
        if hasattr(value, "pytestmark")
    ]
    marks = {
        function.__name__: mark for function in functions for mark in function.pytestmark if mark.name == "campaign"
    }
    records = json.loads(campaign.FOUND.read_text(encoding="utf-8"))["campaigns"].values()
    assert {(record["what"], record["bar"]) for record in records} == {
        (mark.args[0], mark.kwargs["bar"]) for mark in marks.values()
    }
    assert campaign.table() in campaign.PAGE.read_text(encoding="utf-8")
