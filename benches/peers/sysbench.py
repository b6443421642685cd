"""A mix of reads and writes like sysbench's oltp_read_write, through Python: ours, PostgreSQL and MariaDB.

``python -m benches.peers.sysbench [--threads 16] [--seconds 10] [--rows 100000]``

Each transaction reads ten rows by key and four ranges of a hundred (as they are, summed, sorted, distinct), changes an
indexed and another column, deletes a row and inserts it again. PostgreSQL and MariaDB are private servers, each in a
directory of its own with a socket there and no port, made by what Debian's packages install; they are driven by psycopg
and PyMySQL. What is not installed is said and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import pwd
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import aurora_engine as au
from benches.measure import Sample, run_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

POINTS, RANGE = 10, 100
PAD = "-".join(f"{number:011}" for number in range(5))
WAIT_S = 60.0
"""How long a server may take to start."""
USER = "nobody"
"""Who runs the servers where this is run by root, whom they refuse."""


class Missing(Exception):  # noqa: N818 - no error: it is said, and the others are measured
    """Something that is not installed."""


def text_of(number: int) -> str:
    """Return the column that ranges are sorted by."""
    return "-".join(f"{(number * 7919 + part) % 10**11:011}" for part in range(10))


class Engine(Protocol):
    """A database with the table, and a way to run transactions on it."""

    name: str

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def worker(self, seed: int) -> Callable[[int], None]:
        """Return what one thread calls for one transaction."""
        ...


class Row(au.Row, key="id", indexes=[au.index("k_1", "k")]):
    """sysbench's row."""

    id: int
    k: int
    c: str
    pad: str


