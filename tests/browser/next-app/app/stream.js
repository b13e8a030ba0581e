"use client";
import { useEffect, useState } from "react";

/** Shows what the event stream says; each event is asked for only once the one before has arrived. */
export default function Stream() {
  const [seen, setSeen] = useState([]);
  useEffect(() => {
    const source = new EventSource("/api/events");
    source.onmessage = async ({ data }) => {
      setSeen((before) => [...before, data]);
      await fetch("/api/events", { method: "POST" });
    };
    return () => source.close();
  }, []);
  return <output>{seen.join(" ")}</output>;
}
