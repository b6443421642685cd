"""Ours beside the peers in one run: `python -m benches.run [--only GROUP]`, as `make bench` calls it.

Groups are chosen by prefix, so that `--only commit` runs commit1, commit16 and commit_async. The exit status tells
whether everything could be measured; `--strict` makes a missed budget an error too.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from benches import report
from benches.groups import GROUPS, Context
from benches.report import ROOT, Row


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benches.run", description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="GROUP", help=f"groups that begin so: {', '.join(GROUPS)}")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison (default 5)")
    parser.add_argument("--seconds", type=float, default=0.6, help="length of one slot of a round (default 0.6)")
    parser.add_argument(
        "--updates", type=int, default=2_000_000, help="small updates of the bytes group, of 10,000,000"
    )
    parser.add_argument("--volume-gb", type=float, default=5.0, help="size of the big volume that is opened again")
    parser.add_argument("--scale", type=float, default=1.0, help="scale factor of TPC-H's lineitem that is loaded")
    parser.add_argument(
        "--data", type=Path, default=ROOT / ".bench-data", help="where the files lie (the disk measured)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench-report.json")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md too")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a budget is missed")
    return parser.parse_args()


def run_group(name: str, context: Context) -> list[Row]:
    """Run one group in a folder of its own; what fails becomes a row that says so."""
    started = time.perf_counter()
    report.progress(f"{name} ...")
    try:
        rows = list(importlib.import_module(f"benches.groups.{name}").run(context))
    except Exception as error:  # noqa: BLE001 - one group that fails must not hide the others
        traceback.print_exc()
        rows = [Row(name, name, None, "", note=f"failed: {error}")]
    report.progress(f"{name}: {time.perf_counter() - started:.1f} s")
    return rows


def main() -> int:
    """Run what was asked for, print the table, write the report."""
    args = arguments()
    names = [name for name in GROUPS if name.startswith(args.only or "")]
    if not names:
        print(f"no group begins with {args.only!r}; there are: {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    args.data.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in names:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=args.data))
        try:
            rows += run_group(
                name, Context(folder, args.rounds, args.seconds, args.updates, args.volume_gb, args.scale)
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print(report.table(rows))
    notes = [f"- {row.what}: {row.note}" for row in rows if row.note]
    print("\n".join(["", *notes, "", report.summary(rows)]))
    options = {"only": args.only, "rounds": args.rounds, "seconds": args.seconds}
    environment = report.environment(args.data)
    report.write(args.out, rows, environment, options)
    if args.readme:
        readme = ROOT / "README.md"
        readme.write_text(report.put_into(readme.read_text(), rows, environment))
    failed = any(row.ours is None for row in rows)
    missed = args.strict and any(row.met is False for row in rows)
    return 1 if failed or missed else 0


if __name__ == "__main__":
    sys.exit(main())
