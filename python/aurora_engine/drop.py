"""Dropping a cluster: its name is asked for, and a final snapshot stays unless that is refused."""

from __future__ import annotations

import datetime as dt
import os
import shutil
from pathlib import Path

from aurora_engine.cluster import open as open_cluster
from aurora_engine.exceptions import InvalidOption


def drop_cluster(
    path: str | os.PathLike[str],
    *,
    name: str,
    final_snapshot: str | os.PathLike[str] | None = None,
    skip_final_snapshot: bool = False,
) -> Path | None:
    """Removes a cluster from its directory, and keeps what it was as a cluster of its own beside it.

    Args:
        path: The cluster's directory. Nobody may have it open.
        name: The name of that directory, once more: what is dropped is gone.
        final_snapshot: Where the final snapshot goes: a new directory on the same file system, ``<path>.final-<time>``
            by default. It is a cluster like any other: open it to have everything back.
        skip_final_snapshot: Keep none.

    Returns:
        The directory of the final snapshot; ``None`` if none was wanted.

    Raises:
        InvalidOption: the name is not that of the directory. NotACluster, AlreadyOpen, QuorumLost: nothing was removed.
    """
    home = Path(path).resolve()
    if name != home.name:
        raise InvalidOption(
            f"option name: expected {home.name!r}, the name of the directory that is to be dropped, got {name!r}",
            option="name",
            expected=home.name,
            got=name,
        )
    if skip_final_snapshot and final_snapshot is not None:
        raise InvalidOption(
            "option final_snapshot: expected none with skip_final_snapshot=True",
            option="final_snapshot",
            expected="none with skip_final_snapshot=True",
            got=os.fspath(final_snapshot),
        )
    kept = None
    with open_cluster(home, create=False) as db:
        nodes = [home / node.path for node in db.status().nodes]
        if not skip_final_snapshot:
            time = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%f")
            kept = Path(final_snapshot or f"{home}.final-{time}").resolve()
            db.clone(kept).close()
    # From one moment to the next there is no cluster here any more; what is left of it is only to be cleared away.
    gone = home.with_name(f"{home.name}.dropped-{os.getpid()}")
    home.rename(gone)
    shutil.rmtree(gone)
    for node in nodes:
        if not node.is_relative_to(home):
            shutil.rmtree(node, ignore_errors=True)
    return kept
