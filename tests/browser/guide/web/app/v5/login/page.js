import { LoginForm } from "../pages";

export default function Page() {
  return <LoginForm />;
}
