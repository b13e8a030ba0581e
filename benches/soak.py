#!/usr/bin/env python3
"""Half an hour of traffic and churn: memory and open descriptors of the gateway stay flat.

A load of forwarded requests at a fixed rate; beside it people sign in, open a WebSocket, have their session revoked and sign out, and
clients come that send broken heads, forged cookies or drip a head byte by byte. Every ten seconds PSS, descriptors and
threads are read. The first fifth is warm-up; the rest is judged by the mean of its first and last quarter.

    benches/soak.py [--minutes 30] [--rate 300] [--json FILE]
"""

import argparse
import base64
import contextlib
import os
import random
import socket
import statistics
import threading
import time
from pathlib import Path

from harness import USER, Bench, ask, keep, pss_kib, say

CONFIG = """[server]
listen = ["127.0.0.1:{port}"]
admin_listen = ""
state_dir = "{dir}/state"
[limits]
head_time = "2s"
connections_per_address = 2000
[throttle]
max_retries = 1000
find_time = "10s"
[[upstream]]
name = "app"
servers = ["127.0.0.1:{up}"]
[[route]]
path = "/ws"
upstream = "builtin:whoami"
[[route]]
upstream = "app"
"""
NASTY = [
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET /a/../b HTTP/1.1\r\nHost: {host}\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: {host}\r\nCookie: authgate=eyJhbGciOiJub25lIn0.e30.\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: {host}\r\nX: " + b"a" * 20000 + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTT",
]


class Churn:
    """Threads that go on until the end, and what they did."""

    def __init__(self, gateway, cookie, rate):
        self.gateway, self.cookie, self.rate = gateway, cookie, rate
        self.stop = threading.Event()
        self.done = dict.fromkeys(("requests", "sign-ins", "sockets", "sign-outs", "attacks"), 0)
        self.faults = []

    def start(self):
        work = [self.requests] * 2 + [self.people, self.attacker]
        self.threads = [threading.Thread(target=self.guarded, args=(one,)) for one in work]
        for thread in self.threads:
            thread.start()

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def guarded(self, work):
        while not self.stop.is_set():
            try:
                work()
            except Exception as fault:  # a fault is counted, and the work goes on
                self.faults.append(f"{work.__name__}: {fault!r}")
                self.stop.wait(0.1)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.gateway.port), 20)

    def requests(self):
        """Half of the rate over one kept connection."""
        head = f"GET /x HTTP/1.1\r\nHost: 127.0.0.1:{self.gateway.port}\r\nCookie: {self.cookie}\r\n\r\n".encode()
        with self.connect() as connection:
            began = time.monotonic()
            for number in range(2000):
                if self.stop.is_set():
                    return
                connection.sendall(head)
                answer = connection.recv(65536)
                assert answer.startswith(b"HTTP/1.1 200"), answer[:80]
                while b"\r\n\r\n" not in answer or len(answer.split(b"\r\n\r\n", 1)[1]) < 128:
                    answer += connection.recv(65536)
                self.done["requests"] += 1
                self.stop.wait(max(0, began + number * 2 / self.rate - time.monotonic()))

    def people(self):
        """Signs in, opens a WebSocket, ends the session: the socket must be closed with it."""
        cookie = self.gateway.sign_in(USER["email"])
        self.done["sign-ins"] += 1
        with self.connect() as connection:
            key = base64.b64encode(os.urandom(16)).decode()
            host = f"127.0.0.1:{self.gateway.port}"
            head = f"GET /ws HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            connection.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 101")
            self.done["sockets"] += 1
            answer = ask(self.gateway.port, {"Cookie": cookie, "Accept": "application/json"}, "POST", "/.auth/logout")
            assert answer.status in (204, 303), answer.status
            self.done["sign-outs"] += 1
            while connection.recv(4096):
                pass
        self.stop.wait(0.5)

    def attacker(self):
        with self.connect() as connection, contextlib.suppress(OSError):
            attack = random.choice(NASTY).replace(b"{host}", f"127.0.0.1:{self.gateway.port}".encode())
            connection.sendall(attack)
            connection.settimeout(5)
            while connection.recv(4096):
                pass
        self.done["attacks"] += 1
        self.stop.wait(0.05)


def reading(pid):
    return {
        "pss_kib": pss_kib(pid),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
    }


def growth(readings, what):
    """By how much the last quarter lies above the first, the warm-up left out; a fraction."""
    kept = [one[what] for one in readings[len(readings) // 5 :]]
    part = max(1, len(kept) // 4)
    return statistics.mean(kept[-part:]) / statistics.mean(kept[:part]) - 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=int, default=300)
    parser.add_argument("--json")
    options = parser.parse_args()
    with Bench() as bench:
        backend = bench.backend()
        gateway = bench.authgate(CONFIG, up=backend.port)
        churn = Churn(gateway, gateway.first_account(), options.rate)
        churn.start()
        readings = []
        end = time.monotonic() + options.minutes * 60
        while time.monotonic() < end:
            time.sleep(10)
            readings.append(reading(gateway.pid))
            if len(readings) % 12 == 1:
                say(f"{readings[-1]} {churn.done} faults {len(churn.faults)}")
        churn.end()
        alive = Path(f"/proc/{gateway.pid}").exists()
    grown = {what: round(growth(readings, what), 4) for what in readings[0]}
    ok = alive and not churn.faults and all(by < 0.03 for by in grown.values())
    print(f"{options.minutes} minutes: {churn.done}")
    print(f"growth from the first to the last quarter: {grown}; first {readings[0]}, last {readings[-1]}")
    print(f"faults: {len(churn.faults)} {churn.faults[:3]}")
    print("flat" if ok else "NOT as it should be")
    result = {"minutes": options.minutes, "done": churn.done, "growth": grown, "faults": len(churn.faults)}
    keep(result | {"ok": ok, "first": readings[0], "last": readings[-1]}, options.json)
    raise SystemExit(not ok)


main()
