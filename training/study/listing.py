"""What ``python -m training study --list`` prints."""

from training.study.configurations import CONFIGURATIONS, FULL, QUICK


def listing() -> str:
    """Return a line for each configuration: name, epochs, what it is and what the original found."""
    lines = [f"{'name':12}  {'epochs':>6}  {'quick':>5}  {'what':32}  the original"]
    for name, configuration in CONFIGURATIONS.items():
        epochs, quick = FULL.epochs_of(configuration), QUICK.epochs_of(configuration)
        lines.append(f"{name:12}  {epochs:6}  {quick:5}  {configuration.what:32}  {configuration.original}".rstrip())
    return "\n".join(lines)
