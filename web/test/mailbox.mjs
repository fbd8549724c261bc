// Reads the mails that gatehouse up keeps as files.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Waits for a mail to an address that has a text of a form, other than one that is known, and returns the text. */
export async function inMailbox(data, email, form, known) {
  const folder = join(data, "mailbox");
  for (const until = Date.now() + 60_000; Date.now() < until; await new Promise(resolve => setTimeout(resolve, 100))) {
    let names = [];
    try { names = readdirSync(folder); } catch { continue; }
    for (const name of names) {
      const text = readFileSync(join(folder, name), "utf8").replaceAll("=\r\n", "").replaceAll("=3D", "=").replaceAll("=\n", "");
      const found = text.includes(email) && text.match(form)?.find(one => one !== known);
      if (found) return found;
    }
  }
  throw new Error(`no mail to ${email} with ${form}`);
}
