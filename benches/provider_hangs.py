#!/usr/bin/env python3
"""The p99 of proxied requests while sign-ins wait for a provider that hangs, or get rubbish from one, beside the same
while as many requests go to a page that asks no provider.

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
CLIENTS = 16
PAUSE_SECONDS = 0.2
SIGN_IN, OTHER = "/.auth/oauth/down", "/.auth/login"
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


def ask_again(port, path, pause, stop, done):
    while not stop.wait(pause):
        done.append(ask(port, {}, path=path).status)


def measured(gateway, cookie, seconds, path, pause):
    """p99 in microseconds, and how many requests the others made meanwhile, each after a pause."""
    stop, done = threading.Event(), []
    arguments = (gateway.port, path, pause, stop, done)
    threads = [threading.Thread(target=ask_again, args=arguments) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    p99 = wrk(gateway.port, cookie, seconds, CONNECTIONS)["p99_us"]
    stop.set()
    for thread in threads:
        thread.join()
    assert set(done) <= {200, 303, 429, 503}, done
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
            seen = {SIGN_IN: [], OTHER: []}
            _, count = measured(gateway, cookie, options.seconds, SIGN_IN, PAUSE_SECONDS)
            for number in range(options.rounds):
                for path in (SIGN_IN, OTHER)[:: 1 if number % 2 else -1]:
                    pause = PAUSE_SECONDS if path == SIGN_IN else CLIENTS * options.seconds / count
                    p99, tried = measured(gateway, cookie, options.seconds, path, pause)
                    seen[path].append(p99)
                    count = tried if path == SIGN_IN else count
            ratio = statistics.median(mine / other for mine, other in zip(seen[SIGN_IN], seen[OTHER], strict=True))
            one, other = (statistics.median(seen[path]) for path in (SIGN_IN, OTHER))
            print(f"a provider that {what}: p99 {one:.0f} us with {count} sign-ins in a slice, {other:.0f} us with as many "
                  f"requests to {OTHER}; ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
