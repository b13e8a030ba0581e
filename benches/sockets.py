"""WebSockets: the memory of an idle one, and the processor time of a round trip."""

import contextlib
import os
import select
import socket
import time

from echo import ANSWERED, ASKED
from harness import ask, cost_of, descriptors, pss_kib, say
from load import FOREIGN_PERCENT_MAX, TRIES

IDLE = 10_000
FIRST = 1_000
HASH_REST_SECS = 12
ACTIVE = 100
SPARE_DESCRIPTORS = 400
SETTLED_KIB = 256
HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nCookie: {cookie}\r\n\r\n"
)


def idle_count():
    """A gateway holds two descriptors a socket, in one process."""
    return min(IDLE, (descriptors() - SPARE_DESCRIPTORS) // 2)


@contextlib.contextmanager
def opened(peer, count):
    """So many sockets through a gateway, all of them proved by one round trip."""
    request = HANDSHAKE.format(port=peer.port, cookie=peer.cookie).encode()
    ones = []
    try:
        for number in range(count):
            # an address has some 28,000 ports, and those of closed sockets rest for a minute
            source = (f"127.0.0.{2 + number // 1000}", 0)
            one = socket.create_connection(("127.0.0.1", peer.port), 20, source)
            ones.append(one)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.sendall(request)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                part = one.recv(4096)
                assert part, (peer.name, number, head)
                head += part
            assert head.startswith(b"HTTP/1.1 101 "), (peer.name, number, head)
            one.sendall(ASKED)
            assert one.recv(len(ANSWERED), socket.MSG_WAITALL) == ANSWERED, (peer.name, number)
        yield ones
    finally:
        for one in ones:
            one.close()


def settled_kib(peer):
    """Memory once it stays as it is for a second, or after ten."""
    seen = [pss_kib(*peer.pids)]
    while len(seen) < 11:
        time.sleep(1)
        seen.append(pss_kib(*peer.pids))
        if abs(seen[-1] - seen[-2]) < SETTLED_KIB:
            break
    return seen[-1]


def idle_kib(peer, count):
    """KiB for each of so many idle sockets but the first ones. What a sign-in took (19 MiB) is freed at some time after it, and
    would be counted against them, so that they seem to cost half. The process must be a new one."""
    for _ in range(20):
        ask(peer.port, {"Cookie": peer.cookie})
    time.sleep(HASH_REST_SECS)
    with opened(peer, FIRST):
        before = settled_kib(peer)
        with opened(peer, count - FIRST):
            return (settled_kib(peer) - before) / (count - FIRST)


def round_trips(ones, seconds):
    """Every socket has one message under way; gives how many came back."""
    events = select.epoll()
    numbers = [one.fileno() for one in ones]
    for one in ones:
        one.setblocking(False)
        events.register(one, select.EPOLLIN)
    end, done, length = time.monotonic() + seconds, 0, len(ANSWERED)
    for number in numbers:
        os.write(number, ASKED)
    while time.monotonic() < end:
        for number, _ in events.poll(1):
            if os.read(number, 4096) != ANSWERED:
                raise AssertionError("an answer that nobody sent")
            os.write(number, ASKED)
            done += 1
    # what is still under way comes back before the next slice
    for one in ones:
        one.settimeout(20)
        assert one.recv(length, socket.MSG_WAITALL) == ANSWERED
    events.close()
    return done + len(ones)


def slice_of(peer, ones, seconds):
    for _ in range(TRIES):
        with cost_of(*peer.pids) as cost:
            done = round_trips(ones, seconds)
        if cost.foreign_percent <= FOREIGN_PERCENT_MAX:
            break
    return {
        "cpu_us": cost.cpu_microseconds / done,
        "per_second": done / cost.seconds,
        "foreign_percent": cost.foreign_percent,
    }


def trips_rounds_of(peers, rounds, seconds):
    with contextlib.ExitStack() as stack:
        ones = {peer.name: stack.enter_context(opened(peer, ACTIVE)) for peer in peers}
        for peer in peers:
            round_trips(ones[peer.name], 0.5)
        seen = []
        for number in range(rounds):
            order = peers[::-1] if number % 2 else peers
            seen.append({peer.name: slice_of(peer, ones[peer.name], seconds) for peer in order})
            say(f"WebSocket round trips: round {number + 1} of {rounds}")
        return seen
