"""Read a pickle as the data that it holds: nothing that it names is imported, called or built.

A pickle is a program, and an unpickler that is given harmless classes only still lets it set their state: that of a
``numpy.dtype`` is enough to read and write anywhere in memory. So the standard library takes the program apart here
(``pickletools``), and what it would call stays a ``Call``, whose parts the reader checks and puts together by hand.
"""

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import IO, Any


class NoData(ValueError):
    """A pickle is damaged, or holds what is no data; the message says which."""


@dataclass(frozen=True)
class Name:
    """A name that a pickle would import, such as ``numpy.dtype``."""

    full: str


@dataclass(frozen=True)
class Reference:
    """What lies outside of the pickle, as its writer named it (a persistent id)."""

    identity: Any


@dataclass
class Call:
    """What a pickle would call, with which arguments, and what it would then do to the result: its state, its items."""

    function: str
    arguments: tuple[Any, ...]
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


_MOST_OPERATIONS = 1_000_000  # a batch of CIFAR-10 has 40,000; one takes a byte in the file, and may make an object
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT")
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
_VALUES = frozenset((*_NUMBERS, *_TEXTS, *_BYTES))
_PYTHON_2 = ("STRING", "BINSTRING", "SHORT_BINSTRING")  # bytes, which pickletools gives as Latin-1
_ENCODE = "_codecs.encode"  # of text in Latin-1: how Python 3 writes bytes for Python 2
_KEYS = (str, bytes, int)  # the hash of tuples within tuples may take for ever
_SIGNS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def load(stream: IO[bytes], names: Collection[str]) -> Any:
    """Return what the next pickle in ``stream`` holds: plain values, and ``Call``, ``Name`` and ``Reference``.

    It may name ``names`` and nothing else. The text that Python 2 wrote is bytes. ``stream`` is left behind its end.

    Raises:
        NoData: it is damaged or cut short, or does what no data needs.
        MemoryError: it says that it holds more than fits.
    """
    machine = _Machine(names)
    try:
        for number, (operation, argument, _) in enumerate(pickletools.genops(stream)):
            if number == _MOST_OPERATIONS:
                raise NoData(f"it has more than {_MOST_OPERATIONS:,} parts")
            machine.do(operation.name, argument)
        [value] = machine.stack
    except NoData:
        raise
    except (ValueError, LookupError, OverflowError) as error:
        raise NoData(f"it is damaged or cut short ({error})") from error
    return value


class _Machine:
    """The part of pickle's machine that data needs: a stack, the stacks below its marks, and a memo."""

    def __init__(self, names: Collection[str]) -> None:
        self.stack: list[Any] = []
        self._names = names
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def do(self, name: str, argument: Any) -> None:
        """Do one operation, by the name that ``pickletools`` has for it."""
        if name in _VALUES:
            self.push(argument)
        elif name in _PYTHON_2:
            self.push(argument.encode("latin1"))
        elif name in _SIGNS:
            self.push(_SIGNS[name])
        elif name == "GLOBAL":
            self.name(argument.replace(" ", ".", 1))
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.push(self._memo[argument])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self.stack[-1]
        elif name in _OPERATIONS:
            _OPERATIONS[name](self)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise NoData(f"it asks for {name}, which no data needs")

    def name(self, full: str) -> None:
        if full not in (_ENCODE, *self._names):
            raise NoData(f"it holds {full}, which a data file must not")
        self.push(Name(full))

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self._below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        """Take what was put on the stack since the last mark."""
        items, self.stack = self.stack, self._below.pop()
        return items

    def memoize(self) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def tuple_of(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def extend(self, items: list[Any]) -> None:
        _of_type(self.stack[-1], list).extend(items)

    def put_items(self, items: list[Any]) -> None:
        """Put keys and values, in turn, into the dictionary on the stack, or into that which a call would return."""
        target = self.stack[-1].items if isinstance(self.stack[-1], Call) else _of_type(self.stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, _KEYS):
                raise NoData(f"it has a {type(key).__name__} for a key")
            target[key] = value

    def new_dictionary(self, items: list[Any]) -> None:
        self.push({})
        self.put_items(items)

    def name_from_stack(self) -> None:
        name, module = (_of_type(self.stack.pop(), str) for _ in range(2))
        self.name(f"{module}.{name}")

    def call(self) -> None:
        arguments, function = _of_type(self.stack.pop(), tuple), _of_type(self.stack.pop(), Name)
        self.push(_encoded(arguments) if function.full == _ENCODE else Call(function.full, arguments))

    def set_state(self) -> None:
        state = self.stack.pop()
        _of_type(self.stack[-1], Call).state = state


def _encoded(arguments: tuple[Any, ...]) -> bytes:
    match arguments:
        case (str(text), "latin1"):
            return text.encode("latin1")
    raise NoData("it asks for another encoding than Latin-1")


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise NoData(f"it uses a {type(value).__name__} as a {kind.__name__.lower()}")
    return value


_OPERATIONS: dict[str, Callable[[_Machine], Any]] = {
    "MARK": _Machine.mark,
    "POP": lambda machine: machine.stack.pop(),
    "POP_MARK": _Machine.since_mark,
    "DUP": lambda machine: machine.push(machine.stack[-1]),
    "MEMOIZE": _Machine.memoize,
    "EMPTY_TUPLE": lambda machine: machine.tuple_of(0),
    "TUPLE1": lambda machine: machine.tuple_of(1),
    "TUPLE2": lambda machine: machine.tuple_of(2),
    "TUPLE3": lambda machine: machine.tuple_of(3),
    "TUPLE": lambda machine: machine.push(tuple(machine.since_mark())),
    "EMPTY_LIST": lambda machine: machine.push([]),
    "LIST": lambda machine: machine.push(machine.since_mark()),
    "APPEND": lambda machine: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine: machine.extend(machine.since_mark()),
    "EMPTY_DICT": lambda machine: machine.new_dictionary([]),
    "DICT": lambda machine: machine.new_dictionary(machine.since_mark()),
    "SETITEM": lambda machine: machine.put_items([machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine: machine.put_items(machine.since_mark()),
    "STACK_GLOBAL": _Machine.name_from_stack,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.set_state,
    "BINPERSID": lambda machine: machine.push(Reference(machine.stack.pop())),
}
