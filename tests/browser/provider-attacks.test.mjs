// What an attacker can do with real answers of a real provider, and what the provider's own strictness catches.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { closeBrowser, firstAccount, gateway, newPage } from "./lib.mjs";
import { openId } from "./openid.mjs";

const WHOAMI = `[[route]]\nupstream = "builtin:whoami"\n`;

let op, lax, gate, careless;
before(async () => {
  [op, lax] = await Promise.all([openId("op"), openId("lax", { ignoresPkce: true })]);
  const open = 'sign_up = "open"\n';
  [gate, careless] = await Promise.all([
    gateway(`${op.table(open)}${lax.table(open)}${WHOAMI}`),
    gateway(`${op.table(`${open}danger_no_pkce = true\n`, "careless")}${WHOAMI}`),
  ]);
  await Promise.all([firstAccount(gate), firstAccount(careless), op.knows(gate), lax.knows(gate)]);
  await op.register("careless", { redirect_uris: [`${careless.url}/.auth/oauth/op/callback`] });
  // another client, at another place of the same machine
  await op.register("other", { redirect_uris: [`${gate.url}/.auth/signed-out`, `${gate.url}/.auth/oauth/op/callback`] });
});
after(async () => {
  for (const one of [gate, careless]) await one?.stop();
  for (const one of [op, lax]) one?.stop();
  await closeBrowser();
});

const who = async (page) => {
  const answer = await page.context().request.get(`${gate.url}/.auth/me`);
  return answer.status() === 200 ? (await answer.json()).email : undefined;
};

/** Begins at the gateway and agrees at the provider, with the page's cookies; gives the answer that the browser would bring. */
async function answerFor(page, one, login, place = "/app", change = (url) => url) {
  const { request } = page.context();
  const once = { maxRedirects: 0 };
  let answer = await request.get(`${gate.url}/.auth/oauth/${one.name}?callbackUrl=${encodeURIComponent(place)}`, once);
  let url = change(new URL(answer.headers().location));
  while (!url.pathname.endsWith("/callback")) {
    answer = await request.get(url.href, once);
    if (answer.status() === 200) answer = await request.post(url.href, { ...once, form: { login, answer: "yes" } });
    assert.equal(answer.status(), 303, await answer.text());
    url = new URL(answer.headers().location, url);
  }
  return url;
}

const refused = (page, what) => page.waitForSelector(`text=${what}`);
const NOT_ACCEPTED = "The provider's answer could not be accepted.";

test("a person's own answer signs them in, once, and nobody else at all", async () => {
  const [page, victim] = [await newPage(), await newPage()];
  const answer = await answerFor(page, op, "mallory");
  // never began there; began there, too
  await victim.goto(answer.href);
  await refused(victim, "did not send the cookie");
  await answerFor(victim, op, "grace");
  await victim.goto(answer.href);
  await refused(victim, "not valid any more");
  assert.equal(await who(victim), undefined);
  await page.goto(answer.href);
  await page.waitForURL(`${gate.url}/app`);
  assert.equal(await who(page), "mallory@example.com");
  const tokens = op.count("POST /token");
  await page.goto(answer.href);
  await page.waitForURL(`${gate.url}/app`);
  assert.equal(op.count("POST /token"), tokens);
  for (const one of [page, victim]) await one.context().close();
});

test("an answer with a parameter twice is refused, and counts once it is whole", async () => {
  const page = await newPage();
  const answer = await answerFor(page, op, "grace");
  for (const name of ["code", "state", "iss"]) {
    await page.goto(`${answer.href}&${name}=${encodeURIComponent(answer.searchParams.get(name))}`);
    await refused(page, "not valid any more");
  }
  assert.equal(await who(page), undefined);
  await page.goto(answer.href);
  await page.waitForURL(`${gate.url}/app`);
  await page.context().close();
});

