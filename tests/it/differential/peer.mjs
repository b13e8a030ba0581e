// Node's own servers, in HTTP/1.1 and HTTP/2 without TLS; they answer as peer.go does. Prints both ports.
import http from "node:http";
import http2 from "node:http2";

const answer = (request, response) => {
  const query = new URL(request.url, "http://localhost").search.slice(1);
  const way = new URLSearchParams(query).get("way");
  const head = { "x-asked": query };
  if (way === "early") {
    response.writeHead(200, { ...head, "content-length": "5" });
    response.end("early");
    request.resume();
  } else if (way === "pieces" && request.httpVersionMajor === 2) {
    response.writeHead(200, head);
    request.pipe(response);
  } else {
    const pieces = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", () => {
      response.writeHead(200, head);
      for (const piece of pieces) response.write(piece);
      response.end();
    });
  }
};
const listen = (server) => new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server.address().port)));
console.log(await listen(http.createServer(answer)), await listen(http2.createServer(answer)));
process.stdin.on("end", () => process.exit(0)).resume();
