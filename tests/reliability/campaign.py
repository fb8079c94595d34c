"""What all campaigns share: whether they are short or whole, what they find, and the table that is made of it.

A campaign is a test with the mark ``campaign(WHAT, bar=BAR)`` and the fixture of that name:

    @pytest.mark.campaign("SIGTERM while clients ask", bar="every accepted request is answered")
    def test_sigterm(campaign: Campaign) -> None:
        rounds = campaign.size(5, 100)
        ...
        campaign.report(rounds=rounds, lost=lost)
        assert lost == 0

It is short in ``make test`` and whole in ``make reliability``, which puts what was found into docs/reliability.md.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from benchmarks.measuring import processor
from machine import usable_cores

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
FOUND = Path(__file__).with_name("found.json")
BEGIN, END = "<!-- made by make reliability -->\n", "<!-- end of the table -->\n"

_PROPERTY = "campaign"
_HEAD = "| campaign | what is done | bar | found |\n|---|---|---|---|\n"

Figure = int | float | str
Size = TypeVar("Size", int, float)


class Campaign:
    """One campaign while it runs: how long it is, and what it has found so far."""

    def __init__(self, test: pytest.Item, *, whole: bool) -> None:
        """Take the test, whose report gets what is found, and whether it is as long as it should be."""
        mark = test.get_closest_marker("campaign")
        assert mark is not None, f"{test.name} has no mark campaign(WHAT, bar=BAR)"
        self.whole = whole
        self._figures: dict[str, Figure] = {}
        record = {
            "name": test.name.removeprefix("test_"),
            "what": mark.args[0],
            "bar": mark.kwargs["bar"],
            "whole": whole,
            "load": round(os.getloadavg()[0], 1),  # what others do on the machine, which makes times longer
            "figures": self._figures,
        }
        test.user_properties.append((_PROPERTY, record))

    def size(self, short: Size, whole: Size) -> Size:
        """Return the one of the two that belongs to how long this campaign is."""
        return whole if self.whole else short

    def report(self, **figures: Figure) -> None:
        """Note what was found, by names in which _ is a space; call it before the bar is asserted."""
        self._figures.update({name.replace("_", " "): value for name, value in figures.items()})


def counted(statuses: Mapping[Any, int]) -> str:
    """Return how often each status was answered in words; None stands for a connection that broke."""
    named = {str(status or "broken"): count for status, count in statuses.items()}
    return ", ".join(f"{count:,} x {status}" for status, count in sorted(named.items()))


def found(reports: Iterable[pytest.TestReport]) -> list[dict[str, Any]]:
    """Return what campaigns found, by their reports, in the order of their names."""
    records = [
        {**value, "held": report.passed}
        for report in reports
        if report.when == "call"
        for name, value in report.user_properties
        if name == _PROPERTY and isinstance(value, dict) and value["figures"]
    ]
    return sorted(records, key=lambda record: str(record["name"]))


def line(record: Mapping[str, Any]) -> str:
    """Return what one campaign found as a line of text."""
    figures = ", ".join(f"{name} {_text(value)}" for name, value in record["figures"].items())
    form = "whole" if record["whole"] else "short"
    return f"{'held' if record['held'] else 'MISSED'}: {figures} ({form}, load {record['load']:g})"


def write(records: Iterable[Mapping[str, Any]]) -> None:
    """Put ``records`` into the file of what was found, and the table of that into the documentation."""
    known = json.loads(FOUND.read_text(encoding="utf-8"))
    campaigns = {**known["campaigns"], **{record["name"]: dict(record) for record in records}}
    ordered = {"machine": f"{usable_cores()} cores of {processor()}", "campaigns": dict(sorted(campaigns.items()))}
    FOUND.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + table() + END + after, encoding="utf-8")


def table() -> str:
    """Return the table of what was found, as Markdown; campaigns of several parts say only once what they do."""
    document = json.loads(FOUND.read_text(encoding="utf-8"))
    rows = []
    said: tuple[str, str] | None = None
    for record in document["campaigns"].values():
        say = (record["what"], record["bar"])
        what, bar = ("", "") if say == said else say
        rows.append(f"| `{record['name']}` | {what} | {bar} | {line(record)} |\n")
        said = say
    return f"Measured on {document['machine']}.\n\n{_HEAD}{''.join(rows)}"


def _text(value: Figure) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else value
