#!/usr/bin/env python3
"""Backups while people write: how many changes a second are acknowledged meanwhile, and that none is missing.

Eight people change their display name, each over one connection, as fast as they are answered; each name is a number that
grows. Backup after backup is made beside them. Each must be sound (PRAGMA integrity_check) and hold, for
everybody, at least the name that was acknowledged before it began.

    benches/backup.py [--seconds 10] [--json FILE]
"""

import argparse
import http.client
import json
import sqlite3
import threading
import time

from harness import PASSWORD, Bench, keep

PEOPLE = 8
CONFIG = """[server]
listen = ["127.0.0.1:{port}"]
admin_listen = ""
state_dir = "{dir}/state"
[[route]]
upstream = "builtin:whoami"
"""


class Writer(threading.Thread):
    def __init__(self, gateway, number, stop):
        super().__init__()
        self.gateway, self.email, self.stop = gateway, f"writer{number}@example.com", stop
        gateway.command("user", "add", self.email, "--password-stdin", text=PASSWORD + "\n")
        self.cookie = gateway.sign_in(self.email)
        self.acknowledged = 0

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)
        headers = {"Cookie": self.cookie, "Content-Type": "application/json"}
        while not self.stop.is_set():
            body = json.dumps({"name": str(self.acknowledged + 1)})
            connection.request("POST", "/.auth/account/profile", body, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            self.acknowledged += 1


def check(file, before):
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    names = dict(database.execute("SELECT email, name FROM user WHERE email LIKE 'writer%'"))
    for email, least in before.items():
        assert int(names[email] or 0) >= least, (email, names[email], least)
    database.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json")
    options = parser.parse_args()
    with Bench() as bench:
        gateway = bench.authgate(CONFIG)
        gateway.first_account()
        stop = threading.Event()
        writers = [Writer(gateway, number, stop) for number in range(PEOPLE)]
        for writer in writers:
            writer.start()
        began, backups = time.monotonic(), 0
        written = -sum(writer.acknowledged for writer in writers)
        while time.monotonic() - began < options.seconds:
            before = {writer.email: writer.acknowledged for writer in writers}
            file = bench.dir / f"backup-{backups}.db"
            gateway.command("backup", str(file))
            check(file, before)
            file.unlink()
            backups += 1
        took = time.monotonic() - began
        written += sum(writer.acknowledged for writer in writers)
        stop.set()
        for writer in writers:
            writer.join()
    rate = written / took
    print(f"{backups} backups in {took:.1f} s, each sound and whole; {rate:.0f} acknowledged writes a second meanwhile")
    keep({"backups": backups, "writes_per_second": rate}, options.json)


main()
