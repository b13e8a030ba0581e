// A session that ends under a page: what forms, scripts, libraries and service workers of real browsers make of it; WebKit at this machine's own address alone.
import assert from "node:assert/strict";
import fs from "node:fs";
import { after, test } from "node:test";
import { WebSocketServer } from "ws";
import { launch, missing } from "./firefox.mjs";
import { closeEngines, ends, gatewayFor, inEach, inEachLocal, inOne, overBoth, PASSWORD, serve, signInAs } from "./engines.mjs";
import { gateway, firstAccount } from "./lib.mjs";

const library = (name) => fs.readFileSync(new URL(`./node_modules/${name}`, import.meta.url));
const LIBRARIES = {
  "/htmx2.js": library("htmx.org/dist/htmx.js"),
  "/htmx4.js": library("htmx4/dist/htmx.js"),
  "/turbo.js": library("@hotwired/turbo/dist/turbo.es2017-umd.js"),
};
const html = (text) => (_, response) => response.writeHead(200, { "content-type": "text/html" }).end(`<!doctype html><title>app</title>${text}`);
const script = (text) => (_, response) => response.writeHead(200, { "content-type": "text/javascript" }).end(text);
const FORM = '<form method=post action=/form><textarea id=text name=text></textarea><button>Send</button></form>';
const WORKER = 'addEventListener("install", () => skipWaiting()); addEventListener("activate", (event) => event.waitUntil(clients.claim())); addEventListener("fetch", (event) => event.respondWith(fetch(event.request).catch(() => caches.match(event.request))));';
const HTMX = (version) => `<script src=/htmx${version}.js></script><button id=load hx-get=/rows hx-target=#rows>load</button><p id=rows></p><a id=boosted hx-boost=true href=/rows>boosted</a>`;
const TURBO = `<head><script src=/turbo.js></script></head><body>${FORM.replace("/form", "/turbo-form")}<turbo-frame id=part><a id=link href=/part>part</a></turbo-frame></body>`;

const pages = {
  "/start": html("start"),
  "/form": html(FORM),
  "/rows": html("<b id=row>row</b>"),
  "/htmx2": html(HTMX(2)),
  "/htmx4": html(HTMX(4)),
  "/turbo": html(TURBO),
  "/turbo-form": (_, response) => response.writeHead(303, { location: "/turbo-done" }).end(),
  "/turbo-done": html("<body>turbo did it</body>"),
  "/part": html("<body><turbo-frame id=part>the part</turbo-frame></body>"),
  "/worker.js": script(WORKER),
  "/offline": html("<script>navigator.serviceWorker.register('/worker.js')</script>"),
  "/deep": html("<p>deep</p>"),
  "/files": html("<a id=file href=/report.csv download>report</a>"),
  "/report.csv": (_, response) => response.writeHead(200, { "content-type": "text/csv" }).end("a,b"),
  "/public/rules": html('<script type="speculationrules">{"prefetch":[{"source":"list","urls":["/secret"],"eagerness":"immediate"}]}</script><a id=secret href=/secret>secret</a>'),
  "/events": (_, response) => response.writeHead(200, { "content-type": "text/event-stream" }).write("data: open\n\n"),
  "/secret": html("<p id=secret-page>secret</p>"),
};
for (const [path, text] of Object.entries(LIBRARIES)) pages[path] = script(text);

after(closeEngines);

async function routes() {
  const { address, server } = await serve(pages);
  new WebSocketServer({ server }).on("connection", (socket) => socket.send("open"));
  return `[[route]]\npath = "/public/**"\naccess = "public"\nupstream = "http://${address}"\n[[route]]\nupstream = "http://${address}"\n`;
}
/** A gateway at this machine's own address, which browsers trust without a certificate; ada has its first account. */
async function local(extra = "") {
  const gate = ends(await gateway(await routes(), extra));
  await firstAccount(gate);
  return gate;
}
const end = (gate) => gate.cli("session", "revoke", "--user", "ada@example.com");
const atLogin = (back) => (place) => place.pathname === "/.auth/login" && place.searchParams.get("callbackUrl") === back;

inOne("Chromium", "a file is saved for whoever is signed in, and no login page in its place afterwards", async (page) => {
  const gate = await local();
  const save = async () => (await Promise.all([page.waitForEvent("download"), page.click("#file")]))[0];
  await signInAs(page, gate.url, "ada", "/files");
  const saved = await save();
  assert.equal(await saved.failure(), null);
  assert.equal(fs.readFileSync(await saved.path(), "utf8"), "a,b");
  await end(gate);
  assert.notEqual(await (await save()).failure(), null);
});

