// Caching proxies of others in front of the gateway: what an app called cacheable for ada is shown to nobody else.
import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { describe, test } from "node:test";
import { ask, cookieOf, debian, folder, freePort, gatewayOf, serve } from "./lib.mjs";

/** An app that lets caches keep its answers in the ways that there are. */
function cacheable(request, response) {
  const who = request.headers["remote-user"];
  const fields = {
    public: { "cache-control": "public, max-age=3600" },
    shared: { "cache-control": "s-maxage=3600" },
    private: { "cache-control": "private, max-age=3600" },
    expires: { expires: new Date(Date.now() + 3_600_000).toUTCString() },
    etag: { etag: `"${who}"` },
    modified: { "last-modified": "Mon, 01 Jan 2024 00:00:00 GMT" },
    moved: { location: `/home/${who}` },
  }[request.url.split("/").at(-1)];
  response.writeHead(fields.location ? 301 : 200, { "content-type": "text/html", ...fields }).end(`for ${who}`);
}
const KINDS = ["public", "shared", "private", "expires", "etag", "modified", "moved"];

const CACHES = {
  "nginx's proxy_cache": {
    got: debian("nginx"),
    command(place, port, gateway) {
      const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${place}/${name};`).join(" ");
      const site = `proxy_cache_path ${place}/cache keys_zone=all:1m; server { listen 127.0.0.1:${port}; location / {
        proxy_pass http://127.0.0.1:${gateway}; proxy_set_header Host $http_host; proxy_http_version 1.1;
        proxy_cache all; proxy_cache_valid any 1h; } }`;
      const main = `daemon off; pid ${place}/pid; error_log stderr; events {} http { access_log off; ${paths}\n${site}\n}`;
      fs.writeFileSync(path.join(place, "nginx.conf"), main);
      return ["nginx", "-p", place, "-c", path.join(place, "nginx.conf")];
    },
  },
  Varnish: {
    got: debian("varnishd", "cc"),
    command(place, port, gateway) {
      // (by itself it looks nothing up for a request with cookies)
      const rules = `vcl 4.1;\nbackend gateway { .host = "127.0.0.1"; .port = "${gateway}"; }\nsub vcl_recv { if (req.method == "GET") { return (hash); } }\n`;
      fs.writeFileSync(path.join(place, "all.vcl"), rules);
      return ["varnishd", "-F", "-a", `127.0.0.1:${port}`, "-f", path.join(place, "all.vcl"), "-n", path.join(place, "work"), "-s", "malloc,16m"];
    },
  },
};

for (const [name, cache] of Object.entries(CACHES)) {
  describe(`${name} in front of the gateway`, { skip: cache.got.missing, timeout: 120_000 }, () => {
    test("gives one account's answers to nobody else, but for a route that leaves them to the app", async () => {
      const app = http.createServer(cacheable);
      await once(app.listen(0, "127.0.0.1"), "listening");
      const [port, place] = [await freePort(), folder("cache")];
      fs.chmodSync(place, 0o755);
      const routes = ['path = "/own/**"\ncache = "app"', 'path = "/optional/**"\naccess = "optional"', 'path = "/open/**"\naccess = "public"', ""];
      const rules = routes.map((more) => `[[route]]\n${more}\nupstream = "http://127.0.0.1:1"\n`).join("");
      const gate = await gatewayOf(rules, app.address().port, `trusted_proxies = ["127.0.0.1"]`);
      const [command, ...args] = cache.command(place, port, new URL(gate.url).port);
      const front = await serve(port, command, args);
      try {
        await gate.cli("user", "add", "bob@example.com", "--password-stdin");
        const url = `http://127.0.0.1:${port}`;
        const [ada, bob] = [await cookieOf(url), await cookieOf(url, {}, "bob@example.com")];
        const open = async (target, cookie) => {
          const { status, headers, text } = await ask(url + target, { headers: cookie ? { cookie } : {} });
          return `${status} ${headers.location ?? text}`;
        };
        const shown = (kind, who) => (kind === "moved" ? `301 /home/${who}` : `200 for ${who}`);
        for (const route of ["", "/optional"]) {
          for (const kind of KINDS) {
            const target = `${route}/${kind}`;
            for (const _ of [1, 2]) assert.equal(await open(target, ada), shown(kind, "ada@example.com"), target);
            const nobody = await open(target);
            if (route) assert.equal(nobody, shown(kind, "undefined"), target);
            else assert.match(nobody, /^401 .*signed_out/, target);
            assert.equal(await open(target, bob), shown(kind, "bob@example.com"), target);
            assert.equal(await open(target, ada), shown(kind, "ada@example.com"), target);
          }
        }
        // behind a public route an app is told who asks, too; what it said to nobody is everybody's
        for (const kind of KINDS) {
          const target = `/open/${kind}`;
          for (const _ of [1, 2]) assert.equal(await open(target, ada), shown(kind, "ada@example.com"), target);
          assert.equal(await open(target, bob), shown(kind, "bob@example.com"), target);
          assert.equal(await open(target), shown(kind, "undefined"), target);
        }
        // it is a cache: what the app says of itself holds there
        assert.equal(await open("/own/public", ada), "200 for ada@example.com");
        assert.equal(await open("/own/public"), "200 for ada@example.com");
      } finally {
        front.stop();
        await gate.stop();
        app.close();
        app.closeAllConnections();
      }
    });
  });
}
