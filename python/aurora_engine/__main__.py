"""``python -m aurora_engine verify URL``: verifies a backup or a cluster; the exit status says whether all is well."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Sequence
from pathlib import Path

from aurora_engine.exceptions import AuroraError
from aurora_engine.verification import verify

_DAMAGED, _NOT_DONE = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0 where all is well, 1 where something is damaged, 2 where it could not be done."""
    options = _parser().parse_args(arguments)
    try:
        key = Path(options.key_file).read_bytes() if options.key_file else None
        at = None if options.at is None else _moment(options.at)
        report = verify(options.url, key, at=at, tables=options.tables, progress=None if not options.quiet else False)
    except (AuroraError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201 - a command talks
        return _NOT_DONE
    with report:
        print(report)  # noqa: T201 - a command talks
        return 0 if report.ok else _DAMAGED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aurora_engine")
    commands = parser.add_subparsers(required=True, metavar="command")
    command = commands.add_parser("verify", help="check every object and rebuild every table, from the bytes alone")
    command.add_argument("url", help="a backup (path or s3://bucket/prefix), or the directory of a cluster or a node")
    command.add_argument("--at", help="an LSN, a time with its zone (2026-01-31T12:00:00+00:00), or a snapshot's name")
    command.add_argument("--table", dest="tables", action="append", help="rebuild this table only; may be repeated")
    command.add_argument("--key-file", help="a file with the 32 bytes with which the backup is encrypted")
    command.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def _moment(text: str) -> int | dt.datetime | str:
    if text.isdigit():
        return int(text)
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        return text


if __name__ == "__main__":
    sys.exit(main())
