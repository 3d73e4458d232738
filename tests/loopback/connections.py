"""Connections of the server: closing one without an answer, and finding the process behind one."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_transports: dict[tuple[str, int], asyncio.Transport] = {}


class RememberingProtocol(H11Protocol):
    """HTTP/1.1 that keeps every open connection at hand, by the client's address."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _transports[transport.get_extra_info("peername")[:2]] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        _transports.pop(self.transport.get_extra_info("peername")[:2], None)
        super().connection_lost(exc)


def close(scope: dict[str, Any]) -> None:
    """Close the connection on which a request came, without sending anything more."""
    if transport := _transports.get(tuple(scope["client"])):
        transport.abort()


def sender(scope: dict[str, Any]) -> int:
    """The id of the process that sent a request from this machine.

    Raises LookupError if its end of the connection is not found in /proc.
    """
    port = scope["client"][1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        ends = [int(column.rpartition(":")[2], 16) for column in columns[1:3]]
        if ends == [port, scope["server"][1]]:
            owner = _owner_of(f"socket:[{columns[9]}]")
            if owner is not None:
                return owner
    raise LookupError(f"No process found at the other end of port {port}")


def _owner_of(socket: str) -> int | None:
    for process in Path("/proc").glob("[0-9]*"):
        # The server holds the accepting end of the same connection, under another inode.
        if int(process.name) == os.getpid():
            continue
        try:
            descriptors = list((process / "fd").iterdir())
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                if str(descriptor.readlink()) == socket:
                    return int(process.name)
            except OSError:
                continue
    return None
