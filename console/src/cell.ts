/** A value that components subscribe to. */

import { useEffect, useRef, useState } from "preact/hooks";

export class Cell<T> {
  #value: T;
  readonly #followers = new Set<() => void>();

  constructor(value: T) {
    this.#value = value;
  }

  get value(): T {
    return this.#value;
  }

  set(value: T): void {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const follower of [...this.#followers]) follower();
  }

  update(change: (value: T) => T): void {
    this.set(change(this.#value));
  }

  /** Calls `follower` after each change, until the returned function is called. */
  follow(follower: () => void): () => void {
    this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }
}

/** The value of a cell; the component is rendered again when it changes. */
export function useCell<T>(cell: Cell<T>): T {
  const [, render] = useState({});
  const shown = useRef<T>(cell.value);
  shown.current = cell.value;
  useEffect(() => {
    const look = () => Object.is(shown.current, cell.value) || render({});
    look(); // it may have changed before this effect, which comes late in a hidden tab
    return cell.follow(look);
  }, [cell]);
  return shown.current;
}

/** The time in ms, updated every `everyMs` while the page is visible. */
export function useNow(everyMs: number): number {
  const [now, set] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || set(Date.now()), everyMs);
    const shown = () => document.hidden || set(Date.now());
    document.addEventListener("visibilitychange", shown);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", shown);
    };
  }, [everyMs]);
  return now;
}
