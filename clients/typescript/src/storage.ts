/**
 * TokenStorage stores the session in bearer mode: Web Storage, or any object with
 * the same three methods, which may return promises.
 */
export interface TokenStorage {
  getItem(key: string): string | null | Promise<string | null>;
  setItem(key: string, value: string): void | Promise<void>;
  removeItem(key: string): void | Promise<void>;
}

/** Returns the page's localStorage if it is usable, otherwise memory. */
export function defaultStorage(): TokenStorage {
  // Node has a localStorage too: one file, shared by all its users.
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

/** Returns a storage in memory. */
export function memoryStorage(): TokenStorage {
  const items = new Map<string, string>();
  return {
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => void items.set(key, value),
    removeItem: (key) => void items.delete(key),
  };
}

/** Reports whether other tabs share the storage and get events when it changes. */
export function isWebStorage(storage: TokenStorage): storage is Storage {
  return typeof Storage !== "undefined" && storage instanceof Storage;
}
