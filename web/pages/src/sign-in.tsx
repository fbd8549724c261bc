import "./styles/all.css";
import { config } from "./app/config.js";
import { lazy } from "./app/lazy.js";
import type { Route } from "./app/router.js";
import { start } from "./app/start.js";
import { t } from "./app/texts.js";
import { CardPage } from "./ui/shell.js";
import { ErrorPage, Home, SignedOut } from "./views/plain.js";
import { Factor, SignIn } from "./views/sign-in.js";
import { SignInByCode } from "./views/sign-in-code.js";
import { CheckMail, Recover, SignUp } from "./views/sign-up.js";

/** The page of a mailed link. Nothing stands for it until it is there: its field must have the focus, not a heading before it. */
function link(name: "LinkEmail" | "LinkReset" | "LinkSignIn" | "LinkVerify") {
  return lazy(() => import("./views/links.js").then((part) => part[name]), (content, failed) => failed && <CardPage title={t("error.title")}>{content}</CardPage>);
}

const routes: readonly Route[] = [
  { path: "/", page: Home },
  { path: "/sign-in", page: SignIn },
  { path: "/sign-in/code", page: SignInByCode },
  { path: "/sign-in/factor", page: Factor },
  { path: "/sign-in/return", page: lazy(() => import("./views/sign-in-return.js").then((part) => part.SignInReturn), (content) => <CardPage title={t("return.busy")}>{content}</CardPage>) },
  { path: "/sign-up", page: SignUp },
  { path: "/sign-up/check-mail", page: CheckMail },
  { path: "/recover", page: Recover },
  { path: "/link/verify", page: link("LinkVerify") },
  { path: "/link/reset", page: link("LinkReset") },
  { path: "/link/email", page: link("LinkEmail") },
  { path: "/link/sign-in", page: link("LinkSignIn") },
  { path: "/signed-out", page: SignedOut },
  { path: "/error", page: ErrorPage },
];

void start(config.status === undefined ? routes : []);
