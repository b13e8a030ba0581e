#!/usr/bin/env python3
"""The Autobahn test suite against an echo server, directly and through authgate: every verdict must be the same.

The suite (PyPI: autobahntestsuite 25.10.1) is Python 2.7; it is found as python2.7, under ~/.pyenv, or by PYTHON2.
Suite and echo server (PyPI: websockets) are installed once into a cache folder. The sockets through the gateway are
signed in, by an API token in the query. The direct verdicts depend on suite and echo server alone and are kept in the cache,
too. A case that differs is run again both ways, twice at most: some verdicts depend on which of two segments arrives
first, and a difference is one that stays.

    benches/autobahn.py [--json FILE] [--fresh] [CASE...]    # as in 1.* 12.1.1,12.1.2; all without; exit code 1 on a difference

All 517 cases take some minutes: 12.* and 13.* compress a few gigabytes.
"""

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import USER, Bench, free_port, listens, say

SUITE = "autobahntestsuite==25.10.1"
# later ones refuse a message of very many fragments
ECHO_PACKAGE = "websockets==15.0.1"
# the long groups first, so that none is left over at the end
GROUPS = [f"{major}.{minor}.*" for major, last in ((12, 5), (13, 7)) for minor in range(1, last + 1)]
GROUPS += [f"9.{minor}.*" for minor in range(1, 9)] + [f"{major}.*" for major in (6, 5, 7, 10, 1, 2, 3, 4)]
AT_ONCE = 4
SECONDS_MAX = 1800

CONFIG = """[server]
listen = ["127.0.0.1:{port}"]
admin_listen = ""
[[route]]
upstream = "http://127.0.0.1:{up}"
websocket = {{ token = ["query:access_token"] }}
"""
ECHO = """
import asyncio, sys
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

async def echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except ConnectionClosed:
        pass

async def main():
    # quick compression; what the client asks of it is the client's choice
    quick = [ServerPerMessageDeflateFactory(compress_settings={"level": 1})]
    options = {"extensions": quick, "compression": None, "max_size": None, "ping_interval": None}
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), **options) as server:
        await server.serve_forever()

asyncio.run(main())
"""