class Ours:
    """A cluster of six copies."""

    name = "aurora-engine"

    def __init__(self, folder: Path, rows: int) -> None:
        self._rows = rows
        self._db = au.open(folder / "ours")
        self._table = self._db.create_table("sbtest", Row)
        made = (Row(i, i * 7 % rows, text_of(i), PAD) for i in range(1, rows + 1))
        self._db.load(self._table, made, show_progress=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._db.close()

    def worker(self, seed: int) -> Callable[[int], None]:
        """Return what one thread calls for one transaction."""
        dice, db, table, rows = random.Random(seed), self._db, self._table, self._rows

        def work(tx: au.Transaction, keys: list[int], starts: list[int], text: str) -> None:
            for key in keys[:POINTS]:
                tx.get(table, key, columns=["c"])
            plain, summed, ordered, distinct = (
                tx.range(table, start, start + RANGE, columns=[column])
                for start, column in zip(starts, ("c", "k", "c", "c"), strict=True)
            )
            list(plain)
            sum(row.k for row in summed)
            sorted(row.c for row in ordered)
            sorted({row.c for row in distinct})
            tx.update(table, keys[POINTS], k=au.col("k") + 1)
            tx.update(table, keys[POINTS + 1], c=text)
            tx.delete(table, keys[POINTS + 2])
            tx.upsert(table, Row(keys[POINTS + 2], keys[0], text, PAD))

        def step(n: int) -> None:
            keys = [dice.randint(1, rows) for _ in range(POINTS)] + sorted(dice.sample(range(1, rows + 1), 3))
            starts = [dice.randint(1, rows - RANGE) for _ in range(4)]
            db.run(lambda tx: work(tx, keys, starts, text_of(n)), isolation="repeatable read", retries=10_000)

        return step


class Server:
    """A private SQL server and its table. Subclasses say how it is made and asked."""

    name: str
    retried: tuple[type[BaseException], ...] = ()

    def __init__(self, folder: Path, rows: int) -> None:
        self._rows = rows
        self._folder = folder / self.name.lower()
        self._folder.mkdir()
        self._server: subprocess.Popen[bytes] | None = None
        self._open: list[Any] = []
        self.find()
        self._own()
        try:
            self.make()
            self._server = self.start()
            self._fill()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def find(self) -> None:
        """Find programs and driver, or raise `Missing`."""
        raise NotImplementedError

    def make(self) -> None:
        """Make the server's directory."""
        raise NotImplementedError

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server."""
        raise NotImplementedError

    def connect(self) -> Any:
        """Return a new connection that commits when told."""
        raise NotImplementedError

    def _own(self) -> None:
        if os.geteuid() == 0:
            user = pwd.getpwnam(USER)
            os.chown(self._folder, user.pw_uid, user.pw_gid)

    def run(self, *command: str | Path) -> None:
        """Run a program of the server's to its end."""
        done = subprocess.run(
            [str(part) for part in command], cwd=self._folder, capture_output=True, text=True, check=False, **self.who()
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]}: exit status {done.returncode}\n{done.stdout}{done.stderr}")

    def launch(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start a program of the server's; what it says goes to a file."""
        with (self._folder / "server.log").open("wb") as log:
            return subprocess.Popen(
                [str(part) for part in command], cwd=self._folder, stdout=log, stderr=subprocess.STDOUT, **self.who()
            )

    @staticmethod
    def who() -> dict[str, Any]:
        """Return as whom the server runs: it refuses root."""
        return {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}

    def _first(self) -> Any:
        until = time.monotonic() + WAIT_S
        turn = threading.Event()
        while True:
            try:
                return self.connect()
            except Exception:
                ended = self._server is not None and self._server.poll() is not None
                if ended or time.monotonic() > until:
                    print((self._folder / "server.log").read_text(errors="replace")[-2_000:], file=sys.stderr)
                    raise
                turn.wait(0.2)

    def _fill(self) -> None:
        connection = self._first()
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE sbtest (id INT PRIMARY KEY, k INT, c CHAR(120), pad CHAR(60))")
        made = [(i, i * 7 % self._rows, text_of(i), PAD) for i in range(1, self._rows + 1)]
        for first in range(0, len(made), 5_000):
            cursor.executemany("INSERT INTO sbtest VALUES (%s, %s, %s, %s)", made[first : first + 5_000])
        cursor.execute("CREATE INDEX k_1 ON sbtest (k)")
        connection.commit()
        connection.close()

    def worker(self, seed: int) -> Callable[[int], None]:
        """Return what one thread calls for one transaction."""
        dice, rows, connection = random.Random(seed), self._rows, self.connect()
        self._open.append(connection)
        cursor = connection.cursor()
        ranges = ("c", "SUM(k)", "c", "DISTINCT c")
        ends = ("", "", " ORDER BY c", " ORDER BY c")

        def work(keys: list[int], starts: list[int], text: str) -> None:
            for key in keys[:POINTS]:
                cursor.execute("SELECT c FROM sbtest WHERE id = %s", (key,))
                cursor.fetchone()
            for start, what, end in zip(starts, ranges, ends, strict=True):
                cursor.execute(f"SELECT {what} FROM sbtest WHERE id BETWEEN %s AND %s{end}", (start, start + RANGE - 1))
                cursor.fetchall()
            cursor.execute("UPDATE sbtest SET k = k + 1 WHERE id = %s", (keys[POINTS],))
            cursor.execute("UPDATE sbtest SET c = %s WHERE id = %s", (text, keys[POINTS + 1]))
            cursor.execute("DELETE FROM sbtest WHERE id = %s", (keys[POINTS + 2],))
            cursor.execute("INSERT INTO sbtest VALUES (%s, %s, %s, %s)", (keys[POINTS + 2], keys[0], text, PAD))
            connection.commit()

        def step(n: int) -> None:
            keys = [dice.randint(1, rows) for _ in range(POINTS)] + sorted(dice.sample(range(1, rows + 1), 3))
            starts = [dice.randint(1, rows - RANGE) for _ in range(4)]
            while True:
                try:
                    return work(keys, starts, text_of(n))
                except self.retried:
                    connection.rollback()

        return step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for connection in self._open:
            with contextlib.suppress(Exception):
                connection.close()
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()


def driver(module: str, package: str) -> Any:
    """Import a driver, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise Missing(f"the driver: pip install {package}") from None


def program(names: tuple[str, ...], places: tuple[str, ...], package: str) -> Path:
    """Find a program on the path or where Debian puts it, the newest version first."""
    for name in names:
        found = [
            Path(at) for place in places for at in sorted(map(str, Path("/").glob(f"{place}/{name}")), reverse=True)
        ]
        found += [Path(at)] if (at := shutil.which(name)) else []
        if found:
            return found[0]
    raise Missing(f"{' or '.join(names)}: apt install {package}")


class Postgres(Server):
    """PostgreSQL with its defaults: every commit is synced."""

    name = "PostgreSQL"

    def find(self) -> None:
        places = ("usr/lib/postgresql/*/bin",)
        self._initdb = program(("initdb",), places, "postgresql")
        self._postgres = program(("postgres",), places, "postgresql")
        self._driver = driver("psycopg", "psycopg[binary]")
        errors = self._driver.errors
        self.retried = (errors.SerializationFailure, errors.DeadlockDetected, errors.UniqueViolation)

    def make(self) -> None:
        self.run(self._initdb, "-D", self._folder / "data", "-U", "bench", "--auth=trust", "-E", "UTF8", "--no-locale")

    def start(self) -> subprocess.Popen[bytes]:
        options = {"listen_addresses": "", "unix_socket_directories": self._folder, "shared_buffers": "256MB"}
        pairs = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return self.launch(self._postgres, "-D", self._folder / "data", *pairs)

    def connect(self) -> Any:
        connection = self._driver.connect(host=str(self._folder), user="bench", dbname="postgres")
        connection.isolation_level = self._driver.IsolationLevel.REPEATABLE_READ
        return connection


class Mariadb(Server):
    """MariaDB with InnoDB's defaults: every commit is synced."""

    name = "MariaDB"

    def find(self) -> None:
        places = ("usr/sbin", "usr/bin")
        self._install = program(("mariadb-install-db", "mysql_install_db"), places, "mariadb-server")
        self._mariadbd = program(("mariadbd", "mysqld"), places, "mariadb-server")
        self._driver = driver("pymysql", "PyMySQL")
        self.retried = (self._driver.err.OperationalError, self._driver.err.IntegrityError)

    def make(self) -> None:
        self.run(
            self._install,
            "--no-defaults",
            f"--datadir={self._folder / 'data'}",
            "--auth-root-authentication-method=normal",
        )

    def start(self) -> subprocess.Popen[bytes]:
        return self.launch(
            self._mariadbd, "--no-defaults", f"--datadir={self._folder / 'data'}", "--skip-networking",
            f"--socket={self._folder / 'socket'}", f"--pid-file={self._folder / 'pid'}",
            "--innodb-buffer-pool-size=256M", "--max-connections=300",
        )  # fmt: skip

    def connect(self) -> Any:
        connection = self._driver.connect(unix_socket=str(self._folder / "socket"), user="root", autocommit=True)
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE IF NOT EXISTS bench")
            cursor.execute("USE bench")
        connection.autocommit(False)
        return connection


ENGINES: tuple[Callable[[Path, int], Engine], ...] = (Ours, Postgres, Mariadb)


def measured(folder: Path, rows: int, threads: int, seconds: float) -> Iterator[tuple[str, Sample | Missing]]:
    """Run the mix on each engine in turn; of one that is not there, what is missing."""
    for made in ENGINES:
        name: str = made.name  # type: ignore[attr-defined]
        try:
            with made(folder, rows) as engine:
                yield name, run_threads([engine.worker(seed) for seed in range(threads)], seconds)
        except Missing as missing:
            yield name, missing


def main() -> int:
    """Run the mix and print a line for each engine."""
    parser = argparse.ArgumentParser(prog="python -m benches.peers.sysbench", description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--data", type=Path, default=None, help="where the files lie (the disk measured)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sysbench-", dir=args.data) as folder:
        # Servers that do not run as root go through it.
        Path(folder).chmod(0o755)
        for name, found in measured(Path(folder), args.rows, args.threads, args.seconds):
            if isinstance(found, Missing):
                print(f"{name:14} not measured, it is not installed: {found}")
            else:
                print(
                    f"{name:14} {found.rate:9.1f} transactions/s, p50 {found.p50_us / 1e3:.2f} ms, "
                    f"p99 {found.p99_us / 1e3:.2f} ms, {args.threads} threads"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
