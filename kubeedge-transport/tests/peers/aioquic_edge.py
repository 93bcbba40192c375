"""An edge that speaks kubeedge/1 by aioquic: says hello, sends a frame in two lanes, echoes one, ends in order.

usage: aioquic_edge.py PORT CA CERTIFICATE KEY
"""

import asyncio
import sys

from aioquic.asyncio import connect
from aioquic.quic.configuration import QuicConfiguration

BINARY, TEXT, HELLO, WELCOME = 0, 1, 2, 3
BULK = 2


def frame(kind, payload):
    return bytes([kind]) + len(payload).to_bytes(4, "big") + payload


async def read(reader):
    head = await reader.readexactly(5)
    return head[0], await reader.readexactly(int.from_bytes(head[1:], "big"))


async def main(port, ca, certificate, key):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["kubeedge/1"], server_name="localhost")
    configuration.load_verify_locations(ca)
    configuration.load_cert_chain(certificate, key)
    async with connect("127.0.0.1", port, configuration=configuration) as client:
        reader, writer = await client.create_stream()
        writer.write(frame(HELLO, b"/project/edge-1/events\nNode_id: edge-1\nproject_id: project"))
        assert await read(reader) == (WELCOME, b""), "not let in"
        writer.write(frame(TEXT, b"from aioquic"))
        _, bulk = await client.create_stream(is_unidirectional=True)
        bulk.write(bytes([BULK]) + frame(BINARY, bytes(100_000)))
        kind, payload = await read(reader)
        writer.write(frame(kind, payload))
        bulk.write_eof()
        writer.write_eof()
        # The other side closes when it has seen the end.
        await client.wait_closed()
    print("done", flush=True)


asyncio.run(main(int(sys.argv[1]), *sys.argv[2:5]))
