"""The client as a library, and what it does when a service is busy, restarts, refuses or is not there."""

import datetime
import email.utils
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from client import Busy, Client, Model, Prediction, Refused, Result, Unreachable
from tests.client.conftest import StartScripted
from tests.client.scripted import Answer, Call, Script, classified, error
from tests.service.conftest import StartService
from tests.service.pictures import plain
from tests.service.running import free_port

pytestmark = pytest.mark.process


def contents(folder: Path, count: int) -> list[str]:
    """Write ``count`` files, each of which holds its own number, and return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:05}.png" for number in range(count)]
    for number, file in enumerate(files):
        file.write_text(f"{number:05}")
    return [str(file) for file in files]


def best(results: list[Result]) -> list[str]:
    """Return the first label of each result, or its error."""
    return [result.error or result.predictions[0].label for result in results]


def first_then(*answers: Answer) -> Script:
    """Return a script that gives ``answers`` to the first requests, and classifies those that follow."""
    return lambda call: answers[call.number] if call.number < len(answers) else classified(call)


def test_a_folder_becomes_results_in_order(service_url: str, tmp_path: Path) -> None:
    """As the docstring shows: paths in, typed results out, one for each picture and each path that leads to none."""
    for name, colour in (("a.png", "red"), ("c.png", "blue")):
        (tmp_path / name).write_bytes(plain(colour))
    (tmp_path / "b.png").write_bytes(b"no picture")
    with Client(service_url, top=3) as client:
        red, bad, blue, missing = client.predict([tmp_path, tmp_path / "missing.png"])
        assert client.model()["name"] == "colours"
    assert red.file == str(tmp_path / "a.png")
    assert [prediction.label for prediction in red.predictions] == ["red", "green", "blue"]
    assert red.predictions[0].probability > 0.99
    assert (red.model, red.error) == (Model("colours", 1), None)
    assert blue.predictions[0] == Prediction("blue", pytest.approx(0.9993, abs=1e-4))  # type: ignore[arg-type]
    assert (bad.error, bad.predictions) == ("unsupported_image", ())
    assert (missing.error, missing.message) == ("not_found", "There is no such file or folder.")


def test_a_model_tells_which_pictures_are_familiar(start_scripted: StartScripted, tmp_path: Path) -> None:
    """What the service says of a picture is in its result; where it says nothing, nothing is."""
    told = (True, False, None)

    def script(call: Call) -> Answer:
        answer = classified(call)
        for result, familiar in zip(answer.body["results"], told, strict=True):
            result.update({} if familiar is None else {"familiar": familiar})
        return answer

    with Client(start_scripted(script).url) as client:
        assert [result.familiar for result in client.predict(contents(tmp_path, 3))] == list(told)


def test_batches_are_bounded_and_connections_are_kept(start_scripted: StartScripted, tmp_path: Path) -> None:
    """No request holds more files or bytes than was asked for, no more run at once, and each job has one connection."""
    server = start_scripted(lambda call: classified(call, delay=0.01))
    files = contents(tmp_path, 100)
    with Client(server.url, jobs=3, batch_size=8, batch_bytes=6 * 5, top=4) as client:
        assert best(list(client.predict(files))) == [f"{number:05}" for number in range(100)]
    assert max(len(call.pictures) for call in server.calls) == 6  # of 5 bytes each
    assert {call.path for call in server.calls} == {"/predict/batch?top=4"}
    assert server.at_once <= 3
    assert server.connections <= 3


def test_a_late_answer_does_not_change_the_order(start_scripted: StartScripted, tmp_path: Path) -> None:
    """Results come in the order of the files, however the requests overtake each other."""
    server = start_scripted(lambda call: classified(call, delay=0.2 if b"00000" in call.pictures else 0))
    with Client(server.url, batch_size=2) as client:
        assert best(list(client.predict(contents(tmp_path, 20)))) == [f"{number:05}" for number in range(20)]


def test_what_people_call_their_files_stays_with_them(start_scripted: StartScripted, tmp_path: Path) -> None:
    """The service needs no names of files, which can say more than the pictures do."""
    server = start_scripted()
    with Client(server.url) as client:
        list(client.predict(contents(tmp_path / "very-private", 2)))
    assert b"private" not in server.calls[0].body
    assert b"00001.png" not in server.calls[0].body


@pytest.mark.timing
def test_a_busy_service_is_asked_again_after_the_time_it_names(start_scripted: StartScripted, tmp_path: Path) -> None:
    """A 503 with Retry-After: 1 costs a pause of a second or a little more, and no picture."""
    server = start_scripted(first_then(error(503, Retry_After="1")))
    with Client(server.url) as client:
        assert best(list(client.predict(contents(tmp_path, 2)))) == ["00000", "00001"]
    first, second = server.calls
    assert 1 <= second.came - first.came < 5


@pytest.mark.slow
@pytest.mark.timing
def test_a_time_to_come_back_may_be_a_date(start_scripted: StartScripted, tmp_path: Path) -> None:
    """Retry-After as a date is waited for; one in the past, or nonsense, means soon."""
    began, soon = time.monotonic(), datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=4)
    dates = ("later", email.utils.format_datetime(soon, usegmt=True), "Mon, 01 Jan 2024 00:00:00 GMT")
    server = start_scripted(first_then(*(error(503, Retry_After=date) for date in dates)))
    with Client(server.url) as client:
        assert best(list(client.predict(contents(tmp_path, 1)))) == ["00000"]
    first, second, third, fourth = server.calls
    assert third.came - began >= 3  # a date has whole seconds
    assert second.came - first.came < 3
    assert fourth.came - third.came < 3


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504, None])
def test_what_passes_by_itself_is_tried_again(
    start_scripted: StartScripted, tmp_path: Path, status: int | None
) -> None:
    """Without Retry-After the pause is short; a connection that breaks (None) is one more such case."""
    passing = Answer(None) if status is None else error(status)
    server = start_scripted(lambda call: passing if call.number == 1 else classified(call))
    with Client(server.url, jobs=1, batch_size=1) as client:
        assert best(list(client.predict(contents(tmp_path, 3)))) == ["00000", "00001", "00002"]
    assert server.calls[2].came - server.calls[1].came >= 0.25


def test_no_answer_in_time_is_tried_again(start_scripted: StartScripted, tmp_path: Path) -> None:
    """A request that hangs is given up after the timeout, and sent anew."""
    server = start_scripted(lambda call: classified(call, delay=30 if call.number == 1 else 0))
    with Client(server.url, jobs=1, batch_size=1, timeout=0.5) as client:
        assert best(list(client.predict(contents(tmp_path, 3)))) == ["00000", "00001", "00002"]


def test_retries_come_to_an_end(start_scripted: StartScripted, tmp_path: Path) -> None:
    """A batch that the service stays too busy for is listed with its words, and the others are classified."""
    server = start_scripted(
        lambda call: (
            error(503, "queue_full", "Try later.", Retry_After="0") if b"00002" in call.body else classified(call)
        )
    )
    with Client(server.url, batch_size=2, retries=2) as client:
        results = list(client.predict(contents(tmp_path, 6)))
    assert best(results) == ["00000", "00001", "queue_full", "queue_full", "00004", "00005"]
    assert results[2].message == "Try later."
    assert sum(b"00002" in call.body for call in server.calls) == 3


@pytest.mark.timing
def test_a_service_that_asks_to_wait_for_an_hour_is_not_waited_for(
    start_scripted: StartScripted, tmp_path: Path
) -> None:
    """Runtime has an end in seconds too: what would pass it fails now."""
    server = start_scripted(lambda call: error(503, Retry_After="3600") if call.number else classified(call))
    started = time.monotonic()
    with Client(server.url, jobs=1, batch_size=1) as client:
        assert best(list(client.predict(contents(tmp_path, 2)))) == ["00000", "name"]
    assert time.monotonic() - started < 5


def test_a_service_that_goes_for_good_is_waited_for_once(start_scripted: StartScripted, tmp_path: Path) -> None:
    """After one batch's retries the others are tried once each: thousands of files do not wait their full time."""
    server = start_scripted(lambda call: Answer(None) if call.number >= 4 else classified(call))
    with Client(server.url, jobs=1, batch_size=1, retries=2) as client:
        results = list(client.predict(contents(tmp_path, 40)))
    assert best(results) == [*(f"{number:05}" for number in range(4)), *["unreachable"] * 36]
    assert server.url in results[-1].message
    assert len(server.calls) == 4 + (1 + 2) + 35


