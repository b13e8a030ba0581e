import { revalidatePath } from "next/cache";
import { headers } from "next/headers";
import Stream from "./stream";

const notes = (globalThis.notes ??= []);

async function add(form) {
  "use server";
  const by = (await headers()).get("remote-email");
  notes.push(`${form.get("note")} (${by})`);
  revalidatePath("/");
}

export default async function Page() {
  const received = await headers();
  return (
    <main>
      <h1>Notes of {decodeURIComponent(received.get("remote-name") ?? "nobody")}</h1>
      <ul>
        {notes.map((note) => (
          <li key={note}>{note}</li>
        ))}
      </ul>
      <form action={add}>
        <input name="note" />
        <button>Add</button>
      </form>
      <form action="/api/upload" method="post" encType="multipart/form-data">
        <input type="file" name="file" />
        <button>Upload</button>
      </form>
      <a href="/api/download" download>
        Download
      </a>
      <Stream />
    </main>
  );
}
