#!/usr/bin/env python3
"""What a flood of wrong passwords does to people who are signed in.

64 connections send wrong passwords as fast as they are answered, for accounts that there are and that there are
not; the throttle is raised so that nothing but the hashing pool and its queue holds them back (`--throttled`: it is
as shipped, and nearly all are turned away by it). Beside it one connection with a session sends a request every
2 ms. Quiet and flooded rounds take turns; 99th percentiles are compared within a round, and memory before, at its
peak and afterwards. Everything runs on this machine, the flood's client at the lowest priority: it stands for others.

    benches/flood.py [--rounds 7] [--seconds 5] [--parallel 64] [--throttled] [--json FILE]
"""

import argparse
import json
import os
import re
import socket
import statistics
import threading
import time
from pathlib import Path

from harness import Bench, cost_of, keep, pss_kib, say, subprocess

CONFIG = """[server]
listen = ["127.0.0.1:{port}"]
admin_listen = ""
state_dir = "{dir}/state"
{throttle}
[[route]]
upstream = "http://127.0.0.1:{up}"
"""
RAISED = """[throttle]
max_retries = 1000
find_time = "1s"
ban_time = "1s"
"""
EVERY_SECONDS = 0.002
ARGON2_MIB = 19  # of one worker, by default
FLOOD = """
local number, codes = 0, {}
request = function()
  number = number + 1
  local email = number % 2 == 0 and "ada@example.com" or "nobody" .. number % 1000 .. "@example.com"
  local body = '{"email":"' .. email .. '","password":"not the right one"}'
  return wrk.format("POST", "/.auth/login", { ["Content-Type"] = "application/json" }, body)
end
local threads = {}
setup = function(thread) table.insert(threads, thread) end
response = function(status)
  codes[status] = (codes[status] or 0) + 1
  counts = ""
  for code, count in pairs(codes) do counts = counts .. code .. "=" .. count .. " " end
end
done = function() for _, thread in ipairs(threads) do print(thread:get("counts")) end end
"""


def timed(port, cookie, seconds):
    """Microseconds that each of one connection's requests took."""
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n".encode()
    took = []
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        due = time.perf_counter()
        end = due + seconds
        while due < end:
            time.sleep(max(0, due - time.perf_counter()))
            began = time.perf_counter()
            one.sendall(request)
            answer = one.recv(65536)
            took.append((time.perf_counter() - began) * 1e6)
            assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
            due = max(due + EVERY_SECONDS, time.perf_counter() - EVERY_SECONDS)
    return took


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


class Flood:
    """The wrong passwords; counts answers by status."""

    def __init__(self, bench, port, parallel, seconds):
        script = bench.write("flood.lua", FLOOD)
        command = ["wrk", "-t1", f"-c{parallel}", f"-d{seconds}s", "--latency", "-s", script, f"http://127.0.0.1:{port}/"]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.nice(19))

    def codes(self):
        out = self.child.communicate()[0]
        return {code: int(count) for code, count in re.findall(r"(\d{3})=(\d+)", out)}


class Peak:
    """The most memory that a process had while this ran, KiB."""

    def __init__(self, pid):
        self.pid, self.most, self.ended = pid, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        while not self.ended.wait(0.1):
            self.most = max(self.most, pss_kib(self.pid))

    def stop(self):
        self.ended.set()
        self.thread.join()
        return self.most


def measured(options):
    with Bench() as bench:
        up = bench.backend().port
        gateway = bench.authgate(CONFIG, up=up, throttle="" if options.throttled else RAISED)
        cookie = gateway.first_account()
        timed(gateway.port, cookie, 1)
        time.sleep(11)  # what it took to hash the account's password is given back after ten seconds
        base, quiet, flooded, codes, cpu = pss_kib(gateway.pid), [], [], {}, []
        peak = Peak(gateway.pid)
        for _ in range(options.rounds):
            quiet.append(timed(gateway.port, cookie, options.seconds))
            with cost_of(gateway.pid) as cost:
                flood = Flood(bench, gateway.port, options.parallel, options.seconds)
                time.sleep(0.3)
                flooded.append(timed(gateway.port, cookie, options.seconds - 0.6))
                for code, count in flood.codes().items():
                    codes[code] = codes.get(code, 0) + count
            cpu.append(cost.cpu_microseconds / 1e6 / cost.seconds)
            pairs = [[round(percentile(side[-1], part)) for side in (quiet, flooded)] for part in (0.5, 0.99)]
            say(f"quiet and flooded, us: p50 {pairs[0]}, p99 {pairs[1]}")
        most = peak.stop()
        threads = [path.read_text() for path in Path(f"/proc/{gateway.pid}/task").glob("*/comm")]
    ratio = [percentile(b, 0.99) / percentile(a, 0.99) for a, b in zip(quiet, flooded)]
    typical = lambda rounds, part: statistics.median(percentile(one, part) for one in rounds)
    us = {
        name: {f"p{part * 100:g}": typical(rounds, part) for part in (0.5, 0.99)}
        for name, rounds in {"quiet": quiet, "flooded": flooded}.items()
    }
    workers = threads.count("hash\n")
    above_mib = (most - base) / 1024 - workers * ARGON2_MIB
    musts = [
        {"figure": "signed-in p99 under a login flood, to quiet", "seen": statistics.median(ratio), "must": 2},
        {"figure": "memory of a login flood beyond the hash workers', MiB", "seen": above_mib, "must": 16},
    ]
    return {
        "musts": musts,
        "parallel": options.parallel,
        "signed_in_us": us,
        "p99_flooded_to_quiet": statistics.median(ratio),
        "p99_flooded_to_quiet_each": ratio,
        "answers": codes,
        "answers_per_second": sum(codes.values()) / options.rounds / options.seconds,
        "gateway_cores_flooded": statistics.median(cpu),
        "hash_workers": workers,
        "pss_kib": {"before": base, "most": most},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--parallel", type=int, default=64)
    parser.add_argument("--throttled", action="store_true", help="the throttle is as shipped")
    parser.add_argument("--json", metavar="FILE", help="writes the figures to this file")
    options = parser.parse_args()
    figures = measured(options)
    keep(figures, options.json)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
