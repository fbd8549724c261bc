import { createGatehouse } from "@gatehouse/client";
import { GatehouseProvider } from "@gatehouse/client/react";
import { createRoot } from "react-dom/client";
import { App } from "./app.js";

const gatehouse = createGatehouse({ baseUrl: "https://gatehouse.example.com", mode: "cookie" });
createRoot(document.getElementById("root")!).render(
  <GatehouseProvider gatehouse={gatehouse}>
    <App />
  </GatehouseProvider>,
);
