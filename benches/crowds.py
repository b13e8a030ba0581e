#!/usr/bin/env python3
"""Ordinary crowds: whether all are served, how long that takes, and what memory it costs.

    benches/crowds.py office      # 600 browsers of one address, 6 kept connections and a WebSocket each, for a minute
    benches/crowds.py restart     # SIGTERM under 1,000 clients, 500 WebSockets and a long answer, then a new process
    benches/crowds.py sign-ins    # sixty people at once from one address, from sixty, and people beside a guesser
    benches/crowds.py             # all of it; --json FILE writes the figures, too

Limits and throttle are as shipped. What a browser sends again by itself (a kept connection that turns out to be closed
before any byte of an answer) is counted; anything else that is not the answer is a fault, and the exit code 1.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sqlite3
import statistics
import time
from pathlib import Path

from harness import BINARY, PASSWORD, Bench, descriptors, free_port, keep, pss_kib, say

CONFIG = """[server]
listen = ["127.0.0.1:{port}"]
admin_listen = ""
state_dir = "{dir}/state"
[throttle]
{throttle}
[[route]]
path = "/ws"
upstream = "builtin:whoami"
[[route]]
upstream = "http://127.0.0.1:{up}"
"""
UNTHROTTLED = "max_retries = 1000"
CONNECTIONS_A_BROWSER = 6
REQUESTS_A_PAGE = 12
PAGE_EVERY_SECONDS = (5, 15)
GOING_AWAY = b"\x03\xe9"
PATIENCE_SECONDS = 60


class Closed(Exception):
    """The connection ended before a byte of the answer; `reset`: not cleanly."""


class Connection:
    """One connection, made when it is needed; knows whether it has been used before."""

    def __init__(self, port, source="127.0.0.1"):
        self.port, self.source, self.reader, self.writer = port, source, None, None

    async def open(self):
        made = asyncio.open_connection("127.0.0.1", self.port, local_addr=(self.source, 0))
        self.reader, self.writer = await asyncio.wait_for(made, PATIENCE_SECONDS)

    def close(self):
        if self.writer:
            self.writer.close()
        self.reader = self.writer = None

    async def ask(self, method, path, fields, body=b""):
        """Status, head and body."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *fields]
        lines += [f"Content-Length: {len(body)}"] * bool(body)
        try:
            self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
        except asyncio.IncompleteReadError as cut:
            if cut.partial:
                raise
            raise Closed("closed") from cut
        except ConnectionError as cut:
            raise Closed("reset") from cut
        fields = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:-2])
        length = int(fields.get("content-length", 0))
        return int(head.split(b" ")[1]), head.decode(), await self.reader.readexactly(length)


