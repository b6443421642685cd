"""The examples of docs/transactions.md run, one after the other."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "transactions.md"


def test_the_examples_of_the_page_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 7
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    db, accounts = names["db"], names["accounts"]
    asyncio.run(names["deposit"]())
    balances = {row.id: row.balance for row in db.scan(accounts)}
    # The serializable one was refused, the holder's 0 and the transfer happened once, the deposit is there.
    assert [balances[key] for key in (1, 2, 3, 9, 50, 51)] == [-10, 10, 101, 100, 0, 1]
    db.close()
