"""Settings: read from a mapping, checked at start, told in ``--help``."""

import socket
from pathlib import Path

import pytest
import requests

from machine import usable_cores
from service.settings import Settings, SettingsError, default_max_pixels, default_workers, documentation
from tests.models import copy
from tests.service.pictures import plain
from tests.service.running import free_port, metric, run_to_the_end, start


def test_defaults_and_empty_variables() -> None:
    """An empty variable counts as unset, and unset gives the default."""
    empty = {setting.variable: " " for setting in documentation()}
    assert Settings.from_environment(empty) == Settings.from_environment({})
    fixed = {"WORKERS": "1", "THREADS": "4", "MAX_IMAGE_PIXELS": "50000000"}
    assert Settings.from_environment(fixed) == Settings()


def test_threads_follow_from_the_workers() -> None:
    """A worker has two threads for each of its cores, and at least two."""
    assert Settings.from_environment({"WORKERS": "1"}).threads == 2 * usable_cores()
    assert Settings.from_environment({"WORKERS": str(usable_cores() + 1)}).threads == 2


@pytest.mark.parametrize(
    ("cores", "gigabytes", "workers"),
    [(1, 1, 1), (2, 24, 1), (3, 24, 1), (8, 24, 4), (64, 128, 32), (8, 1, 2), (8, 0.1, 1)],
)
def test_workers_follow_from_the_machine(cores: int, gigabytes: float, workers: int) -> None:
    """There is a worker for two cores, and fewer where the memory would not hold them."""
    assert default_workers(cores, int(gigabytes * 2**30)) == workers


def test_values_are_read() -> None:
    """Every kind of setting is read from its variable."""
    settings = Settings.from_environment(
        {
            "HOST": "::1",
            "PORT": "80",
            "MODEL_DIR": "/models",
            "MODEL_NAME": "flowers",
            "MODEL_VERSION": "7",
            "PRECISION": "BFLOAT16",
            "REQUEST_DEADLINE_SECONDS": "0.5",
            "ACCESS_LOG": "yes",
        }
    )
    assert (settings.host, settings.port, settings.model_dir) == ("::1", 80, Path("/models"))
    assert (settings.model_name, settings.model_version, settings.precision) == ("flowers", 7, "bfloat16")
    assert (settings.request_deadline, settings.access_log) == (0.5, True)


@pytest.mark.parametrize(("megabytes", "pixels"), [(24_000, 50_000_000), (800, 50_000_000), (400, 26_666_666)])
def test_pictures_fit_into_the_memory(megabytes: int, pixels: int) -> None:
    """Where memory is short, the largest picture is one that a third of it holds while it is decoded."""
    assert default_max_pixels(megabytes * 1_000_000) == pixels


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("PORT", "http", "an integer from 1 to 65535"),
        ("PORT", "65536", "an integer from 1 to 65535"),
        ("MODEL_NAME", "../secrets", "the name of a folder"),
        ("MODEL_NAME", "..", "the name of a folder"),
        ("MODEL_VERSION", "0", "an integer from 1"),
        ("ENGINE", "torch", "one of openvino, tensorflow"),
        ("PRECISION", "int4", "one of auto, float32, bfloat16, int8"),
        ("WORKERS", "-1", "an integer from 1"),
        ("THREADS", "many", "an integer from 1"),
        ("MAX_BODY_BYTES", "32M", "an integer from"),
        ("MAX_IMAGE_PIXELS", "1e6", "an integer from"),
        ("MAX_BATCH", "0", "an integer from 1"),
        ("QUEUE_LENGTH", "0", "an integer from 1"),
        ("REQUEST_DEADLINE_SECONDS", "nan", "seconds from 0.01"),
        ("DRAIN_SECONDS", "-1", "seconds from 0"),
        ("MODEL_POLL_SECONDS", "inf", "seconds from 0.05"),
        ("LOG_LEVEL", "loud", "one of debug, info"),
        ("ACCESS_LOG", "maybe", "1 or 0"),
        ("ADMIN_PORT", "0", "an integer from 1"),
        ("ALLOWED_HOSTS", "https://example.com", "names with commas"),
        ("ALLOWED_HOSTS", "a.example.com:8000", "names with commas"),
        ("ALLOWED_HOSTS", "a,,b", "names with commas"),
        ("TRUSTED_PROXIES", "10.0.0.1", "an integer from 0"),
        ("WITHOUT_TOKEN", "everything", "of probes, metrics, predictions, nothing"),
        ("RATE_LIMIT", "0/second", "limits with commas"),
        ("RATE_LIMIT", "20", "limits with commas"),
        ("CORS_ORIGINS", "example.com", "origins with commas"),
        ("CORS_ORIGINS", "https://example.com/", "origins with commas"),
        ("CORS_ORIGINS", "null", "origins with commas"),
        ("CAPTURE_SHARE", "1%", "a number from 0 to 1"),
        ("CAPTURE_SHARE", "nan", "a number from 0 to 1"),
        ("CAPTURE_MARGIN", "1.1", "a number from 0 to 1"),
        ("CAPTURE_MAX_MB", "0", "an integer from 1"),
        ("CAPTURE_DAYS", "0", "days from 0.001"),
    ],
)
def test_bad_value_is_named(variable: str, value: str, allowed: str) -> None:
    """An error names the variable, its value and what is allowed."""
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment({variable: value})
    assert str(raised.value).startswith(f"{variable} is {value!r}, but it must be {allowed}")