def test_a_service_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    """Nobody waits for ten thousand failures: the first request says that nothing listens."""
    url = f"http://127.0.0.1:{free_port()}"
    taken: list[str] = []

    def endless() -> Iterator[str]:
        [file] = contents(tmp_path, 1)
        while True:
            taken.append(file)
            yield file

    with (
        Client(url) as client,
        pytest.raises(Unreachable, match=f"Nothing answers at {re.escape(url)}: Connection refused"),
    ):
        list(client.predict(endless()))
    assert len(taken) < 1000


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (error(404, "not_found", "There is nothing here."), "answered 404 Not Found: There is nothing here."),
        (error(401, "unauthorized", "Sign in."), "answered 401 Unauthorized: Sign in."),
        (Answer(403, b"<html>"), "answered 403 Forbidden"),
        (Answer(200, b"<html>"), "not as a Darkroom service does"),
        (Answer(200, b"[]"), "not as a Darkroom service does"),
        (Answer(200, {"results": [], "model": {"name": "m", "version": 1}}), "not as a Darkroom service does"),
        (Answer(200, {"success": True}), "not as a Darkroom service does"),
        (Answer(301, headers={"Location": "https://elsewhere.test/"}), "it points to https://elsewhere.test/"),
    ],
)
def test_a_wrong_address_is_told_at_once(
    start_scripted: StartScripted, tmp_path: Path, answer: Answer, message: str
) -> None:
    """What answers but is no such service, or lets nobody in, ends everything with one sentence that says so."""
    server = start_scripted(lambda _: answer)
    with Client(server.url, batch_size=1) as client, pytest.raises(Refused) as refused:
        list(client.predict(contents(tmp_path, 100)))
    assert message in str(refused.value)
    assert server.url in str(refused.value)
    assert len(server.calls) < 20


