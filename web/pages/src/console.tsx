import "./styles/all.css";
import { start } from "./app/start.js";
import { consoleRoutes } from "./views/console/routes.js";
import { ReauthenticateDialog } from "./views/reauthenticate.js";

void start(consoleRoutes, <ReauthenticateDialog />);
