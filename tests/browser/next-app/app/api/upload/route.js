import { createHash } from "node:crypto";

export async function POST(request) {
  const file = (await request.formData()).get("file");
  const bytes = Buffer.from(await file.arrayBuffer());
  return Response.json({ name: file.name, size: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") });
}
