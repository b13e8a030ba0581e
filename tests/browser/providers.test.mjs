// People who sign in through providers, in Chromium: unmodified servers of others, the real pages.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { closeBrowser, firstAccount, gateway, newPage, PASSWORD, shot, signIn } from "./lib.mjs";
import { agree, canaille, openId } from "./openid.mjs";

const WHOAMI = `[[route]]\nupstream = "builtin:whoami"\n`;

let op, corp, can, strict, gate;
before(async () => {
  [op, corp, strict, can] = await Promise.all([openId("op"), openId("corp", { ignoresPkce: true }), openId("strict"), canaille("canaille", PASSWORD)]);
  const open = 'sign_up = "open"\n';
  gate = await gateway(`${[op, corp, can].map((one) => one.table(open)).join("")}${WHOAMI}`);
  await firstAccount(gate);
  await Promise.all([op, corp, can].map((one) => one.knows(gate)));
});
after(async () => {
  await gate?.stop();
  for (const one of [op, corp, can, strict]) one?.stop();
  await closeBrowser();
});

const button = (one) => `a[data-provider]:has-text("${one.name} & Co")`;

/** A new browser at a page that asks to sign in. */
async function visitor(place = "/app", options = {}, at = gate) {
  const page = await newPage(options);
  await page.goto(at.url + place);
  assert.equal(new URL(page.url()).pathname, "/.auth/login");
  return page;
}

/** Signs in through a provider in a browser of its own. */
async function through(one, login, place = "/app", options = {}) {
  const page = await visitor(place, options);
  await page.click(button(one));
  await agree(page, login);
  return page;
}

/** Who is signed in there, or `undefined`. */
async function who(page, at = gate) {
  const answer = await page.context().request.get(`${at.url}/.auth/me`);
  return answer.status() === 200 ? (await answer.json()).email : undefined;
}

async function byPassword(email = "ada@example.com", place = "/.auth/account", options = {}) {
  const page = await visitor(place, options);
  await signIn(page, email);
  await page.waitForURL(gate.url + place);
  return page;
}

for (const javaScriptEnabled of [true, false]) {
  const how = javaScriptEnabled ? "with scripts" : "without scripts";

  test(`a person signs up through a provider, and it knows them again, ${how}`, async () => {
    const login = `grace-${javaScriptEnabled}`;
    for (const _ of [1, 2]) {
      const page = await through(op, login, "/app?a=%2F&b=x+y", { javaScriptEnabled });
      await page.waitForURL(`${gate.url}/app?a=%2F&b=x+y`);
      assert.equal(await who(page), `${login}@example.com`);
      assert.match(await page.textContent("body"), new RegExp(`${login}@example\\.com`));
      assert.deepEqual(page.violations, []);
      await page.context().close();
    }
    assert.match(await gate.cli("user", "list", `${login}*`), new RegExp(login));
  });

  test(`two providers and a password lead to one account, which loses one of them again, ${how}`, async () => {
    const [first, second] = [`first-${javaScriptEnabled}`, `second-${javaScriptEnabled}`];
    const options = { javaScriptEnabled };
    const page = await byPassword("ada@example.com", "/.auth/account", options);
    for (const [one, login] of [[op, first], [corp, second]]) {
      await page.click(`button:has-text("Add ${one.name} & Co")`);
      await agree(page, login);
      await page.waitForURL(`${gate.url}/.auth/account?saved=linked`);
      await page.waitForSelector("[role=status]");
    }
    await shot(page, `account-linked-${javaScriptEnabled}`);
    const both = [await through(op, first, "/app", options), await through(corp, second, "/app", options)];
    for (const one of both) {
      await one.waitForURL(`${gate.url}/app`);
      assert.equal(await who(one), "ada@example.com");
    }
    await page.click('button[aria-label^="Remove corp & Co"]');
    await page.waitForURL(`${gate.url}/.auth/account?saved=unlinked`);
    // what began with it has ended, all else goes on
    assert.deepEqual([await who(both[0]), await who(both[1]), await who(page)], ["ada@example.com", undefined, "ada@example.com"]);
    // and it is somebody else's from now on
    const after = await through(corp, second, "/app", options);
    await after.waitForURL(`${gate.url}/app`);
    assert.equal(await who(after), `${second}@example.com`);
    await page.click('button[aria-label^="Remove op & Co"]');
    await page.waitForURL(`${gate.url}/.auth/account?saved=unlinked`);
    for (const one of [page, after, ...both]) await one.context().close();
  });
}

