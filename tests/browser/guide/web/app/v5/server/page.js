import NextAuth from "next-auth-v5";

const { auth } = NextAuth({
  secret: process.env.NEXTAUTH_SECRET,
  trustHost: true,
  session: { strategy: "jwt" },
  providers: [],
  callbacks: { session: ({ session, token }) => ({ ...session, id: token.id }) },
});

export default async function Page() {
  const session = await auth();
  return <p id="server">{session ? `${session.user.email} (${session.id})` : "nobody"}</p>;
}
