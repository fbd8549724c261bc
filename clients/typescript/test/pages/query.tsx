import { createRoot } from "react-dom/client";
import { createGatehouse } from "@gatehouse/client";
import { App } from "../../examples/connect-query.js";

const gatehouse = createGatehouse({ baseUrl: new URLSearchParams(location.search).get("gateway") ?? "" });
createRoot(document.getElementById("root")!).render(<App gatehouse={gatehouse} />);
