"""One PySyncObj node behind an aiohttp shim: ``POST /kv/KEY/put`` with ``{"value": ...}``; ``GET /status``.

PySyncObj writes its journal into a memory map that it never syncs. Here it is synced with each entry, which is the
least that makes an acknowledged write durable.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from aiohttp import web
from pysyncobj import SyncObj, SyncObjConf, journal, replicated


def sync_each_entry() -> None:
    """Have the journal synced after each entry."""
    add = journal.FileJournal.add

    def add_and_sync(self: journal.FileJournal, command: Any, idx: int, term: int) -> None:
        add(self, command, idx, term)
        self.flush()

    journal.FileJournal.add = add_and_sync


class Store(SyncObj):  # type: ignore[misc]  # PySyncObj has no types
    """A replicated map."""

    def __init__(self, own: str, others: list[str], journal_file: str, *, batch: bool) -> None:
        super().__init__(own, others, SyncObjConf(journalFile=journal_file, appendEntriesUseBatch=batch))
        self.values: dict[str, Any] = {}

    @replicated
    def put(self, key: str, value: Any) -> Any:
        self.values[key] = value
        return value


async def serve(port: int, store: Store) -> None:
    """Answer until killed."""
    loop = asyncio.get_running_loop()

    async def put(request: web.Request) -> web.Response:
        body = await request.json()
        answer: asyncio.Future[Any] = loop.create_future()

        def done(result: Any, error: Any) -> None:
            loop.call_soon_threadsafe(answer.set_result, error)

        store.put(request.match_info["key"], body["value"], callback=done)
        error = await answer
        return web.json_response({"value": body["value"], "error": error}, status=500 if error else 200)

    async def status(request: web.Request) -> web.Response:
        leader = store._getLeader()
        return web.json_response({"leader": leader and leader.address, "own": store.selfNode.address})

    app = web.Application()
    app.add_routes([web.post("/kv/{key}/put", put), web.get("/status", status)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def main() -> None:
    """``pysyncobj_node.py HTTP_PORT JOURNAL BATCH OWN OTHER...``."""
    port, journal_file, batch, own, *others = sys.argv[1:]
    sync_each_entry()
    store = Store(own, others, journal_file, batch=batch == "yes")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(port), store))


if __name__ == "__main__":
    main()
