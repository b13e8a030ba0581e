// The guide's three apps behind the gateway, with no auth code added: a Next.js app with the real clients of
// next-auth 4 and 5, an Express http-server with both of the guide's middlewares, a ws-server.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import bcrypt from "bcryptjs";
import jwt from "jsonwebtoken";
import { WebSocket } from "ws";
import {
  bin,
  binary,
  closeBrowser,
  firstAccount,
  gateway,
  newPage,
  PASSWORD,
  program,
  relay,
  shot,
  signIn,
  start,
} from "./lib.mjs";
import { agree, openId } from "./openid.mjs";

const here = path.join(import.meta.dirname, "guide");
const SECRET = "seedapp-shared-secret-of-at-least-32-bytes";

const programs = [];
const relays = {};
let op, gate;

async function serve(name, command, args, ready, options) {
  const started = await program(command, args, ready, options);
  programs.push(started);
  relays[name] = await relay(Number(started.found[1]));
  return relays[name].address;
}

before(async () => {
  process.env.NEXTAUTH_SECRET = SECRET;
  op = await openId("op");
  const http = await serve("http", process.execPath, [path.join(here, "http-server.mjs")], /listening on (\d+)/);
  const ws = await serve("ws", process.execPath, [path.join(here, "ws-server.mjs")], /listening on (\d+)/);
  const app = path.join(here, "web");
  const build = await program(bin("next"), ["build"], /server-rendered on demand/, { cwd: app });
  await build.stop();
  const args = ["start", "-H", "127.0.0.1", "-p", "0"];
  const web = await serve("web", bin("next"), args, /http:\/\/[^:]+:(\d+)/, { cwd: app });
  gate = await gateway(
    `
[[upstream]]
name = "web-v4"
servers = ["${web}"]
token = { format = "next-auth-v4", secret = { env = "NEXTAUTH_SECRET" } }

[[upstream]]
name = "web-v5"
servers = ["${web}"]
token = { format = "authjs-v5", secret = { env = "NEXTAUTH_SECRET" } }

[[upstream]]
name = "http-server"
servers = ["${http}"]
token = { secret = { env = "NEXTAUTH_SECRET" }, send = ["bearer", "cookie:next-auth.session-token"] }

[[upstream]]
name = "ws-server"
servers = ["${ws}"]
token = { secret = { env = "NEXTAUTH_SECRET" }, send = ["cookie:next-auth.session-token"] }

[[route]]
path = "/_next/**"
access = "public"
upstream = "web-v4"
${[4, 5]
  .flatMap((v) => [
    `[[route]]\npath = "/v${v}/login"\naccess = "public"\nupstream = "web-v${v}"`,
    `[[route]]\npath = "/v${v}/required"\naccess = "public"\nupstream = "web-v${v}"`,
    `[[route]]\npath = "/open/v${v}/**"\naccess = "public"\nstrip_prefix = "/open"\nupstream = "web-v${v}"`,
    `[[route]]\npath = "/v${v}/**"\nupstream = "web-v${v}"`,
  ])
  .join("\n")}
[[route]]
path = "/api/open/**"
access = "public"
upstream = "http-server"
[[route]]
path = "/api/**"
upstream = "http-server"
[[route]]
path = "/ws"
upstream = "ws-server"
${op.table()}`,
    '[sign_up]\nmode = "open"\n[pages]\nsignup = "/signup"\n[authjs]\nbase_path = "/api/auth"\n',
  );
  await firstAccount(gate);
  await op.knows(gate, { redirect: `${gate.url}/api/auth/callback/op` });
});

after(async () => {
  await gate?.stop();
  op?.stop();
  for (const one of programs) await one.stop();
  for (const one of Object.values(relays)) one.stop();
  await closeBrowser();
});

const status = (page, wanted) => page.locator(`#status[data-status=${wanted}]`);

/** Signs in with the app's own form. */
async function logIn(page, v, back, password = PASSWORD, email = "ada@example.com") {
  await page.goto(`${gate.url}/v${v}/login?callbackUrl=${encodeURIComponent(back)}`, { waitUntil: "networkidle" });
  await page.fill("[name=email]", email);
  await page.fill("[name=password]", password);
  await page.click("button:text-is('Log in')");
}

const get = (page, url) =>
  page.evaluate(async (url) => {
    const answer = await fetch(url);
    return { status: answer.status, body: await answer.json() };
  }, url);

const echo = (page, text) =>
  page.evaluate(
    (text) =>
      new Promise((resolve) => {
        const socket = new WebSocket(`ws://${location.host}/ws`);
        socket.onopen = () => socket.send(text);
        socket.onmessage = ({ data }) => (socket.close(), resolve(data));
        socket.onerror = () => resolve("refused");
      }),
    text,
  );

