/** Ids that were seen, newest kept. Pure. */

export class SeenIds {
  private readonly _ids = new Set<string>();

  constructor(private readonly _most: number) {}

  /** Record an id; returns whether it is new. */
  add(id: string): boolean {
    if (this._ids.has(id)) return false;
    this._ids.add(id);
    if (this._ids.size > this._most) this._ids.delete(this._ids.values().next().value as string);
    return true;
  }
}
