"""Usage as a file: CSV for spreadsheets, Parquet for warehouses."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from penstock.errors import OperatorError
from penstock_shared.contracts.usage_queries import UsageBucket

TEXTS = ("tenant", "model", "api_key_id", "user_id")
NUMBERS = (
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "tool_calls",
    "cost_microusd",
)
COLUMNS = ("start", "end", *TEXTS, *NUMBERS)
# What a spreadsheet takes for a formula (OWASP, "CSV Injection"): names are clients' own.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Row = tuple[Any, ...]
Write = Callable[[tuple[UsageBucket, ...]], None]


class ExportFormat(StrEnum):
    """How the file is written."""

    CSV = "csv"
    PARQUET = "parquet"


@contextmanager
def exporting(format_: ExportFormat, output: Path | None, stdout: TextIO) -> Iterator[Write]:
    """What writes buckets to `output`, which is there once all of it is; None: standard output.

    Raises:
        OperatorError: The file cannot be written, or its format not.
    """
    if format_ is ExportFormat.PARQUET and output is None:
        raise OperatorError(
            "Parquet is not for the terminal.", "Say where it goes: --output usage.parquet."
        )
    if output is None:
        yield _csv(stdout)
        return
    partial = output.with_name(f"{output.name}.partial")
    try:
        if format_ is ExportFormat.CSV:
            with partial.open("w", encoding="utf-8", newline="") as file:
                yield _csv(file)
        else:
            with _parquet(partial) as write:
                yield write
        partial.replace(output)
    except OSError as error:
        raise OperatorError(
            f"{output} cannot be written: {error.strerror}.", "Name another file with --output."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def rows(buckets: tuple[UsageBucket, ...]) -> Iterator[Row]:
    """A row for every group of every bucket, in the order of `COLUMNS`."""
    for bucket in buckets:
        for sums in bucket.results:
            texts = (sums.tenant, sums.model, sums.key_id, sums.user)
            yield (bucket.start, bucket.end, *texts, *(getattr(sums, name) for name in NUMBERS))


def _csv(file: TextIO) -> Write:
    """RFC 4180, with a header and times in UTC."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)

    def write(buckets: tuple[UsageBucket, ...]) -> None:
        writer.writerows([_cell(value) for value in row] for row in rows(buckets))

    return write


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    """A row group for each page."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - 40 MB that few need
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise OperatorError(
            "Parquet needs pyarrow, which is not installed.",
            "Install it (pip install 'penstock[parquet]'), or take --format csv.",
        ) from error
    time = pa.timestamp("us", tz="UTC")
    kinds = {"start": time, "end": time} | dict.fromkeys(TEXTS, pa.string())
    schema = pa.schema([(name, kinds.get(name, pa.int64())) for name in COLUMNS])
    with pq.ParquetWriter(path, schema) as writer:

        def write(buckets: tuple[UsageBucket, ...]) -> None:
            found = [dict(zip(COLUMNS, row, strict=True)) for row in rows(buckets)]
            if found:
                writer.write_table(pa.Table.from_pylist(found, schema=schema))

        yield write