/** A session cookie, for clients that are no browser. */
async function session(email = "ada@example.com") {
  const answer = await fetch(`${gate.url}/.auth/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ email, password: PASSWORD }),
  });
  assert.equal(answer.status, 200);
  return answer.headers
    .getSetCookie()
    .find((line) => line.startsWith("authgate="))
    .split(";")[0];
}

for (const v of [4, 5]) {
  test(`next-auth ${v}: the app's form signs in, every app knows who it is, signing out ends it`, async () => {
    const page = await newPage();
    const errors = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    await logIn(page, v, `/v${v}/dashboard?tab=2`, "wrong");
    await page.waitForFunction(() => document.querySelector("#error").textContent !== "");
    assert.equal(await page.textContent("#error"), `CredentialsSignin ${v === 4 ? 401 : 200}`);
    await logIn(page, v, `/v${v}/dashboard?tab=2#part`);
    await page.waitForURL(`${gate.url}/v${v}/dashboard?tab=2#part`);
    await status(page, "authenticated").waitFor();
    assert.equal(await page.textContent("#status"), "ada@example.com (1)");
    for (const [form, url] of [
      ["A", "/api/header/protected-data"],
      ["B", "/api/cookie/protected-data"],
    ]) {
      const { status, body } = await get(page, url);
      assert.equal(status, 200);
      assert.deepEqual([body.form, body.user.id, body.user.email], [form, "1", "ada@example.com"]);
    }
    assert.equal(await echo(page, "hello"), "ada@example.com (1): hello");
    const said = async (button) => {
      await page.evaluate(() => (document.querySelector("#said").textContent = ""));
      await page.click(button);
      await page.waitForFunction(() => document.querySelector("#said").textContent !== "");
      return JSON.parse(await page.textContent("#said"));
    };
    assert.equal((await said("#session")).user.email, "ada@example.com");
    const { credentials } = await said("#providers");
    assert.deepEqual([credentials.id, credentials.type], ["credentials", "credentials"]);
    assert.match(await said("#csrf"), /^[0-9a-f]{64}$/);
    await page.click("a:text-is('On the server')");
    await page.locator("#server").waitFor();
    assert.equal(await page.textContent("#server"), "ada@example.com (1)", "server-side next-auth sees the user");
    await page.goto(`${gate.url}/v${v}/dashboard`);
    await status(page, "authenticated").waitFor();
    await shot(page, `guide-v${v}`);
    await page.click("#out");
    await page.waitForURL(`${gate.url}/.auth/login?callbackUrl=/v${v}/dashboard`);
    // the login page's own policy lets no script speak to anybody
    await page.goto(`${gate.url}/v${v}/login`);
    assert.equal((await get(page, "/api/header/protected-data")).status, 401);
    assert.equal(await echo(page, "hello"), "refused");
    assert.deepEqual(errors, []);
    await page.context().close();
  });

  test(`next-auth ${v}: signIn("op") leads through the provider, getProviders lists it, signOut ends it`, async () => {
    const page = await newPage();
    const back = `/v${v}/dashboard?tab=2`;
    await page.goto(`${gate.url}/v${v}/login?callbackUrl=${encodeURIComponent(back)}`, { waitUntil: "networkidle" });
    await page.click("#op");
    await agree(page, `henry-${v}`);
    await page.waitForURL(gate.url + back);
    await status(page, "authenticated").waitFor();
    assert.match(await page.textContent("#status"), new RegExp(`^henry-${v}@example.com `));
    assert.match(await echo(page, "hello"), new RegExp(`^henry-${v}@example.com .*: hello$`));
    await page.click("#providers");
    await page.waitForFunction(() => document.querySelector("#said").textContent !== "");
    const listed = JSON.parse(await page.textContent("#said"));
    assert.deepEqual(Object.keys(listed), ["credentials", "op"]);
    assert.deepEqual(listed.op, {
      id: "op",
      name: "op & Co",
      type: "oauth",
      signinUrl: `${gate.url}/api/auth/signin/op`,
      callbackUrl: `${gate.url}/api/auth/callback/op`,
    });
    await page.click("#out");
    await page.waitForURL(`${gate.url}/.auth/login?callbackUrl=/v${v}/dashboard`);
    await page.context().close();
  });

  test(`next-auth ${v}: useSession({ required }) and signIn() lead to the gateway's login page and back`, async () => {
    const page = await newPage();
    await page.goto(`${gate.url}/v${v}/required?x=1`);
    await page.waitForURL(`${gate.url}/.auth/login?**`);
    assert.match(await page.textContent("[role=alert]"), /Sign in to view that page/);
    await signIn(page);
    await page.waitForURL(`${gate.url}/v${v}/required?x=1`);
    await page.locator("#required:text-is('ada@example.com')").waitFor();
    await page.goto(`${gate.url}/v${v}/dashboard`);
    await status(page, "authenticated").waitFor();
    await page.context().close();
  });

  test(`next-auth ${v}: a tab notices that another one signed out`, async () => {
    const page = await newPage();
    await logIn(page, v, `/v${v}/dashboard`);
    await status(page, "authenticated").waitFor();
    const other = await page.context().newPage();
    await other.goto(`${gate.url}/v${v}/dashboard`, { waitUntil: "networkidle" });
    await status(other, "authenticated").waitFor();
    await page.click("#out");
    await page.waitForURL(`${gate.url}/.auth/login?**`);
    await status(other, "unauthenticated").waitFor();
    await other.click("#in");
    await other.waitForURL(`${gate.url}/.auth/login?**`);
    assert.equal(new URL(other.url()).searchParams.get("callbackUrl"), `${gate.url}/v${v}/dashboard`);
    await page.context().close();
  });

  test(`next-auth ${v}: on the server nobody is nobody, whatever cookie is planted`, async () => {
    const { encode } = await import(v === 4 ? "next-auth/jwt" : "next-auth-v5/jwt").then((m) => m.default ?? m);
    const name = v === 4 ? "next-auth.session-token" : "authjs.session-token";
    const token = { sub: "666", id: "666", email: "evil@example.com" };
    // a cookie that the app would believe if it arrived: made with the very secret
    const genuine = await encode({ token, secret: SECRET, salt: name, maxAge: 3600 });
    const url = `${gate.url}/open/v${v}/server`;
    const see = async (cookie) => (await (await fetch(url, { headers: { cookie } })).text()).match(/id="server">([^<]*)/)[1];
    for (const planted of [`${name}=${genuine}`, `${name}.0=${genuine}`, `__Secure-${name}=${genuine}`]) {
      assert.equal(await see(planted), "nobody", planted);
      assert.equal(await see(`${planted}; ${await session()}`), "ada@example.com (1)", planted);
    }
  });
}

