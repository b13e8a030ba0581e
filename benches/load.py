"""Requests: what each gateway costs under load, how many it serves, and what it adds to one request alone."""

import statistics
import threading

from harness import IDENTITY, USER, ask, cost_of, pss_kib, say, wrk

CONNECTIONS = 64
FOREIGN_PERCENT_MAX = 6
TRIES = 2


def check(peer):
    """A gateway that does not do the job is not measured."""
    forged = {name: "forged" for name in IDENTITY}
    good = ask(peer.port, forged | {"Cookie": peer.cookie})
    assert good.status == 200, (peer.name, good.status)
    if peer.checks:
        seen = good.headers["X-Seen"].split("|")
        assert seen[1:] == [USER[claim] for claim in ("email", "name", "role")], (peer.name, seen)
        assert seen[0] and "forged" not in seen, (peer.name, seen)
    for what, cookie in peer.refused.items():
        headers = forged | ({"Cookie": cookie} if cookie else {})
        for path in ("/", "/ws"):
            answer = ask(peer.port, headers, path=path)
            assert answer.status in (401, 403) and not answer.headers["X-Seen"], (peer.name, what, answer.status)
    say(f"{peer.name}: does the job; {len(peer.refused)} bad sessions refused")


def slice_of(peer, seconds, connections):
    """One slice of load. One that others on the machine disturbed is measured again, once."""
    for _ in range(TRIES):
        memory = []
        timer = threading.Timer(seconds / 2, lambda: memory.append(pss_kib(*peer.pids) / 1024))
        timer.start()
        with cost_of(*peer.pids) as cost:
            seen = wrk(peer.port, peer.cookie, seconds, connections)
        timer.join()
        if cost.foreign_percent <= FOREIGN_PERCENT_MAX:
            break
    seen["cpu_us"] = cost.cpu_microseconds / seen["requests"]
    seen["foreign_percent"] = cost.foreign_percent
    seen["pss_mib"] = memory[0]
    return seen


def rounds_of(peers, rounds, seconds, connections):
    """All peers in turn, each round in another order: [{name: slice}, ...]."""
    for peer in peers:
        wrk(peer.port, peer.cookie, 1, connections)
    seen = []
    for number in range(rounds):
        at = number % len(peers)
        order = peers[at:] + peers[:at]
        order = order[::-1] if number % 2 else order
        seen.append({peer.name: slice_of(peer, seconds, connections) for peer in order})
        say(f"{connections} connections: round {number + 1} of {rounds}")
    return seen


def median(rounds, name, key):
    return statistics.median(one[name][key] for one in rounds)


def ratio(rounds, name, base, key):
    """The median of the ratios of one round."""
    return statistics.median(one[name][key] / one[base][key] for one in rounds)