inEachLocal("signing in leads back with path, query and fragment, also after a wrong password", async (page) => {
  const gate = await local();
  await page.goto(`${gate.url}/deep?a=%2F&b=x+y#part`);
  await page.fill("[name=email]", "ada@example.com");
  await page.fill("[name=password]", "wrong password altogether");
  await page.click("[data-waiting]");
  await page.waitForSelector("[role=alert]");
  assert.equal(await page.textContent("[role=alert]"), "Incorrect e-mail or password.");
  assert.equal(await page.inputValue("[name=email]"), "ada@example.com");
  await page.fill("[name=password]", PASSWORD);
  await page.click("[data-waiting]");
  await page.waitForURL(`${gate.url}/deep?a=%2F&b=x+y#part`);
});

// B1
overBoth("a form whose session ended keeps what was typed when one goes back", async (page, https) => {
  const gate = await gatewayFor(await routes(), { https });
  await signInAs(page, gate.url, "ada", "/start");
  await page.goto(`${gate.url}/form`);
  await page.fill("#text", "a long letter");
  await end(gate);
  await page.click("button");
  await page.waitForSelector("main");
  assert.match(await page.textContent("main"), /the form was not sent/);
  await page.goBack();
  await page.waitForSelector("#text");
  assert.equal(await page.inputValue("#text"), "a long letter");
});

// B1
inOne("WebKit", "a form whose session ended keeps what was typed when one goes back", async (page) => {
  const gate = await local();
  await signInAs(page, gate.url, "ada", "/form");
  await page.fill("#text", "a long letter");
  await end(gate);
  await page.click("button");
  await page.waitForSelector("main");
  assert.match(await page.textContent("main"), /the form was not sent/);
  await page.goBack();
  assert.equal(await page.inputValue("#text"), "a long letter");
});

// B7
inEachLocal("an event stream ends, and its page learns of it, when the session does", async (page) => {
  const gate = await local();
  await signInAs(page, gate.url, "ada");
  await page.evaluate(async () => {
    const stream = new EventSource("/events");
    window.ended = new Promise((resolve) => (stream.onerror = () => (stream.close(), resolve("ended"))));
    await new Promise((resolve) => (stream.onmessage = resolve));
  });
  await end(gate);
  assert.equal(await page.evaluate(() => window.ended), "ended");
});

// B3
inEachLocal("where a service worker passes navigations on, a signed-out one goes to the login page and back", async (page) => {
  const gate = await local();
  await signInAs(page, gate.url, "ada", "/offline");
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await page.goto(`${gate.url}/deep?x=1`);
  assert.equal(await page.textContent("p"), "deep");
  assert.ok(await page.evaluate(() => navigator.serviceWorker.controller !== null));
  await end(gate);
  await page.goto(`${gate.url}/deep?x=2`);
  assert.ok(atLogin("/deep?x=2")(new URL(page.url())), page.url());
});

for (const version of [2, 4]) {
  // B4
  inEachLocal(`htmx ${version} leads to the login and back once the session has ended`, async (page) => {
    const gate = await local();
    const here = `/htmx${version}?page=2`;
    await signInAs(page, gate.url, "ada", here);
    await page.click("#load");
    assert.equal(await page.textContent("#row"), "row");
    for (const part of ["#load", "#boosted"]) {
      await page.goto(gate.url + here);
      await end(gate);
      await page.click(part);
      await page.waitForURL(atLogin(here));
      await signInAs(page, gate.url, "ada", here);
    }
    });
}

// B5
inEachLocal("Turbo shows that a form was not sent, and opens the login for a part of a page", async (page) => {
  const gate = await local();
  await signInAs(page, gate.url, "ada", "/turbo");
  await page.click("#link");
  await page.waitForFunction(() => document.querySelector("turbo-frame").innerText === "the part");
  await page.goto(`${gate.url}/turbo`);
  await page.click("button");
  await page.waitForFunction(() => document.body.innerText.includes("turbo did it"));
  for (const [part, shown] of [["button", "the form was not sent"], ["#link", "Your session has ended"]]) {
    await page.goto(`${gate.url}/turbo`);
    await end(gate);
    await page.click(part);
    await page.waitForFunction((shown) => document.body.innerText.includes(shown), shown);
    if (part === "#link") {
      await page.click("main a");
      await page.waitForURL(atLogin("/part"));
    }
    await signInAs(page, gate.url, "ada", "/turbo");
  }
});

