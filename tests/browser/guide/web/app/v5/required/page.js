import { Required } from "../pages";

export default function Page() {
  return <Required />;
}
