// Signing out at a provider ends what began with it here, and signing out here ends it there, in Chromium.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { closeBrowser, firstAccount, freePort, gateway, newPage, PASSWORD, signIn } from "./lib.mjs";
import { agree, openId } from "./openid.mjs";

const WHOAMI = `[[route]]\nupstream = "builtin:whoami"\n`;

let op, both, gate, pair;
before(async () => {
  [op, both] = await Promise.all([openId("op"), openId("both")]);
  const port = await freePort();
  const open = 'sign_up = "open"\n';
  [gate, pair] = await Promise.all([
    gateway(op.table(open) + WHOAMI),
    // where the provider leads back to is at this address
    gateway(both.table(`${open}sign_out = "provider"\n`) + WHOAMI, `public_url = "http://127.0.0.1:${port}"\n`, port),
  ]);
  await Promise.all([firstAccount(gate), op.knows(gate), both.knows(pair)]);
});
after(async () => {
  for (const one of [gate, pair]) await one?.stop();
  for (const one of [op, both]) one?.stop();
  await closeBrowser();
});

const status = async (page, at) => (await page.context().request.get(`${at.url}/.auth/me`)).status();

async function through(at, one, login) {
  const page = await newPage();
  await page.goto(`${at.url}/app`);
  await page.click(`a[href*="oauth/${one.name}"]`);
  await agree(page, login);
  await page.waitForURL(`${at.url}/app`);
  return page;
}

/** Opens a WebSocket and an event stream; `ended` has when the socket was closed, and its code. */
async function connected(page) {
  await page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(`ws://${location.host}/socket`);
        window.ended = new Promise((resolve) => (socket.onclose = ({ code }) => resolve({ code, at: Date.now() })));
        socket.onmessage = resolve;
        socket.onerror = () => reject(new Error("no socket"));
      }),
  );
}

test("signing out at the provider ends requests and the WebSocket within a second, and nobody else's", async () => {
  const [page, other, ada] = [await through(gate, op, "grace"), await through(gate, op, "henry"), await newPage()];
  await ada.goto(`${gate.url}/app`);
  await signIn(ada);
  await ada.waitForURL(`${gate.url}/app`);
  for (const one of [page, other, ada]) await connected(one);
  const tab = await page.context().newPage();
  await tab.goto(op.logout);
  const began = Date.now();
  await tab.click("button[name=logout]");
  const { code, at } = await page.evaluate(() => window.ended);
  assert.equal(code, 4403);
  assert.ok(at - began < 1000, `${at - began} ms`);
  assert.equal(await status(page, gate), 401);
  assert.ok(Date.now() - began < 1500, "the request just after");
  for (const one of [other, ada]) {
    assert.equal(await status(one, gate), 200);
    assert.equal(await one.evaluate(() => Promise.race([window.ended, "open"])), "open");
  }
  await page.reload();
  assert.equal(new URL(page.url()).pathname, "/.auth/login");
  for (const one of [page, other, ada]) await one.context().close();
});

for (const how of ["the account page", "the page that asks first"]) {
  test(`signing out here by ${how} signs out at the provider, and nothing signs in again by itself`, async () => {
    const page = await through(pair, both, "grace");
    if (how === "the account page") {
      await page.goto(`${pair.url}/.auth/account`);
      await page.click("form[action='/.auth/logout'] button");
    } else {
      await page.goto(`${pair.url}/.auth/logout`);
      await page.click("main form button");
    }
    // ended here before the provider is asked
    await page.waitForURL((url) => url.origin === both.issuer);
    assert.equal(await status(page, pair), 401);
    await page.click("button[name=logout]");
    await page.waitForURL((url) => url.pathname === "/.auth/signed-out");
    assert.equal(new URL(page.url()).origin, pair.url);
    await page.waitForSelector("h1:text-is('Signed out')");
    await page.click("text=Sign in again");
    assert.equal(new URL(page.url()).pathname, "/.auth/login");
    assert.equal(await status(page, pair), 401);
    await page.click("a[data-provider]");
    // it asks who that is
    await page.waitForSelector("[name=login]");
    assert.equal(new URL(page.url()).origin, both.issuer);
    assert.deepEqual(page.violations, []);
    await page.context().close();
  });
}

test("a session by password ends here alone", async () => {
  await pair.cli("user", "add", "ada@example.com", "--password-stdin");
  const page = await newPage();
  await page.goto(`${pair.url}/.auth/account`);
  await signIn(page, "ada@example.com", PASSWORD);
  await page.waitForURL(`${pair.url}/.auth/account`);
  await page.click("form[action='/.auth/logout'] button");
  await page.waitForURL(`${pair.url}/.auth/signed-out`);
  await page.context().close();
});
