"""A bank behind FastAPI: accounts, transfers that happen once, and a list of jobs that they leave behind.

Run it: `python examples/fastapi_service.py [DIRECTORY]` sends it requests through httpx, without a port. To serve it,
hand `service(db)` to a server such as uvicorn. Needs `pip install fastapi httpx`.
"""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal
from typing import Annotated, Any

import httpx
from fastapi import FastAPI, Header, HTTPException, Request, status
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

import aurora_engine as au
from aurora_engine import col
from aurora_engine import exceptions as ex

TRANSFERS = 200
Money = Annotated[Decimal, au.precision(18, 2)]


class Account(
    au.Row,
    key="id",
    indexes=[au.index("by_owner", "owner", unique=True)],
    constraints=[au.check("solvent", col("balance") >= 0)],
):
    """What somebody has. The check keeps it from being less than nothing, whoever writes."""

    owner: str
    id: int = au.auto()
    balance: Money = Decimal(0)


class Job(
    au.Row,
    key="id",
    indexes=[au.index("by_account", "account")],
    constraints=[au.foreign_key("account", parent="accounts", on_delete="cascade")],
):
    """Something to do after a transfer: it is there if and only if the transfer is."""

    account: int
    task: str
    id: int = au.auto()


class NewAccount(BaseModel):
    """The body of a request for an account."""

    owner: str = Field(min_length=1)
    balance: Decimal = Decimal(0)


class Transfer(BaseModel):
    """The body of a request for a transfer."""

    source: int
    target: int
    amount: Decimal = Field(gt=0)


def service(db: au.Cluster) -> FastAPI:
    """The application on an open cluster."""
    accounts = db.create_table("accounts", Account, exist_ok=True)
    jobs = db.create_table("jobs", Job, exist_ok=True)
    app = FastAPI(title="A bank")

    # What the database refuses is an answer, wherever it arises.
    @app.exception_handler(ex.ConstraintViolation)
    @app.exception_handler(ex.DuplicateKey)
    async def refused(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status.HTTP_409_CONFLICT)

    @app.exception_handler(ex.RowNotFound)
    async def missing(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status.HTTP_404_NOT_FOUND)

    @app.exception_handler(ex.InvalidValue)
    async def unfit(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.post("/accounts", status_code=status.HTTP_201_CREATED)
    async def add(new: NewAccount) -> dict[str, Any]:
        async def insert(tx: au.AsyncTransaction) -> Account:
            return await tx.insert(accounts, Account(owner=new.owner, balance=new.balance))

        return au.asdict(await db.aio.run(insert))

    @app.get("/accounts/{number}")
    async def account(number: int) -> dict[str, Any]:
        row = await db.aio.get(accounts, number)
        if row is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, f"no account {number}")
        return au.asdict(row)

    # The key is the commit's token: a request that is sent again, because its answer was lost, moves nothing.
    @app.post("/transfers")
    async def transfer(order: Transfer, idempotency_key: Annotated[str, Header(max_length=64)]) -> dict[str, bool]:
        async def move(tx: au.AsyncTransaction) -> bool:
            await tx.update(accounts, order.source, balance=col("balance") - order.amount)
            await tx.update(accounts, order.target, balance=col("balance") + order.amount)
            await tx.insert(jobs, Job(account=order.target, task=f"tell of {order.amount}"))
            return True

        return {"now": await db.aio.run(move, token=idempotency_key) is True}

    @app.get("/accounts/{number}/jobs")
    async def jobs_of(number: int, limit: int = 100) -> list[dict[str, Any]]:
        async with db.aio.transaction(read_only=True) as tx:
            return [au.asdict(row) async for row in tx.range(jobs.index("by_account"), prefix=number, limit=limit)]

    return app


async def try_it(app: FastAPI) -> None:
    """Be its clients."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bank") as client:

        async def ask(method: str, path: str, expected: int = 200, **what: Any) -> Any:
            answer = await client.request(method, path, **what)
            assert answer.status_code == expected, answer.text
            return answer.json()

        owners = ("Ann", "Bob", "Cid")
        ids = [
            (await ask("POST", "/accounts", 201, json={"owner": owner, "balance": "1000.00"}))["id"] for owner in owners
        ]
        print("taken:", (await ask("POST", "/accounts", 409, json={"owner": "Ann"}))["detail"])

        async def pay(number: int) -> list[bool]:
            source, target = ids[number % 3], ids[(number + 1) % 3]
            order = {"source": source, "target": target, "amount": "1.25"}
            key = {"Idempotency-Key": f"pay-{number}"}
            # Sent twice at the same time, as by a client that has lost patience.
            both = (ask("POST", "/transfers", json=order, headers=key) for _ in range(2))
            return [answer["now"] for answer in await asyncio.gather(*both)]

        answers = await asyncio.gather(*(pay(number) for number in range(TRANSFERS)))
        print(f"transfers: {sum(map(sum, answers))} of {2 * TRANSFERS} requests, each once")

        big = {"source": ids[0], "target": ids[1], "amount": "5000"}
        refused = await ask("POST", "/transfers", 409, json=big, headers={"Idempotency-Key": "big"})
        print("refused:", refused["detail"])
        await ask("POST", "/transfers", 404, json={**big, "source": 0}, headers={"Idempotency-Key": "nobody"})
        await ask("POST", "/transfers", 422, json=big)

        balances = [Decimal((await ask("GET", f"/accounts/{number}"))["balance"]) for number in ids]
        left = [await ask("GET", f"/accounts/{number}/jobs") for number in ids]
        print(f"money: {sum(balances)}; jobs: {sum(map(len, left))}, the first of Bob: {left[1][0]['task']}")


def main() -> None:
    """Serve the clients, in memory or in a directory."""
    directory = sys.argv[1] if len(sys.argv) > 1 else None
    with au.open(directory) if directory else au.open(memory=True) as db:
        asyncio.run(try_it(service(db)))


if __name__ == "__main__":
    main()
