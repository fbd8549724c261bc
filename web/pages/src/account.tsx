import "./styles/all.css";
import { start } from "./app/start.js";
import { accountRoutes } from "./views/account/routes.js";
import { ReauthenticateDialog } from "./views/reauthenticate.js";

void start(accountRoutes, <ReauthenticateDialog />);
