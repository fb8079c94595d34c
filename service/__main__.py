"""``python -m service``: read the settings, check them, serve."""

import argparse
import dataclasses
import importlib.util
import os
import signal
import socket
import sys
import textwrap
from collections.abc import Mapping, Sequence

from service.inference.folders import AmbiguousModel, default_model
from service.observe import logs
from service.settings import Settings, SettingsError, documentation

_INTRODUCTION = """\
Serve the newest valid model version of MODEL_DIR over HTTP.

  python -m service
  curl -F image=@photo.jpg http://localhost:8000/predict

POST /predict         one picture: multipart field "image", a raw image/* body, or JSON {"image": "<base64>"}; ?top=k
POST /predict/batch   many: multipart fields "images", JSON {"images": [...]}, an .npy or a raw uint8 tensor
GET  /                a page for people; /docs lists every route, /openapi.json is the same for programs
     /v1/..., /v2/... the protocols of TensorFlow Serving, KServe and Triton
GET  /model           versions, labels, metrics, the model card; /model/card is a page with the report of its training
GET  /health          a summary; /health/live and /health/ready are for probes
GET  /metrics         Prometheus
"""


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Serve until a signal ends it; return 2 where a setting is wrong, 1 where the machine lacks something.

    See ``--help``.
    """
    _parser().parse_args(arguments)
    try:
        settings = _with_model_name(Settings.from_environment(environment))
        _check_engine(settings)
        _check_address(settings)
    except SettingsError as error:
        print(f"error: {error}\n`python -m service --help` lists all settings.", file=sys.stderr)
        return 2
    # As process 1 of a container a signal without a handler is ignored, and gunicorn sets its handlers a little later.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logs.configure(settings.log_level)
    from service.serving.server import CannotServe, serve

    try:
        serve(settings)
    except CannotServe as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="python -m service",
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


def _with_model_name(settings: Settings) -> Settings:
    """Settle which model is served, so that another one that appears later changes nothing."""
    if settings.model_name is not None:
        return settings
    try:
        return dataclasses.replace(settings, model_name=default_model(settings.model_dir))
    except AmbiguousModel as error:
        raise SettingsError(f"MODEL_NAME is not set, but {error}") from error
    except OSError as error:
        raise SettingsError(f"MODEL_DIR is {str(settings.model_dir)!r}, which cannot be read: {error}") from error


def _check_engine(settings: Settings) -> None:
    if importlib.util.find_spec(settings.engine) is None:
        raise SettingsError(f"ENGINE is {settings.engine!r}, but that package is not installed")


def _check_address(settings: Settings) -> None:
    """Try to bind the ports: gunicorn would try for seconds and log every attempt."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    for variable, port in zip(("PORT", "ADMIN_PORT"), settings.ports, strict=False):
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
