"""amqtt as it has to be beside another event loop; of the extra `demo`, and slow to import."""

from __future__ import annotations

import asyncio

from amqtt.broker import Broker  # type: ignore[import-untyped]


class ClosingBroker(Broker):  # type: ignore[misc]
    """amqtt that closes each connection itself when it is done with it.

    It leaves open what ends before its first packet, until the garbage collector finds it, in
    whatever thread it happens to run: there the transport's finalizer gives the descriptor back,
    the broker's thread accepts the next client on the same number, and then the finalizer of the
    stream writer stops the event loop from reading that number. The client's CONNECT is never read.
    """

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """Serve one connection and close it."""
        try:
            await super().stream_connected(reader, writer, listener_name)
        finally:
            writer.close()
