// 16 MiB in parts of 64 KiB, each filled with its own number.
export const dynamic = "force-dynamic";

export function GET() {
  let part = 0;
  const body = new ReadableStream({
    pull(controller) {
      if (part === 256) return controller.close();
      controller.enqueue(new Uint8Array(65536).fill(part++));
    },
  });
  return new Response(body, {
    headers: { "content-type": "application/octet-stream", "content-disposition": 'attachment; filename="parts.bin"' },
  });
}