def test_a_service_without_a_model_is_told_once(start_scripted: StartScripted, tmp_path: Path) -> None:
    """One that has never classified anything, and stays unable to, ends everything after its retries."""
    server = start_scripted(lambda _: error(503, "model_unavailable", "There is no model.", Retry_After="0"))
    with Client(server.url, batch_size=1, retries=1) as client, pytest.raises(Busy, match=r"There is no model\."):
        list(client.predict(contents(tmp_path, 100)))
    assert len(server.calls) < 20


@pytest.mark.parametrize("status", [400, 404, 500])
def test_one_refused_request_does_not_end_what_went_well_before(
    start_scripted: StartScripted, tmp_path: Path, status: int
) -> None:
    """In the middle of things the files of that request fail, and the others are classified."""
    server = start_scripted(lambda call: error(status, "odd", "Odd.") if b"00002" in call.body else classified(call))
    with Client(server.url, jobs=1, batch_size=2) as client:
        results = list(client.predict(contents(tmp_path, 6)))
    assert best(results) == ["00000", "00001", "odd", "odd", "00004", "00005"]
    assert "Odd." in results[2].message


def test_what_is_too_large_for_one_request_goes_in_smaller_ones(start_service: StartService, tmp_path: Path) -> None:
    """Down to single files; only one that is too large alone fails. Later requests are small from the start."""
    service = start_service(MAX_BODY_BYTES="10000", ACCESS_LOG="1")
    for number in range(40):
        size = 20_000 if number == 17 else 1_500
        (tmp_path / f"{number:02}.png").write_bytes(plain("lime") + b"\0" * size)
    with Client(service.url, jobs=1, batch_size=10) as client:
        results = list(client.predict([tmp_path]))
    assert best(results) == ["green"] * 17 + ["body_too_large"] + ["green"] * 22
    assert "10,000 bytes" in results[17].message
    refused = service.log().count('"status": 413')
    assert 2 <= refused <= 5, refused


def test_a_service_that_takes_few_pictures_at_once_gets_few(start_service: StartService, tmp_path: Path) -> None:
    """MAX_BATCH is found out, and costs no picture."""
    service = start_service(MAX_BATCH="3")
    for number in range(20):
        (tmp_path / f"{number:02}.png").write_bytes(plain("blue"))
    with Client(service.url, batch_size=16) as client:
        assert best(list(client.predict([tmp_path]))) == ["blue"] * 20


def test_a_stopped_iteration_sends_no_more(start_scripted: StartScripted, tmp_path: Path) -> None:
    """Who leaves the loop leaves nothing running: neither what waits for a retry nor what comes later is sent."""
    server = start_scripted(lambda call: classified(call) if b"00000" in call.body else error(503, Retry_After="1"))
    with Client(server.url, jobs=2, batch_size=1) as client:
        with closing(client.predict(contents(tmp_path, 50))) as results:
            assert next(results).predictions
        time.sleep(2)
    sent = [call.pictures for call in server.calls]
    assert len(sent) <= 4
    assert all(sent.count(pictures) == 1 for pictures in sent)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("darkroom")]


def test_headers_are_sent_as_given(
    start_scripted: StartScripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token reaches the service, also where ~/.netrc has another word for that host, which counts without one."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server = start_scripted()
    files = contents(tmp_path / "pictures", 1)
    for headers in ({"Authorization": "Bearer token"}, None):
        with Client(server.url, headers=headers) as client:
            list(client.predict(files))
    assert server.calls[0].headers["Authorization"] == "Bearer token"
    assert server.calls[1].headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://localhost"])
def test_an_address_without_a_scheme_is_refused(url: str) -> None:
    """The message says how an address begins."""
    with pytest.raises(ValueError, match="must begin with http://"):
        Client(url)


def test_an_address_may_have_a_path(start_scripted: StartScripted, tmp_path: Path) -> None:
    """A service behind a proxy's path is reached, with or without a slash at the end."""
    server = start_scripted()
    for url in (f"{server.url}/darkroom", f"{server.url}/darkroom/"):
        with Client(url) as client:
            assert best(list(client.predict(contents(tmp_path, 1)))) == ["00000"]
    assert {call.path for call in server.calls} == {"/darkroom/predict/batch?top=1"}


def test_calls_know_their_pictures() -> None:
    """The scripted server reads forms as the client writes them, or the tests above would prove little."""
    headers = email.message_from_string('Content-Type: multipart/form-data; boundary="b"\n')
    body = b'--b\r\nContent-Disposition: form-data; name="images"; filename="p"\r\n\r\n123\r\n--b--\r\n'
    assert Call(0, "/", headers, body).pictures == [b"123"]
