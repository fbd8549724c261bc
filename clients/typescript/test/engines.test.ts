import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

interface Locked {
  version?: string;
  dev?: boolean;
  optional?: boolean;
  engines?: { node?: string };
}

const read = (name: string) => JSON.parse(readFileSync(new URL(`../${name}`, import.meta.url), "utf8"));

const numbers = (version: string) => version.split(".").map(Number);

/** Compares versions of up to three numbers. */
function compare(a: number[], b: number[]): number {
  for (let i = 0; i < 3; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** Reports whether a range in the forms used for engines includes a version. */
function admits(range: string, version: string): boolean {
  return range.split("||").some((alternative) =>
    alternative
      .replace(/(>=|\^)\s+/g, "$1")
      .trim()
      .split(/\s+/)
      .every((comparator) => {
        const [, operator, least] = /^(>=|\^)(\d+(?:\.\d+)*)(?:\.x)?$/.exec(comparator) ?? [];
        if (!operator || !least) throw new Error(`cannot read ${comparator} in ${range}`);
        const [lower, given] = [numbers(least), numbers(version)];
        return compare(given, lower) >= 0 && (operator === ">=" || given[0] === lower[0]);
      }),
  );
}

test("every locked package supports the oldest Node version in engines", () => {
  const oldest = /^>=(\d+)$/.exec(read("package.json").engines.node)?.[1];
  expect(oldest).toBeDefined();
  const packages = Object.entries(read("package-lock.json").packages as Record<string, Locked>);
  expect(packages.length).toBeGreaterThan(50);
  for (const [path, locked] of packages) {
    const range = locked.engines?.node;
    // Development dependencies may need a later minor version.
    const version = locked.dev ? `${oldest}.19.0` : `${oldest}.0.0`;
    if (range) expect(admits(range, version), `${path} ${locked.version} wants Node ${range}, and we name ${oldest}`).toBe(true);
  }
});