test("people sign up with the gateway, whose page stands at the app's address", async () => {
  const page = await newPage();
  await page.goto(`${gate.url}/signup`);
  await page.fill("[name=email]", "grace@example.com");
  await page.fill("[name=name]", "Grace");
  await page.fill("[name=password]", PASSWORD);
  await page.click("button:text-is('Create account')");
  await page.waitForURL(/\/login/).catch(async () => assert.fail(`${page.url()}: ${await page.textContent("main")}`));
  await logIn(page, 4, "/v4/dashboard", PASSWORD, "grace@example.com");
  await status(page, "authenticated").waitFor();
  assert.match(await page.textContent("#status"), /^grace@example.com \(\d+\)$/);
  await page.context().close();
});

/** Tokens that nobody should believe, and one that the backends alone would. */
function tokens() {
  const claims = { id: "666", sub: "666", email: "evil@example.com", name: "Evil" };
  const b64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Math.floor(Date.now() / 1000);
  return {
    "made with the backends' secret": jwt.sign(claims, SECRET, { expiresIn: "1h" }),
    "made with the backends' secret in our name": jwt.sign({ ...claims, iss: "authgate", aud: "session" }, SECRET, { expiresIn: "1h" }),
    expired: jwt.sign({ ...claims, exp: now - 60 }, SECRET),
    forged: jwt.sign(claims, "another-secret-of-at-least-32-bytes-00", { expiresIn: "1h" }),
    "alg none": `${b64({ alg: "none", typ: "JWT" })}.${b64({ ...claims, exp: now + 3600 })}.`,
    HS512: jwt.sign(claims, SECRET, { algorithm: "HS512", expiresIn: "1h" }),
    "no exp": jwt.sign(claims, SECRET),
    nonsense: "a.b.c",
  };
}

