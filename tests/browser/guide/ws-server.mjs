// The guide's WebSocket server: it verifies the JWT at the handshake.
import { parse } from "node:querystring";
import cookieParser from "cookie-parser";
import jwt from "jsonwebtoken";
import { WebSocketServer } from "ws";

const cookies = (req) => (cookieParser()(req, {}, () => {}), req.cookies);

const wss = new WebSocketServer({ host: "127.0.0.1", port: 0 });
wss.on("connection", (ws, req) => {
  const token = parse(req.url.split("?")[1]).token ?? cookies(req)["next-auth.session-token"];
  if (!token) return ws.close(1008, "Token required");
  try {
    ws.user = jwt.verify(token, process.env.NEXTAUTH_SECRET);
  } catch {
    return ws.close(1008, "Invalid token");
  }
  ws.on("message", (message) => ws.send(`${ws.user.email} (${ws.user.id}): ${message}`));
});
wss.on("listening", () => console.log(`ws-server listening on ${wss.address().port}`));
