#!/usr/bin/env python3
"""What a large configuration and a full database cost: time to start, memory a session, CPU time per request.

Needs python3, nginx, wrk and a build of the profile `dist`. Gateways stand side by side: a small one (10 routes, users and
sessions), a middle one (10 routes, 100,000 users and sessions) and a large one (10,000 routes, 1,000,000 users with
a session each, 100,000 revoked sessions more). Two get the same load in turn, round after round, in three ways: one
session on the last route (small and large); ten sessions on ten routes (small and large); and 100,000 sessions over
all routes (middle and large: the small one has no such load to compare with). What 100,000 sessions in turn cost that
ten do not stands between the middle one's load and the small one's. Rows are written straight into the schema, tokens
are signed here with the key that stands in it.

    benches/growth.py [--rounds 7] [--seconds 3] [--routes 10000] [--users 1000000] [--revoked 100000] [--json FILE]
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import random
import sqlite3
import statistics
import time

from harness import ROOT, Bench, ask, cost_of, keep, pss_kib, say, subprocess

SMALL = 10
SPREAD = 100_000
LOADS = {"one": ("small", "large"), "few": ("small", "large"), "spread": ("middle", "large")}
SECRET = bytes(range(32))
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
PHC = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2E$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
CONFIG = """[server]
listen = ["127.0.0.1:{port}"]
admin_listen = ""
state_dir = "{dir}/state"
[[upstream]]
name = "app"
servers = ["127.0.0.1:{up}"]
[upstream.identity]
X-User-Id = "{{id}}"
X-User-Email = "{{email}}"
X-User-Name = "{{name}}"
X-User-Role = "{{groups}}"
"""
# exact hosts, wildcard hosts, fixed paths, paths with a star, in turn; the last ones take the load
ROUTES = [
    'host = "app{n}.example.com"',
    'host = "*.team{n}.example.com"\npath = "/api/**"',
    'path = "/app{n}/**"',
    'path = "/api/*/part{n}/**"',
    'path = "/page{n}"\nmethods = ["GET", "POST"]',
]
# `paths` is filled in with what to ask for and `cookies` with whom
ASK = """
local paths, cookies = {{ {paths} }}, {{}}
for line in io.lines("{cookies}") do cookies[#cookies + 1] = line end
local at = {first}
request = function()
  at = at + 1
  return wrk.format("GET", paths[at % #paths + 1], {{ ["Cookie"] = cookies[at % #cookies + 1] }})
end
"""


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def session_id(number):
    return b64(b"\0" + hashlib.sha256(str(number).encode()).digest()[:15])


def cookie(number, now, max_age=20 * 86400):
    """The cookie of the session with this number, as the gateway itself would sign it."""
    head = b64(b'{"typ":"authgate+jwt","alg":"HS256","kid":"bench"}')
    claims = {"iss": "authgate", "aud": "session", "sub": str(number), "sid": session_id(number)}
    claims |= {"iat": now, "nbf": now, "exp": now + max_age, "jti": "bench"}
    message = f"{head}.{b64(json.dumps(claims).encode())}"
    return f"authgate={message}.{b64(hmac.new(SECRET, message.encode(), hashlib.sha256).digest())}"


def seed(folder, users, revoked, now):
    """A database as a gateway with so many users, a session of each, and ended sessions would have it."""
    folder.mkdir(parents=True, mode=0o700)
    database = sqlite3.connect(folder / "authgate.db")
    scripts = sorted((ROOT / "src/store/schema").glob("*.sql"))
    for script in scripts:
        database.executescript(script.read_text())
    indices = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name IN ('user', 'session') AND sql IS NOT NULL"
    indices = database.execute(indices).fetchall()
    for name, _ in indices:
        database.execute(f"DROP INDEX {name}")  # made anew at the end: quicker
    database.execute("PRAGMA synchronous = OFF")
    rows = ((str(n), f"user{n}@example.com", f"User {n}", "", "staff", PHC, now, n) for n in range(1, users + 1))
    sql = "INSERT INTO user (id, email, name, picture, groups, password, created, rev) VALUES (?,?,?,?,?,?,?,?)"
    database.executemany(sql, rows)
    life = (now, now + 20 * 86400, now)
    ended = [(now if n > users else None) for n in range(users + revoked + 1)]
    rows = (
        (session_id(n), str(n % users or users), *life, 1, "192.0.2.1", AGENT, ended[n], n)
        for n in random.Random(1).sample(range(1, users + revoked + 1), users + revoked)
    )
    sql = "INSERT INTO session (id, user_id, created, expires, seen, remember, address, user_agent, ended_at, rev)"
    database.executemany(f"{sql} VALUES (?,?,?,?,?,?,?,?,?,?)", rows)
    key = ("bench", SECRET, now, users + revoked)
    database.execute("INSERT INTO signing_key (kid, secret, created, rev) VALUES (?,?,?,?)", key)
    database.execute("UPDATE counter SET value = ? WHERE name = 'user_id'", (users,))
    database.execute("UPDATE counter SET value = ? WHERE name = 'rev'", (users + revoked,))
    for _, sql in indices:
        database.execute(sql)
    database.execute(f"PRAGMA application_id = {0x61677465}")
    database.execute(f"PRAGMA user_version = {len(scripts)}")
    database.commit()
    database.execute("PRAGMA journal_mode = WAL")
    database.close()


def routes(count):
    tables = (f'[[route]]\n{ROUTES[n % len(ROUTES)].format(n=n)}\nupstream = "app"\n' for n in range(count))
    return CONFIG.replace("\n[[upstream]]", "\n[[upstream]]", 1) + "".join(tables)


def paths(count):
    """What every route by path takes, in order."""
    asked = {2: "/app{n}/x", 3: "/api/v1/part{n}/x", 4: "/page{n}"}
    return [asked[n % 5].format(n=n) for n in range(count) if n % 5 in asked]


class Side:
    """One of the two gateways."""

    def __init__(self, bench, name, up, count, users, revoked, now):
        self.bench, self.name, self.users, self.now = bench, name, users, now
        self.paths = paths(count)
        seed(bench.dir / name / "state", users, revoked, now)
        say(f"{name}: {(bench.dir / name / 'state/authgate.db').stat().st_size >> 20} MiB of database")
        self.starts = []
        for _ in range(3):
            began = time.monotonic()
            self.gateway = bench.authgate(routes(count), name, up=up)
            self.starts.append(time.monotonic() - began)
            self.pss = pss_kib(self.gateway.pid)
            if len(self.starts) < 3:
                bench.stop(self.gateway.pid)
        self.check()

    def check(self):
        """The last route forwards its user, and a revoked session is nobody."""
        headers = {"Host": f"127.0.0.1:{self.gateway.port}", "Cookie": cookie(self.users, self.now)}
        answer = ask(self.gateway.port, headers, path=self.paths[-1])
        assert answer.status == 200 and answer.headers["X-Seen"].startswith(f"{self.users}|"), answer.text
        headers["Cookie"] = cookie(self.users + 1, self.now)
        assert ask(self.gateway.port, headers, path=self.paths[-1]).status == 401

    def load(self, kind, seconds, connections):
        """CPU microseconds per request."""
        sessions, asked = {"one": (1, 1), "few": (SMALL, SMALL), "spread": (SPREAD, len(self.paths))}[kind]
        sessions = min(sessions, self.users)
        step = self.users // sessions
        file = self.bench.dir / self.name / f"cookies-{kind}"
        if not file.exists():
            file.write_text("\n".join(cookie(step * n, self.now) for n in range(1, sessions + 1)))
        quoted = ", ".join(f'"{path}"' for path in self.paths[-asked:])
        first = random.randrange(1 << 20)
        script = self.bench.write(f"{self.name}/{kind}.lua", ASK.format(paths=quoted, cookies=file, first=first))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script]
        with cost_of(self.gateway.pid) as cost:
            out = subprocess.check_output([*command, f"http://127.0.0.1:{self.gateway.port}/"], text=True)
        assert "Non-2xx" not in out and "Socket errors" not in out, out
        return cost.cpu_microseconds / int(out.split(" requests in ")[0].split()[-1])


def measured(options):
    now = int(time.time())
    with Bench() as bench:
        up = bench.backend().port
        small = Side(bench, "small", up, SMALL, SMALL, 0, now)
        middle = Side(bench, "middle", up, SMALL, min(SPREAD, options.users), 0, now)
        large = Side(bench, "large", up, options.routes, options.users, options.revoked, now)
        sides = {side.name: side for side in (small, middle, large)}
        seen = {}
        for kind, names in LOADS.items():
            pair = [sides[name] for name in names]
            for side in pair:
                side.load(kind, 1, options.connections)
            rounds = range(options.rounds)
            seen[kind] = [[side.load(kind, options.seconds, options.connections) for side in pair] for _ in rounds]
            say(f"{kind}: {[[round(one, 1) for one in pair] for pair in seen[kind]]}")
        after = pss_kib(large.gateway.pid)
    ratios = {kind: statistics.median(b / a for a, b in rounds) for kind, rounds in seen.items()}
    return {
        "routes": options.routes,
        "users": options.users,
        "revoked": options.revoked,
        "start_seconds": {side.name: min(side.starts) for side in sides.values()},
        "start_seconds_each": {side.name: side.starts for side in sides.values()},
        "pss_kib": {name: side.pss for name, side in sides.items()} | {"large_after_load": after},
        "bytes_per_session_and_user": (large.pss - small.pss) * 1024 / options.users,
        "cpu_us": {kind: [statistics.median(side) for side in zip(*rounds)] for kind, rounds in seen.items()},
        "cpu_large_to_small": ratios,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--routes", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--revoked", type=int, default=100_000)
    parser.add_argument("--json", metavar="FILE", help="writes the figures to this file")
    options = parser.parse_args()
    figures = measured(options)
    keep(figures, options.json)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