def cache():
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "authgate-benches"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def venv(name, *packages):
    """A virtual environment in the cache with these packages; gives its folder of programs."""
    home, wanted = cache() / name, " ".join(packages)
    if not installed(home, wanted):
        say(f"installing {wanted}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        subprocess.run([home / "bin/pip", "install", "--quiet", *packages], check=True, stdout=sys.stderr)
        (home / "installed").write_text(wanted)
    return home / "bin"


def installed(home, wanted):
    mark = home / "installed"
    return mark.exists() and mark.read_text() == wanted


def python2():
    found = sorted((Path.home() / ".pyenv/versions").glob("2.7*/bin/python2.7"))
    named = os.environ.get("PYTHON2") or next(map(str, found), None) or shutil.which("python2.7")
    if not named:
        raise SystemExit("the Autobahn test suite needs Python 2.7: name it in PYTHON2")
    return named


def suite():
    """The suite's program, with the packages that it asks for."""
    home = cache() / "autobahn"
    if not installed(home, SUITE):
        # the last virtualenv that makes environments of Python 2.7
        maker = venv("virtualenv", "virtualenv<20.22")
        say(f"installing {SUITE} for {python2()}")
        subprocess.run([maker / "virtualenv", "--quiet", "--clear", "-p", python2(), home], check=True)
        quiet = ["--quiet", "--no-python-version-warning", "--disable-pip-version-check"]
        subprocess.run([home / "bin/pip", "install", *quiet, SUITE], check=True, stdout=sys.stderr)
        (home / "installed").write_text(SUITE)
    return home / "bin/wstest"


def run_cases(bench, name, cases, servers):
    """The verdicts of some cases: {server: {case: (behaviour, its closing, the close code)}}."""
    folder = bench.dir / name
    folder.mkdir()
    spec = {"outdir": "out", "servers": [{"agent": name, "url": url} for name, url in servers.items()]}
    (folder / "spec.json").write_text(json.dumps(spec | {"cases": cases, "exclude-cases": []}))
    command = [suite(), "-m", "fuzzingclient", "-s", "spec.json"]
    with open(folder / "log", "wb") as log:
        child = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        bench.children.append(child)
        code = child.wait(SECONDS_MAX)
    if code != 0:
        raise RuntimeError(f"wstest {cases}: {(folder / 'log').read_text()[-1000:]}")
    seen = json.loads((folder / "out/index.json").read_text())
    keys = ("behavior", "behaviorClose", "remoteCloseCode")
    return {server: {case: tuple(one[key] for key in keys) for case, one in of.items()} for server, of in seen.items()}


def differing(verdicts):
    direct, through = verdicts["direct"], verdicts["authgate"]
    return sorted(case for case in direct.keys() | through.keys() if direct.get(case) != through.get(case))


class Kept:
    """Direct verdicts of this suite and this echo server, in the cache."""

    def __init__(self, fresh):
        self.path = cache() / "autobahn-direct.json"
        self.about = [SUITE, ECHO_PACKAGE, ECHO]
        kept = json.loads(self.path.read_text()) if self.path.exists() and not fresh else {}
        known = kept.get("about") == self.about
        self.groups = kept["groups"] if known else {}

    def get(self, group):
        return {case: tuple(verdict) for case, verdict in self.groups.get(group, {}).items()}

    def put(self, group, verdicts):
        self.groups[group] = verdicts
        self.path.write_text(json.dumps({"about": self.about, "groups": self.groups}))


def compare(groups, kept):
    """Runs all; gives the verdicts of both, and which cases differed at first."""
    verdicts = {"direct": {}, "authgate": {}}
    echo = venv("echo", ECHO_PACKAGE) / "python"
    suite()
    with Bench() as bench:
        port = free_port()
        bench.start("echo", [echo, bench.write("echo.py", ECHO), str(port)], lambda: listens(port))
        gateway = bench.authgate(CONFIG, up=port)
        gateway.first_account()
        shown = gateway.command("token", "create", USER["email"], "--name", "autobahn")
        token = next(word for word in shown.split() if word.startswith("agt_"))
        servers = {
            "direct": f"ws://127.0.0.1:{port}/",
            "authgate": f"ws://127.0.0.1:{gateway.port}/?access_token={token}",
        }

        def one(group):
            known = kept.get(group)
            asked = {way: url for way, url in servers.items() if way == "authgate" or not known}
            seen = run_cases(bench, f"run-{group}", group.split(","), asked)
            if not known:
                kept.put(group, seen["direct"])
            verdicts["direct"].update(known or seen["direct"])
            verdicts["authgate"].update(seen["authgate"])
            say(f"Autobahn {group}: {len(seen['authgate'])} cases")

        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            list(pool.map(one, groups))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            bench.stop(*[child.pid for child in bench.children])
            raise
        first = differing(verdicts)
        for again in ("again-1", "again-2"):
            if cases := differing(verdicts):
                say(f"differing, run again: {' '.join(cases)}")
                for way, seen in run_cases(bench, again, cases, servers).items():
                    verdicts[way].update(seen)
    return verdicts, first


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the result to a file, too")
    parser.add_argument("--fresh", action="store_true", help="run the direct cases, too, kept or not")
    parser.add_argument("cases", nargs="*", help="case patterns")
    options = parser.parse_args()
    verdicts, first = compare(options.cases or GROUPS, Kept(options.fresh))
    different = differing(verdicts)
    counts = {
        server: dict(collections.Counter(verdict[0] for verdict in seen.values()).most_common())
        for server, seen in verdicts.items()
    }
    result = {"cases": len(verdicts["direct"]), "counts": counts, "run_again": first, "different": different}
    for server, count in counts.items():
        print(f"{server:10}{len(verdicts[server])} cases: " + ", ".join(f"{n} {of}" for of, n in count.items()))
    for case in different:
        print(f"{case}: direct {verdicts['direct'].get(case)}, authgate {verdicts['authgate'].get(case)}")
    print(f"{len(different)} cases differ ({len(first)} were run again)")
    if options.json:
        options.json.write_text(json.dumps(result))
    sys.exit(1 if different or not verdicts["direct"] else 0)


if __name__ == "__main__":
    main()
