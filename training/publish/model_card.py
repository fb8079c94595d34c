"""The model card: what a person should know before using a model version."""

from collections.abc import Mapping
from typing import Any

from artifact import Calibration, Familiarity, Int8, Metadata, Metrics
from artifact.accuracy import accuracy_beside, accuracy_in_words
from training.evaluation.few_images import LEAST_HELD_OUT, calibration_error_in_words
from training.evaluation.multi_label import averages_in_words
from training.evaluation.out_of_distribution import KINDS
from training.fit.lineage import Lineage, in_words
from training.names import printable

CAPTIONS = {
    "confusion_matrix.png": "Confusion matrix",
    "learning_curves.png": "Learning curves",
    "mistakes.png": "The most confident mistakes",
    "reliability.png": "Reliability: how often answers are right, by how sure they are",
}


def int8_accuracy(int8: Int8) -> str:
    """Return the accuracy of the int8 network in words, beside that of the network itself.

    Where the pictures were too few to judge by, it is said how often both gave the same label.
    """
    measured = accuracy_in_words(int8.accuracy, int8.images, int8.measured_on)
    compared = f"{measured}, where float32 has {accuracy_beside(int8.float32_accuracy, int8.images)}"
    if int8.agreement is None:
        return compared
    if int8.images >= LEAST_HELD_OUT:  # of several labels, it is told for any number of images
        return f"{compared}; it tells the same labels as float32 of {int8.agreement:.2%} of them"
    return (
        f"{compared}; so few images do not tell what int8 costs; it gives the same label as float32 "
        f"to {int8.agreement:.2%} of {int8.agreement_images:,} images, those of the training among them"
    )


def calibration_in_words(calibration: Calibration) -> str:
    """Return what the correction did, in words, on the pictures that it was fitted on."""
    undone = f"label smoothing of {calibration.label_smoothing:.3g} undone, " if calibration.label_smoothing else ""
    return (
        f"{undone}temperature {calibration.temperature:.4g}, fitted on {calibration.images:,} images "
        f"({calibration.measured_on}), where the negative log-likelihood went from "
        f"{calibration.negative_log_likelihood_before:.4f} to {calibration.negative_log_likelihood:.4f} "
        f"and the expected calibration error from {calibration.expected_calibration_error_before:.4f} to "
        f"{calibration_error_in_words(calibration.expected_calibration_error, calibration.images)}"
    )


def familiarity_in_words(familiarity: Familiarity) -> str:
    """Return which pictures count as familiar, in words."""
    return (
        f"from a score of {familiarity.threshold:.4g} on, which {familiarity.share:.0%} "
        f"of {familiarity.images:,} images ({familiarity.measured_on}) reach"
    )


def multi_label_in_words(metadata: Metadata) -> str:
    """Return the averages of a version that tells several labels, and what its thresholds were chosen on."""
    found = metadata.multi_label
    if found is None:
        return ""
    return f"{averages_in_words(found)}; thresholds by the best F1 on: {found.thresholds_chosen_on}"


def model_card(metadata: Metadata, plots: list[str]) -> str:
    """Return the card in Markdown; ``plots`` are the names of the picture files beside it."""
    metrics, size = metadata.metrics, metadata.input
    recipe = "\n".join(f"| {name} | {in_words(value)} |" for name, value in metadata.training.items())
    int8 = f"| accuracy in int8 | {int8_accuracy(metadata.int8)} |\n" if metadata.int8 else ""
    calibration, familiarity = metadata.calibration, metadata.familiarity
    calibrated = f"| calibration | {calibration_in_words(calibration)} |\n" if calibration else ""
    familiar = f"| familiar | {familiarity_in_words(familiarity)} |\n" if familiarity else ""
    measured = metrics.expected_calibration_error
    error = ""
    if measured is not None:
        words = calibration_error_in_words(measured, metrics.images)
        error = f"| expected calibration error, 15 bins | {words} |\n"
    score = "; how familiar a picture looks is told beside it" if familiarity else ""
    accuracy = accuracy_in_words(metrics.accuracy, metrics.images, metrics.measured_on)
    several = metadata.task == "multi-label"
    labels = f"{len(metadata.labels)} labels: {', '.join(map(printable, metadata.labels))}"
    does = (
        f"Tells which of these a picture has, any number of {labels}"
        if several
        else (f"Classifies a picture as one of {labels}")
    )
    averages = f"| over all labels | {multi_label_in_words(metadata)} |\n" if metadata.multi_label else ""
    always = (
        "It tells each label from its own threshold on, and none where no probability reaches one"
        if several
        else f"It always answers with one of its labels, also for a picture of something else{score}"
    )
    pictures = "\n\n".join(f"![{CAPTIONS[name]}]({name})" for name in plots)
    return f"""# {metadata.name}

{does}.

| | |
|---|---|
{averages}| {"all labels right" if several else "accuracy"} | {accuracy}, one forward pass each |
{int8}{error}{calibrated}{familiar}| cost | {metadata.megaflops:,.0f} MFLOP a picture, \
{metadata.parameters:,} parameters |
| input | {size.height}x{size.width} pixels, RGB; other sizes: {size.resize}, {size.interpolation} |
| created | {metadata.created}, {trained_in_words(metadata)} |
| data | {data_in_words(metadata.dataset)} |
| code | revision {metadata.revision} |

## Use and limits

{always}. It was measured on
pictures like those it was trained on; expect less on others. {_probabilities(metadata)}

{_by_label(metadata) if several else _by_class(metrics)}{_out_of_distribution(metrics)}{pictures}

## Training

| setting | value |
|---|---|
{recipe}
"""


