// The guide's Express app: its two middlewares, their logic as the guide has it.
import cookieParser from "cookie-parser";
import cors from "cors";
import express from "express";
import jwt from "jsonwebtoken";

const secret = process.env.NEXTAUTH_SECRET;

/** Form A: the Authorization header alone. */
function authenticateToken(req, res, next) {
  const authHeader = req.headers["authorization"];
  const token = authHeader && authHeader.split(" ")[1];
  if (!token) return res.status(401).send("Access token required");
  jwt.verify(token, secret, (err, user) => {
    if (err) return res.status(403).send("Invalid or expired token");
    req.user = user;
    next();
  });
}

/** Form B: next-auth's cookie, else the header. */
function authMiddleware(req, res, next) {
  try {
    let token = req.cookies["next-auth.session-token"] || req.cookies["__Secure-next-auth.session-token"];
    if (!token && req.headers.authorization?.startsWith("Bearer ")) token = req.headers.authorization.slice(7);
    if (!token) return res.status(401).json({ error: "Not authenticated" });
    req.user = jwt.verify(token, secret);
    next();
  } catch {
    res.status(401).json({ error: "Invalid token" });
  }
}

const app = express();
app.use(cors({ origin: "http://localhost:3000", credentials: true }));
app.use(express.json());
app.use(cookieParser());
app.get("/api/header/protected-data", authenticateToken, (req, res) => res.json({ form: "A", user: req.user }));
app.get("/api/cookie/protected-data", authMiddleware, (req, res) => res.json({ form: "B", user: req.user }));
app.post("/api/cookie/notes", authMiddleware, (req, res) => res.json({ by: req.user.id, note: req.body.note }));
app.get("/api/open/seen", (req, res) => res.json({ headers: req.headers }));
const server = app.listen(0, "127.0.0.1", () => console.log(`http-server listening on ${server.address().port}`));
