// One event at the start; the next only when it was asked for by POST.
export const dynamic = "force-dynamic";
const streams = (globalThis.streams ??= new Set());

export function GET() {
  let stream;
  const body = new ReadableStream({
    start(controller) {
      stream = { controller, sent: 0 };
      streams.add(stream);
      send(stream);
    },
    cancel() {
      streams.delete(stream);
    },
  });
  return new Response(body, { headers: { "content-type": "text/event-stream", "cache-control": "no-cache" } });
}

export function POST() {
  for (const stream of streams) if (stream.sent < 3) send(stream);
  return new Response(null, { status: 204 });
}

function send(stream) {
  stream.sent += 1;
  stream.controller.enqueue(new TextEncoder().encode(`data: event-${stream.sent}\n\n`));
}
