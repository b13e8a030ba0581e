"""docs/performance.md, its chart, and the README's paragraph, from what a run saw. No figure is written by hand."""

import os
import platform
import re
import subprocess
import textwrap
from pathlib import Path

import load
from growth import LOADS
from harness import BINARY, ROOT
from secure import NO_AUTH

AUTHGATE = "authgate"
HAPROXY = "HAProxy jwt_verify"
NGINX = "nginx, no auth"
LUA = "nginx Lua, token cache"
AUTH_REQUEST = "nginx auth_request"
ENVOY = "Envoy jwt_authn"
ENVOY_CACHED = "Envoy jwt_authn, token cache"
CADDY = "Caddy forward_auth"
DIRECT = "direct"
SILENT = ", no log"
GROWTH = {
    "one": "one session, relative to small ones",
    "few": "ten sessions, relative to small ones",
    "spread": "100,000 sessions in turn on all routes, relative to 10 routes and a tenth of the database",
}


def machine():
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) // 1024**2
    name = model[1] if model else platform.machine()
    return f"{os.cpu_count()} cores ({name}), {memory} GiB, Linux {platform.release()}"


def said(*command):
    """The first version that a program tells of itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[\w.]*", done.stdout + done.stderr)
    return found[0] if found else "unknown"


def added(rounds, name):
    """Median microseconds that a gateway adds to the median request of the same round."""
    return load.statistics.median(one[name]["p50_us"] - one[DIRECT]["p50_us"] for one in rounds)


class Musts:
    """Figure, must, goal, seen; a figure that was not measured is not met."""

    def __init__(self, results):
        self.rows = []
        requests, alone = results.get("requests"), results.get("alone")
        trips, idle = results.get("trips"), results.get("idle")
        cpu = lambda base: lambda: load.ratio(requests, AUTHGATE, base, "cpu_us")
        trip = lambda base: lambda: load.ratio(trips, AUTHGATE, base, "cpu_us")
        add = self.add
        add("CPU per request, relative to HAProxy jwt_verify", cpu(HAPROXY), 0.80, 0.50)
        add("CPU per request, relative to nginx with Lua and token cache", cpu(LUA), 1.6, 1.0)
        add("CPU per request, relative to nginx auth_request", cpu(AUTH_REQUEST), 0.65, 0.40)
        add("CPU per request, relative to Envoy jwt_authn", cpu(ENVOY), 0.40, 0.24)
        add("CPU per request, relative to Envoy with token cache", cpu(ENVOY_CACHED), 0.40, 0.24)
        add("CPU per request, relative to Caddy forward_auth", cpu(CADDY), 0.10, 0.06)
        rate = lambda: load.ratio(requests, AUTHGATE, HAPROXY, "per_second")
        add("requests/s, relative to HAProxy jwt_verify", rate, 1.1, 1.6, more=True)
        limit = added(alone, HAPROXY) if alone else None
        add("added p50 at one connection, µs (required: HAProxy's)", lambda: added(alone, AUTHGATE), limit, 30, "{:.0f}")
        count = results.get("idle_count")
        add(f"KiB per idle WebSocket ({count} open)", lambda: load.median(idle, AUTHGATE, "kib"), 20, 8, "{:.1f}")
        add("CPU per WebSocket round trip, relative to nginx", trip(NGINX), 1.4, 1.0)
        add("CPU per WebSocket round trip, relative to Envoy", trip(ENVOY_CACHED), 0.9, 0.6)
        memory = lambda: max(one[AUTHGATE]["pss_mib"] for one in requests)
        add("memory under load, MiB (PSS; maximum of all rounds)", memory, 40, 25, "{:.1f}")
        autobahn = results.get("autobahn")
        add("Autobahn test suite: cases that differ from direct", lambda: len(autobahn["different"]), 0, 0, "{:.0f}")
        self.growth(results.get("growth"))
        self.flood(results.get("flood"))

    def add(self, figure, seen, must, goal, form="{:.2f}", more=False):
        limits = [f"{'≥' if more else '≤'} {form.format(limit)}" if limit is not None else "" for limit in (must, goal)]
        try:
            value = seen()
        except (TypeError, KeyError):
            self.rows.append((figure, *limits, "not measured", "no"))
            return
        reaches = lambda limit: limit is not None and (value >= limit if more else value <= limit)
        verdict = "goal" if reaches(goal) else "yes" if reaches(must) else "**no**"
        self.rows.append((figure, *limits, form.format(value), verdict))

    def growth(self, seen):
        for kind, what in GROWTH.items():
            about = f"CPU per request with a large configuration and database, {what}"
            self.add(about, lambda kind=kind: seen["cpu_large_to_small"][kind], 1.1, None)
        self.add("startup with them, s", lambda: seen["start_seconds"]["large"], 3, None)

    def flood(self, seen):
        self.add("signed-in p99 under a login flood, relative to no flood", lambda: seen["p99_flooded_to_quiet"], 2, None)
        memory = lambda: seen["pss_kib"]["most"] / 1024
        self.add("memory under the flood, MiB (PSS; a hash takes 19)", memory, 40, None, "{:.1f}")

    def text(self):
        return table(("figure", "required", "goal", "measured", "met"), self.rows)


def table(heads, rows):
    lines = [heads, ["---"] + ["--:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def requests_table(rounds):
    names = sorted(rounds[0], key=lambda name: (name.endswith(SILENT), load.median(rounds, name, "cpu_us")))
    rows = []
    for name in names:
        cpu, rate, p50, p99, pss = (
            load.median(rounds, name, key) for key in ("cpu_us", "per_second", "p50_us", "p99_us", "pss_mib")
        )
        to = load.ratio(rounds, AUTHGATE, name, "cpu_us")
        bold = "**" if name == AUTHGATE else ""
        figures = (f"{cpu:.1f}", f"{to:.2f}", f"{rate:,.0f}", f"{p50:,.0f}", f"{p99:,.0f}", f"{pss:.1f}")
        rows.append((f"{bold}{name}{bold}", *figures))
    heads = ("gateway", "CPU µs/request", "authgate's CPU relative to it", "requests/s", "p50 µs", "p99 µs", "PSS MiB")
    return table(heads, rows)


def secure_table(results):
    """CPU over TLS; authgate's relative to each gateway that does the same, with auth or without."""
    kinds = [kind for kind in ("handshakes", "tls", "h2") if results.get(kind)]
    rows = []
    for name in results[kinds[0]][0]:
        own = AUTHGATE + NO_AUTH if name.endswith(NO_AUTH) else AUTHGATE
        row = [name]
        for kind in kinds:
            row.append(f"{load.median(results[kind], name, 'cpu_us'):.1f}")
            row.append("" if name == own else f"{load.ratio(results[kind], own, name, 'cpu_us'):.2f}")
        rows.append(row)
    titles = {"handshakes": "CPU µs/handshake", "tls": "CPU µs/request, HTTP/1.1", "h2": "CPU µs/request, HTTP/2"}
    heads = ["gateway", *(part for kind in kinds for part in (titles[kind], "authgate's relative to it"))]
    return table(heads, rows)


