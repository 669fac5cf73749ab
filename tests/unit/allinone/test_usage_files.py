"""The chart's bars, and usage as CSV and Parquet."""

from __future__ import annotations

import csv
import io
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from penstock.errors import OperatorError
from penstock.usage_chart import bars
from penstock.usage_export import COLUMNS, ExportFormat, exporting
from penstock_shared.contracts.usage_queries import UsageBucket, UsageSums

START = datetime(2026, 11, 1, tzinfo=UTC)
SUMS = UsageSums(
    tenant="acme",
    model="small",
    user="=cmd|'/C calc'!A0",
    requests=2,
    input_tokens=30,
    cached_input_tokens=10,
    output_tokens=7,
    tool_calls=0,
    cost_microusd=2**60,
)
BUCKETS = (
    UsageBucket(start=START, end=START + timedelta(days=1), results=(SUMS,)),
    UsageBucket(start=START + timedelta(days=1), end=START + timedelta(days=2)),
)


def test_bars_are_in_proportion() -> None:
    """The longest fills the width, the smallest can be seen, nothing is nothing."""
    assert bars([0, 1, 4, 8, 10**18, 5 * 10**17], 4) == ["", "▏", "▏", "▏", "████", "██"]
    assert bars([3, 8], 1) == ["▍", "█"]
    assert (bars([], 4), bars([0, 0], 4)) == ([], ["", ""])


def test_csv_has_a_row_for_each_group() -> None:
    """Exact to the micro-dollar; a user's name is no formula to the spreadsheet that opens it."""
    out = io.StringIO()
    with exporting(ExportFormat.CSV, None, out) as write:
        write(BUCKETS)
        write(BUCKETS)
    header, *rows = csv.reader(io.StringIO(out.getvalue()))
    assert tuple(header) == COLUMNS
    times, numbers = "2026-11-01T00:00:00Z,2026-11-02T00:00:00Z", f"2,30,10,7,0,{2**60}"
    assert rows == 2 * [
        [*times.split(","), "acme", "small", "", f"'{SUMS.user}", *numbers.split(",")]
    ]


def test_parquet_has_types(tmp_path: Path) -> None:
    """Times in UTC, whole numbers, and what is not told apart is null."""
    path = tmp_path / "usage.parquet"
    with exporting(ExportFormat.PARQUET, path, sys.stdout) as write:
        write(BUCKETS)
        write(BUCKETS[1:])
    table = pq.read_table(path)
    assert tuple(table.column_names) == COLUMNS
    (row,) = table.to_pylist()
    assert (row["start"], row["api_key_id"], row["user_id"]) == (START, None, SUMS.user)
    assert row["cost_microusd"] == 2**60


def test_a_file_is_there_once_all_of_it_is(tmp_path: Path) -> None:
    """A failure in the middle leaves what was there before, and no half of a file."""
    path = tmp_path / "usage.csv"
    path.write_text("before")
    with (
        pytest.raises(AttributeError),
        exporting(ExportFormat.CSV, path, sys.stdout) as write,
    ):
        write((*BUCKETS, None))  # type: ignore[arg-type]
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [
        ("usage.csv", "before")
    ]


def test_mistakes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No place to write to, no directory, no pyarrow: sentences that say what to do."""
    with (
        pytest.raises(OperatorError, match="not for the terminal"),
        exporting(ExportFormat.PARQUET, None, sys.stdout),
    ):
        pass
    with (
        pytest.raises(OperatorError, match="cannot be written"),
        exporting(ExportFormat.CSV, tmp_path / "none" / "x.csv", sys.stdout),
    ):
        pass
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with (
        pytest.raises(OperatorError, match="pyarrow") as told,
        exporting(ExportFormat.PARQUET, tmp_path / "x.parquet", sys.stdout),
    ):
        pass
    assert "penstock[parquet]" in told.value.hint
