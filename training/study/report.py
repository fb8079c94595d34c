"""The study's table, beside the original's figures: for the terminal, as Markdown and as JSON."""

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.progress import duration
from training.study.configurations import BASELINE, CONFIGURATIONS, Configuration, Schedule
from training.study.run import Outcome

_TRAINING = "training accuracy"
_TEST = "test accuracy"
_GAIN = "against the baseline"
_COLUMNS = ("configuration", "what", "parameters", "epochs", "time", _TRAINING, _TEST, _GAIN, "the original")
_NUMBERS = _COLUMNS[2:]


@dataclass(frozen=True)
class Result:
    """A configuration with its outcomes, one for each seed."""

    configuration: Configuration
    outcomes: tuple[Outcome, ...]

    def mean(self, figure: Callable[[Outcome], float]) -> float:
        """Return the mean of a figure over the seeds."""
        return statistics.fmean(figure(outcome) for outcome in self.outcomes)

    def deviation(self, figure: Callable[[Outcome], float]) -> float | None:
        """Return the standard deviation of a figure over the seeds, as of a sample; None for one seed."""
        return statistics.stdev(map(figure, self.outcomes)) if len(self.outcomes) > 1 else None


def results(outcomes: list[Outcome]) -> list[Result]:
    """Return the results in the order of the table."""
    found = [
        Result(configuration, tuple(outcome for outcome in outcomes if outcome.configuration == name))
        for name, configuration in CONFIGURATIONS.items()
    ]
    return [result for result in found if result.outcomes]


def write(found: list[Result], schedule: Schedule, data: str, folder: Path) -> None:
    """Write ``study.md`` and ``study.json``; ``data`` says in words what was trained on and measured."""
    (folder / "study.md").write_text(_markdown(found, schedule, data), encoding="utf-8")
    content = {"schedule": asdict(schedule), "data": data, "results": [_record(result) for result in found]}
    (folder / "study.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def table(found: list[Result]) -> str:
    """Return the table for a terminal."""
    rows = [dict(zip(_COLUMNS, _COLUMNS, strict=True)), *_rows(found)]
    widths = {column: max(len(row[column]) for row in rows) for column in _COLUMNS}
    return "\n".join(
        "  ".join(f"{row[column]:{'>' if column in _NUMBERS else '<'}{widths[column]}}" for column in _COLUMNS).rstrip()
        for row in rows
    )


def _rows(found: list[Result]) -> list[dict[str, str]]:
    baseline = next((result.mean(_test) for result in found if result.configuration.name == BASELINE), None)
    return [
        {
            "configuration": result.configuration.name,
            "what": result.configuration.what,
            "parameters": f"{result.outcomes[0].parameters:,}",
            "epochs": str(result.outcomes[0].epochs),
            "time": duration(result.mean(lambda outcome: outcome.seconds)),
            _TRAINING: _percent(result, lambda outcome: outcome.train_accuracy),
            _TEST: _percent(result, _test),
            _GAIN: _gain(result, baseline),
            "the original": result.configuration.original,
        }
        for result in found
    ]


def _test(outcome: Outcome) -> float:
    return outcome.test_accuracy


def _percent(result: Result, figure: Callable[[Outcome], float]) -> str:
    deviation = result.deviation(figure)
    spread = "" if deviation is None else f" ± {100 * deviation:.2f}"
    return f"{100 * result.mean(figure):.2f}{spread}%"


def _gain(result: Result, baseline: float | None) -> str:
    if baseline is None or result.configuration.name == BASELINE:
        return ""
    return f"{100 * (result.mean(_test) - baseline):+.1f}"


def _markdown(found: list[Result], schedule: Schedule, data: str) -> str:
    rows = "\n".join(f"| {' | '.join(row[column] for column in _COLUMNS)} |" for row in _rows(found))
    rule = "|".join("---:" if column in _NUMBERS else "---" for column in _COLUMNS)
    rate = "rising to {} and falling to 0" if schedule.one_cycle else "constant at {}"
    settings = f"SGD with momentum {schedule.momentum}, batches of {schedule.batch_size}, learning rate " + rate.format(
        schedule.learning_rate
    )
    trained = sorted(
        {f"{outcome.environment['precision']} on {outcome.environment['hardware']}" for outcome in _all(found)}
    )
    return f"""\
{data} {settings}; {"; ".join(trained)}. {_seeds(found)}

| {" | ".join(_COLUMNS)} |
|{rule}|
{rows}

Both accuracies are measured after the last epoch, that of training on the training images as they are, with nothing
dropped. Nothing was chosen by the test images. The original's figures are accuracies in percent (about 70, 84, 86.25,
87.33, 90.14) and gains over its baseline in points (+12, +5, +9). They are told in this order, without names: that they
belong to these configurations is a reading of the order; only 90.14 after 275 epochs is certain.
"""


def _seeds(found: list[Result]) -> str:
    most = max(len(result.outcomes) for result in found)
    return "One run each." if most == 1 else f"Mean and standard deviation over the seeds, up to {most} each."


def _all(found: list[Result]) -> list[Outcome]:
    return [outcome for result in found for outcome in result.outcomes]


def _record(result: Result) -> dict[str, Any]:
    return {
        "configuration": asdict(result.configuration),
        "train_accuracy": result.mean(lambda outcome: outcome.train_accuracy),
        "test_accuracy": result.mean(_test),
        "test_accuracy_deviation": result.deviation(_test),
        "runs": [asdict(outcome) for outcome in result.outcomes],
    }
