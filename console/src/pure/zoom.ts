/** Zoom and pan of a picture: a scale and a shift in shares of the picture's size. Pure. */

export interface Zoom {
  scale: number;
  /** Shift of the picture's centre, in shares of its shown width and height at scale 1. */
  x: number;
  y: number;
}

export const WHOLE: Zoom = { scale: 1, x: 0, y: 0 };
export const MOST = 12;

/** Keeps the picture's edges outside of the frame that it is shown in. */
export function clamp(zoom: Zoom): Zoom {
  const scale = Math.min(MOST, Math.max(1, zoom.scale));
  const room = (scale - 1) / 2;
  const within = (value: number) => Math.min(room, Math.max(-room, value)) || 0;
  return { scale, x: within(zoom.x), y: within(zoom.y) };
}

/** Zooms by `factor` around a point, given in shares of the frame from its centre (-0.5 to 0.5): it stays in place. */
export function zoomAt(zoom: Zoom, factor: number, px: number, py: number): Zoom {
  const scale = Math.min(MOST, Math.max(1, zoom.scale * factor));
  const ratio = scale / zoom.scale;
  return clamp({ scale, x: px - (px - zoom.x) * ratio, y: py - (py - zoom.y) * ratio });
}

export function pan(zoom: Zoom, dx: number, dy: number): Zoom {
  return clamp({ ...zoom, x: zoom.x + dx, y: zoom.y + dy });
}
