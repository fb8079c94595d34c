"""The settings of the service: read once from a mapping (the environment), checked, and from then on constant."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from machine import usable_cores, usable_memory

ENGINES = ("openvino", "tensorflow")
PRECISIONS = ("auto", "float32", "bfloat16", "int8")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "json", "text")
WITHOUT_TOKEN = ("probes", "metrics", "predictions", "nothing")

# On two cores the engine and one worker's Python keep each other busy; see benchmarks/NOTES.md.
_CORES_OF_A_WORKER = 2
_MEMORY_OF_A_WORKER = 512 * 1024 * 1024  # bytes: twice what it holds, so that there is room for bodies and pictures

_TOKEN = re.compile(r"([\w.-]{1,64}):([0-9a-fA-F]{64})", re.ASCII)
_MOST_TOKEN_BYTES = 1024 * 1024  # of a file of tokens
_HOST = re.compile(r"\*|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")
_ORIGIN = re.compile(r"\*|https?://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]+)?")
_RATE = re.compile(r"[1-9][0-9]{0,8}/(?:second|minute|hour|day)")

_MOST_PIXELS = 50_000_000
_BYTES_OF_A_PIXEL = 5  # while most pictures are decoded; some kinds take up to four times as many
_SHARE_OF_DECODING = 3  # of the memory, one part: what all pictures that are decoded may take together

Number = TypeVar("Number", int, float)


class SettingsError(Exception):
    """A setting cannot be used; the message names the variable, its value and what is allowed."""


class _Kind(NamedTuple):
    """How the text of a setting becomes its value, and what is allowed in words; what is ``secret`` is not repeated."""

    parse: Callable[[str], Any]
    allowed: str
    secret: bool = False


class Token(NamedTuple):
    """Whom a token lets in, and the sha256 of it."""

    name: str
    sha256: bytes


class Documented(NamedTuple):
    """What people are told about one setting."""

    variable: str
    default: str
    allowed: str
    description: str


def _integer(lowest: int, highest: int) -> _Kind:
    return _Kind(lambda text: _within(int(text), lowest, highest), f"an integer from {lowest} to {highest}")


def _seconds(lowest: float, highest: float) -> _Kind:
    return _Kind(lambda text: _within(float(text), lowest, highest), f"seconds from {lowest:g} to {highest:g}")


def _share(text: str) -> float:
    return _within(float(text), 0.0, 1.0)


def _choice(*values: str) -> _Kind:
    return _Kind(lambda text: values[values.index(text.lower())], f"one of {', '.join(values)}")


def _switch(text: str) -> bool:
    return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]


def _folder_name(text: str) -> str:
    if text in (".", "..") or "/" in text or "\0" in text:
        raise ValueError(text)
    return text


def _source(text: str) -> str:
    if text.partition("://")[0] not in ("s3", "gs", "az", "hf", "http", "https"):
        raise ValueError(text)
    return text


def _folder_names(text: str) -> tuple[str, ...]:
    names = tuple(_folder_name(name.strip()) for name in text.split(","))
    if not all(names):
        raise ValueError(text)
    return names


def _within(number: Number, lowest: float, highest: float) -> Number:
    if not lowest <= number <= highest:  # also false for NaN
        raise ValueError(number)
    return number


def _words(pattern: "re.Pattern[str]") -> Callable[[str], tuple[str, ...]]:
    """Return what splits a text at commas into words in lower case, each as ``pattern`` says."""

    def parse(text: str) -> tuple[str, ...]:
        words = tuple(word.strip().lower() for word in text.split(","))
        if not all(pattern.fullmatch(word) for word in words):
            raise ValueError(text)
        return words

    return parse


def parse_tokens(text: str) -> tuple[Token, ...]:
    """Return the tokens of ``text``: ``NAME:SHA256``, apart by spaces, commas or lines; # begins a comment.

    Raises:
        ValueError: it says something else.
    """
    words = " ".join(line.partition("#")[0] for line in text.splitlines()).replace(",", " ").split()
    found = [_TOKEN.fullmatch(word) for word in words]
    if not all(found):
        raise ValueError("one of the tokens is no NAME:SHA256")
    return tuple(Token(match[1], bytes.fromhex(match[2])) for match in found if match)


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Return the tokens of the file at ``path``; see ``parse_tokens``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, too large, not text, or says something else than tokens.
    """
    if not path.is_file():  # reading a pipe would wait for ever
        raise ValueError("there is no such file")
    with path.open(encoding="utf-8") as file:
        text = file.read(_MOST_TOKEN_BYTES + 1)
    if len(text) > _MOST_TOKEN_BYTES:
        raise ValueError("the file is too large")
    return parse_tokens(text)


