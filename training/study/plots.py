"""Training accuracy against test accuracy, epoch by epoch."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.study.report import Result

_COLUMNS = 4


def save_curves(found: list[Result], folder: Path) -> None:
    """Write ``study.png`` with the curves of all configurations, and ``NAME.png`` for each; the first seed is drawn."""
    rows = -(-len(found) // _COLUMNS)
    grid = Figure(figsize=(4 * _COLUMNS, 3.2 * rows), layout="constrained")
    cells = list(grid.subplots(rows, _COLUMNS, squeeze=False, sharey=True).flat)
    for axes in cells[len(found) :]:
        axes.set_axis_off()
    for axes, result in zip(cells, found, strict=False):
        _draw(axes, result)
        single = Figure(figsize=(6, 4), layout="constrained")
        _draw(single.subplots(), result)
        single.savefig(folder / f"{result.configuration.name}.png", dpi=100)
    grid.savefig(folder / "study.png", dpi=100)


def _draw(axes: Axes, result: Result) -> None:
    history = result.outcomes[0].history
    epochs = range(1, len(history) + 1)
    axes.plot(epochs, [record["accuracy"] for record in history], label="training")
    axes.plot(epochs, [record["val_accuracy"] for record in history], label="test")
    axes.set(title=result.configuration.what, xlabel="epoch", ylabel="accuracy", ylim=(0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
