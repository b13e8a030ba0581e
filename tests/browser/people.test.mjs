// Several people at one browser, in Chromium and in Firefox: nobody is shown what was another's.
import assert from "node:assert/strict";
import { after } from "node:test";
import { closeEngines, gatewayFor, inEach, overBoth, serve, signInAs, signOut } from "./engines.mjs";

after(closeEngines);

const html = (response, text, fields = {}) => response.writeHead(200, { "content-type": "text/html", ...fields }).end(`<!doctype html>${text}`);
const who = (request) => request.headers["remote-user"] ?? "nobody";
const seen = (page) => page.evaluate(() => document.body.innerText.trim());

/** An app whose answers say of themselves that they may be kept. */
function cacheable() {
  const kept = { "cache-control": "public, max-age=3600" };
  return serve({
    "/start": (_, response) => html(response, "start"),
    "/public": (request, response) => html(response, who(request), kept),
    "/private": (request, response) => html(response, who(request), { "cache-control": "private, max-age=3600" }),
    "/etag": (request, response) => {
      const etag = `"${who(request)}"`;
      if (request.headers["if-none-match"] === etag) response.writeHead(304, { etag }).end();
      else html(response, who(request), { etag });
    },
    "/moved": (request, response) => response.writeHead(301, { location: `/home/${who(request)}` }).end(),
    "*": (request, response) => html(response, `${request.url}: ${who(request)}`),
    "/data": (request, response) => response.writeHead(200, { "content-type": "application/json", ...kept }).end(JSON.stringify(who(request))),
    "/parts": (request, response) => html(response, `<link rel=stylesheet href=/a.css><script src=/a.js></script><img src=/a.svg>${who(request)}`),
    "/a.css": (_, response) => response.writeHead(200, { "content-type": "text/css", ...kept }).end("p{}"),
    "/a.js": (_, response) => response.writeHead(200, { "content-type": "text/javascript", ...kept }).end("window.ran = true"),
    "/me": (request, response) => html(response, "<p><script src=/me.js></script>"),
    "/me.js": (request, response) => response.writeHead(200, { "content-type": "text/javascript", ...kept }).end(`document.body.append("${who(request)}")`),
    "/a.svg": (_, response) => response.writeHead(200, { "content-type": "image/svg+xml", ...kept }).end('<svg xmlns="http://www.w3.org/2000/svg"/>'),
  });
}

// B2
overBoth("what an app called cacheable is shown to the same person again, and to nobody else", async (page, https) => {
  const app = await cacheable();
  const gate = await gatewayFor(`[[route]]\nupstream = "http://${app.address}"\n`, { https });
  const open = async (path) => {
    // (the address that is shown already would be asked for anew)
    await page.goto(`${gate.url}/start`);
    await page.goto(gate.url + path);
    return seen(page);
  };
  const data = () => page.evaluate(async () => (await fetch("/data")).json());
  const pages = ["/public", "/private", "/etag"];
  const looks = async (person) => {
    for (const path of pages) assert.equal(await open(path), `${person}@example.com`, path);
    assert.equal(await data(), `${person}@example.com`);
    assert.equal(await open("/moved"), `/home/${person}@example.com: ${person}@example.com`);
  };
  await signInAs(page, gate.url, "ada");
  for (const _ of [1, 2]) await looks("ada");
  // kept for her: this is what could be shown to others
  for (const path of ["/public", "/private", "/data"]) assert.equal(app.count(`GET ${path}`), 1, path);
  await signOut(page, gate.url);
  for (const path of pages) {
    await page.goto(gate.url + path);
    assert.equal(new URL(page.url()).pathname, "/.auth/login", path);
  }
  await signInAs(page, gate.url, "bob");
  await looks("bob");
  // over his session, without signing out
  await page.goto(`${gate.url}/start`);
  await page.evaluate(async (login) => void (await fetch("/.auth/login", login)), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ email: "ada@example.com", password: "correct horse battery staple" }),
  });
  await looks("ada");
});

// B2
overBoth("styles, scripts and images are loaded once, also after a cookie has changed", async (page, https) => {
  const app = await cacheable();
  const gate = await gatewayFor(`[[route]]\nupstream = "http://${app.address}"\n`, { https });
  await signInAs(page, gate.url, "ada");
  for (const at of [1, 2, 3]) {
    await page.goto(`${gate.url}/parts`);
    await page.waitForFunction(() => window.ran && document.images[0].complete);
    await page.evaluate((at) => void (document.cookie = `visits=${at}`), at);
    await page.goto(`${gate.url}/start`);
  }
  assert.equal(app.count("GET /parts"), 3);
  for (const path of ["/a.css", "/a.js", "/a.svg"]) assert.equal(app.count(`GET ${path}`), 1, path);
});

