import { getServerSession } from "next-auth";

const options = { secret: process.env.NEXTAUTH_SECRET, session: { strategy: "jwt" }, providers: [] };

export default async function Page() {
  const session = await getServerSession({
    ...options,
    callbacks: { session: ({ session, token }) => ({ ...session, id: token.id }) },
  });
  return <p id="server">{session ? `${session.user.email} (${session.id})` : "nobody"}</p>;
}