_SWITCH = _Kind(_switch, "1 or 0")
_SHARE = _Kind(_share, "a number from 0 to 1")
_TOKENS = _Kind(parse_tokens, "NAME:SHA256, or several with spaces between them", secret=True)
_HOSTS = _Kind(_words(_HOST), "names with commas between them, such as pictures.example.com,*.example.org; or *")
_ORIGINS = _Kind(_words(_ORIGIN), "origins with commas between them, such as https://app.example.com; or *")
_OPEN = _Kind(_words(re.compile("|".join(WITHOUT_TOKEN))), f"of {', '.join(WITHOUT_TOKEN)}, with commas between them")
_RATES = _Kind(_words(_RATE), "limits with commas between them, such as 20/second,300/minute")
_TEXT = _Kind(str, "text")
_PATH = _Kind(Path, "a path")
_SOURCE = _Kind(
    _source,
    "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, https://HOST/FILE.tar (or .tar.gz), or "
    "hf://OWNER/REPO",
    secret=True,
)
_NAME = _Kind(_folder_name, "the name of a folder in MODEL_DIR")
_NAMES = _Kind(_folder_names, "names of folders in MODEL_DIR, with commas between them")


class _FromMachine(NamedTuple):
    """The default of a setting that depends on the machine, and how people are told about it.

    ``value`` takes the values of the settings before it, by the names of their fields.
    """

    value: Callable[[Mapping[str, Any]], Any]
    told: str


def _setting(
    variable: str, default: Any, kind: _Kind, description: str, from_machine: _FromMachine | None = None
) -> Any:
    metadata = {"env": variable, "kind": kind, "description": description, "from_machine": from_machine}
    return dataclasses.field(default=default, metadata=metadata)