test("no token that a client brings is believed, and nobody who is signed out reaches an app", async () => {
  const cookie = await session();
  const before = { ...relays.http.counted };
  for (const [kind, token] of Object.entries(tokens())) {
    for (const headers of [
      { authorization: `Bearer ${token}` },
      { authorization: `Basic ${token}` },
      { cookie: `next-auth.session-token=${token}` },
      { cookie: `__Secure-next-auth.session-token=${token}` },
      { cookie: `authgate=${token}` },
      { "x-authgate-jwt-assertion": token, "remote-user": "evil@example.com" },
    ]) {
      for (const form of ["header", "cookie"]) {
        const answer = await fetch(`${gate.url}/api/${form}/protected-data`, { headers });
        assert.equal(answer.status, 401, `${kind} ${JSON.stringify(headers)}`);
        assert.equal((await answer.json()).error, "signed_out");
      }
    }
  }
  assert.deepEqual(relays.http.counted, before, "something reached the http-server");
  // with a session of one's own the planted ones are replaced
  for (const [kind, token] of Object.entries(tokens())) {
    const headers = { cookie: `next-auth.session-token=${token}; ${cookie}; app=1`, authorization: `Bearer ${token}` };
    for (const form of ["header", "cookie"]) {
      const answer = await fetch(`${gate.url}/api/${form}/protected-data`, { headers });
      assert.equal(answer.status, 200, kind);
      assert.equal((await answer.json()).user.id, "1", kind);
    }
    const seen = await (await fetch(`${gate.url}/api/open/seen`, { headers: { ...headers, cookie: headers.cookie.replace(cookie, "a=b") } })).json();
    assert.deepEqual([seen.headers.authorization, seen.headers.cookie], [undefined, "a=b; app=1"], kind);
  }
});

test("pages of other origins can neither write nor open sockets", async () => {
  const cookie = await session();
  const post = (origin) =>
    fetch(`${gate.url}/api/cookie/notes`, {
      method: "POST",
      headers: { cookie, origin, "content-type": "application/json" },
      body: JSON.stringify({ note: "x" }),
    });
  assert.equal((await post("https://evil.example.net")).status, 403);
  assert.deepEqual(await (await post(gate.url)).json(), { by: "1", note: "x" });
  const open = (headers) =>
    new Promise((resolve) => {
      const socket = new WebSocket(`${gate.url.replace("http", "ws")}/ws`, { headers });
      socket.on("open", () => socket.send("hi"));
      socket.on("message", (data) => (socket.close(), resolve(String(data))));
      socket.on("unexpected-response", (_, answer) => resolve(answer.statusCode));
      socket.on("error", () => {});
    });
  assert.equal(await open({ cookie, origin: "https://evil.example.net" }), 403);
  assert.equal(await open({ origin: gate.url }), 401);
  for (const token of Object.values(tokens())) {
    assert.equal(await open({ cookie: `next-auth.session-token=${token}` }), 401);
  }
  assert.equal(await open({ cookie, origin: gate.url }), "ada@example.com (1): hi");
  assert.equal(await open({ authorization: `Bearer ${cookie.split("=")[1]}` }), "ada@example.com (1): hi");
});

test("a socket of the guide's ws-server is closed when its session ends", async () => {
  const cookie = await session();
  const socket = new WebSocket(`${gate.url.replace("http", "ws")}/ws`, { headers: { cookie } });
  await once(socket, "open");
  const closed = once(socket, "close");
  await fetch(`${gate.url}/.auth/logout`, { method: "POST", headers: { cookie }, redirect: "manual" });
  assert.equal((await closed)[0], 4403);
});

test("a signed-out fetch of a page's data gets 401 and JSON, never a page", async () => {
  for (const headers of [
    { rsc: "1", "sec-fetch-mode": "cors" },
    { rsc: "1", "next-router-prefetch": "1", "sec-fetch-mode": "cors" },
    { "next-action": "0123456789", "sec-fetch-mode": "cors" },
  ]) {
    const method = headers["next-action"] ? "POST" : "GET";
    const answer = await fetch(`${gate.url}/v4/dashboard?_rsc=abc`, { method, headers, redirect: "manual" });
    assert.equal(answer.status, 401);
    assert.equal((await answer.json()).error, "signed_out");
  }
});

test("next dev: a change to the source appears in the page without a reload", async () => {
  // a copy beside the app, so that packages are found and nothing of the repository is changed
  const copy = path.join(import.meta.dirname, "guide/.dev");
  fs.rmSync(copy, { recursive: true, force: true });
  fs.cpSync(path.join(here, "web"), copy, { recursive: true, filter: (source) => !source.includes(".next") });
  const env = { ...process.env, NEXT_TELEMETRY_DISABLED: "1", NODE_ENV: "development" };
  const args = ["dev", "-H", "127.0.0.1", "-p", "0"];
  const dev = await program(bin("next"), args, /http:\/\/[^:]+:(\d+)/, { cwd: copy, env });
  const served = await gateway(`[[route]]\nupstream = "http://127.0.0.1:${dev.found[1]}"\n`, '[authjs]\nbase_path = "/api/auth"\n');
  try {
    await firstAccount(served);
    const page = await newPage();
    page.setDefaultTimeout(60_000);
    const hot = page.waitForEvent("websocket", (socket) => socket.url().includes("/_next/webpack-hmr"));
    await page.goto(`${served.url}/v4/dashboard`);
    await signIn(page);
    await status(page, "authenticated").waitFor();
    await hot;
    await page.evaluate(() => (window.kept = true));
    const source = path.join(copy, "app/v4/dashboard/page.js");
    fs.writeFileSync(source, fs.readFileSync(source, "utf8").replace("Dashboard", "Control room"));
    await page.locator("h1:text-is('Control room')").waitFor();
    assert.equal(await page.evaluate(() => window.kept), true, "the page was loaded anew");
    await page.context().close();
  } finally {
    await served.stop();
    await dev.stop();
    fs.rmSync(copy, { recursive: true, force: true });
  }
});