def _probabilities(metadata: Metadata) -> str:
    """Return how far the probabilities can be taken at their word, and where they cannot, why."""
    if metadata.calibration:
        return "Its probabilities are calibrated: of answers with 80%, about 80% should be right on such pictures."
    own = "Its probabilities are the network's own, which may be surer or less sure than it is right"
    held_out = Lineage.read(metadata.training).held_out()
    if held_out >= LEAST_HELD_OUT:  # a version of another trainer, or from before there was a calibration
        return f"{own}."
    return (
        f"{own}: to calibrate them, {LEAST_HELD_OUT} held-out images are needed, and there were {held_out or 'none'}."
    )


def trained_in_words(metadata: Metadata) -> str:
    """Return how long the network was trained, and on what."""
    if not metadata.training_seconds:
        return "published as others trained it"
    return f"trained for {metadata.training_seconds / 60:.1f} minutes on {metadata.hardware}"


def data_in_words(dataset: Mapping[str, Any]) -> str:
    """Return the name of a data set and, where they are known, the numbers of its images."""
    if "train" not in dataset:
        return str(dataset["name"])
    return (
        f"{dataset['name']}: {dataset['train']:,} training, {dataset['validation']:,} validation, "
        f"{dataset['test']:,} test images"
    )


def _cell(label: str) -> str:
    """Return a label as it stands in a cell of a table."""
    return printable(label).replace("|", "\\|")


def _by_class(metrics: Metrics) -> str:
    """Return the section on each label; empty where there are no figures."""
    if not metrics.per_class:
        return ""
    rows = "\n".join(
        f"| {_cell(label)} | {figures['precision']:.2%} | {figures['recall']:.2%} |"
        for label, figures in metrics.per_class.items()
    )
    return f"""## By class

| label | precision | recall |
|---|---|---|
{rows}

"""


def _by_label(metadata: Metadata) -> str:
    """Return the section on each label, where a picture may have several."""
    thresholds = metadata.thresholds or {}
    rows = "\n".join(
        f"| {_cell(label)} | {thresholds.get(label, 0.0):.3f} | {figures.get('average_precision', float('nan')):.4f} | "
        f"{figures['precision']:.2%} | {figures['recall']:.2%} |"
        for label, figures in metadata.metrics.per_class.items()
    )
    return f"""## By label

| label | threshold | average precision | precision | recall |
|---|---|---|---|---|
{rows}

"""


def _out_of_distribution(metrics: Metrics) -> str:
    """Return the section on pictures that are nothing like the training's; empty where there are no figures."""
    if not metrics.out_of_distribution:
        return ""
    rows = "\n".join(
        f"| {kind} | {_description(kind)} | {figures['auroc']:.3f} | {_share(figures.get('unfamiliar'))} |"
        for kind, figures in metrics.out_of_distribution.items()
    )
    return f"""## Pictures of something else

How well the score `familiarity` tells the test images from others: the AUROC is the probability that it is higher for a
test image, 0.5 being chance.

| pictures | what they are | AUROC | called unfamiliar |
|---|---|---|---|
{rows}

"""


def _description(kind: str) -> str:
    return KINDS[kind][0] if kind in KINDS else ""  # another release may have had others


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