def default_max_pixels(memory: int) -> int:
    """Return the most pixels of a picture where each worker has ``memory`` bytes."""
    return min(_MOST_PIXELS, decoding_memory(memory) // _BYTES_OF_A_PIXEL)


def decoding_memory(memory: int) -> int:
    """Return the bytes that pictures may take while they are decoded where each worker has ``memory`` bytes."""
    return memory // _SHARE_OF_DECODING


def default_workers(cores: int, memory: int) -> int:
    """Return how many workers are worth running on ``cores`` with ``memory`` bytes, at least 1."""
    return max(1, min(cores // _CORES_OF_A_WORKER, memory // _MEMORY_OF_A_WORKER))


@dataclass(frozen=True)
class Settings:
    """Every setting of the service. An empty variable counts as unset."""

    host: str = _setting(
        "HOST", "127.0.0.1", _TEXT, "Address to listen on; 0.0.0.0 accepts requests from other machines too."
    )
    port: int = _setting("PORT", 8000, _integer(1, 65535), "TCP port to listen on.")
    admin_port: int | None = _setting(
        "ADMIN_PORT",
        None,
        _integer(1, 65535),
        "Second TCP port for /health and /metrics, which PORT then no longer answers.",
    )
    grpc_port: int | None = _setting(
        "GRPC_PORT", None, _integer(1, 65535), "TCP port for gRPC; unset opens none. It needs the extra grpc."
    )
    allowed_hosts: tuple[str, ...] | None = _setting(
        "ALLOWED_HOSTS",
        None,
        _HOSTS,
        "Names that requests may use in Host; unset allows this machine's own and, if HOST lets others in, addresses "
        "and names without a dot.",
    )
    trusted_proxies: int = _setting(
        "TRUSTED_PROXIES",
        0,
        _integer(0, 10),
        "Proxies in front, each of which adds the client's address to X-Forwarded-For; 0 ignores that header.",
    )
    api_tokens: tuple[Token, ...] | None = _setting(
        "API_TOKENS", None, _TOKENS, "Tokens that let clients in, each by its sha256; unset lets everybody in."
    )
    api_tokens_file: Path | None = _setting(  # noqa: RUF009 - it calls dataclasses.field
        "API_TOKENS_FILE", None, _PATH, "File with more tokens, one a line; changes take effect within a second."
    )
    without_token: tuple[str, ...] = _setting(
        "WITHOUT_TOKEN", ("probes",), _OPEN, "What may be asked without a token when there are tokens."
    )
    rate_limit: tuple[str, ...] | None = _setting(
        "RATE_LIMIT", None, _RATES, "Most requests from one client address to one worker; more get a 429."
    )
    cors_origins: tuple[str, ...] | None = _setting(
        "CORS_ORIGINS",
        None,
        _ORIGINS,
        "Origins whose pages may ask from a browser; unset allows only the service's own.",
    )
    model_dir: Path = _setting(  # noqa: RUF009 - it calls dataclasses.field
        "MODEL_DIR", Path("models"), _PATH, "Folder that holds NAME/VERSION/ folders."
    )
    model_name: str | None = _setting(
        "MODEL_NAME",
        None,
        _NAME,
        "Model that answers where a request names none; unset takes the only one in MODEL_DIR, or cifar10 if there are "
        "several.",
    )
    model_names: tuple[str, ...] | None = _setting(
        "MODEL_NAMES", None, _NAMES, "Models of MODEL_DIR that are served; unset serves all."
    )
    model_memory_mb: int | None = _setting(
        "MODEL_MEMORY_MB",
        None,
        _integer(1, 100_000_000),
        "Most megabytes that models may take in one worker; unset takes what there is. What does not fit is loaded "
        "when somebody asks for it.",
    )
    model_version: int | None = _setting(
        "MODEL_VERSION",
        None,
        _integer(1, 2**31 - 1),
        "Serve this version of MODEL_NAME only; unset follows serving.json beside the versions, or else the newest "
        "valid one.",
    )
    model_source: str | None = _setting(
        "MODEL_SOURCE", None, _SOURCE, "Where models come from: they are synced into MODEL_DIR; unset syncs nothing."
    )
    model_source_poll_seconds: float = _setting(
        "MODEL_SOURCE_POLL_SECONDS", 60.0, _seconds(0.1, 86_400), "How often MODEL_SOURCE is asked for what is new."
    )
    engine: str = _setting("ENGINE", "openvino", _choice(*ENGINES), "What runs the model.")
    precision: str = _setting(
        "PRECISION",
        "auto",
        _choice(*PRECISIONS),
        "Arithmetic of OpenVINO; auto is int8 where the version has it, and of float32 and bfloat16 the faster one, "
        "measured.",
    )
    workers: int = _setting(
        "WORKERS",
        1,
        _integer(1, 256),
        "Processes; each holds the model and a share of the cores.",
        _FromMachine(lambda _: default_workers(usable_cores(), usable_memory()), "one for two cores"),
    )
    threads: int = _setting(
        "THREADS",
        4,
        _integer(1, 1024),
        "Long requests that one worker handles at the same time: batches, large pictures, compressed bodies.",
        _FromMachine(lambda chosen: 2 * max(1, usable_cores() // chosen["workers"]), "two for each core"),
    )
    max_body_bytes: int = _setting(
        "MAX_BODY_BYTES", 32 * 1024 * 1024, _integer(1024, 2**31 - 1), "Largest request body in bytes."
    )
    max_image_pixels: int = _setting(
        "MAX_IMAGE_PIXELS",
        _MOST_PIXELS,
        _integer(1, 2**31 - 1),
        "Largest picture, width times height in pixels.",
        _FromMachine(
            lambda chosen: default_max_pixels(usable_memory() // chosen["workers"]),
            f"{_MOST_PIXELS}, fewer below 1 GB",
        ),
    )
    max_batch: int = _setting("MAX_BATCH", 1000, _integer(1, 100_000), "Most items of one batch request.")
    queue_length: int = _setting(
        "QUEUE_LENGTH",
        256,
        _integer(1, 100_000),
        "Images that may wait for the engine in one worker, and requests that it may have begun; more get a 503.",
    )
    request_deadline: float = _setting(
        "REQUEST_DEADLINE_SECONDS",
        10.0,
        _seconds(0.01, 3600),
        "Longest time to answer once the body is there; then a 504.",
    )
    worker_timeout: float = _setting(
        "WORKER_TIMEOUT_SECONDS",
        3.0,
        _seconds(1, 3600),
        "Time after which a worker that gives no sign of life is killed and replaced.",
    )
    drain_seconds: float = _setting(
        "DRAIN_SECONDS", 1.0, _seconds(0, 3600), "Time between SIGTERM (readiness turns 503) and closing the port."
    )
    model_poll_seconds: float = _setting(
        "MODEL_POLL_SECONDS", 2.0, _seconds(0.05, 3600), "How often MODEL_DIR is checked for new versions."
    )
    model_load_seconds: float = _setting(
        "MODEL_LOAD_SECONDS",
        60.0,
        _seconds(1, 3600),
        "Longest time to load a model version; what takes longer is kept out.",
    )
    capture_dir: Path | None = _setting(  # noqa: RUF009 - it calls dataclasses.field
        "CAPTURE_DIR",
        None,
        _PATH,
        "Folder for pictures that are worth labelling, with what was answered; unset keeps none.",
    )
    reviewed_dir: Path | None = _setting(  # noqa: RUF009 - it calls dataclasses.field
        "REVIEWED_DIR",
        None,
        _PATH,
        "Folder that labelled pictures go to, as LABEL/FILE: that of the training; unset is CAPTURE_DIR/reviewed.",
    )
    capture_share: float = _setting(
        "CAPTURE_SHARE", 0.01, _SHARE, "Share of all pictures that is kept by chance, to measure the accuracy."
    )
    capture_margin: float = _setting(
        "CAPTURE_MARGIN",
        0.2,
        _SHARE,
        "Lead of the first label over the second, below which a picture is kept; unfamiliar ones are kept as well.",
    )
    capture_max_mb: int = _setting(
        "CAPTURE_MAX_MB",
        1024,
        _integer(1, 10_000_000),
        "Most megabytes of pictures that wait for a label; the oldest go first.",
    )
    capture_days: float = _setting(
        "CAPTURE_DAYS",
        30.0,
        _Kind(lambda text: _within(float(text), 0.001, 3650), "days from 0.001 to 3650"),
        "Days after which a picture without a label is removed.",
    )
    drift_window: int = _setting(
        "DRIFT_WINDOW",
        500,
        _integer(0, 100_000),
        "Last answers that darkroom_drift_* compares with those of the version's own test; 0 compares none.",
    )
    log_level: str = _setting("LOG_LEVEL", "info", _choice(*LOG_LEVELS), "Lowest level that is logged.")
    log_format: str = _setting(
        "LOG_FORMAT",
        "auto",
        _choice(*LOG_FORMATS),
        "json is one object a line, text a line for people; auto is text on a terminal and json elsewhere.",
    )
    access_log: bool = _setting(
        "ACCESS_LOG", default=False, kind=_SWITCH, description="1 logs one line for each request."
    )

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports to listen on."""
        return (self.port,) if self.admin_port is None else (self.port, self.admin_port)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the settings from ``environment``.

        Raises:
            SettingsError: a value is not allowed, or two values do not go together.
        """
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            text = environment.get(field.metadata["env"], "").strip()
            if text:
                values[field.name] = _parse(field, text)
            elif field.metadata["from_machine"]:
                values[field.name] = field.metadata["from_machine"].value(values)
        settings = cls(**values)
        settings._check()
        return settings

    def _check(self) -> None:
        if self.engine == "tensorflow" and self.precision in ("bfloat16", "int8"):
            raise SettingsError(f"PRECISION is {self.precision!r}, but ENGINE=tensorflow computes in float32 only")
        if self.model_names is not None and self.model_name not in (None, *self.model_names):
            raise SettingsError(f"MODEL_NAME is {self.model_name!r}, which is not among MODEL_NAMES; add it there")
        if self.admin_port == self.port:
            raise SettingsError(f"ADMIN_PORT is {self.admin_port}, but PORT is the same; it must be another")
        if self.grpc_port in self.ports:
            raise SettingsError(f"GRPC_PORT is {self.grpc_port}, but HTTP has that port; it must be another")
        if self.api_tokens_file is not None:
            try:
                read_tokens(self.api_tokens_file)
            except (OSError, ValueError) as error:
                raise SettingsError(f"API_TOKENS_FILE is {str(self.api_tokens_file)!r}, but {error}") from error
        if self.capture_dir is not None and self.capture_dir.exists() and not self.capture_dir.is_dir():
            raise SettingsError(f"CAPTURE_DIR is {str(self.capture_dir)!r}, which is a file; it must be a folder")
        if self.model_dir.exists() and not self.model_dir.is_dir():
            raise SettingsError(f"MODEL_DIR is {str(self.model_dir)!r}, which is a file; it must be a folder")


def documentation() -> list[Documented]:
    """Return what ``--help`` and docs/settings.md say about each setting, in order."""
    return [
        Documented(
            field.metadata["env"],
            _default_text(field),
            field.metadata["kind"].allowed,
            field.metadata["description"],
        )
        for field in dataclasses.fields(Settings)
    ]


def _default_text(field: "dataclasses.Field[Any]") -> str:
    default = field.default
    if field.metadata["from_machine"]:
        return str(field.metadata["from_machine"].told)
    if default is None:
        return "unset"
    if isinstance(default, bool):
        return str(int(default))
    if isinstance(default, tuple):
        return ",".join(default)
    return f"{default:g}" if isinstance(default, float) else str(default)


def _parse(field: "dataclasses.Field[Any]", text: str) -> Any:
    kind: _Kind = field.metadata["kind"]
    try:
        return kind.parse(text)
    except (ValueError, KeyError) as error:
        value = "set" if kind.secret else repr(text)  # somebody may have written the token itself
        raise SettingsError(f"{field.metadata['env']} is {value}, but it must be {kind.allowed}") from error
