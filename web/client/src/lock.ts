/** A Lock runs one piece of work at a time, in the order of asking. */
export type Lock = <T>(work: () => Promise<T>) => Promise<T>;

/** A lock that all tabs of an origin share, where the browser has such. */
export function lockAcrossTabs(name: string): Lock {
  const locks = globalThis.navigator?.locks; // only where the page is trusted
  return locks ? async (work) => await locks.request(name, work) : lockWithin();
}

/** A lock that only its holder's callers share. */
export function lockWithin(): Lock {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const run = last.then(work);
    last = run.catch(() => {});
    return run;
  };
}
