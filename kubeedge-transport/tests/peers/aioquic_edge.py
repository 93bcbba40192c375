"""An edge that speaks kubeedge/1 by aioquic: says hello, sends a frame in two lanes, echoes one, ends in order.

With "ping" it is of the version with pings: it pings after its frames, and answers the ping that it gets.

usage: aioquic_edge.py PORT CA CERTIFICATE KEY [ping]
"""

import asyncio
import sys

from aioquic.asyncio import connect
from aioquic.quic.configuration import QuicConfiguration

BINARY, TEXT, HELLO, WELCOME = 0, 1, 2, 3
PING, PONG, HEARD = 5, 6, 7
BULK = 2


def frame(kind, payload):
    return bytes([kind]) + len(payload).to_bytes(4, "big") + payload


async def read(reader):
    head = await reader.readexactly(5)
    return head[0], await reader.readexactly(int.from_bytes(head[1:], "big"))


def number(value):
    return value.to_bytes(8, "big")


async def main(port, ca, certificate, key, can=""):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["kubeedge/1"], server_name="localhost")
    configuration.load_verify_locations(ca)
    configuration.load_cert_chain(certificate, key)
    async with connect("127.0.0.1", port, configuration=configuration) as client:
        reader, writer = await client.create_stream()
        hello = "/project/edge-1/events\nNode_id: edge-1\nproject_id: project"
        writer.write(frame(HELLO, (hello + (can and f"\ntransport-can: {can}")).encode()))
        assert await read(reader) == (WELCOME, can.encode()), "not let in"
        writer.write(frame(TEXT, b"from aioquic"))
        _, bulk = await client.create_stream(is_unidirectional=True)
        bulk.write(bytes([BULK]) + frame(BINARY, bytes(100_000)))
        if can:
            # One frame went before it in the lane of bulk, none in that of twins.
            writer.write(frame(PING, number(1) + number(0) + number(1)))
        due = {TEXT, PING, PONG} if can else {TEXT}
        while due:
            kind, payload = await read(reader)
            if kind == TEXT:
                writer.write(frame(kind, payload))
            elif kind == PING:
                assert payload[8:] == number(0) + number(0), payload
                writer.write(frame(PONG, payload[:8]))
            else:
                assert kind in (PONG, HEARD) and payload == number(1), (kind, payload)
            due.discard(kind)
        bulk.write_eof()
        writer.write_eof()
        # The other side closes when it has seen the end.
        await client.wait_closed()
    print("done", flush=True)


asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
