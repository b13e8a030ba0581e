#!/usr/bin/env python3
"""Compares two builds of authgate in one run: what a change costs.

    benches/versions.py BEFORE AFTER                      # two binaries, both of the profile `dist`
    benches/versions.py BEFORE AFTER --only requests --rounds 21

Both serve at once in front of the same backend and are measured in turn, each round in another order. Printed are
the medians of both and the median of the rounds' ratios with its quartiles, which a noisy machine moves least.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys

import load
import secure
import sockets
from harness import ROOT, Bench, free_port, listens, say
from peers import World

NAMES = ("before", "after")


def pairs(stack, binaries, token=False):
    """One gateway of each binary, in front of the same backend and echo server."""
    base = stack.enter_context(Bench())
    up, ws = base.backend().port, free_port()
    base.start("echo", [sys.executable, str(ROOT / "benches/echo.py"), str(ws)], lambda: listens(ws))
    for name, binary in zip(NAMES, binaries):
        world = World(stack.enter_context(Bench(binary)), up, ws)
        peer = world.authgate_token() if token else world.authgate(signs_in=True)
        peer.name = name
        load.check(peer)
        yield peer


def requests(options, connections=load.CONNECTIONS, **kind):
    with contextlib.ExitStack() as stack:
        peers = list(pairs(stack, options.binaries, **kind))
        return load.rounds_of(peers, options.rounds, options.seconds, connections)


def over_tls(options, kind):
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(Bench())
        up, peers = base.backend().port, []
        for name, binary in zip(NAMES, options.binaries):
            world = secure.SecureWorld(stack.enter_context(Bench(binary)), up, free_port())
            peers.append(world.secure_authgate(True, name))
            load.check(peers[-1])
        return secure.rounds_of(peers, options.rounds, options.seconds, kind)


def handshakes(options):
    return over_tls(options, secure.HANDSHAKES)


def tls(options):
    return over_tls(options, secure.HTTP1)


def h2(options):
    return over_tls(options, secure.HTTP2)


def token(options):
    return requests(options, token=True)


def alone(options):
    return requests(options, connections=1)


def trips(options):
    with contextlib.ExitStack() as stack:
        return sockets.trips_rounds_of(list(pairs(stack, options.binaries)), options.rounds, options.seconds)


def idle(options):
    """New processes in each round."""
    seen = []
    for _ in range(options.idle_rounds):
        with contextlib.ExitStack() as stack:
            peers = pairs(stack, options.binaries)
            seen.append({peer.name: {"kib": sockets.idle_kib(peer, sockets.idle_count())} for peer in peers})
        say(f"idle WebSockets: {seen[-1]}")
    return seen


PARTS = dict.fromkeys(("requests", "token", "handshakes", "tls", "h2", "alone", "trips"), "cpu_us") | {"idle": "kib"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--idle-rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of one slice of load")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=("requests", "alone", "trips", "idle"))
    options = parser.parse_args()
    options.binaries = (options.before, options.after)
    for binary in options.binaries:
        subprocess.run([binary, "--version"], check=True)
    for part in options.only:
        seen, key = globals()[part](options), PARTS[part]
        before, after = (load.median(seen, name, key) for name in NAMES)
        ratios = [one["after"][key] / one["before"][key] for one in seen]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        print(f"{part}: {before:.2f} {key} before, {after:.2f} after; ratio {middle:.3f} ({low:.3f} to {high:.3f})", flush=True)


if __name__ == "__main__":
    main()
