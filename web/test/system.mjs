// Builds gatehouse, starts it on an empty data folder, and stops it.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const root = fileURLToPath(new URL("../..", import.meta.url));
const patience = 120_000; // the machine may have others to serve

/** Runs gatehouse up on an empty data folder, all in one process. */
export async function up(settings = {}) {
  const work = await mkdtemp(join(tmpdir(), "gatehouse-"));
  await chmod(work, 0o711); // Postgres may run as another user
  const program = process.env.PROGRAM_UNDER_TEST ?? join(work, "gatehouse"); // one that is built already
  if (!process.env.PROGRAM_UNDER_TEST) {
    await promisify(execFile)("go", ["build", "-o", program, "."], { cwd: root }).catch(async error => {
      await rm(work, { recursive: true });
      throw error;
    });
  }
  const data = join(work, "data");
  const listen = await freeAddress();
  // up allows every localhost port by itself; these tests are about an allow-list.
  const main = new Role(program, ["up"], {
    GATEHOUSE_DATA_DIR: data, GATEHOUSE_LISTEN: listen, GATEHOUSE_ORIGINS: `http://localhost:${portOf(listen)}`, ...settings,
  });
  const banner = await main.said(/Ctrl-C stops it/).catch(async error => {
    await main.stop();
    throw error;
  });
  return {
    program, data, banner,
    url: `http://localhost:${portOf(listen)}`,
    email: /^ {2}administrator +(\S+)$/m.exec(banner)[1],
    password: /^ {2}password +(\S+)$/m.exec(banner)[1],
    async stop() {
      await main.stop();
      await rm(work, { recursive: true });
    },
  };
}

/** Runs a gateway, an auth and a users, on a database beside that of an up's. */
export async function apart({ program, data }, settingsOfAuth = {}) {
  const folder = join(data, "postgres");
  const [password, state] = await Promise.all([
    readFile(join(folder, "password"), "utf8"), readFile(join(folder, "data/postmaster.pid"), "utf8"),
  ]);
  const lines = state.split("\n");
  const at = (user, secret) => `postgres://${user}:${secret}@/postgres?${new URLSearchParams({ host: lines[4], port: lines[3] })}`;
  const database = {
    AUTH_DATABASE_URL: at("postgres_auth", "auth-secret"), USERS_DATABASE_URL: at("postgres_users", "users-secret"),
  };
  await promisify(execFile)(program, ["schema", "apply"], {
    env: { ...process.env, ...database, DATABASE_URL: at("gatehouse", password.trim()) },
  });
  const [gateway, auth, users] = [await freeAddress(), await freeAddress(), await freeAddress()];
  const url = `http://localhost:${portOf(gateway)}`;
  const shared = { GATEHOUSE_INTERNAL_KEY: "11".repeat(32), GATEHOUSE_PUBLIC_URL: url, USERS_URL: `http://${users}` };
  const startUsers = () => new Role(program, ["users"], {
    GATEHOUSE_INTERNAL_KEY: shared.GATEHOUSE_INTERNAL_KEY, USERS_DATABASE_URL: database.USERS_DATABASE_URL, GATEHOUSE_LISTEN: users,
  });
  const roles = {
    users: startUsers(),
    auth: new Role(program, ["auth"], {
      ...shared, AUTH_DATABASE_URL: database.AUTH_DATABASE_URL, GATEHOUSE_LISTEN: auth,
      GATEHOUSE_SECRET_KEY: "22".repeat(32), GATEHOUSE_REGISTRATION: "open", ...settingsOfAuth,
    }),
    gateway: new Role(program, ["bff"], { ...shared, AUTH_URL: `http://${auth}`, GATEHOUSE_LISTEN: gateway }),
  };
  const stop = async () => {
    for (const role of [roles.gateway, roles.auth, roles.users]) await role.stop();
  };
  await roles.gateway.said(/ready/).catch(async error => {
    await stop();
    throw error;
  });
  return {
    url, stop, database,
    stopUsers: () => roles.users.stop(),
    async startUsers() {
      roles.users = startUsers();
      await roles.users.said(/ready/);
    },
  };
}

/** A process of gatehouse's. */
class Role {
  #process;
  #output = "";
  #name;

  constructor(program, args, settings) {
    this.#name = args.join(" ");
    const env = { ...process.env, ...settings };
    for (const name of Object.keys(env)) {
      if (/^(GATEHOUSE_|OTEL_|SMTP_|REDIS_|.*DATABASE_URL$)/.test(name) && !(name in settings)) delete env[name];
    }
    this.#process = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream.setEncoding("utf8").on("data", text => { this.#output += text; });
    }
  }

  /** Waits until what it says has something in it, and returns all that it said. */
  async said(what) {
    const until = Date.now() + patience;
    while (!what.test(this.#output)) {
      if (this.#process.exitCode !== null) throw new Error(`gatehouse ${this.#name} has ended: ${this.#output}`);
      if (Date.now() > until) throw new Error(`gatehouse ${this.#name} says nothing of ${what}: ${this.#output}`);
      await new Promise(resolve => setTimeout(resolve, 50));
    }
    return this.#output;
  }

  async stop() {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const ended = once(this.#process, "exit");
      this.#process.kill("SIGINT");
      await ended;
    }
    if (this.#process.exitCode !== 0) throw new Error(`gatehouse ${this.#name} ended with ${this.#process.exitCode}: ${this.#output}`);
  }
}

async function freeAddress() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return `127.0.0.1:${port}`;
}

const portOf = address => address.split(":")[1];
