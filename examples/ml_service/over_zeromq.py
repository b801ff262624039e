"""The same ML service over ZeroMQ: it binds two sockets, PULL for frames and PUSH for alerts.

Run it, and mlbridge with it:

    pip install opencv-python-headless pyzmq msgpack
    python over_zeromq.py --port 8500
    ML_SERVICE_URL=tcp://127.0.0.1:8500 honcho start

Frames come to the port in MessagePack, ``{"streamId","frame":<bytes>,"timestamp","frameId"}``; alerts go out at the
next port, ``{"streamId","frameId","severity",…}``. The high-water marks bound how many frames wait,
and so how old they get: when this service is busy mlbridge feels it, and shows it newer frames later.
"""

from __future__ import annotations

import msgpack
import zmq
import zmq.asyncio
from watcher import Watcher, fail_to_listen, listen_options, run

MAX_MESSAGE_BYTES = 32 << 20


async def main(host: str, port: int) -> None:
    watcher = Watcher()
    context = zmq.asyncio.Context()
    frames, alerts = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    frames.rcvhwm = 2
    frames.rcvbuf = 256 << 10
    frames.maxmsgsize = MAX_MESSAGE_BYTES
    alerts.sndhwm = 1_000
    frames.bind(f"tcp://{host}:{port}")
    alerts.bind(f"tcp://{host}:{port + 1}")
    print("ready", flush=True)
    try:
        while True:
            try:
                answer = await watcher.watch_object(msgpack.unpackb(await frames.recv()))
            except ValueError as fault:
                print(f"a frame was passed over: {fault}", flush=True)
                continue
            for alert in answer["alerts"]:
                await alerts.send(msgpack.packb(alert))
    finally:
        context.destroy(linger=0)
        watcher.close()


if __name__ == "__main__":
    options = listen_options(__doc__)
    try:
        run(main(options.host, options.port))
    except zmq.ZMQError as exc:
        fail_to_listen(options.port, exc)
