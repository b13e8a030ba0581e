#!/usr/bin/env python3
"""Whether the time of a refused sign-in tells if an account exists: Welch's t-test over known and unknown accounts.

Tries alternate (known account with a wrong password, address that has no account), one after the other over one kept
connection, in an order drawn at random within each pair. |t| below 4.5 is no evidence of a difference (the bound that
leakage assessments use). A third series with itself, known against known, shows what the machine alone makes of it,
and a fourth, in which half of the tries also wait a millisecond, that the test sees a difference when there is one.

    benches/timing.py [--tries 400] [--json FILE]
"""

import argparse
import http.client
import json
import math
import random
import statistics
import time

from harness import PASSWORD, USER, Bench, keep, say

LIMIT = 4.5
CONFIG = """[server]
listen = ["127.0.0.1:{port}"]
admin_listen = ""
state_dir = "{dir}/state"
[throttle]
max_retries = 1000
find_time = "10s"
[[route]]
upstream = "builtin:whoami"
"""


def welch(one, two):
    spread = statistics.variance(one) / len(one) + statistics.variance(two) / len(two)
    return (statistics.mean(one) - statistics.mean(two)) / math.sqrt(spread)


def trimmed(times):
    """Without the slowest twentieth: what else the machine did meanwhile."""
    return sorted(times)[: len(times) * 19 // 20]


class Client:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def refused(self, email, wait=0.0):
        """Microseconds until a sign-in is refused."""
        body = json.dumps({"email": email, "password": "a wrong password of some length"})
        began = time.perf_counter_ns()
        self.connection.request("POST", "/.auth/login", body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        answer.read()
        time.sleep(wait)
        took = time.perf_counter_ns() - began
        assert answer.status == 401, answer.status
        return took / 1000


def series(tries, one, two):
    """Alternates two ways to be refused; gives t and both means in microseconds."""
    times = ([], [])
    for _ in range(tries):
        for at in random.sample((0, 1), 2):
            times[at].append((one, two)[at]())
    kept = [trimmed(part) for part in times]
    return {"t": round(welch(*kept), 2), "means_us": [round(statistics.mean(part), 1) for part in kept]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=400)
    parser.add_argument("--json")
    options = parser.parse_args()
    with Bench() as bench:
        gateway = bench.authgate(CONFIG)
        gateway.first_account()
        gateway.command("user", "add", "off@example.com", "--password-stdin", text=PASSWORD + "\n")
        gateway.command("user", "disable", "off@example.com")
        client = Client(gateway.port)
        known, unknown, off = (lambda e=e: client.refused(e) for e in (USER["email"], "nobody@example.com", "off@example.com"))
        slow = lambda: client.refused("nobody@example.com", 0.001)
        for _ in range(20):
            known(), unknown()
        results = {}
        for name, one, two in (
            ("known and unknown", known, unknown),
            ("known and disabled", known, off),
            ("known and itself", known, known),
            ("known and a millisecond more", known, slow),
        ):
            results[name] = series(options.tries, one, two)
            say(f"{name}: {results[name]}")
    told = [results[name]["t"] for name in ("known and unknown", "known and disabled")]
    ok = all(abs(t) < LIMIT for t in told) and abs(results["known and a millisecond more"]["t"]) >= LIMIT
    for name, result in results.items():
        print(f"{name:32}|t| {abs(result['t']):7.2f}   means {result['means_us'][0]:9.1f} us {result['means_us'][1]:9.1f} us")
    print(f"no difference to be seen (|t| < {LIMIT}), and one millisecond is" if ok else "NOT as it should be")
    keep({"tries": options.tries, "limit": LIMIT, "ok": ok, "series": results}, options.json)
    raise SystemExit(not ok)


main()
