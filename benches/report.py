"""One table for people, `bench-report.json` for programs: what, ours, peer, ratio, budget, met."""

from __future__ import annotations

import json
import math
import os
import platform
import sqlite3
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Budget:
    """A limit on the ratio ours / peer, or on our own figure."""

    op: Literal["<=", ">="]
    limit: float
    on: Literal["ratio", "ours"] = "ratio"

    def met(self, row: Row) -> bool:
        """Tell whether the row keeps within the limit; what could not be measured does not."""
        value = row.ratio if self.on == "ratio" else row.ours
        if value is None or math.isnan(value):
            return False
        return value <= self.limit if self.op == "<=" else value >= self.limit

    def text(self, unit: str) -> str:
        """Say it as in the table."""
        return f"{self.op} {self.limit:g} x" if self.on == "ratio" else f"{self.op} {figure(self.limit, unit)}"


@dataclass(frozen=True)
class Row:
    """One line of the report. Without a budget it only informs."""

    group: str
    what: str
    ours: float | None
    unit: str
    peer_name: str = ""
    peer: float | None = None
    ratio: float | None = None
    budget: Budget | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the budget is kept; None where there is none. What could not be measured is not met."""
        if self.ours is None:
            return False
        return self.budget.met(self) if self.budget else None

    def cells(self) -> list[str]:
        """Say the row as the table does."""
        peer = f"{figure(self.peer, self.unit)} {self.peer_name}".strip() if self.peer is not None else "-"
        ratio = f"{self.ratio:.2f} x" if self.ratio is not None else "-"
        budget = self.budget.text(self.unit) if self.budget else "-"
        met = {True: "yes", False: "NO", None: "-"}[self.met]
        return [self.what, figure(self.ours, self.unit), peer, ratio, budget, met]


def figure(value: float | None, unit: str) -> str:
    """Write a number as people read it: `43,210 /s`, `112 us`, `1.42 s`."""
    if value is None or math.isnan(value):
        return "failed"
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


HEADER = ["what", "ours", "peer", "ratio", "budget", "met"]


def table(rows: list[Row]) -> str:
    """Lay the rows out as a Markdown table that also reads well in a terminal."""
    lines = [HEADER, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    text = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(text)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def environment(folder: Path) -> dict[str, Any]:
    """Say on what this was measured: figures of different machines do not compare."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    filesystem = subprocess.run(
        ["stat", "--file-system", "--format=%T", folder], capture_output=True, text=True, check=False
    )
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit.stdout.strip() or None,
        "cpu": model[0].partition(":")[2].strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "filesystem": filesystem.stdout.strip() or None,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "aurora-engine": _installed("aurora-engine"),
        "sqlite": sqlite3.sqlite_version,
        "lmdb": _installed("lmdb"),
        "rocksdict": _installed("rocksdict"),
    }


def write(path: Path, rows: list[Row], env: dict[str, Any], options: dict[str, Any]) -> None:
    """Write the report; figures that do not exist are null."""

    def clean(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    entries = [{key: clean(value) for key, value in asdict(row).items()} | {"met": row.met} for row in rows]
    path.write_text(json.dumps({"environment": env, "options": options, "rows": entries}, indent=2) + "\n")


def summary(rows: list[Row]) -> str:
    """Say how many budgets are kept."""
    judged = [row for row in rows if row.met is not None]
    missed = [row.what for row in judged if not row.met]
    text = f"{len(judged) - len(missed)} of {len(judged)} budgets met"
    return text + (f"; missed: {'; '.join(missed)}" if missed else "")


MARKS = ("<!-- bench-table -->\n", "<!-- /bench-table -->")


def put_into(text: str, rows: list[Row], env: dict[str, Any]) -> str:
    """Return a document with the table between its marks replaced by this one."""
    head, begin, rest = text.partition(MARKS[0])
    _, end, tail = rest.partition(MARKS[1])
    if not begin or not end:
        raise ValueError(f"expected the marks {MARKS[0].strip()} and {MARKS[1]}, got a document without them")
    measured = f"Measured {env['time'][:10]} on {env['cores']} cores of {env['cpu']}, {env['filesystem']}."
    return f"{head}{begin}{table(rows)}\n\n{measured} {summary(rows)}.\n{end}{tail}"


def progress(text: str) -> None:
    """Tell on stderr what is being measured; the table alone goes to stdout."""
    print(text, file=sys.stderr, flush=True)
