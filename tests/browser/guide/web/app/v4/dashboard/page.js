import Link from "next/link";
import { Home } from "../pages";

export default function Page() {
  return (
    <>
      <h1>Dashboard</h1>
      <Home />
      <Link href="/v4/server">On the server</Link>
    </>
  );
}
