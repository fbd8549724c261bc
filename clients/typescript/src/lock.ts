/** A Lock runs one piece of work at a time, in the order of asking. */
export interface Lock {
  exclusively<T>(work: () => Promise<T>): Promise<T>;
  /** Tells those who get the lock next that something has been done. Only for its holder. */
  mark(done: string): Promise<void>;
  isMarked(done: string): Promise<boolean>;
}

/**
 * For how long a tab waits for a lock that another holds. A tab that the browser
 * has frozen keeps its locks, and may do so for ever; the work that the lock is
 * for ends sooner.
 */
const patience = 10_000; // ms

/** For how long a mark can be seen: much longer than a storage takes to follow. */
const markLife = 10_000; // ms

/**
 * A lock that all tabs of an origin share, where the browser has such. Its marks
 * are locks too: unlike what is in localStorage, every tab sees them at once.
 */
export function lockAcrossTabs(name: string, patienceMs: number = patience): Lock {
  const locks = globalThis.navigator?.locks; // only where the page is trusted
  if (!locks) return lockWithin();
  const own = lockWithin(); // of this tab, once another has kept the shared one for too long
  const nameOf = (done: string) => `${name}:${done}`;
  return {
    exclusively: async (work) => {
      const waiting = new AbortController();
      const timer = setTimeout(() => waiting.abort(), patienceMs);
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

/** A lock that only its holder's callers share, who see one storage. */
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
