"""The command that serves the double until it is interrupted."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
from pathlib import Path

import uvicorn

from tests.loopback.app import build_app, routers
from tests.loopback.connections import RememberingProtocol
from tests.loopback.gate import Gate
from tests.loopback.hub import Hub
from tests.loopback.ledger import ShardLedger
from tests.loopback.storage import Storage


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.loopback", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder for stored bytes")
    parser.add_argument("--transfer", choices=["lfs", "multipart", "xet"], default="lfs")
    parser.add_argument("--part-size", type=int, default=65_536, help="of LFS multipart, in bytes")
    parser.add_argument("--page-size", type=int, default=1000, help="entries of a page of a tree")
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end when the starting process does"
    )
    arguments = parser.parse_args()

    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    hub = Hub(
        endpoint=f"http://127.0.0.1:{port}",
        storage_url=f"http://localhost:{port}",
        transfer=arguments.transfer,
        part_size=arguments.part_size,
        page_size=arguments.page_size,
        storage=Storage(arguments.root, None),
    )
    if arguments.transfer == "xet":
        from tests.loopback.xet import XetStore

        hub.storage.xet = XetStore(arguments.root / "xet", authorize=hub.accounts.may_use_cas)
    server = uvicorn.Server(
        uvicorn.Config(
            Gate(ShardLedger(build_app(hub), hub), routers(hub), hub),
            http=RememberingProtocol,
            lifespan="off",
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
    )
    if arguments.until_stdin_closes:
        threading.Thread(target=_stop_at_end_of_input, args=[server], daemon=True).start()
    sys.stdout.write(json.dumps({"endpoint": hub.endpoint}) + "\n")
    sys.stdout.flush()
    server.run(sockets=[listener])


def _stop_at_end_of_input(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = True


if __name__ == "__main__":
    main()
