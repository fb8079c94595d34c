"""``/report``: what people call wrong is kept for the review, with what they say, and nothing else comes of it."""

import hashlib
import io
import json
from base64 import b64encode
from typing import Any

import pytest

from service.app import create_app
from tests.service.conftest import MakeServices
from tests.service.pictures import plain
from tests.service.protocols.test_captured import ANNA, Kept, Make, kept, make, tokens

__all__ = ["kept", "make"]  # fixtures

RED = plain("red")
ID = hashlib.sha256(RED).hexdigest()


@pytest.fixture
def open_kept(make: Make) -> Kept:
    """Return an application that keeps nothing by itself, and predicts without a token."""
    return make(capture_share=0.0, capture_margin=0.0, without_token=("probes", "metrics", "predictions"))


def report(kept: Kept, path: str = "/report", content: bytes = RED, **request: Any) -> Any:
    """Report a picture as somebody without a token, and return the response when all is written."""
    response = kept.client.post(path, **{"data": content, "content_type": "image/png", **request})
    kept.written()
    return response


def test_a_report_is_reviewed_with_its_hint(open_kept: Kept) -> None:
    """The picture waits as it was sent, with the answer, the reason and the suggestion; nothing is drawn for it."""
    answer = report(open_kept, "/report?label=blue")
    assert (answer.status_code, answer.json) == (
        200, {"success": True, "kept": True, "model": {"name": "colours", "version": 1}},
    )  # fmt: skip
    [picture] = open_kept.take()
    assert (picture["id"], picture["reasons"], picture["suggested"]) == (ID, ["reported"], "blue")
    assert picture["predictions"][0]["label"] == "red"
    beside = json.loads((open_kept.folder / "waiting" / f"{ID}.json").read_bytes())
    assert (beside["reasons"], beside["suggested"]) == (["reported"], "blue")
    open_kept.answer(f"/captured/{ID}/review", json={**ANNA, "label": "red"})
    summary: Any = open_kept.get("/captured/summary").json
    assert summary["accuracy"] == []
    assert summary["kinds"]["reported"] == {"waiting": 0, "reviewed": 1, "skipped": 0}


def test_the_label_may_be_left_open_and_the_picture_come_as_json(open_kept: Kept) -> None:
    """In base64, as for a prediction."""
    assert report(open_kept, data=None, content_type=None, json={"image": b64encode(RED).decode()}).json["kept"]
    [picture] = open_kept.take()
    assert (picture["id"], picture["suggested"]) == (ID, None)


def test_who_wants_nothing_kept_reports_nothing(open_kept: Kept) -> None:
    """The header counts here too, and the answer says so."""
    answer = report(open_kept, headers={"X-Darkroom-Capture": "no"})
    assert (answer.status_code, answer.json["kept"]) == (200, False)
    assert open_kept.files() == set()


def test_no_draw_is_made_of_a_report(make: Make) -> None:
    """Where all pictures are drawn, one that is reported alone is not."""
    kept = make(without_token=("predictions",))
    report(kept)
    assert [picture["reasons"] for picture in kept.take()] == [["reported"]]


@pytest.mark.parametrize(
    "sent",
    [
        {"data": {"image": (io.BytesIO(RED), "a.png")}, "content_type": "multipart/form-data"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "text/plain"},
        {"content_type": ""},
    ],
)
def test_what_any_page_could_send_is_not_read(open_kept: Kept, sent: dict[str, Any]) -> None:
    """A form, and what a script may send to another origin unasked, is a 415 that says what to send instead."""
    answer = report(open_kept, **sent)
    assert answer.status_code == 415
    assert "--data-binary" in answer.json["message"]
    assert open_kept.files() == set()


def test_only_labels_of_the_model_can_be_suggested(open_kept: Kept) -> None:
    """Who reviews is shown no text of a stranger's."""
    answer = report(open_kept, "/report?label=free+prizes")
    assert answer.status_code == 400
    assert "red, green, blue" in answer.json["message"]
    assert open_kept.files() == set()


def test_a_flood_of_reports_is_told_and_counted(open_kept: Kept) -> None:
    """More than are kept are a 503 that says when to try again, and none of them is there."""
    answers = [open_kept.client.post("/report", data=plain(f"rgb({n}, 0, 0)"), content_type="image/png")
               for n in range(40)]  # fmt: skip
    open_kept.written()
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused
    assert all(answer.headers["Retry-After"] for answer in refused)
    assert len(open_kept.files()) == len(answers) - len(refused)
    assert f'darkroom_captures_total{{outcome="limited"}} {len(refused)}.0' in open_kept.get("/metrics").text


def test_reports_need_a_token_where_predictions_do(kept: Kept) -> None:
    """And none more than that."""
    assert report(kept).status_code == report(kept, "/predict").status_code == 401
    assert kept.files() == set()


def test_a_service_that_keeps_nothing_says_how_to(services_of: MakeServices, models: Any) -> None:
    """By the name of the setting."""
    client = create_app(
        services_of(model_dir=models, api_tokens=tokens(), without_token=("predictions",))
    ).test_client()
    answer = client.post("/report", data=RED, content_type="image/png")
    assert answer.status_code == 404
    assert "CAPTURE_DIR" in answer.json["message"]  # type: ignore[index]