test("an address with an account is signed in to once, and then either way works, without scripts", async () => {
  const [name, options] = ["bea", { javaScriptEnabled: false }];
  await gate.cli("user", "add", `${name}@example.com`, "--password-stdin");
  const page = await through(op, name, "/app?x=1", options);
  await page.waitForSelector(`text=There is already an account with the address ${name}@example.com`);
  await shot(page, "collision");
  assert.equal(await who(page), undefined);
  await page.fill("[name=password]", "wrong password altogether");
  await page.click("button:has-text('Sign in and add')");
  await page.waitForSelector("[role=alert]:text-is('Incorrect password.')");
  await page.fill("[name=password]", PASSWORD);
  await page.click("button:has-text('Sign in and add')");
  await page.waitForURL(`${gate.url}/app?x=1`);
  assert.equal(await who(page), `${name}@example.com`);
  const again = await through(op, name, "/app", options);
  await again.waitForURL(`${gate.url}/app`);
  assert.equal(await who(again), `${name}@example.com`);
  const typed = await byPassword(`${name}@example.com`, "/app", options);
  for (const one of [page, again, typed]) await one.context().close();
});

test("with strict cookies people land where they were going, and add a provider, without scripts", async (t) => {
  const options = { javaScriptEnabled: false };
  const own = await gateway(`[session]\nsame_site = "strict"\n${strict.table('sign_up = "open"\n')}${WHOAMI}`);
  t.after(() => own.stop());
  await firstAccount(own);
  await strict.knows(own);
  const page = await visitor("/app?x=1", options, own);
  await page.click(button(strict));
  await agree(page, "grace");
  await page.waitForURL(`${own.url}/app?x=1`);
  assert.equal(await who(page, own), "grace@example.com");
  const ada = await visitor("/.auth/account", options, own);
  await signIn(ada);
  await ada.click(`button:has-text("Add strict & Co")`);
  await agree(ada, "ada-1");
  await ada.waitForURL(`${own.url}/.auth/account?saved=linked`);
  for (const one of [page, ada]) await one.context().close();
});

test("an answer that the browser posts from the provider's site signs in, with strict cookies too", async (t) => {
  for (const [at, sameSite] of ["lax", "strict"].entries()) {
    const posts = 'sign_up = "open"\nparams = { response_mode = "form_post" }\n';
    const own = await gateway(`[session]\nsame_site = "${sameSite}"\n${strict.table(posts, `posts-${at}`)}${WHOAMI}`);
    t.after(() => own.stop());
    await strict.knows(own, { client: `posts-${at}` });
    const page = await visitor("/app?x=1", {}, own);
    const answers = [];
    page.on("request", (request) => request.url().includes("/callback") && answers.push(`${request.method()} ${request.headers()["sec-fetch-site"]}`));
    await page.click(button(strict));
    await agree(page, `posted-${at}`);
    await page.waitForURL(`${own.url}/app?x=1`);
    assert.equal(await who(page, own), `posted-${at}@example.com`);
    assert.match(answers[0], /^POST/, String(answers));
    assert.deepEqual(page.violations, []);
    await page.context().close();
  }
});

test("an address with an account is signed in to through another provider, in two tabs, without scripts", async () => {
  const options = { javaScriptEnabled: false };
  const first = await through(corp, "kim", "/app", options);
  await first.waitForURL(`${gate.url}/app`);
  const page = await through(op, "kim", "/app?tab=1", options);
  await page.waitForSelector("text=There is already an account with the address kim@example.com");
  const second = await page.context().newPage();
  await second.goto(`${gate.url}/app?tab=2`);
  await second.click(button(op));
  await second.waitForSelector("text=There is already an account with the address kim@example.com");
  const other = `button[name=with]:has-text("${corp.name} & Co")`;
  // to another account: nothing is added, and the page says so
  await page.click(other);
  await agree(page, "liz");
  await page.waitForSelector("[role=alert]:has-text('is not a way to sign in to this account yet, so nothing was added')");
  assert.equal(await who(page), undefined);
  assert.doesNotMatch(await gate.cli("user", "list"), /liz@/);
  await shot(page, "collision-not-added");
  // a person who says another name there is signed out first, by a script
  await page.context().clearCookies({ domain: "localhost" });
  await page.click(other);
  await agree(page, "kim");
  await page.waitForURL(`${gate.url}/app?tab=1`);
  assert.equal(await who(page), "kim@example.com");
  await second.click(other);
  await agree(second, "kim");
  await second.waitForURL(`${gate.url}/app?tab=2`);
  const again = await through(op, "kim", "/app", options);
  await again.waitForURL(`${gate.url}/app`);
  assert.equal(await who(again), "kim@example.com");
  for (const one of [page, first, again]) await one.context().close();
});