test("an answer of one provider is worth nothing at the other's callback, nor in its name", async () => {
  const page = await newPage();
  const answer = await answerFor(page, op, "grace");
  const elsewhere = new URL(answer);
  elsewhere.pathname = "/.auth/oauth/lax/callback";
  await page.goto(elsewhere.href);
  await refused(page, "not valid any more");
  const renamed = new URL(answer);
  renamed.searchParams.set("iss", lax.issuer);
  const before = op.count("POST /token") + lax.count("POST /token");
  await page.goto(renamed.href);
  await refused(page, NOT_ACCEPTED);
  const unnamed = new URL(await answerFor(page, op, "grace"));
  unnamed.searchParams.delete("iss");
  await page.goto(unnamed.href);
  await refused(page, NOT_ACCEPTED);
  assert.equal(op.count("POST /token") + lax.count("POST /token"), before, "no code was shown to anybody");
  assert.equal(await who(page), undefined);
  await page.context().close();
});

test("a code that was made for another client is refused by the provider", async () => {
  const page = await newPage();
  const answer = await answerFor(page, op, "grace", "/app", (url) => (url.searchParams.set("client_id", "other"), url));
  const tokens = op.count("POST /token");
  await page.goto(answer.href);
  await refused(page, NOT_ACCEPTED);
  assert.deepEqual([op.count("POST /token"), await who(page)], [tokens + 1, undefined]);
  assert.match(gate.lines.filter((line) => line.includes("sign-in through provider failed")).at(-1), /invalid_grant/);
  await page.context().close();
});

// the attacker's code, brought into the victim's own attempt
test("a code of another attempt is refused where the provider compares the verifier", async () => {
  const [page, victim] = [await newPage(), await newPage()];
  const stolen = await answerFor(page, op, "mallory");
  const own = await answerFor(victim, op, "grace");
  own.searchParams.set("code", stolen.searchParams.get("code"));
  await victim.goto(own.href);
  await refused(victim, NOT_ACCEPTED);
  assert.equal(await who(victim), undefined);
  for (const one of [page, victim]) await one.context().close();
});

test("without PKCE nobody signs in at a provider that demands it, and the page says so", async () => {
  const page = await newPage();
  await page.goto(`${careless.url}/app`);
  await page.click("a[data-provider]");
  await page.waitForSelector("[role=alert]");
  assert.equal(new URL(page.url()).pathname, "/.auth/login");
  assert.match(careless.lines.filter((line) => line.includes("sign-in through provider failed")).at(-1), /invalid_request/);
  await page.context().close();
});

test("at a provider that ignores PKCE the nonce gives a code of another attempt away", async () => {
  const [page, victim] = [await newPage(), await newPage()];
  const stolen = await answerFor(page, lax, "mallory");
  const own = await answerFor(victim, lax, "kate", "/app?x=1");
  const honest = new URL(own);
  own.searchParams.set("code", stolen.searchParams.get("code"));
  await victim.goto(own.href);
  await refused(victim, NOT_ACCEPTED);
  assert.equal(await who(victim), undefined);
  assert.match(gate.lines.filter((line) => line.includes("sign-in through provider failed")).at(-1), /nonce/);
  // and people sign in there
  const again = await answerFor(victim, lax, "kate", "/app?x=1");
  assert.notEqual(again.searchParams.get("code"), honest.searchParams.get("code"));
  await victim.goto(again.href);
  await victim.waitForURL(`${gate.url}/app?x=1`);
  assert.equal(await who(victim), "kate@example.com");
  for (const one of [page, victim]) await one.context().close();
});

test("nothing secret of all this is in the log", async () => {
  const page = await newPage();
  const answer = await answerFor(page, op, "ida");
  await page.goto(answer.href);
  await page.waitForURL(`${gate.url}/app`);
  const log = gate.lines.join("\n");
  for (const secret of [answer.searchParams.get("code"), answer.searchParams.get("state"), "s+e:k%ret", "code=", "state=", "eyJ"]) {
    assert.ok(!log.includes(secret), secret);
  }
  assert.ok(log.includes("/.auth/oauth/op/callback"));
  await page.context().close();
});
