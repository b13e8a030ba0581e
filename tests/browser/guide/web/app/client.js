"use client";
// What the guide's pages do with next-auth/react; `auth` is the client of version 4 or 5.
import { useState } from "react";

export function makePages(auth) {
  const { SessionProvider, useSession, signIn, signOut, getSession, getProviders, getCsrfToken } = auth;

  function Status() {
    const { data, status } = useSession();
    return (
      <p id="status" data-status={status}>
        {status === "authenticated" ? `${data.user.email} (${data.user.id})` : status}
      </p>
    );
  }

  function LoginForm() {
    const [error, setError] = useState("");
    async function submit(event) {
      event.preventDefault();
      const form = new FormData(event.target);
      const callbackUrl = new URLSearchParams(location.search).get("callbackUrl") ?? "/";
      const result = await signIn("credentials", {
        redirect: false,
        email: form.get("email"),
        password: form.get("password"),
        callbackUrl,
      });
      if (result.error) setError(`${result.error} ${result.status}`);
      else location.assign(result.url);
    }
    return (
      <form onSubmit={submit}>
        <input name="email" />
        <input name="password" type="password" />
        <button>Log in</button>
        <button id="op" type="button" onClick={() => signIn("op", { callbackUrl: new URLSearchParams(location.search).get("callbackUrl") })}>
          Log in with op
        </button>
        <p id="error">{error}</p>
      </form>
    );
  }

  function Home() {
    const [said, setSaid] = useState("");
    const tell = (promise) => promise.then((value) => setSaid(JSON.stringify(value ?? null)));
    return (
      <>
        <Status />
        <button id="out" onClick={() => signOut({ callbackUrl: `${location.origin}${location.pathname}` })}>
          Sign out
        </button>
        <button id="in" onClick={() => signIn()}>
          Sign in
        </button>
        <button id="session" onClick={() => tell(getSession())}>
          getSession
        </button>
        <button id="providers" onClick={() => tell(getProviders())}>
          getProviders
        </button>
        <button id="csrf" onClick={() => tell(getCsrfToken())}>
          getCsrfToken
        </button>
        <pre id="said">{said}</pre>
      </>
    );
  }

  function Required() {
    const { data } = useSession({ required: true });
    return <p id="required">{data ? data.user.email : "waiting"}</p>;
  }

  const within = (Page) =>
    function WithSession() {
      return (
        <SessionProvider>
          <Page />
        </SessionProvider>
      );
    };
  return { Home: within(Home), LoginForm: within(LoginForm), Required: within(Required) };
}
