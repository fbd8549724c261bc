/**
 * TokenStorage keeps the session of the bearer mode. Web Storage is one, and so
 * is anything with the same three methods, which may answer later.
 */
export interface TokenStorage {
  getItem(key: string): string | null | Promise<string | null>;
  setItem(key: string, value: string): void | Promise<void>;
  removeItem(key: string): void | Promise<void>;
}

/** The page's localStorage where there is one that can be used, else memory. */
export function defaultStorage(): TokenStorage {
  // Node has a localStorage too, which is one file for all of its users.
  if (typeof document === "undefined") return memoryStorage();
  try {
    const probe = "gatehouse-probe";
    localStorage.setItem(probe, probe);
    localStorage.removeItem(probe);
    return localStorage;
  } catch {
    return memoryStorage(); // forbidden, or full
  }
}

/** Keeps a session for as long as the program runs, and for nobody else. */
export function memoryStorage(): TokenStorage {
  const items = new Map<string, string>();
  return {
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => void items.set(key, value),
    removeItem: (key) => void items.delete(key),
  };
}

/** Whether other tabs see what is stored, and are told when it changes. */
export function isWebStorage(storage: TokenStorage): storage is Storage {
  return typeof Storage !== "undefined" && storage instanceof Storage;
}
