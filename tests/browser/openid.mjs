// OpenID providers of others, unmodified: npm's oidc-provider, any number of them in this process, and PyPI's canaille.
// They are at `localhost` and the gateway is at 127.0.0.1, so that browsers see two sites.
import { once } from "node:events";
import http from "node:http";
import path from "node:path";
import Provider from "oidc-provider";
import { pypi, serve } from "../apps/lib.mjs";
import { freePort } from "./lib.mjs";

/** Every byte of it is changed by the encoding of RFC 6749, 2.3.1, which oidc-provider undoes strictly. */
const SECRET = "s+e:k%ret";
process.env.OPENID_SECRET = SECRET;

// oidc-provider warns of its memory and its lack of TLS
const warn = console.warn;
console.warn = (...text) => /oidc-provider/.test(String(text[0])) || warn(...text);

/** The `[[provider]]` of one, with further lines. */
function table({ name, issuer }, client, more) {
  return `[[provider]]\nname = "${name}"\nlabel = "${name} & Co"\nkind = "oidc"\nissuer = "${issuer}"\nclient_id = "${client}"\nclient_secret = { env = "OPENID_SECRET" }\n${more}\n`;
}

const callback = (gate, name) => `${gate.url}/.auth/oauth/${name}/callback`;

/** The server's own form, for the two things that a person does there. */
const form = `<!doctype html><title>Provider</title><form method="post"><label>Name <input name="login" autofocus></label>
<button name="answer" value="yes">Agree</button> <button name="answer" value="no">Cancel</button></form>`;

async function read(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return new URLSearchParams(Buffer.concat(parts).toString());
}

/**
 * A provider that demands PKCE, or one that has never heard of it. A person is whoever they say: `grace` has the
 * verified address grace@example.com, unless `people` has other claims for that name.
 */
export async function openId(name, { ignoresPkce = false } = {}) {
  const people = {};
  const asked = [];
  const server = http.createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const issuer = `http://localhost:${server.address().port}`;
  const provider = new Provider(issuer, {
    findAccount: (_, sub) => ({
      accountId: sub,
      claims: () => ({ sub, email: `${sub}@example.com`, email_verified: true, name: sub, ...people[sub] }),
    }),
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
    // one that names people in the ID token, one only in its answer at userinfo
    conformIdTokenClaims: !ignoresPkce,
    pkce: { required: () => !ignoresPkce },
    features: {
      devInteractions: { enabled: false },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource(context, form) {
          context.body = `<!doctype html><title>Provider</title>${form}<button form="op.logoutForm" name="logout" value="yes">Sign out</button>`;
        },
      },
    },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    async loadExistingGrant({ oidc }) {
      const known = oidc.session.grantIdFor(oidc.client.clientId);
      if (known) return oidc.provider.Grant.find(known);
      const grant = new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
      grant.addOIDCScope("openid email profile");
      await grant.save();
      return grant;
    },
    // cookies know no ports
    cookies: { keys: ["tests"], names: { session: `${name}_session`, interaction: `${name}_interaction`, resume: `${name}_resume` } },
    // to this machine, which its guard would refuse
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
    ttl: { Session: 3600, Grant: 3600, Interaction: 600, IdToken: 3600, AccessToken: 3600, AuthorizationCode: 60 },
  });
  const answer = provider.callback();
  server.on("request", async (request, response) => {
    const url = new URL(request.url, issuer);
    asked.push(`${request.method} ${url.pathname}`);
    if (url.pathname.startsWith("/interaction/")) {
      if (request.method === "GET") return response.writeHead(200, { "content-type": "text/html" }).end(form);
      const fields = await read(request);
      const cancelled = { error: "access_denied", error_description: "<b>call 666</b>" };
      const done = fields.get("answer") === "no" ? cancelled : { login: { accountId: fields.get("login") } };
      return provider.interactionFinished(request, response, done).catch((error) => response.writeHead(400).end(error.message));
    }
    if (ignoresPkce) {
      for (const name of ["code_challenge", "code_challenge_method"]) url.searchParams.delete(name);
      request.url = url.pathname + url.search;
      if (url.pathname === "/token") {
        const { code_verifier, ...rest } = Object.fromEntries(await read(request));
        request.body = rest;
      }
    }
    return answer(request, response);
  });
  const own = { name, issuer };
  const register = (client, more) => {
    const data = { client_id: client, client_secret: SECRET, response_types: ["code"], grant_types: ["authorization_code"], ...more };
    return provider.Client.adapter.upsert(client, data);
  };
  return {
    ...own,
    people,
    register,
    table: (more = "", client = "gateway") => table(own, client, more),
    /** Its client is a gateway, with the addresses that `authgate provider list` shows. */
    knows: (gate, { client = "gateway", redirect = callback(gate, name) } = {}) =>
      register(client, {
        redirect_uris: [redirect],
        backchannel_logout_uri: `${gate.url}/.auth/oauth/${name}/backchannel-logout`,
        backchannel_logout_session_required: true,
        post_logout_redirect_uris: [`${gate.url}/.auth/signed-out`],
      }),
    /** How often this was asked for so far. */
    count: (what) => asked.filter((one) => one === what).length,
    logout: `${issuer}/session/end`,
    stop() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** Says a name at oidc-provider, and agrees. */
export async function agree(page, login) {
  await page.fill("[name=login]", login);
  await page.click("[value=yes]");
}

const installed = pypi("canaille[front,oidc]==0.3.6");

/** Canaille with one person, `grace`, and one client; it says nothing of whether an address is verified. */
export async function canaille(name, password) {
  // it is no program that a machine may lack: what is shown with it would not be shown at all
  if (installed.missing) throw new Error(`canaille (PyPI) ${installed.missing}`);
  const port = await freePort();
  const own = { name, issuer: `http://localhost:${port}` };
  const env = { PORT: String(port), PASSWORD: password, SECRET };
  const { stop } = await serve(port, installed.bin("python"), [path.join(import.meta.dirname, "openid_server.py")], { env });
  return {
    ...own,
    table: (more = "") => table(own, "gateway", `danger_trust_email = true\n${more}`),
    async knows(gate) {
      const body = JSON.stringify({
        client_name: "Gateway",
        redirect_uris: [callback(gate, name)],
        grant_types: ["authorization_code"],
        response_types: ["code"],
        scope: ["openid", "profile", "email"],
        token_endpoint_auth_method: "client_secret_basic",
      });
      const answer = await fetch(`${own.issuer}/tests/client`, { method: "POST", headers: { "content-type": "application/json" }, body });
      if (answer.status !== 200) throw new Error(`canaille: ${answer.status} ${await answer.text()}`);
    },
    stop,
  };
}
