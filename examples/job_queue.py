"""A queue of jobs in a table: workers take what nobody else has, and each job is done once.

Run it: `python examples/job_queue.py [DIRECTORY]`. Without a directory everything is in memory.
"""

from __future__ import annotations

import sys
import threading

import aurora_engine as au

JOBS = 200
WORKERS = 8


class Job(au.Row, key="id"):
    """Something to do."""

    id: int
    task: str


class Result(au.Row, key="id"):
    """What came of a job, and who did it."""

    id: int
    answer: str
    worker: int


def main() -> None:
    """Fill the queue, let the workers empty it, and count."""
    directory = sys.argv[1] if len(sys.argv) > 1 else None
    with au.open(directory) if directory else au.open(memory=True) as db:
        jobs = db.create_table("jobs", Job, exist_ok=True)
        results = db.create_table("results", Result, exist_ok=True)
        with db.transaction() as tx:
            for number in range(JOBS):
                tx.upsert(jobs, Job(number, f"greet {number}"))

        def take_one(tx: au.Transaction, worker: int) -> bool:
            # The first job that no other worker has locked. It is locked for this one until the commit, so that it is
            # done once; if the worker dies or fails, the lock goes with it and the job is taken by another.
            job = next(tx.range(jobs, limit=1, for_update=True, skip_locked=True), None)
            if job is None:
                return False
            tx.insert(results, Result(job.id, job.task.replace("greet", "hello"), worker))
            tx.delete(jobs, job.id)
            return True

        def work(worker: int) -> None:
            while db.run(lambda tx: take_one(tx, worker), isolation="read committed"):
                pass

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done = list(db.scan(results))
        print(f"jobs done: {len(done)} of {JOBS}, each once; left: {db.scan(jobs).count()}")


if __name__ == "__main__":
    main()
