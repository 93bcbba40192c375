"""A Modbus TCP server by pymodbus, for the tests of the modbus driver: modbus_server.py PORT

Every table has 200 entries: coils 0, discrete inputs alternating 1 and 0 from address 0, holding registers 17, input
registers 1000 + address. Prints "ready" when it listens.
"""
import asyncio
import sys

from pymodbus.datastore import ModbusSequentialDataBlock as Block
from pymodbus.datastore import ModbusServerContext
from pymodbus.server import ModbusTcpServer

try:
    from pymodbus.datastore import ModbusDeviceContext as Device
except ImportError:
    from pymodbus.datastore import ModbusSlaveContext as Device


def context():
    # pymodbus counts the registers of a block from 1.
    device = Device(
        di=Block(1, [1, 0] * 100),
        co=Block(1, [0] * 200),
        hr=Block(1, [17] * 200),
        ir=Block(1, [1000 + n for n in range(200)]),
    )
    try:
        return ModbusServerContext(devices={1: device}, single=False)
    except TypeError:
        return ModbusServerContext(slaves={1: device}, single=False)


async def main():
    server = ModbusTcpServer(context(), address=("127.0.0.1", int(sys.argv[1])))
    await server.serve_forever(background=True)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
