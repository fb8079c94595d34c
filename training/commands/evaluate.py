"""``evaluate``: measure a published version on labelled pictures."""

import argparse
import json

import artifact
from training.commands import labelled
from training.evaluation import report
from training.evaluation.accuracy import evaluate
from training.evaluation.inference import openvino_predict
from training.evaluation.plots import save_plots


def evaluate_version(options: argparse.Namespace) -> int:
    """Measure a published version and print the figures; return the exit code.

    Raises:
        InvalidVersion: the folder is no version that can be trusted.
        TrainingError: the data cannot be read, or has labels that the version lacks.
    """
    metadata = artifact.validate(options.version)
    pictures = labelled.for_version(metadata, options)
    evaluation = evaluate(openvino_predict(options.version), metadata.labels, pictures.split, pictures.measured_on)
    labelled.tell_limits(options.version, metadata, pictures)
    if options.json:
        version = {"name": metadata.name, "version": metadata.version}
        print(json.dumps({"model": version, **report.record(evaluation)}))
    else:
        print(report.table(evaluation))
    if options.plots:
        options.plots.mkdir(parents=True, exist_ok=True)
        written = save_plots(evaluation, [], options.plots)
        if not options.json:
            print(f"Wrote {', '.join(written)} to {options.plots}.")
    return 0