def test_values_that_do_not_go_together() -> None:
    """TensorFlow in bfloat16 or int8 is refused, and so is a file in place of the model folder."""
    for precision in ("bfloat16", "int8"):
        with pytest.raises(SettingsError, match=rf"PRECISION is '{precision}'.*ENGINE=tensorflow"):
            Settings.from_environment({"ENGINE": "tensorflow", "PRECISION": precision})
    with pytest.raises(SettingsError, match=r"ADMIN_PORT is 8000, but PORT is the same"):
        Settings.from_environment({"ADMIN_PORT": "8000"})
    with pytest.raises(SettingsError, match=r"MODEL_DIR is .*a file"):
        Settings.from_environment({"MODEL_DIR": __file__})
    with pytest.raises(SettingsError, match=r"CAPTURE_DIR is .*a file"):
        Settings.from_environment({"CAPTURE_DIR": __file__})


@pytest.mark.process
def test_bad_setting_ends_the_start() -> None:
    """The service ends with code 2 and one message, no traceback, when a setting is wrong."""
    ended = run_to_the_end(PORT="abc")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: PORT is 'abc', but it must be an integer from 1 to 65535\n")
    assert "Traceback" not in ended.stderr


@pytest.mark.process
def test_address_in_use_is_told() -> None:
    """A port that is taken, or an address that is not there, ends the start with code 2 and one message."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ended = run_to_the_end(HOST="127.0.0.1", PORT=str(port))
    assert ended.returncode == 2
    assert f"PORT is {port}" in ended.stderr
    assert "in use" in ended.stderr
    ended = run_to_the_end(HOST="192.0.2.1")
    assert ended.returncode == 2
    assert "HOST is '192.0.2.1'" in ended.stderr


@pytest.mark.process
@pytest.mark.parametrize("variable", ["CAPTURE_DIR", "REVIEWED_DIR"])
def test_a_folder_where_nothing_can_be_kept_is_told(tmp_path: Path, variable: str) -> None:
    """At the start, where somebody looks, and not when the first picture comes."""
    (tmp_path / "file").touch()
    ended = run_to_the_end(PORT=str(free_port()), **{variable: str(tmp_path / "file" / "folder")})
    assert ended.returncode == 2
    assert f"{variable} is " in ended.stderr
    assert "nothing can be written there" in ended.stderr


@pytest.mark.process
def test_among_several_models_a_request_chooses(published: Path, tmp_path: Path) -> None:
    """Where there are several models and none is the default, all are served, and who names none is told of them."""
    for name in ("cats", "dogs"):
        copy(published, tmp_path, 1, name=name)
    running = start({"MODEL_DIR": str(tmp_path)})
    try:
        running.wait_until_ready()
        refused = running.predict(plain("red"))
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")
        assert "say which one, as in ?model=cats; 'cats', 'dogs' are served" in refused.json()["message"]
        chosen = requests.post(f"{running.url}/predict?model=dogs", files={"image": plain("red")}, timeout=30)
        assert chosen.json()["model"] == {"name": "dogs", "version": 1}
        assert metric(running, "ready_workers") == 1
    finally:
        running.kill()


@pytest.mark.process
def test_help_lists_every_setting() -> None:
    """``--help`` names every setting with its default, what is allowed and what it does."""
    text = " ".join(run_to_the_end("--help").stdout.split())
    for setting in documentation():
        assert f"{setting.variable} = {setting.default} ({setting.allowed})" in text
        assert setting.description in text


@pytest.mark.process
def test_unknown_argument_is_refused() -> None:
    """An argument that does not exist is an error, not silently ignored."""
    ended = run_to_the_end("--port", "80")
    assert ended.returncode == 2
    assert "--port" in ended.stderr