test("canaille: signing up, and once more", async () => {
  for (const asksForConsent of [true, false]) {
    const page = await visitor("/app?x=1");
    await page.click(button(can));
    await page.fill("[name=login]", "grace");
    await page.press("[name=login]", "Enter");
    await page.fill("[name=password]", PASSWORD);
    await page.press("[name=password]", "Enter");
    if (asksForConsent) await page.click("[name=answer][value=accept]");
    await page.waitForURL(`${gate.url}/app?x=1`);
    assert.equal(await who(page), "grace@example.com");
    await page.context().close();
  }
});

test("who cancels is back at the login page, can try again, and lands where they were going", async () => {
  const page = await visitor("/app?x=1");
  await page.click(button(op));
  await page.click("[value=no]");
  await page.waitForSelector("[role=alert]:text-is('The sign-in was cancelled.')");
  assert.ok(!(await page.content()).includes("666"), "the provider's own words");
  await page.click(button(op));
  await agree(page, "henry");
  await page.waitForURL(`${gate.url}/app?x=1`);
  await page.context().close();
});

test("the back button, and the provider's answer once more, lead to where the person is", async () => {
  const page = await visitor("/app?x=1");
  const answers = [];
  page.on("request", (request) => request.url().includes("/callback?") && answers.push(request.url()));
  await page.click(button(op));
  await agree(page, "ida");
  await page.waitForURL(`${gate.url}/app?x=1`);
  assert.equal(answers.length, 1);
  await page.goto(answers[0]);
  assert.equal(page.url(), `${gate.url}/app?x=1`);
  // to the login page that the way began at
  await page.evaluate(() => void setTimeout(() => history.go(1 - history.length)));
  await page.waitForURL(`${gate.url}/app?x=1`);
  const stranger = await newPage();
  await stranger.goto(answers[0]);
  await stranger.waitForSelector("text=did not send the cookie");
  for (const one of [page, stranger]) await one.context().close();
});

test("the fragment survives the way to a provider, where scripts run", async () => {
  const page = await through(op, "ida", "/app?x=1#/dash/42");
  await page.waitForURL(`${gate.url}/app?x=1#/dash/42`);
  await page.context().close();
});

test("twelve tabs at once each land on their own page, in one session, whose WebSocket lives on", { timeout: 120_000 }, async () => {
  const page = await through(op, "judy");
  await page.waitForURL(`${gate.url}/app`);
  const context = page.context();
  // at the provider they stay signed in
  await context.clearCookies({ name: "authgate" });
  const tabs = await Promise.all([...Array(12)].map(() => context.newPage()));
  await Promise.all(tabs.map((tab, at) => tab.goto(`${gate.url}/tab/${at}?x=${at}`)));
  const [first, ...others] = tabs;
  await first.click(button(op));
  await first.waitForURL(`${gate.url}/tab/0?x=0`);
  await first.evaluate(
    () =>
      new Promise((resolve) => {
        window.socket = new WebSocket(`ws://${location.host}/socket`);
        window.socket.onmessage = resolve;
      }),
  );
  await Promise.all(others.map((tab) => tab.click(button(op))));
  await Promise.all(others.map((tab, at) => tab.waitForURL(`${gate.url}/tab/${at + 1}?x=${at + 1}`)));
  const answer = await context.request.get(`${gate.url}/.auth/account/sessions`, { headers: { accept: "application/json" } });
  // that of the first page was forgotten by the browser, not ended
  assert.equal((await answer.json()).sessions.length, 2);
  const echo = await first.evaluate(
    () =>
      new Promise((resolve) => {
        window.socket.onmessage = ({ data }) => resolve(data);
        window.socket.onclose = ({ code }) => resolve(`closed: ${code}`);
        window.socket.send("still there");
      }),
  );
  assert.equal(echo, "still there");
  await context.close();
});