// B10
inOne("Chromium", "what a signed-out browser prefetches is not shown after signing in", async (page) => {
  const gate = await local();
  const prefetched = page.context().waitForEvent("response", (answer) => answer.url() === `${gate.url}/secret`);
  await page.goto(`${gate.url}/public/rules`);
  assert.equal((await prefetched).status(), 401);
  const other = await page.context().newPage();
  await signInAs(other, gate.url, "ada", "/start");
  await page.click("#secret");
  assert.equal(await page.textContent("#secret-page"), "secret");
});

// B11
inEach("sockets of all tabs are closed with 4403, and cleanly, when one signs out", async (page) => {
  const gate = await local();
  const other = await page.context().newPage();
  await signInAs(page, gate.url, "ada");
  await other.goto(`${gate.url}/deep`);
  for (const tab of [page, other]) {
    await tab.evaluate(async () => {
      const socket = new WebSocket(location.origin.replace("http", "ws") + "/socket");
      window.ended = new Promise((resolve) => (socket.onclose = ({ code, wasClean }) => resolve([code, wasClean])));
      await new Promise((resolve) => (socket.onmessage = resolve));
    });
  }
  await page.evaluate(async () => void (await fetch("/.auth/logout", { method: "POST" })));
  for (const tab of [page, other]) assert.deepEqual(await tab.evaluate(() => window.ended), [4403, true]);
});

// B9
overBoth("Back and reload after a form that failed ask nothing and show the form", async (page, https) => {
  const gate = await gatewayFor(`[sign_up]\nmode = "open"\n[throttle]\nmax_retries = 50\n${await routes()}`, { https });
  const invite = new URL((await gate.cli("invite")).match(/\S+\/invite\/\S+/)[0]).pathname;
  const fails = async (path, fields, button) => {
    await page.goto(gate.url + path);
    for (const [selector, text] of Object.entries(fields)) await page.fill(selector, text);
    await page.click(button);
    await page.waitForSelector("[role=alert]");
    await page.reload();
    await page.waitForSelector(Object.keys(fields)[0]);
    assert.equal(await page.evaluate(() => document.querySelector("[role=alert]")), null, path);
    await page.goto(`${gate.url}/.auth/nothing`);
    await page.goBack();
    await page.waitForSelector(Object.keys(fields)[0]);
  };
  const short = { "[name=email]": "bea@example.com", "#password": "short" };
  for (const path of ["/.auth/signup", invite]) await fails(path, short, "[data-waiting]");
  await fails("/.auth/login?callbackUrl=/deep", { ...short, "#email": "ada@example.com" }, "[data-waiting]");
  await signInAs(page, gate.url, "ada");
  const wrong = { "#current": "not the password at all", "#new": "another quite long sentence" };
  await fails("/.auth/account", wrong, "form[action$='/password'] button:not([type])");
  await fails("/.auth/account", { "[name=picture]": "ftp://example.com/a.png" }, "form[action$='/profile'] button");
  await fails("/.auth/account", { "#token": "job", "#scopes": "nonsense", "#proof": PASSWORD }, "form:has(#token) > button:not([type])");
});

// B8
inOne("Chromium", "reloading the page that shows a new token makes no second one", async (page) => {
  const gate = await local();
  await signInAs(page, gate.url, "ada", "/.auth/account");
  await page.fill("#token", "job");
  await page.fill("#proof", PASSWORD);
  await page.click("form:has(#token) > button:not([type])");
  assert.match(await page.textContent("[role=status] code"), /^agt_/);
  await page.reload();
  assert.match(await page.textContent("[role=status]"), /already been created/);
  assert.equal((await gate.cli("token", "list")).match(/job/g).length, 1);
});

// B12
test("with cookies blocked each part of the login page's script works that can (Firefox)", { skip: missing, timeout: 60_000 }, async () => {
  const gate = await gateway(`[[route]]\nupstream = "builtin:whoami"\n`);
  const browser = await launch({ "network.cookie.cookieBehavior": 2 });
  try {
    const page = await browser.newPage();
    await page.goto(`${gate.url}/.auth/login`);
    assert.equal(await page.evaluate(() => { try { return !new BroadcastChannel("x"); } catch { return "blocked"; } }), "blocked");
    await page.fill("#password", PASSWORD);
    await page.click("form [type=button]");
    assert.equal(await page.textContent("form [type=button]"), "Hide password");
    assert.equal(await page.evaluate(() => document.querySelector("#password").type), "text");
  } finally {
    await browser.close();
    await gate.stop();
  }
});
