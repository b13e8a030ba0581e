import { Home } from "./pages";

export default function Page() {
  return <Home />;
}
