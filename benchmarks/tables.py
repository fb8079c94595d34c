"""The figures of compare.py as tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from benchmarks.loads import BATCH_SIZE, CROWDS, PHOTOGRAPH_BATCH, PHOTOGRAPHS, Figures, compared, crowd
from benchmarks.servers import FORM, OURS

_NOTHING = "-"
_MEGABYTES = "memory after all this"
_START = "process start to first answer"

Rows = Iterator[Sequence[str]]


def markdown(figures: Figures) -> str:
    """Return all tables that there are figures for."""
    return "\n\n".join(_tables(figures))


def _tables(figures: Figures) -> Iterator[str]:
    small, large = figures.get("small"), figures.get("photographs")
    if small and small["same_engine"]:
        yield _against("Same engine, int8 weights and decoder", small, "same_engine", _small_rows)
    if large:
        yield _photographs(large)
    if small and "overload" in small:
        yield _table("Against decoding and engine without HTTP", ("work", "measured", "against"), _alone(small))
    if small and small["tensorflow"]:
        yield _against("Another engine: the same network in TensorFlow, float32", small, "tensorflow", _form_rows)


def _table(title: str, heads: Sequence[str], rows: Rows) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]
    return "\n".join((f"### {title}", "", *lines))


def _against(title: str, figures: Figures, group: str, rows_of: Callable[[Figures, list[str]], Rows]) -> str:
    """Return a table with a column for each server of a group, and what did not run below it."""
    servers: list[str] = figures[group]
    table = _table(title, ("work", OURS, *servers, "Darkroom against the best of them"), rows_of(figures, servers))
    return "\n".join((table, *_missing(figures, servers)))


def _missing(figures: Figures, servers: Sequence[str]) -> Iterator[str]:
    told = [f"{server}: {figures['failed'][server]}" for server in servers if server in figures["failed"]]
    if told:
        yield f"\nNot measured, or not all: {'; '.join(told)}."


def _small_rows(figures: Figures, servers: list[str]) -> Rows:
    for work, by_server in figures["loads"].items():
        if OURS in by_server and any(server in by_server for server in servers):
            yield _row(work, by_server, servers)
    for work, by_server in figures["loads"].items():
        if work.startswith("one JPEG") and work.endswith(crowd(CROWDS[0])):
            yield _core_time(work, by_server, servers)


def _form_rows(figures: Figures, servers: list[str]) -> Rows:
    for work, by_server in figures["loads"].items():
        if any(server in by_server for server in servers):
            yield _row(work, by_server, servers)


def _row(work: str, by_server: Mapping[str, Figures], servers: Sequence[str]) -> Sequence[str]:
    cells = (_cell(by_server.get(server), lone=work.endswith(crowd(1))) for server in (OURS, *servers))
    return work, *cells, _ratio(by_server, servers)


def _cell(found: Figures | None, *, lone: bool) -> str:
    if found is None:
        return _NOTHING
    told = f"median {found['median']:.1f} ms" if lone else f"p99 {found['p99']:.0f} ms"
    return f"{found['rate']:,.0f}/s, {told}"


def _ratio(by_server: Mapping[str, Figures], servers: Sequence[str]) -> str:
    """Say how many times the answers of the best of ``servers`` ours gave."""
    others = [server for server in servers if server in by_server]
    if not others:
        return _NOTHING
    best = max(others, key=lambda server: float(by_server[server]["rate"]))
    return f"{compared(by_server, OURS, best):.2f} times {best}"


def _core_time(work: str, by_server: Mapping[str, Figures], servers: Sequence[str]) -> Sequence[str]:
    """Return a row with what an answer costs, in milliseconds of a core."""
    costs = {server: found["core_milliseconds"] for server, found in by_server.items() if server in (OURS, *servers)}
    cells = (f"{costs[server]:.2f} ms" if server in costs else _NOTHING for server in (OURS, *servers))
    best = min((server for server in costs if server != OURS), key=costs.__getitem__, default=None)
    ratio = f"{costs[OURS] / costs[best]:.2f} times that of {best}" if best else _NOTHING
    return f"core time an answer: {work}", *cells, ratio


def _photographs(figures: Figures) -> str:
    servers: list[str] = figures["same_engine"]
    heads = ("work", OURS, *servers, "Darkroom against the best of them", "without HTTP", "Darkroom's share of it")
    table = _table(f"Photographs, {figures['model']}", heads, _photograph_rows(figures, servers))
    return "\n".join((table, *_missing(figures, servers), "", *_photograph_notes(figures)))


def _photograph_rows(figures: Figures, servers: list[str]) -> Rows:
    for name, size in PHOTOGRAPHS.items():
        ceiling = figures["ceiling"]["x".join(map(str, size))]
        works = {work: found for work, found in figures["loads"].items() if work.startswith(f"{name},")}
        for work, by_server in works.items():
            row = _row(work, by_server, servers)
            if work.endswith(crowd(1)):
                yield *row, *_lone_ceiling(by_server[OURS], ceiling, figures["ceiling"]["engine_milliseconds"])
            else:
                pictures = PHOTOGRAPH_BATCH if work.endswith("a request") else 1
                yield *row, *_crowd_ceiling(by_server[OURS], ceiling, pictures)


def _lone_ceiling(ours: Figures, ceiling: Figures, engine: float) -> Sequence[str]:
    """Return what a picture takes that is decoded on one core, then run on all, and how much of our time that is."""
    decode, scale = ceiling["decode_milliseconds"], ceiling["scale_milliseconds"]
    whole = decode + scale + engine
    parts = f"{whole:.1f} ms: {decode:.1f} decoding, {scale:.1f} scaling, {engine:.1f} engine"
    return parts, f"{whole / ours['median']:.0%}"


def _crowd_ceiling(ours: Figures, ceiling: Figures, pictures: int) -> Sequence[str]:
    """Return the pictures a second that all cores decode, scale and run, and our share of them."""
    most = ceiling["decode_and_engine_images"]
    alone = f"{ceiling['decode_and_scale_images']:,.0f} decoding and scaling, {ceiling['engine_images']:,.0f} engine"
    return f"{most:,.0f} pictures/s ({alone})", f"{ours['rate'] * pictures / most:.0%}"


def _photograph_notes(figures: Figures) -> Iterator[str]:
    yield f"{_START}: {figures['start_seconds']:.2f} s; {_MEGABYTES}: {figures['memory_megabytes']:.0f} MB."


def _alone(figures: Figures) -> Rows:
    yield from _against_ceilings(figures)
    phone, overload = figures["phone"], figures["overload"]
    told = f"{phone['milliseconds']:.0f} ms, {phone['decoding_milliseconds']:.0f} ms of it decoding and scaling"
    yield "12-megapixel JPEG", told, f"{phone['megabytes_above_idle']:.0f} MB above idle"
    yield _START, f"{figures['start_seconds']:.2f} s", ""
    yield _MEGABYTES, f"{figures['memory_megabytes']:.0f} MB", ""
    told = f"{overload['rate']:,.0f}/s answered, {overload['refused']:,.0f}/s refused"
    left = f"{overload['of_peak']:.0%} of the peak of {overload['peak']:,.0f}/s"
    yield f"overload, {overload['asked_of_peak']:.1f} times what it can carry", told, left
    for what, key in (("answered", "newcomer_milliseconds"), ("refused", "refused_newcomer_milliseconds")):
        if seen := overload[key]:
            yield f"meanwhile a newcomer, {what}", f"median {seen['median']:.0f} ms, p99 {seen['p99']:.0f} ms", ""


def _against_ceilings(figures: Figures) -> Rows:
    ceiling, loads = figures["ceiling"], figures["loads"]
    for name, against, what in (
        (f"{BATCH_SIZE} JPEGs a request", "decode_and_engine_images", "decoding and engine"),
        (f"{BATCH_SIZE} images a request, raw", "engine_images", "the engine"),
        (f"{BATCH_SIZE} images a request, V2 binary", "engine_images", "the engine"),
    ):
        images = loads[name][OURS]["rate"] * BATCH_SIZE
        share = f"{images / ceiling[against]:.0%} of {what} without HTTP, {ceiling[against]:,.0f} images/s"
        yield name, f"{images:,.0f} images/s", share
    engine = ceiling["engine_milliseconds"]
    lone = loads.get(f"one JPEG, {FORM}, {crowd(1)}")
    if lone:
        median = lone[OURS]["median"]
        told = f"the engine's {engine:.2f} ms + {median - engine:.2f} ms"
        yield f"one JPEG, {FORM}, {crowd(1)}", f"{median:.2f} ms", told