def alone_table(rounds):
    rows = []
    for name in sorted(rounds[0], key=lambda name: load.median(rounds, name, "p50_us")):
        more = "" if name == DIRECT else f"{added(rounds, name):.0f}"
        rows.append((name, f"{load.median(rounds, name, 'p50_us'):.0f}", more))
    return table(("path", "p50 µs", "added µs"), rows)


def sockets_table(results):
    trips, idle = results.get("trips"), results.get("idle")
    rows = []
    for name in (trips or idle)[0]:
        kib = f"{load.median(idle, name, 'kib'):.1f}" if idle else ""
        cpu, rate = (load.median(trips, name, key) if trips else 0 for key in ("cpu_us", "per_second"))
        to = load.ratio(trips, AUTHGATE, name, "cpu_us") if trips else 0
        rows.append((name, kib, f"{cpu:.1f}", f"{to:.2f}", f"{rate:,.0f}"))
    return table(("gateway", "KiB per idle socket", "CPU µs/round trip", "authgate's CPU relative to it", "round trips/s"), rows)


def chart(rounds):
    """Horizontal bars of CPU time per request, shortest first."""
    names = [name for name in rounds[0] if not name.endswith(SILENT)]
    names.sort(key=lambda name: load.median(rounds, name, "cpu_us"))
    values = [load.median(rounds, name, "cpu_us") for name in names]
    left, wide, high = 230, 430, 28
    lines = []
    for at, (name, value) in enumerate(zip(names, values)):
        y, long = 40 + at * high, value / max(values) * wide
        colour = "#0b6e4f" if name.startswith(AUTHGATE) else "#8a94a0"
        lines.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{name}</text>')
        lines.append(f'<rect x="{left}" y="{y}" width="{long:.1f}" height="{high - 8}" fill="{colour}"/>')
        lines.append(f'<text x="{left + long + 6:.1f}" y="{y + 14}">{value:.1f}</text>')
    height = 50 + len(names) * high
    style = 'font-family="sans-serif" font-size="13" fill="#1b1f24"'
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 {height}" {style}>'
    ground = f'<rect width="740" height="{height}" fill="#ffffff"/>'
    title = '<text x="12" y="22" font-size="15">CPU time per request, µs (less is better)</text>'
    return "\n".join([start, ground, title, *lines, "</svg>\n"])


