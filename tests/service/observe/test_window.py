"""The window of the last answers: old ones leave it, those of all workers are in it, and little memory holds it."""

import dataclasses
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from service.inference.predictions import Predictions
from service.observe.drift import Baseline, EmbeddingReference
from service.observe.window import Window, forget
from tests.service.observe.test_drift import KNOWN, TELLING

LIKE = [*[(1, 0.95, score) for score in (0.5, 1.5, 2.5, 3.5, 2.5, 3.5)],
        (0, 0.95, 0.5), (0, 0.7, 1.5), (0, 0.7, 2.5), (0, 0.3, 3.5)]  # fmt: skip
UNLIKE = [(2, 0.4, 0.1)] * 10
BASELINE = Baseline(KNOWN, TELLING, EmbeddingReference(np.zeros(2), 1.0, 100))


def answer(window: Window, answers: list[tuple[int, float, float]], times: int = 1, at: float = 0.0) -> None:
    """Have the window count ``answers``, each with an embedding of two numbers that are both ``at``."""
    labels, confidence, familiarity = zip(*answers, strict=True)
    probabilities = np.array([[sure] for sure in confidence], np.float32)
    embedding = np.full((len(answers), 2), at, np.float32)
    for _ in range(times):
        predictions = Predictions(probabilities, np.array(familiarity, np.float32), None, embedding)
        window.add(list(labels), probabilities[:, 0].tolist(), predictions)


def as_process(monkeypatch: pytest.MonkeyPatch, process: int) -> None:
    """Have what is made from now on think that it is in another process."""
    monkeypatch.setattr(os, "getpid", lambda: process)


def test_few_answers_tell_nothing() -> None:
    """From 50 on they are compared."""
    window = Window(BASELINE, "colours", 1, 500, None)
    answer(window, LIKE, 4)
    assert window.drift() is None
    answer(window, LIKE)
    found = window.drift()
    assert found is not None
    assert found.answers == 50
    assert found.embedding == 0.0


def test_old_answers_leave_the_window() -> None:
    """It holds as many as it should, and up to a tenth more; what was before them has no part in it."""
    window = Window(BASELINE, "colours", 1, 200, None)
    answer(window, UNLIKE, 50, at=5.0)
    moved = window.drift()
    assert moved is not None
    assert moved.shifts["labels"].p_value < 1e-6
    assert moved.embedding == pytest.approx(np.sqrt(50), rel=0.01)
    answer(window, LIKE, 22)
    found = window.drift()
    assert found is not None
    assert 200 <= found.answers <= 220
    assert all(shift.p_value > 0.1 for shift in found.shifts.values()), found
    assert found.embedding == 0.0


def test_the_newest_answers_of_all_workers_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one worker answered long ago gives way to what another answers now, whichever is asked."""
    as_process(monkeypatch, 1)
    idle = Window(BASELINE, "colours", 1, 200, tmp_path)
    answer(idle, LIKE, 30)
    as_process(monkeypatch, 2)
    busy = Window(BASELINE, "colours", 1, 200, tmp_path)
    answer(busy, UNLIKE, 10)
    mixed = [window.drift() for window in (idle, busy)]
    assert mixed[0] == mixed[1]
    assert mixed[0] is not None
    assert 200 <= mixed[0].answers <= 220
    answer(busy, UNLIKE, 12)
    for window in (idle, busy):
        found = window.drift()
        assert found is not None
        assert found.shifts["labels"].population_stability_index > 3


def test_workers_of_other_versions_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor those of a version of the same number of another model, or one that was published with another reference."""
    as_process(monkeypatch, 1)
    answer(Window(BASELINE, "colours", 1, 200, tmp_path), UNLIKE, 20)
    as_process(monkeypatch, 2)
    other = dataclasses.replace(KNOWN, measured_on="another test")
    answer(Window(Baseline(other, TELLING, BASELINE.embedding), "colours", 2, 200, tmp_path), UNLIKE, 20)
    as_process(monkeypatch, 3)
    answer(Window(BASELINE, "shapes", 2, 200, tmp_path), UNLIKE, 20)
    as_process(monkeypatch, 4)
    assert Window(BASELINE, "colours", 2, 200, tmp_path).drift() is None


def test_nothing_of_what_is_gone_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker has a file for each version that it has loaded, and none once it has ended."""
    as_process(monkeypatch, 1)
    for version in range(1, 10):
        window = Window(BASELINE, "colours", version, 200, tmp_path)
        answer(window, LIKE)
        if version < 9:
            window.close()
    [file] = tmp_path.iterdir()
    assert file.stat().st_blocks * 512 >= file.stat().st_size, "writing into a hole would end the process"
    forget(tmp_path, 11)
    assert list(tmp_path.iterdir()) == [file]
    forget(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_without_space_a_worker_counts_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so once, leaves nothing behind, and tells of its own answers."""

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with caplog.at_level(logging.WARNING):
        window = Window(BASELINE, "colours", 1, 200, tmp_path)
    answer(window, LIKE, 5)
    assert window.drift() is not None
    assert list(tmp_path.iterdir()) == []
    [record] = caplog.records
    assert record.message.startswith(
        "there is no space to share what drift is told by, so this worker goes by its own answers: "
    )


def test_what_is_no_number_does_not_spoil_the_rest() -> None:
    """An embedding with a NaN is left out; nobody asked for it, so its answer was given all the same."""
    window = Window(BASELINE, "colours", 1, 500, None)
    answer(window, LIKE, 6, at=1.0)
    answer(window, LIKE, 1, at=np.nan)
    found = window.drift()
    assert found is not None
    assert found.answers == 70
    assert found.embedding == pytest.approx(np.sqrt(2), rel=0.02)