/** The blocks of one language in a document. */
const blocks = (text, language) => [...text.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "gms"))].map((match) => match[1]);

test("docs/next-auth.md: every step, and what it promises at the end", async () => {
  const text = fs.readFileSync(path.resolve(import.meta.dirname, "../../docs/next-auth.md"), "utf8");
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "authgate-howto-"));
  const [toml] = blocks(text, "toml");
  assert.match(toml, /^# gateway\.toml/);
  const addresses = { 3000: "web", 8000: "http", 8081: "ws" };
  fs.writeFileSync(
    path.join(folder, "gateway.toml"),
    toml
      .replace('listen = ["127.0.0.1:8080"]', 'listen = ["127.0.0.1:0"]\nadmin_listen = ""')
      .replace(/"127\.0\.0\.1:(3000|8000|8081)"/g, (_, port) => `"${relays[addresses[port]].address}"`),
  );
  // as Prisma makes it from the guide's model
  const file = path.join(folder, "packages/db/prisma/dev.db");
  fs.mkdirSync(path.dirname(file), { recursive: true });
  const hash = bcrypt.hashSync("the old password", 10);
  const sql = `CREATE TABLE "User" ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "email" TEXT NOT NULL, "password" TEXT NOT NULL, "name" TEXT, "photo" TEXT);
    CREATE UNIQUE INDEX "User_email_key" ON "User"("email");
    INSERT INTO "User" VALUES (7, 'Grace@example.com', '${hash}', 'Grace', NULL);`;
  execFileSync("sqlite3", [file], { input: sql });
  const commands = blocks(text, "sh").flatMap((block) => block.trim().split("\n"));
  assert.equal(commands.pop(), "authgate run");
  assert.equal(commands.length, 3);
  const said = commands.map((line) => {
    const [program, ...args] = line.split(" ");
    assert.equal(program, "authgate");
    return execFileSync(binary, args, { cwd: folder, encoding: "utf8" });
  });
  assert.match(said[0], /is valid; 4 of 4 tests passed/);
  assert.deepEqual(said.slice(1), [
    "would import 1 of 1 accounts, skipped 0\n",
    "imported 1 of 1 accounts, skipped 0\n",
  ]);
  const served = await start(folder);
  try {
    const page = await newPage();
    await page.goto(`${served.url}/v4/dashboard?tab=2`);
    await page.waitForURL(`${served.url}/login?callbackUrl=/v4/dashboard?tab=2`);
    await signIn(page, "grace@example.com", "the old password");
    await page.waitForURL(`${served.url}/v4/dashboard?tab=2`);
    await status(page, "authenticated").waitFor();
    assert.equal(await page.textContent("#status"), "grace@example.com (7)");
    for (const form of ["header", "cookie"]) {
      assert.equal((await get(page, `/api/${form}/protected-data`)).body.user.id, "7");
    }
    assert.equal(await echo(page, "hello"), "grace@example.com (7): hello");
    await page.goto(`${served.url}/v4/server`);
    assert.equal(await page.textContent("#server"), "grace@example.com (7)");
    await page.goto(`${served.url}/v4/dashboard`, { waitUntil: "networkidle" });
    const closed = page.evaluate(
      () =>
        new Promise((resolve) => {
          const socket = new WebSocket(`ws://${location.host}/ws`);
          socket.onopen = () => document.body.setAttribute("data-open", "");
          socket.onclose = ({ code }) => resolve(code);
        }),
    );
    await page.locator("body[data-open]").waitFor();
    const other = await page.context().newPage();
    await other.goto(`${served.url}/v4/dashboard`, { waitUntil: "networkidle" });
    await other.click("#out");
    await other.waitForURL(`${served.url}/login?**`);
    assert.equal(await closed, 4403, "an open socket ends with the session");
    await page.context().close();
  } finally {
    await served.stop();
  }
});