def autobahn_text(seen):
    counts = {way: ", ".join(f"{n} {of}" for of, n in count.items()) for way, count in seen["counts"].items()}
    again = f"; {len(seen['run_again'])} differed at first and were repeated" if seen["run_again"] else ""
    cases = ", ".join(seen["different"]) or "none"
    return (
        f"{seen['cases']} cases. Direct: {counts['direct']}. Through authgate: {counts[AUTHGATE]}.\n"
        f"Cases with different results: {cases}{again}."
    )


def growth_text(seen):
    sides = ("small", "middle", "large")
    heads = ("", "small (10 of each)", "middle (10 routes)", "large")
    us = {kind: dict(zip(LOADS[kind], pair)) for kind, pair in seen["cpu_us"].items()}
    cell = lambda value, form: "" if value is None else form.format(value)
    rows = [(f"CPU µs/request, {kind}", *(cell(of.get(side), "{:.1f}") for side in sides)) for kind, of in us.items()]
    rows.append(("start, s", *(f"{seen['start_seconds'][side]:.2f}" for side in sides)))
    rows.append(("PSS after start, MiB", *(f"{seen['pss_kib'][side] / 1024:.1f}" for side in sides)))
    about = f"{seen['routes']:,} routes, {seen['users']:,} users with a session each, {seen['revoked']:,} revocations."
    turn = us["spread"]["middle"] - us["few"]["small"]
    return (
        f"{about} {seen['bytes_per_session_and_user']:.0f} bytes per session with its user. A session that is used once in\n"
        f"100,000 requests costs {turn:.1f} µs more than one of ten in any database: its token is verified again, and no cache\n"
        f"of the processor contains its data.\n\n{table(heads, rows)}"
    )


def flood_text(seen):
    us, pss = seen["signed_in_us"], seen["pss_kib"]
    heads = ("one signed-in request every 2 ms", "p50 µs", "p99 µs")
    rows = [(side, f"{us[side]['p50']:.0f}", f"{us[side]['p99']:.0f}") for side in ("quiet", "flooded")]
    answers = ", ".join(f"{count} × {code}" for code, count in seen["answers"].items())
    return (
        f"{seen['parallel']} connections send wrong passwords as fast as possible ({answers or 'no response'}); "
        f"{seen['hash_workers']} hash workers. "
        f"Memory: {pss['before'] / 1024:.1f} MiB before, {pss['most'] / 1024:.1f} MiB at most.\n\n{table(heads, rows)}"
    )


def foreign(results):
    """The largest share of the machine that others used in the median round of any gateway."""
    sections = [results[key] for key in ("requests", "alone", "trips") if results.get(key)]
    return max((load.median(rounds, name, "foreign_percent") for rounds in sections for name in rounds[0]), default=0)


def page(results, command):
    requests = results.get("requests")
    parts = ["# Performance", INTRO.format(command=command, foreign=foreign(results), **results["about"])]
    parts += ["## Targets", Musts(results).text()]
    if results["missing"]:
        missing = "; ".join(f"{what} ({why})" for what, why in results["missing"].items())
        parts.append(f"Not measured in this run: {missing}")
    if requests:
        parts += ["## Requests", "![CPU time per request](performance.svg)", REQUESTS, requests_table(requests)]
    if any(results.get(kind) for kind in ("handshakes", "tls", "h2")):
        parts += ["## TLS", SECURE, secure_table(results)]
    if results.get("alone"):
        parts += ["## One connection", "Latency that a gateway adds to a request on an otherwise idle machine."]
        parts.append(alone_table(results["alone"]))
    if results.get("trips") or results.get("idle"):
        parts += ["## WebSockets", SOCKETS.format(count=results["idle_count"], **results["about"]), sockets_table(results)]
    for key, title, text in (
        ("autobahn", "Autobahn test suite", autobahn_text),
        ("growth", "Growth", growth_text),
        ("flood", "Under a login flood", flood_text),
    ):
        if results.get(key):
            parts += [f"## {title}", text(results[key])]
    return "\n\n".join(parts) + "\n"


