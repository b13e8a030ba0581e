// A real gRPC client and server (grpc-js) with the gateway between them: TLS and HTTP/2 in front, `h2c://` behind.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import grpc from "@grpc/grpc-js";
import { start } from "./lib.mjs";

const bytes = { requestSerialize: (b) => b, requestDeserialize: (b) => b, responseSerialize: (b) => b, responseDeserialize: (b) => b };
const service = (name) => ({
  Say: { path: `/${name}/Say`, requestStream: false, responseStream: false, ...bytes },
  Talk: { path: `/${name}/Talk`, requestStream: true, responseStream: true, ...bytes },
});
let server, gate, folder, credentials, target;

before(async () => {
  const seen = (call) => Buffer.from(`${call.request}|${call.metadata.get("remote-user")}|${call.metadata.get("x-forwarded-proto")}`);
  const calls = {
    Say: (call, done) => {
      if (`${call.request}` === "fail") return done({ code: grpc.status.NOT_FOUND, details: "no such word" });
      const trailers = new grpc.Metadata();
      trailers.set("x-own", "trailer");
      done(null, seen(call), trailers);
    },
    Talk: (call) => {
      call.on("data", (word) => call.write(Buffer.from(`${word}!`)));
      call.on("end", () => call.end());
    },
  };
  server = new grpc.Server();
  server.addService(service("open.Words"), calls);
  server.addService(service("shut.Words"), calls);
  const port = await new Promise((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => (error ? reject(error) : resolve(port))),
  );
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "authgate-grpc-"));
  execFileSync(
    "openssl",
    ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=localhost"]
      .concat(["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "chain.pem"]),
    { cwd: folder, stdio: "ignore" },
  );
  fs.writeFileSync(
    path.join(folder, "gateway.toml"),
    `[server]
listen = ["https://127.0.0.1:0"]
admin_listen = ""
public_url = "https://localhost"
[server.tls]
certificates = [{ certificate = "chain.pem", key = { file = "key.pem" } }]
[[route]]
path = "/open.Words/**"
access = "public"
upstream = "h2c://127.0.0.1:${port}"
[[route]]
upstream = "h2c://127.0.0.1:${port}"
`,
  );
  gate = await start(folder);
  credentials = grpc.credentials.createSsl(fs.readFileSync(path.join(folder, "chain.pem")));
  target = `localhost:${new URL(gate.url).port}`;
});

after(async () => {
  await gate?.stop();
  server?.forceShutdown();
});

const client = (name) => new (grpc.makeGenericClientConstructor(service(name), name))(target, credentials);
const say = (own, word) =>
  new Promise((resolve) => {
    const metadata = new grpc.Metadata();
    metadata.set("remote-user", "root");
    let trailers;
    const call = own.Say(Buffer.from(word), metadata, (error, answer) => setImmediate(() => resolve({ error, answer: `${answer}`, trailers })));
    call.on("status", (status) => (trailers = status.metadata.get("x-own")));
  });

test("a call is answered with its trailers, and says nothing that a client could have made up", async () => {
  const own = client("open.Words");
  for (const word of ["one", "two"]) {
    const { error, answer, trailers } = await say(own, word);
    assert.equal(error, null);
    assert.equal(answer, `${word}||https`);
    assert.deepEqual(trailers, ["trailer"]);
  }
  const { error } = await say(own, "fail");
  assert.equal(error.code, grpc.status.NOT_FOUND);
  assert.equal(error.details, "no such word");
  own.close();
});

test("both sides talk at once", async () => {
  const own = client("open.Words");
  const call = own.Talk();
  for (const word of ["one", "two", "three"]) {
    call.write(Buffer.from(word));
    const [answer] = await new Promise((resolve) => call.once("data", (...data) => resolve(data)));
    assert.equal(`${answer}`, `${word}!`);
  }
  const status = new Promise((resolve) => call.once("status", resolve));
  call.end();
  assert.equal((await status).code, grpc.status.OK);
  own.close();
});

test("a call without a session is UNAUTHENTICATED", async () => {
  const own = client("shut.Words");
  const { error } = await say(own, "one");
  assert.equal(error.code, grpc.status.UNAUTHENTICATED);
  own.close();
});
