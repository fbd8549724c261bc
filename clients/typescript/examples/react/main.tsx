import { createGatehouse } from "@gatehouse/client";
import { createRoot } from "react-dom/client";
import { App } from "./app.js";

const gatehouse = createGatehouse({ baseUrl: "https://gatehouse.example.com", mode: "cookie" });
createRoot(document.getElementById("root")!).render(<App gatehouse={gatehouse} />);