class Tally:
    """What happened, by name; faults with their words."""

    def __init__(self):
        self.counts, self.faults = {}, []

    def add(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def fault(self, what):
        self.faults.append(what)


async def get(connection, cookie, tally, path="/"):
    """As a browser: what finds its kept connection closed is sent again over a new one."""
    fields = [f"Cookie: {cookie}"]
    used = connection.writer is not None
    for again in (False, True):
        if connection.writer is None:
            await connection.open()
        try:
            status, _, body = await connection.ask("GET", path, fields)
        except Closed as why:
            connection.close()
            tally.add(f"kept connections found {why}")
            if used and not again:
                continue
            return tally.fault(f"a new connection was {why}")
        tally.add("requests")
        if status != 200:
            tally.fault(f"{status}: {body[:80]}")
        return None


async def open_socket(connection, cookie):
    await connection.open()
    fields = [f"Cookie: {cookie}", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    status, head, _ = await connection.ask("GET", "/ws", [*fields, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="])
    assert status == 101, head
    await frame(connection)  # the built-in backend tells what it received


async def frame(connection):
    head = await asyncio.wait_for(connection.reader.readexactly(2), PATIENCE_SECONDS)
    length = head[1] & 127
    if length == 126:
        length = int.from_bytes(await connection.reader.readexactly(2), "big")
    return head[:1] + bytes([min(head[1], 126)]) + await connection.reader.readexactly(length)


async def echo(connection):
    connection.writer.write(b"\x81\x82\0\0\0\0hi")
    assert (await frame(connection))[2:] == b"hi"


def with_people(gateway, count):
    """`count` accounts beside the first one, with its password."""
    gateway.first_account()
    fill = """WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ? - 1)
        INSERT INTO user (id, email, name, picture, groups, password, created, rev)
        SELECT 'u' || i, 'u' || i || '@example.com', '', '', '', password, user.created, user.rev FROM n, user"""
    with contextlib.closing(sqlite3.connect(Path(gateway.config).parent / "state/authgate.db", 10)) as database:
        database.execute(fill, [count])
        database.commit()


async def sign_in(connection, email, password=PASSWORD):
    """Status, cookie and seconds."""
    body = json.dumps({"email": email, "password": password}).encode()
    began = time.monotonic()
    status, head, _ = await connection.ask("POST", "/.auth/login", ["Content-Type: application/json"], body)
    took = time.monotonic() - began
    cookies = [line[12:].split(";")[0] for line in head.split("\r\n") if line.lower().startswith("set-cookie: authgate=")]
    return status, (cookies or [""])[0], took


async def signed_in(port, count):
    """A session for each of so many people: a few at a time, since this is not what is measured."""
    places = asyncio.Semaphore(8)

    async def one(number):
        async with places:
            connection = Connection(port)
            await connection.open()
            status, cookie, _ = await sign_in(connection, f"u{number}@example.com")
            connection.close()
            assert status == 200, status
            return cookie

    return await asyncio.gather(*[one(number) for number in range(count)])


async def browser(port, cookie, tally, until):
    """A page now and then over all its connections, and a WebSocket that says something with each."""
    kept = [Connection(port) for _ in range(CONNECTIONS_A_BROWSER)]
    socket = Connection(port)
    await asyncio.sleep(random.uniform(0, 5))
    await open_socket(socket, cookie)
    tally.add("sockets opened")

    async def part(connection):
        for _ in range(REQUESTS_A_PAGE // CONNECTIONS_A_BROWSER):
            await get(connection, cookie, tally)

    while time.monotonic() < until:
        await asyncio.gather(*map(part, kept))
        tally.add("pages")
        try:
            await echo(socket)
            tally.add("echoes")
        except (OSError, asyncio.IncompleteReadError) as why:
            return tally.fault(f"a socket was lost: {why!r}")
        await asyncio.sleep(random.uniform(*PAGE_EVERY_SECONDS))
    tally.add("browsers to the end")
    for connection in (*kept, socket):
        connection.close()


async def office(bench, options):
    backend = bench.backend()
    gateway = bench.authgate(CONFIG, up=backend.port, throttle="")
    with_people(gateway, options.browsers)
    cookies = await signed_in(gateway.port, options.browsers)
    await asyncio.sleep(12)  # what it took to hash is given back after ten seconds
    before, seen, tally = pss_kib(gateway.pid), [], Tally()
    until = time.monotonic() + options.seconds
    crowd = asyncio.gather(*[browser(gateway.port, cookie, tally, until) for cookie in cookies])
    while not crowd.done():
        seen.append(pss_kib(gateway.pid))
        await asyncio.sleep(1)
    await crowd
    wanted = (options.browsers, options.browsers)
    if (tally.counts.get("sockets opened"), tally.counts.get("browsers to the end")) != wanted:
        tally.fault("not all browsers were served to the end")
    lines = [line for line in gateway.log.read_text().splitlines() if "limit reached" in line]
    kib = {"before": before, "median": statistics.median(seen), "most": max(seen)}
    mib = {when: round(one / 1024, 1) for when, one in kib.items()}
    return tally, {"browsers": options.browsers, "seconds": options.seconds, "pss_mib": mib, "limit_lines": lines}


class LongAnswer:
    """An app that begins an answer and ends it when it is told to."""

    async def serve(self):
        self.begun, self.ends = asyncio.Event(), asyncio.Event()
        self.port = free_port()
        self.server = await asyncio.start_server(self.answer, "127.0.0.1", self.port)

    async def answer(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /long "):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
            self.begun.set()
            await self.ends.wait()
            writer.write(b"half")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()


async def newcomers(port, cookie, tally, refused):
    """Connects again and again until it is refused: whoever is accepted must be answered."""
    while True:
        connection = Connection(port)
        try:
            await connection.open()
        except ConnectionRefusedError:
            refused.append(time.monotonic())
            return
        try:
            status, _, _ = await connection.ask("GET", "/.auth/me", [f"Cookie: {cookie}", "Connection: close"])
            tally.add("newcomers answered")
            if status != 200:
                tally.fault(f"a newcomer got {status}")
        except Closed as why:
            tally.fault(f"a newcomer that was accepted was {why}")
        connection.close()


async def goes_away(socket, tally):
    """The Close of a gateway that stops, and the end."""
    seen = await frame(socket)
    if seen[:1] == b"\x88" and seen[2:4] == GOING_AWAY:
        socket.writer.write(b"\x88\x82\0\0\0\0\x03\xe9")
        tally.add("sockets closed with 1001")
    else:
        tally.fault(f"a socket got {seen!r}")


async def ends_cleanly(connection, tally):
    try:
        rest = await asyncio.wait_for(connection.reader.read(), PATIENCE_SECONDS)
        tally.add("kept connections closed cleanly" if not rest else "kept connections with bytes left")
    except ConnectionError as why:
        tally.fault(f"a kept connection: {why!r}")


async def restart(bench, options):
    app = LongAnswer()
    await app.serve()
    gateway = bench.authgate(CONFIG, up=app.port, throttle="")
    cookie, tally = gateway.first_account(), Tally()
    clients = [Connection(gateway.port) for _ in range(options.clients)]
    sockets = [Connection(gateway.port) for _ in range(options.sockets)]
    await asyncio.gather(*[get(client, cookie, tally, "/.auth/me") for client in clients])
    await asyncio.gather(*[open_socket(socket, cookie) for socket in sockets])
    long = Connection(gateway.port)
    await long.open()
    answer = asyncio.create_task(long.ask("GET", "/long", [f"Cookie: {cookie}"]))
    await app.begun.wait()
    refused, comers = [], Tally()
    coming = [asyncio.create_task(newcomers(gateway.port, cookie, comers, refused)) for _ in range(8)]
    await asyncio.sleep(0.5)
    child = next(child for child in bench.children if child.pid == gateway.pid)
    stopped = time.monotonic()
    child.send_signal(signal.SIGTERM)
    await asyncio.gather(*coming)
    await asyncio.gather(*[goes_away(socket, tally) for socket in sockets])
    await asyncio.gather(*[ends_cleanly(client, tally) for client in clients])
    closed = time.monotonic() - stopped
    app.ends.set()
    status, _, body = await answer
    if (status, body) != (200, b"halfhalf"):
        tally.fault(f"the long answer: {status} {body!r}")
    await asyncio.to_thread(child.wait, PATIENCE_SECONDS)
    if child.returncode != 0:
        tally.fault(f"exit code {child.returncode}")
    began = time.monotonic()
    serve_again(bench, gateway)
    for connection in (*clients, *sockets):
        connection.close()
    await asyncio.gather(*[get(client, cookie, tally, "/.auth/me") for client in clients])
    await asyncio.gather(*[open_socket(socket, cookie) for socket in sockets])
    tally.counts |= comers.counts
    tally.faults += comers.faults
    seconds = {
        "last newcomer refused": round(max(refused) - stopped, 3),
        "all others closed": round(closed, 3),
        "start until all are back": round(time.monotonic() - began, 3),
    }
    return tally, {"clients": options.clients, "sockets": options.sockets, "seconds": seconds}


def serve_again(bench, gateway):
    """A new process on the same port and state."""
    log = bench.dir / "again.log"
    ready = lambda: '"ready"' in log.read_text()
    bench.start("again", [BINARY, "--config", gateway.config], ready)


async def at_once(port, people):
    """Sign-ins (from, e-mail) at the same moment: statuses, and the slowest's seconds."""
    ones = [(Connection(port, source), email) for source, email in people]
    for connection, _ in ones:
        await connection.open()
    done = await asyncio.gather(*[sign_in(connection, email) for connection, email in ones])
    for connection, _ in ones:
        connection.close()
    return [status for status, _, _ in done], max(took for _, _, took in done)


async def guesser(port, ended, tally):
    """Wrong passwords over 40 connections of one address, as fast as they are answered."""

    async def one(number):
        connection = Connection(port, "127.0.0.3")
        await connection.open()
        while not ended.is_set():
            status, _, _ = await sign_in(connection, f"x{number}@example.com", "not the right one")
            tally.add(f"guesses answered {status}")
        connection.close()

    await asyncio.gather(*map(one, range(40)))


async def sign_ins(bench, options):
    tally, slowest = Tally(), {}
    people = [f"u{number}@example.com" for number in range(60)]
    elsewhere = [(f"127.0.2.{number}", email) for number, email in enumerate(people[:15])]
    crowds = {
        "sixty of one address": ("", False, [("127.0.0.2", email) for email in people]),
        "sixty of sixty addresses": ("", False, [(f"127.0.1.{number}", email) for number, email in enumerate(people)]),
        "fifteen elsewhere, beside a guesser": ("", True, elsewhere),
        "fifteen elsewhere, beside a guesser whom no throttle slows": (UNTHROTTLED, True, elsewhere),
    }
    for number, (what, (throttle, is_beside, crowd)) in enumerate(crowds.items()):
        gateway = bench.authgate(CONFIG, f"authgate-{number}", up=free_port(), throttle=throttle)
        with_people(gateway, 60)
        ended = asyncio.Event()
        guesses = asyncio.create_task(guesser(gateway.port, ended, tally)) if is_beside else None
        await asyncio.sleep(2)
        rounds = []
        for _ in range(options.rounds):
            statuses, took = await at_once(gateway.port, crowd)
            rounds.append(took)
            for status in statuses:
                tally.add(f"people answered {status}")
                if status != 200:
                    tally.fault(f"{what}: {status}")
        ended.set()
        if guesses:
            await guesses
        bench.stop(gateway.pid)
        slowest[what] = {"median": round(statistics.median(rounds), 2), "most": round(max(rounds), 2)}
    return tally, {"rounds": options.rounds, "slowest_seconds": slowest}


PARTS = {"office": office, "restart": restart, "sign-ins": sign_ins}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="office, restart, sign-ins; all by default")
    parser.add_argument("--browsers", type=int, default=600)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--sockets", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5, help="of the sign-ins")
    parser.add_argument("--json", metavar="FILE", help="writes the figures to this file")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    descriptors()
    figures, faults = {}, 0
    for part in options.parts or PARTS:
        say(f"-- {part}")
        with Bench() as bench:
            tally, told = asyncio.run(PARTS[part](bench, options))
        figures[part] = told | {"counts": tally.counts, "faults": len(tally.faults), "first_faults": tally.faults[:5]}
        faults += len(tally.faults)
        print(json.dumps({part: figures[part]}, indent=2), flush=True)
    keep(figures, options.json)
    raise SystemExit(faults > 0)


if __name__ == "__main__":
    main()
