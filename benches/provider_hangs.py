#!/usr/bin/env python3
"""The p99 of proxied requests while sign-ins wait for a provider that hangs, or get rubbish from one, beside the same
without them.

    benches/provider_hangs.py      # of the profile `dist`; needs an otherwise idle machine
"""

import argparse
import contextlib
import socket
import statistics
import threading

from harness import Bench, ask, free_port, say, wrk

CONFIG = """[server]
listen = ["127.0.0.1:{port}"]
admin_listen = ""
state_dir = "{dir}/state"
[[provider]]
name = "down"
kind = "oidc"
client_id = "gateway"
issuer = "http://127.0.0.1:{provider}"
[[route]]
upstream = "http://127.0.0.1:{up}"
"""
RUBBISH = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1000000\r\n\r\n" + b"<html>" * 1000
SIGN_INS = 16
# few: at full load the p99 of two cores is the scheduler's
CONNECTIONS = 2


class Provider:
    """Takes connections; `answer` is all that it says, and then it is silent."""

    def __init__(self, port):
        self.answer, self.asked, self.held = b"", 0, []
        self.listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            stream, _ = self.listener.accept()
            self.asked += 1
            self.held.append(stream)
            with contextlib.suppress(OSError):
                stream.sendall(self.answer)


def sign_in(port, stop, done):
    while not stop.is_set():
        done.append(ask(port, {}, path="/.auth/oauth/down").status)
        # people, not a load of their own
        stop.wait(0.2)


def measured(gateway, cookie, seconds, is_busy):
    """p99 in microseconds, and how many sign-ins were tried meanwhile."""
    stop, done = threading.Event(), []
    threads = [threading.Thread(target=sign_in, args=(gateway.port, stop, done)) for _ in range(SIGN_INS if is_busy else 0)]
    for thread in threads:
        thread.start()
    p99 = wrk(gateway.port, cookie, seconds, CONNECTIONS)["p99_us"]
    stop.set()
    for thread in threads:
        thread.join()
    assert set(done) <= {303, 429, 503}, done
    return p99, len(done)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=12, help="of one slice: longer than a provider is waited for")
    options = parser.parse_args()
    with Bench() as bench:
        port = free_port()
        provider = Provider(port)
        gateway = bench.authgate(CONFIG, provider=port, up=bench.backend().port)
        cookie = gateway.first_account()
        for what, answer in (("hangs", b""), ("answers rubbish", RUBBISH)):
            provider.answer = answer
            quiet, busy, tried = [], [], 0
            for number in range(options.rounds):
                for is_busy in (False, True)[:: 1 if number % 2 else -1]:
                    p99, count = measured(gateway, cookie, options.seconds, is_busy)
                    (busy if is_busy else quiet).append(p99)
                    tried += count
            ratio = statistics.median(b / q for b, q in zip(busy, quiet, strict=True))
            say(f"a provider that {what}: p99 {statistics.median(busy):.0f} us with {tried} sign-ins, "
                f"{statistics.median(quiet):.0f} us without; ratio {ratio:.2f}; it was asked {provider.asked} times")


if __name__ == "__main__":
    main()
