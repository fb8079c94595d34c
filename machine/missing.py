"""What to say where a package is not installed that a part of the project needs."""

import importlib.util


def how_to_install(error: ModuleNotFoundError, what: str, extra: str) -> str:
    """Return a sentence on the package that ``error`` misses, which ``what`` needs and the extra ``extra`` brings.

    Raises:
        ModuleNotFoundError: ``error`` itself, where the package is there and lacks a module: that is a fault.
    """
    package = (error.name or "").partition(".")[0]
    if not package or importlib.util.find_spec(package) is not None:
        raise error
    return f"{what} needs {package}, which is not installed: pip install 'darkroom[{extra}]'"
