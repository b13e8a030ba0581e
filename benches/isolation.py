#!/usr/bin/env python3
"""Whether a slow upstream slows another: the other's p99 while a thousand requests wait for an upstream that does not
answer, beside the same load without them. In turns, round after round; the median of the rounds' ratios counts.

    cargo build --profile dist
    benches/isolation.py [--rounds 5] [--seconds 3] [--waiting 1000]      # needs nginx and wrk; exit code 1 above 1.10
"""

import argparse
import selectors
import socket
import statistics
import sys
import threading

from harness import Bench, say, wrk

# few: at full load the p99 of two cores is the scheduler's
CONNECTIONS = 2
RATIO_MAX = 1.10
CONFIG = """[server]
listen = ["127.0.0.1:{port}"]
admin_listen = ""
[limits]
connections_per_address = 5000
[[route]]
path = "/slow/**"
access = "public"
timeout = "10m"
upstream = "http://127.0.0.1:{slow}"
[[route]]
upstream = "http://127.0.0.1:{up}"
"""


class Silent:
    """Takes connections, reads what comes, and never answers."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port, self.asked = self.listener.getsockname()[1], threading.Semaphore(0)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        ready = selectors.DefaultSelector()
        ready.register(self.listener, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is self.listener:
                    ready.register(self.listener.accept()[0], selectors.EVENT_READ)
                elif key.fileobj.recv(65536):
                    self.asked.release()
                else:
                    ready.unregister(key.fileobj)
                    key.fileobj.close()


def wait_in_line(gateway, silent, count):
    """So many requests that wait for the slow upstream, all of them there."""
    waiting = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", gateway.port))
        client.sendall(b"GET /slow/x HTTP/1.1\r\nHost: a\r\n\r\n")
        waiting.append(client)
    for _ in range(count):
        assert silent.asked.acquire(timeout=30), "a request did not arrive"
    return waiting


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--waiting", type=int, default=1000)
    asked = parser.parse_args()
    with Bench() as bench:
        backend, silent = bench.backend(), Silent()
        gateway = bench.authgate(CONFIG, up=backend.port, slow=silent.port)
        cookie = gateway.first_account()
        ratios = []
        for number in range(asked.rounds):
            alone = wrk(gateway.port, cookie, asked.seconds, CONNECTIONS)
            waiting = wait_in_line(gateway, silent, asked.waiting)
            beside = wrk(gateway.port, cookie, asked.seconds, CONNECTIONS)
            for client in waiting:
                client.close()
            ratios.append(beside["p99_us"] / alone["p99_us"])
            took = f"{alone['p99_us']:.0f} us alone, {beside['p99_us']:.0f} us beside {asked.waiting} that wait"
            say(f"round {number + 1}: p99 {took}: {ratios[-1]:.2f}")
    ratio = statistics.median(ratios)
    print(f"p99 of the other upstream: {ratio:.2f} times (median of {asked.rounds} rounds)")
    return 0 if ratio <= RATIO_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
