/** Ids that were seen, newest kept. Pure. */

export class SeenIds {
  private readonly ids = new Set<string>();

  constructor(private readonly most: number) {}

  /** Whether this id is new; from then on it is not. */
  add(id: string): boolean {
    if (this.ids.has(id)) return false;
    this.ids.add(id);
    if (this.ids.size > this.most) this.ids.delete(this.ids.values().next().value as string);
    return true;
  }
}