def readme(results):
    """The paragraph under "Speed" in the README; None where a figure of it is missing."""
    requests, idle, alone = (results.get(key) for key in ("requests", "idle", "alone"))
    if not (requests and idle and alone):
        return None
    to = {name: load.ratio(requests, AUTHGATE, name, "cpu_us") for name in (HAPROXY, LUA, AUTH_REQUEST, ENVOY, CADDY)}
    values = {
        "cpu": load.median(requests, AUTHGATE, "cpu_us"),
        "rate": load.median(requests, AUTHGATE, "per_second"),
        "added": added(alone, AUTHGATE),
        "kib": load.median(idle, AUTHGATE, "kib"),
        "memory": max(one[AUTHGATE]["pss_mib"] for one in requests),
    }
    ratios = "; ".join(f"{ratio:.2f} times {name}" for name, ratio in to.items())
    return textwrap.fill(README.format(ratios=ratios, about=results["about"]["machine"], **values), 118)


INTRO = """Written by `{command}` on {date}; all figures are generated. Authgate {commit}, compared with nginx {nginx},
HAProxy {haproxy}, Envoy {envoy}, Caddy {caddy}, on one machine: {machine}.
The load generator, the backend and the gateway share the cores, so the CPU time of the gateway's processes (`schedstat`) is the most reliable figure;
requests per second apply to the whole machine. Gateways run in turn, {rounds} rounds of {seconds} s; figures are medians over
the rounds, ratios are medians of the ratios of each round. A slice in which other processes used more than {most} % of the machine
was measured again once; for the gateway most affected, the median slice had {foreign:.0f} %.

Every gateway runs with two threads and writes one access line per request to a file (nginx through a buffer of 64 KiB,
HAProxy through its standard output, the others in their usual way). Before the measurement it must forward a valid
session with the right identity and without forged headers, and deny: no token, another key, expired, `alg: none`, another
audience, truncated, not a JWT (authgate: no session, another key, expired, signed out, truncated, not a JWT). The configurations
are in [benches/peers.py](../benches/peers.py); how to run it: [benches/README.md](../benches/README.md).

All figures are for the profile `dist` (`cargo build --profile dist`: link-time optimization, one codegen unit), which the Debian
package also uses. `cargo run --release` builds without either, in about half the time, and the gateway is somewhat slower."""
REQUESTS = """64 keep-alive connections (`wrk -t1 -c64`), responses of 128 bytes, a backend with one worker. The rows with "no log" are the other
gateways without access logs: authgate cannot turn its own off, so these ratios are to its disadvantage. auth_request and
forward_auth query a verifier that costs very little (nginx with Lua), whose CPU is included. Memory is measured in the
middle of a slice; nginx allocates for as many connections as the machine allows; authgate's process has hashed one
password, at startup. "authgate, backend token" sends a JWT to the backend in each request as well."""
SECURE = """`h2load` with a certificate for P-256 and TLS 1.3. Handshakes: 500 connections with one request each, full handshakes. HTTP/1.1: 64
keep-alive connections; HTTP/2: 16 connections with 8 streams each. Without auth nginx and HAProxy forward everything, and authgate a public
route; authgate still removes identity headers and checks the request."""
SOCKETS = """Memory: proportional set size with {count} signed-in idle WebSockets, minus that with the first 1,000 of them, per
WebSocket; {idle_rounds} rounds of new processes. Round trips: 100 WebSockets, each with one message of 32 bytes in flight."""
README = """CPU time per request is {cpu:.0f} µs on {about}. That is {ratios}.
At one connection the gateway adds {added:.0f} µs to the median request; an idle WebSocket holds {kib:.1f} KiB; under load the
process holds {memory:.0f} MiB. [docs/performance.md](docs/performance.md) has the full comparison and the targets;
`benches/run` repeats it."""


def about(rounds, seconds, programs):
    folder = str(Path(BINARY).resolve().parent)
    git = lambda *words: subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=False)
    commit = git("describe", "--always").stdout.strip() or "of an unknown commit"
    if git("diff", "--quiet", "HEAD", "--", ":/src", ":/Cargo.toml", ":/Cargo.lock").returncode == 1:
        commit += " with changes"
    versions = {"nginx": said("nginx", "-v"), "haproxy": said("haproxy", "-v")}
    versions |= {name: said(str(program), *arguments) for name, (program, *arguments) in programs.items()}
    date = subprocess.run(["date", "+%F"], capture_output=True, text=True, check=True).stdout.strip()
    fixed = {"machine": machine(), "commit": commit, "date": date, "most": load.FOREIGN_PERCENT_MAX}
    return fixed | versions | {"rounds": rounds, "seconds": seconds}


def write(results, command, folder, with_readme):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "performance.md").write_text(page(results, command))
    if results.get("requests"):
        (folder / "performance.svg").write_text(chart(results["requests"]))
    paragraph = readme(results)
    if with_readme and paragraph:
        path = ROOT / "README.md"
        text = path.read_text()
        path.write_text(re.sub(r"(?s)(## Speed\n\n).*?(?=\n\n## )", lambda found: found[1] + paragraph, text))
