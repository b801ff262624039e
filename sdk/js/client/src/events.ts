/** Typed events. */

type Listener<T> = (event: T) => void;

export class Emitter<Events extends object> {
  private readonly _listeners = new Map<keyof Events, Set<Listener<any>>>();

  /** Call `listener` on each event of this name. Returns a function that stops this. */
  on<Name extends keyof Events>(name: Name, listener: Listener<Events[Name]>): () => void {
    let all = this._listeners.get(name);
    if (all === undefined) this._listeners.set(name, (all = new Set()));
    all.add(listener);
    return () => this.off(name, listener);
  }

  off<Name extends keyof Events>(name: Name, listener: Listener<Events[Name]>): void {
    this._listeners.get(name)?.delete(listener);
  }

  protected _listened(name: keyof Events): boolean {
    return (this._listeners.get(name)?.size ?? 0) > 0;
  }

  protected _fire<Name extends keyof Events>(name: Name, event: Events[Name]): void {
    for (const listener of [...(this._listeners.get(name) ?? [])])
      try {
        listener(event);
      } catch (error) {
        report(error); // the other listeners are called nevertheless
      }
  }
}

function report(error: unknown): void {
  const { reportError } = globalThis as { reportError?: (error: unknown) => void };
  if (reportError !== undefined) reportError(error);
  else console.error(error);
}
