"""Raw rows of one data file: JSON, JSON lines or parquet. records.py says what a row means.

A row that cannot be parsed is returned with its fault instead of being raised, so that one bad
line costs one example. A file that cannot be *opened* is an error: on a shared file system it
would otherwise give one rank fewer examples than the others.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from sft_dist.errors import DataError

SUFFIXES = (".json", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """One parsed value, or the reason why there is none.

    `number` is the line of a JSONL file, the item of a JSON list, the row of a parquet file, all
    from 1; None when the file as a whole is meant (a file that holds one record).
    """

    number: int | None
    value: object
    fault: str | None = None


def read_rows(file: str, *, columns: frozenset[str]) -> Iterator[Row]:
    """Yields the rows of `file` in file order; of parquet only `columns` are read.

    Raises:
        DataError: the file cannot be opened or read.
    """
    reader = {".jsonl": _jsonl_rows, ".json": _json_rows}.get(os.path.splitext(file)[1].lower())
    try:
        if reader is None:
            yield from _parquet_rows(file, columns)
        else:
            with open(file, "rb") as stream:
                yield from reader(stream.read())
    except OSError as error:
        raise DataError(
            f"{file} cannot be read: {error.strerror or error}. Expected a readable "
            "JSON, JSONL or parquet file; check permissions and the file system."
        ) from error


def _parse(raw: bytes) -> tuple[object, str | None]:
    """Parsed JSON and no fault, or None and the fault. Accepts a byte-order mark."""
    try:
        return json.loads(raw.decode("utf-8-sig")), None
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 (byte {error.start})"
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, nesting of 10,000
        return None, f"not readable as JSON: {error}"


def _jsonl_rows(raw: bytes) -> Iterator[Row]:
    if not raw.strip():
        yield Row(None, None, "empty file")
    # Split on the byte: str.splitlines would also cut at U+2028, which is legal inside JSON text.
    for number, line in enumerate(raw.split(b"\n"), 1):
        if line.strip():
            value, fault = _parse(line)
            yield Row(number, value, fault)


def _json_rows(raw: bytes) -> Iterator[Row]:
    value, fault = _parse(raw)
    if not raw.strip():
        yield Row(None, None, "empty file")
    elif fault and isinstance(_parse(raw.lstrip().split(b"\n", 1)[0])[0], dict):
        yield from _jsonl_rows(raw)  # JSON lines under the name .json, as many tools write them
    elif isinstance(value, list):
        yield from (Row(number, item) for number, item in enumerate(value, 1))
    else:
        yield Row(None, value, fault)


def _parquet_rows(file: str, columns: frozenset[str]) -> Iterator[Row]:
    import pyarrow  # here: importing it costs more than reading MATH
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        known = [name for name in table.schema_arrow.names if name in columns]
        rows = table.read(columns=known).to_pylist()
    except pyarrow.ArrowInvalid as error:
        yield Row(None, None, f"not readable as parquet: {error}")
        return
    yield from (Row(number, row) for number, row in enumerate(rows, 1))
