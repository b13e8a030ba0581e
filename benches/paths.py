#!/usr/bin/env python3
"""What a path with several readings costs beside a plain one, in one run.

    benches/paths.py BINARY        # of the profile `dist`
"""

import argparse
import contextlib
import statistics

import load
import versions
from harness import cost_of, wrk

PLAIN, ODD = "/files/a/report.txt", "/files/a%2Fb/50%25;v2"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=int, default=2, help="of one slice of load")
    options = parser.parse_args()
    options.binaries = [options.binary] * 2
    seen = {PLAIN: [], ODD: []}
    with contextlib.ExitStack() as stack:
        peer = next(versions.pairs(stack, options.binaries))
        for number in range(options.rounds):
            for path in (PLAIN, ODD)[:: 1 if number % 2 else -1]:
                with cost_of(*peer.pids) as cost:
                    done = wrk(peer.port, peer.cookie, options.seconds, load.CONNECTIONS, path)["requests"]
                seen[path].append(cost.cpu_microseconds / done)
    for path, figures in seen.items():
        print(f"{path}: {statistics.median(figures):.2f} us of CPU a request")
    ratios = [odd / plain for plain, odd in zip(seen[PLAIN], seen[ODD], strict=True)]
    first, middle, third = statistics.quantiles(ratios, n=4)
    print(f"ratio {middle:.3f} ({first:.3f} to {third:.3f})")


if __name__ == "__main__":
    main()