// B2
inEach("scripts and images of ada's are not bob's where her session ended unseen, and stay hers", async (page) => {
  const app = await cacheable();
  const gate = await gatewayFor(`[[route]]\nupstream = "http://${app.address}"\n`, { https: true });
  const looks = async (person, asked) => {
    // (Chromium's tabs remember scripts and images by themselves: docs/security.md)
    const tab = await page.context().newPage();
    await signInAs(tab, gate.url, person, "/me");
    assert.equal(await seen(tab), `${person}@example.com`);
    assert.equal(app.count("GET /me.js"), asked);
    await gate.cli("session", "revoke", "--all");
  };
  await looks("ada", 1);
  await looks("ada", 1);
  await looks("bob", 2);
  await looks("ada", 3);
});

/** An app as many are: it takes over who signs in, and goes by its own cookie from then on. */
function withSessions(name, path) {
  const of = (request) => request.headers.cookie?.match(new RegExp(`(?:^|; )${name}=([^;]*)`))?.[1];
  return (request, response) => {
    const own = of(request) ?? who(request).split("@")[0];
    const fields = of(request) ? {} : { "set-cookie": `${name}=${own}; Path=${path}; HttpOnly` };
    html(response, own, fields);
  };
}

// R1
overBoth("an app that goes by its own cookie does not take bob for ada", async (page, https) => {
  const app = await serve({
    "/start": (_, response) => html(response, "start"),
    "/a/page": withSessions("sid", "/a"),
    "/b/page": withSessions("sid", "/b/"),
    "/deep/er/page": withSessions("other", "/deep/er"),
    "/cookies": (request, response) => html(response, (request.headers.cookie ?? "").match(/s\d+=/g)?.length ?? 0),
  });
  const routes = `[[route]]\nupstream = "http://${app.address}"\n`;
  // over https with a second host, to which the same session speaks
  const gate = await gatewayFor(routes, https ? { https, name: "login", domain: "example.com" } : { https });
  const hosts = https ? [gate.url, gate.url.replace("login.", "other.")] : [gate.url];
  const looks = async (person) => {
    for (const host of hosts) {
      for (const path of ["/a/page", "/b/page", "/deep/er/page"]) {
        await page.goto(host + path);
        assert.equal(await seen(page), person, host + path);
      }
    }
  };
  const scripts = () => page.evaluate(() => void [...Array(20).keys()].forEach((at) => (document.cookie = `s${at}=x; path=/`)));
  const count = async () => {
    await page.goto(`${gate.url}/cookies`);
    return seen(page);
  };
  await signInAs(page, gate.url, "ada");
  for (const _ of [1, 2]) await looks("ada");
  await page.goto(`${gate.url}/start`);
  await scripts();
  assert.equal(await count(), "20");
  await signOut(page, gate.url);
  // hers are there again while nobody else was
  await signInAs(page, gate.url, "ada");
  await looks("ada");
  assert.equal(await count(), "20");
  await signOut(page, gate.url);
  await signInAs(page, gate.url, "bob");
  assert.equal(await count(), "0");
  for (const _ of [1, 2]) await looks("bob");
  await signOut(page, gate.url);
  await signInAs(page, gate.url, "ada");
  await looks("ada");
});

inEach("after signing out in one tab, the other leads to the login, and Back shows nothing of before", async (page) => {
  const app = await serve({ "*": (request, response) => html(response, `${request.url}: ${who(request)}`, { "cache-control": "max-age=3600" }) });
  const gate = await gatewayFor(`[[route]]\nupstream = "http://${app.address}"\n`, { https: true });
  await signInAs(page, gate.url, "ada", "/first");
  const other = await page.context().newPage();
  await other.goto(`${gate.url}/second`);
  assert.equal(await seen(other), "/second: ada@example.com");
  await signOut(page, gate.url);
  await other.goto(`${gate.url}/third`);
  assert.equal(new URL(other.url()).pathname, "/.auth/login");
  // asked for anew (in the other tab Firefox shows what it has)
  await page.evaluate(() => history.go(-2));
  await page.waitForURL((place) => place.searchParams.get("callbackUrl") === "/first");
});
