/** When a JWT ends. Pure. */

/** Life of a token, in ms since the epoch of its issuer's clock. */
export interface Lifetime {
  readonly expiresAt: number;
  /** How long before its end a new one should be asked for, in ms. */
  readonly leadMs: number;
}

/** Return the life of a JWT; undefined: `token` is none, or does not end. */
export function lifetimeOf(token: string): Lifetime | undefined {
  const body = token.split(".")[1];
  if (body === undefined) return undefined;
  try {
    const claims = JSON.parse(atob(body.replace(/-/g, "+").replace(/_/g, "/"))) as { exp?: unknown; iat?: unknown };
    if (typeof claims.exp !== "number") return undefined;
    const life = typeof claims.iat === "number" ? claims.exp - claims.iat : 300;
    return { expiresAt: claims.exp * 1000, leadMs: Math.min(60_000, Math.max(life, 1) * 200) };
  } catch {
    return undefined;
  }
}
