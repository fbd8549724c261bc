import { createRoot } from "react-dom/client";
import { createGatehouse } from "@gatehouse/client";
import { App } from "../../examples/react/app.js";

const asked = new URLSearchParams(location.search);
const gatehouse = createGatehouse({ baseUrl: asked.get("gateway") ?? "", mode: asked.get("mode") === "cookie" ? "cookie" : "bearer" });
createRoot(document.getElementById("root")!).render(<App gatehouse={gatehouse} />);
