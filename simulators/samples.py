"""Measured latencies from a CSV file, as the percentiles of an empirical distribution.

A configuration file may say `{kind = "empirical", file = "latencies.csv"}`. `embed` puts the percentiles of that file in its place
when the configuration is read, so that what runs, and what is stored of a run, needs no file any more.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from simulators.durations import DURATION_MS_MAX, Duration

COLUMN = "latency_ms"
SAMPLES_MAX = 1_000_000  # p99.99 of a million rests on 100 of them; more tells nothing new
PERCENTS = [*range(100), *(round(99 + tenth / 10, 1) for tenth in range(1, 10)), 99.99, 100]


class SamplesError(ValueError):
    """A file of latencies that cannot be used: `key` of the configuration that names it, and `reason`."""

    def __init__(self, key: str, reason: str) -> None:
        self.key, self.reason = key, reason
        super().__init__(f"{key}: {reason}")


def embed(document: object, directory: Path, key: str = "") -> object:
    """`document` with the percentiles in place of each file of latencies; relative names start at `directory`.

    A document without one comes back as it is. Raises SamplesError, which names the CSV file and its line.
    """
    if isinstance(document, list):
        return [embed(item, directory, f"{key}[{index}]") for index, item in enumerate(document)]
    if not isinstance(document, dict):
        return document
    name = document.get("file")
    if document.get("kind") != "empirical" or not isinstance(name, str):
        return {field: embed(value, directory, f"{key}.{field}".lstrip(".")) for field, value in document.items()}
    if "percentiles" in document:
        raise SamplesError(key, "file and percentiles exclude each other")
    try:
        percentiles = _percentiles(directory / name)
    except OSError as error:
        raise SamplesError(f"{key}.file", f"{name}: {error.strerror or error}") from None
    except (ValueError, csv.Error) as error:
        raise SamplesError(f"{key}.file", f"{name}: {error}") from None
    return {field: value for field, value in document.items() if field != "file"} | {"percentiles": percentiles}


def _percentiles(file: Path) -> dict[str, str]:
    samples_ms = np.fromiter(_samples_ms(file), np.float64)
    if not samples_ms.size:
        raise ValueError("no latencies in it")
    values = np.percentile(samples_ms, PERCENTS).tolist()
    return {f"{percent:g}": f"{value:.3f}ms" for percent, value in zip(PERCENTS, values, strict=True)}


def _samples_ms(file: Path) -> Iterator[float]:
    with file.open(encoding="utf-8-sig", newline="") as lines:  # Excel puts a byte order mark in front
        rows = csv.reader(lines)
        column: int | None = None
        for index, row in enumerate(filter(None, rows)):
            if index == 0 and COLUMN in row:
                column = row.index(COLUMN)
                continue
            if index - (column is not None) >= SAMPLES_MAX:
                raise ValueError(f"line {rows.line_num}: more than {SAMPLES_MAX} latencies; take a sample of them")
            try:
                yield _number(row, column) if column is not None else _duration(row)
            except ValueError as error:
                raise ValueError(f"line {rows.line_num}: {error}") from None


def _number(row: list[str], column: int) -> float:
    if column >= len(row):
        raise ValueError(f"no column {COLUMN} in it")
    try:
        latency_ms = float(row[column])
    except ValueError:
        latency_ms = math.nan
    if not 0 <= latency_ms <= DURATION_MS_MAX:
        raise ValueError(f"{COLUMN} is {row[column]!r}; it must be a number of ms from 0 to {DURATION_MS_MAX}")
    return latency_ms


def _duration(row: list[str]) -> float:
    if len(row) != 1:
        raise ValueError(f"{len(row)} columns, and none had {COLUMN} in the first line")
    try:
        return Duration(row[0].strip()).ms
    except ValueError as error:
        raise ValueError(f"{error}; or put {COLUMN} in the first line, and numbers below it") from None
