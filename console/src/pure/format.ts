/** Numbers and times as text. Pure. */

/** A span such as `4 s`, `3 min`, `2 h`, `5 d`. */
export function span(ms: number): string {
  const s = Math.max(0, ms) / 1000;
  if (s < 10) return `${s < 1 ? Math.round(s * 10) / 10 : Math.floor(s)} s`;
  if (s < 90) return `${Math.floor(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129_600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86_400)} d`;
}

export function ago(then: number, now: number): string {
  return now - then < 1000 ? "just now" : `${span(now - then)} ago`;
}

export function milliseconds(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
}

const UNITS = ["B", "kB", "MB", "GB", "TB"];

export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit && value < 9.95 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

export function count(value: number): string {
  if (!Number.isFinite(value)) return "–";
  return value >= 10_000 ? `${(value / 1000).toFixed(value < 100_000 ? 1 : 0)}k` : String(Math.round(value * 100) / 100);
}

export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

export function rate(fps: number): string {
  return fps >= 9.95 || fps === 0 ? String(Math.round(fps)) : fps.toFixed(1);
}

/** The time of day, with the date when it is not today. */
export function clock(ms: number, now: number): string {
  const then = new Date(ms);
  const time = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return then.toDateString() === new Date(now).toDateString()
    ? time
    : `${then.toLocaleDateString([], { day: "numeric", month: "short" })} ${time}`;
}

export function plural(n: number, word: string, many = `${word}s`): string {
  return `${n} ${n === 1 ? word : many}`;
}
