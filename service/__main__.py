"""``python -m service``: read the settings, check them, serve."""

import argparse
import dataclasses
import importlib.util
import logging
import os
import signal
import socket
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from artifact import models_in
from machine import how_to_install
from service.inference.folders import AmbiguousModel, default_model
from service.observe import logs
from service.settings import Settings, SettingsError, documentation

log = logging.getLogger(__name__)

_PACKAGE = Path(__file__).resolve().parent
_BUNDLED = (_PACKAGE / "models", _PACKAGE.parent / "models")
"""Where the bundled model is: in an installed package, in a clone."""

_INTRODUCTION = """\
Serve the newest valid model version of MODEL_DIR over HTTP.

  darkroom serve
  curl -F image=@photo.jpg http://localhost:8000/predict

POST /predict         one picture: multipart field "image", a raw image/* body, or JSON {"image": "<base64>"}; ?top=k
POST /predict/batch   many: multipart fields "images", JSON {"images": [...]}, an .npy or a raw uint8 tensor
GET  /                a page for people; /docs lists every route, /openapi.json is the same for programs
POST /explain         which part of a picture spoke for a label: a map and a box; ?format=png draws it; ?label=
     /v1/..., /v2/... the protocols of TensorFlow Serving, KServe and Triton; over gRPC as well, by GRPC_PORT
GET  /model           versions, labels, metrics, the model card; /model/card is a page with the report of its training
GET  /health          a summary; /health/live and /health/ready are for probes
GET  /metrics         Prometheus
GET  /review          a page to label the pictures that were kept, by CAPTURE_DIR; it needs a token (/captured/summary)
"""


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Serve until a signal ends it; return 2 where a setting is wrong, 1 where the machine lacks something.

    See ``--help``.
    """
    _parser().parse_args(arguments)
    try:
        settings = _with_model_name(_with_model_dir(Settings.from_environment(environment), environment))
        _check_engine(settings)
        _check_grpc(settings)
        _check_address(settings)
        _check_capture_dir(settings)
        _check_model_source(settings)
    except SettingsError as error:
        print(f"error: {error}\n`darkroom serve --help` lists all settings.", file=sys.stderr)
        return 2
    # As process 1 of a container a signal without a handler is ignored, and gunicorn sets its handlers a little later.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logs.configure(settings.log_level, settings.log_format)
    if logs.for_people(settings.log_format):
        log.info("Darkroom starts; its page will be at %s", _address(settings))
    if settings.capture_dir is not None and settings.api_tokens is None and settings.api_tokens_file is None:
        log.warning("pictures are kept, but nobody can review them: set API_TOKENS or API_TOKENS_FILE (docs/loop.md)")
    try:
        from service.serving.server import CannotServe, serve
    except ModuleNotFoundError as missing:
        print(f"error: {how_to_install(missing, 'the service', 'service')}", file=sys.stderr)
        return 2
    try:
        serve(settings)
    except CannotServe as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="darkroom serve",
        description=_INTRODUCTION,
        epilog=_settings_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _settings_text() -> str:
    lines = ["settings, from the environment (an empty variable counts as unset):"]
    for setting in documentation():
        lines.append(f"\n  {setting.variable} = {setting.default}  ({setting.allowed})")
        lines += textwrap.wrap(setting.description, 110, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _with_model_dir(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """Settle which folder of models is served: the bundled one where none is named and ./models is not there."""
    if environment.get("MODEL_DIR", "").strip() or settings.model_dir.exists() or settings.model_source:
        return settings
    bundled = next((folder for folder in _BUNDLED if folder.is_dir()), settings.model_dir)
    return dataclasses.replace(settings, model_dir=bundled)


def _address(settings: Settings) -> str:
    """Return where a browser on this machine finds the service."""
    host = {"0.0.0.0": "localhost", "::": "localhost", "127.0.0.1": "localhost"}.get(settings.host, settings.host)  # noqa: S104 - it is only read
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _with_model_name(settings: Settings) -> Settings:
    """Settle which model answers where a request names none, so that one that appears later changes nothing."""
    if settings.model_name is not None:
        return settings
    try:
        names = [name for name in models_in(settings.model_dir) if name in (settings.model_names or (name,))]
        return dataclasses.replace(settings, model_name=default_model(settings.model_dir, names))
    except AmbiguousModel:
        return settings
    except OSError as error:
        raise SettingsError(f"MODEL_DIR is {str(settings.model_dir)!r}, which cannot be read: {error}") from error


def _check_engine(settings: Settings) -> None:
    if importlib.util.find_spec(settings.engine) is None:
        extra = "service" if settings.engine == "openvino" else "service,cpu"
        raise SettingsError(
            f"ENGINE is {settings.engine!r}, but that package is not installed: pip install 'darkroom[{extra}]'"
        )


def _check_grpc(settings: Settings) -> None:
    """Find out whether what GRPC_PORT needs is installed, without importing any of it."""
    if settings.grpc_port is None:
        return
    try:
        found = [importlib.util.find_spec(package) for package in ("grpc", "google.protobuf")]
    except ModuleNotFoundError:  # google
        found = [None]
    if not all(found):
        raise SettingsError(
            f"GRPC_PORT is {settings.grpc_port}, but what gRPC needs is not installed: "
            "pip install 'darkroom[service,grpc]'"
        )


def _check_capture_dir(settings: Settings) -> None:
    """Find out that pictures could never be kept; a disk that fails later keeps nobody from an answer."""
    for variable, folder in (("CAPTURE_DIR", settings.capture_dir), ("REVIEWED_DIR", settings.reviewed_dir)):
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise SettingsError(
                f"{variable} is {str(folder)!r}, but nothing can be written there: {error.strerror}; give a folder "
                "that this user may write in"
            ) from error


def _check_model_source(settings: Settings) -> None:
    """Find out what would keep models from ever being fetched; a source that does not answer is asked again."""
    if settings.model_source is None:
        return
    from service.sources.address import check_address, missing_package

    try:
        check_address(settings.model_source)
    except ValueError as error:
        raise SettingsError(f"MODEL_SOURCE is set, but {error}") from error
    if package := missing_package(settings.model_source):
        raise SettingsError(
            f"MODEL_SOURCE is an object store, but {package} is not installed: pip install 'darkroom[service,sources]'"
        )
    try:
        settings.model_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.model_dir):
            pass
    except OSError as error:
        raise SettingsError(
            f"MODEL_SOURCE is set, but nothing can be written in MODEL_DIR, {str(settings.model_dir)!r}: "
            f"{error.strerror}; models are fetched into it, so mount it writable, for this user"
        ) from error


def _check_address(settings: Settings) -> None:
    """Try to bind the ports: gunicorn would try for seconds and log every attempt."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    ports = {"PORT": settings.port, "ADMIN_PORT": settings.admin_port, "GRPC_PORT": settings.grpc_port}
    for variable, port in ports.items():
        if port is None:
            continue
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((settings.host, port))
            except OSError as error:
                raise SettingsError(
                    f"HOST is {settings.host!r} and {variable} is {port}, but that address cannot be listened on: "
                    f"{error.strerror}; stop what uses it or set another"
                ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
