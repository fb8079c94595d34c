"""The model card: what a person should know before using a model version."""

from typing import Any

from artifact import Metadata

_CAPTIONS = {
    "confusion_matrix.png": "Confusion matrix",
    "learning_curves.png": "Learning curves",
    "mistakes.png": "The most confident mistakes",
}


def _setting(value: Any) -> str:
    """Return a setting's value for the table; of a version that was started from, what tells it from others."""
    if not isinstance(value, dict):
        return str(value)
    version, training = f"{value['name']} version {value['version']}", value["training"]
    minutes = value["training_seconds"] / 60
    return f"{version}: {value['accuracy']:.2%} after {training['epochs']} epochs, {minutes:.1f} minutes"


def model_card(metadata: Metadata, plots: list[str]) -> str:
    """Return the card in Markdown; ``plots`` are the names of the picture files beside it."""
    metrics, size = metadata.metrics, metadata.input
    rows = "\n".join(
        f"| {label} | {figures['precision']:.2%} | {figures['recall']:.2%} |"
        for label, figures in metrics.per_class.items()
    )
    recipe = "\n".join(f"| {name} | {_setting(value)} |" for name, value in metadata.training.items())
    pictures = "\n\n".join(f"![{_CAPTIONS[name]}]({name})" for name in plots)
    return f"""# {metadata.name}

Classifies a picture as one of {len(metadata.labels)} labels: {", ".join(metadata.labels)}.

| | |
|---|---|
| accuracy | **{metrics.accuracy:.2%}** of {metrics.images:,} images ({metrics.measured_on}), one forward pass each |
| expected calibration error | {metrics.expected_calibration_error:.4f} (15 bins) |
| cost | {metadata.megaflops:,.0f} MFLOP a picture, {metadata.parameters:,} parameters |
| input | {size.height}x{size.width} pixels, RGB; other sizes: {size.resize}, {size.interpolation} |
| trained | {metadata.created}, {metadata.training_seconds / 60:.1f} minutes on {metadata.hardware} |
| data | {metadata.dataset["name"]}: {metadata.dataset["train"]:,} training, \
{metadata.dataset["validation"]:,} validation, {metadata.dataset["test"]:,} test images |
| code | revision {metadata.revision} |

## Use and limits

It always answers with one of its labels, also for a picture of something else. It was measured on pictures like those
it was trained on; expect less on others. Its probabilities are those of a network trained with label smoothing: they
are lower than its accuracy, by about the calibration error above.

## By class

| label | precision | recall |
|---|---|---|
{rows}

{pictures}

## Training

| setting | value |
|---|---|
{recipe}
"""
