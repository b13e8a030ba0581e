// One provider and no passwords: the login page is skipped, in Chromium.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { closeBrowser, gateway, newPage } from "./lib.mjs";
import { agree, openId } from "./openid.mjs";

const FIRST = "[password]\nenabled = false\n[pages]\nprovider_first = true\n";

let op, gate;
before(async () => {
  op = await openId("op");
  gate = await gateway(`${FIRST}${op.table('sign_up = "open"\n')}[[route]]\nupstream = "builtin:whoami"\n`);
  await op.knows(gate);
});
after(async () => {
  await gate?.stop();
  op?.stop();
  await closeBrowser();
});

test("an app's address leads to the provider and back without a script, and signing out signs nobody in again", async () => {
  const page = await newPage({ javaScriptEnabled: false });
  await page.goto(`${gate.url}/app?x=1`);
  assert.ok(page.url().startsWith(op.issuer), page.url());
  await agree(page, "grace");
  await page.waitForURL(`${gate.url}/app?x=1`);
  await page.goto(`${gate.url}/.auth/logout`);
  await page.click("main form button");
  await page.waitForURL(`${gate.url}/.auth/signed-out`);
  await page.goto(`${gate.url}/app?x=1`);
  assert.ok(page.url().startsWith(`${gate.url}/.auth/login`), page.url());
  assert.equal(await page.locator("[type=password]").count(), 0);
  // the provider still knows her
  await page.click("a[data-provider]");
  await page.waitForURL(`${gate.url}/app?x=1`);
});
