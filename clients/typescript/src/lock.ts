/** A Lock runs one function at a time, in the order of requests. */
export interface Lock {
  exclusively<T>(work: () => Promise<T>): Promise<T>;
  /** Marks something as done, visible to the next holders. The caller must hold the lock. */
  mark(done: string): Promise<void>;
  isMarked(done: string): Promise<boolean>;
}

/**
 * How long a tab waits for a lock that another tab holds. A tab that the browser
 * has frozen may hold its locks forever; the guarded work ends sooner.
 */
const lockTimeout = 10_000; // ms

/** How long a mark is visible: much longer than a storage write takes to become visible. */
const markLife = 10_000; // ms

/**
 * Returns a lock that all tabs of an origin share, if the browser has Web Locks.
 * Marks are locks too: unlike localStorage, every tab sees them at once.
 */
export function lockAcrossTabs(name: string, timeoutMs: number = lockTimeout): Lock {
  const locks = globalThis.navigator?.locks; // only in secure contexts
  if (!locks) return lockWithin();
  const own = lockWithin(); // used after a timeout of the shared one
  const nameOf = (done: string) => `${name}:${done}`;
  return {
    exclusively: async (work) => {
      const waiting = new AbortController();
      const timer = setTimeout(() => waiting.abort(), timeoutMs);
      let begun = false;
      try {
        return await locks.request(name, { signal: waiting.signal }, () => {
          begun = true;
          clearTimeout(timer);
          return work();
        });
      } catch (thrown) {
        if (begun || !waiting.signal.aborted) throw thrown;
        return await own.exclusively(work);
      } finally {
        clearTimeout(timer);
      }
    },
    mark: (done) =>
      new Promise((made, failed) => {
        const hold = () => {
          made();
          return new Promise((end) => setTimeout(end, markLife));
        };
        locks.request(nameOf(done), { mode: "shared" }, hold).catch(failed);
      }),
    isMarked: async (done) => (await locks.query()).held?.some((held) => held.name === nameOf(done)) ?? false,
  };
}

/** Returns a lock within this client. */
export function lockWithin(): Lock {
  let last: Promise<unknown> = Promise.resolve();
  return {
    exclusively: (work) => {
      const run = last.then(work);
      last = run.catch(() => {});
      return run;
    },
    mark: async () => {},
    isMarked: async () => false,
  };
}
