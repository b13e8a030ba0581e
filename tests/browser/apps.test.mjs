// docs/apps.md: its programs as they stand, behind its own gateway.toml.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { WebSocketServer } from "ws";
import { closeBrowser, firstAccount, freePort, newPage, PASSWORD, signIn, start } from "./lib.mjs";

const text = fs.readFileSync(path.resolve(import.meta.dirname, "../../docs/apps.md"), "utf8");
const blocks = [...text.matchAll(/^```(?:js|python|toml)\n((?:\/\/|#) (\S+)\n[^]*?)^```/gm)];
const sources = Object.fromEntries(blocks.map(([, source, name]) => [name, source]));
// where `import` finds the packages of these tests
const folder = fs.mkdtempSync(path.join(import.meta.dirname, "node_modules/.apps-"));
const running = [];
let gate, page, site, sockets, cookie;

/** Runs one of the page's programs; gives its address once it takes connections. */
async function run(name, command, env = {}) {
  const port = await freePort();
  fs.writeFileSync(path.join(folder, name), sources[name]);
  const child = spawn(command, [path.join(folder, name)], { stdio: "inherit", env: { ...process.env, PORT: port, ...env } });
  running.push(child);
  while (child.exitCode === null) {
    if (await fetch(`http://127.0.0.1:${port}/`).then(() => true, () => false)) return `127.0.0.1:${port}`;
  }
  throw new Error(`${name} ended`);
}

before(async () => {
  const public_url = `http://127.0.0.1:${await freePort()}`;
  const html = '<!doctype html><title>app</title><script type="module">import * as s from "/session.js"; window.s = s; document.title = "ready"</script>';
  site = http.createServer((req, res) => {
    const script = req.url === "/session.js";
    res.writeHead(200, { "content-type": script ? "text/javascript" : "text/html" }).end(script ? sources["session.js"] : html);
  });
  sockets = new WebSocketServer({ server: site });
  site.listen(0, "127.0.0.1");
  await once(site, "listening");
  const own = `127.0.0.1:${site.address().port}`;
  const app = await run("app.mjs", process.execPath);
  const python = await run("app.py", "python3");
  const api = await run("api.mjs", process.execPath, { GATEWAY: public_url });
  const state = fs.mkdtempSync(path.join(os.tmpdir(), "authgate-apps-"));
  const rules = sources["gateway.toml"].replace("127.0.0.1:3000", app).replace("127.0.0.1:8000", api);
  const others = [
    `[server]\nlisten = ["${public_url.slice(7)}"]\nadmin_listen = ""`,
    `[[route]]\npath = "/site/**"\nupstream = "http://${own}"`,
    `[[route]]\npath = "/session.js"\nupstream = "http://${own}"`,
    `[[route]]\npath = "/python"\nupstream = "http://${python}"`,
    `[[route]]\npath = "/open/**"\naccess = "optional"\nstrip_prefix = "/open"\nupstream = "app"`,
  ];
  fs.writeFileSync(path.join(state, "gateway.toml"), `${others.join("\n")}\n${rules}`);
  gate = await start(state);
  await firstAccount(gate);
  await gate.cli("user", "set", "ada@example.com", "--name", "Ada Löve, 100 %", "--group", "staff", "--group", "admin");
  const answer = await fetch(`${gate.url}/.auth/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ email: "ada@example.com", password: PASSWORD }),
  });
  cookie = answer.headers.getSetCookie().map((line) => line.split(";")[0]).join("; ");
  page = await newPage();
});

after(async () => {
  await closeBrowser();
  sockets?.close();
  site?.close();
  site?.closeAllConnections();
  for (const child of running) child.kill();
  await gate?.stop();
  fs.rmSync(folder, { recursive: true });
});

const asks = async (path, headers = { cookie }) => {
  const answer = await fetch(gate.url + path, { headers });
  assert.equal(answer.status, 200, path);
  return answer.json();
};
const ada = { id: "1", email: "ada@example.com", name: "Ada Löve, 100 %", groups: ["admin", "staff"] };
const sorted = (user) => ({ ...user, groups: user.groups.toSorted() });

test("docs/apps.md: Express and Python read who asks, and nobody is nobody", async () => {
  const told = await asks("/hello");
  assert.deepEqual([sorted(told.user), told.seen], [ada, gate.url]);
  assert.deepEqual(sorted((await asks("/python")).user), ada);
  const nobody = await asks("/open/hello", { "remote-id": "1", "x-forwarded-proto": "https", "x-forwarded-host": "evil.test" });
  assert.deepEqual(nobody, { user: null, seen: gate.url });
});

test("docs/apps.md: a token is verified by the gateway's keys", async () => {
  assert.deepEqual(sorted(await asks("/api/x")), { id: ada.id, name: ada.name, groups: ada.groups });
  const refused = await fetch(`http://${new URL(gate.url).host}/api/x`, { headers: { authorization: "Bearer x.y.z" } });
  assert.equal(refused.status, 401);
});

test("docs/apps.md: a page whose session ends leads to the login and comes back as it was", async () => {
  const here = `${gate.url}/site/page?tab=2#part`;
  const revoke = () => gate.cli("session", "revoke", "--user", "ada@example.com");
  await page.goto(here);
  await signIn(page);
  await page.waitForURL(here);
  await page.waitForFunction(() => document.title === "ready");
  assert.equal((await page.evaluate(() => s.whoami())).email, "ada@example.com");
  assert.equal(await page.evaluate(async () => (await s.call("/site/data")).status), 200);
  await revoke();
  assert.equal(await page.evaluate(() => s.whoami()), null);
  await page.evaluate(() => void s.call("/site/data"));
  await page.waitForURL(`${gate.url}/.auth/login?**`);
  await signIn(page);
  await page.waitForURL(here);
  await page.waitForFunction(() => document.title === "ready");
  await page.evaluate(() => new Promise((open) => (s.connect("/site/socket").onopen = open)));
  await revoke();
  await page.waitForURL(`${gate.url}/.auth/login?**`);
  await signIn(page);
  await page.waitForURL((url) => url.pathname === "/site/page");
  await page.waitForFunction(() => document.title === "ready");
  assert.equal(await page.evaluate(async () => (await fetch("/.auth/logout", { method: "POST" })).ok), true);
  assert.equal(await page.evaluate(() => s.whoami()), null);
});
