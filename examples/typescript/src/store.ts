import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";

export interface Order {
  id: string;
  userId: string;
  thing: string;
}

interface State {
  orders: Order[];
  /** The ids of deleted accounts. They are kept, so that a late call stores nothing for one. */
  erased: string[];
  /** How far the account events are applied. */
  cursor: string;
  /** Whether events may have been missed, because the cursor had expired. */
  incomplete: boolean;
}

/**
 * The orders, in one file. A database would do the same in transactions: what an event
 * erases and the cursor after it are stored together or not at all.
 */
export class Store {
  private state: State = { orders: [], erased: [], cursor: "", incomplete: false };

  constructor(private readonly path: string) {
    if (existsSync(path)) this.state = JSON.parse(readFileSync(path, "utf8")) as State;
  }

  get cursor(): string {
    return this.state.cursor;
  }

  get incomplete(): boolean {
    return this.state.incomplete;
  }

  /** The ids of the people about whom the store has data. */
  people(): string[] {
    return [...new Set(this.state.orders.map((order) => order.userId))];
  }

  ordersOf(userId: string): Order[] {
    return this.state.orders.filter((order) => order.userId === userId);
  }

  /** Stores an order, unless the account of its user was deleted. */
  add(order: Order): boolean {
    if (this.state.erased.includes(order.userId)) return false;
    this.save({ ...this.state, orders: [...this.state.orders, order] });
    return true;
  }

  /** Erases what is stored about people, and stores the position in the account events. */
  erase(people: string[], cursor: string, incomplete: boolean): void {
    this.save({
      orders: this.state.orders.filter((order) => !people.includes(order.userId)),
      erased: [...new Set([...this.state.erased, ...people])],
      cursor,
      incomplete,
    });
  }

  private save(state: State): void {
    const file = openSync(`${this.path}.new`, "w", 0o600);
    writeSync(file, JSON.stringify(state));
    fsyncSync(file);
    closeSync(file);
    renameSync(`${this.path}.new`, this.path);
    this.state = state;
  }
}
