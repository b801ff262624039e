/** How many pixels a picture needs where it is shown. */

export interface Size {
  readonly width: number;
  readonly height: number;
}

export type Fit = "contain" | "cover" | "fill" | "none" | "scale-down";

/**
 * The size to paint a picture with: never larger than it is, never larger than what is seen, always its own aspect.
 *
 * @param picture - size of the picture
 * @param box - device pixels of the element; undefined paints the picture as it is
 * @param fit - the element's `object-fit`
 */
export function paintSize(picture: Size, box: Size | undefined, fit: Fit = "contain"): Size {
  if (box === undefined || fit === "none" || box.width <= 0 || box.height <= 0) {
    return { width: picture.width, height: picture.height };
  }
  const across = box.width / picture.width;
  const down = box.height / picture.height;
  const scale = Math.min(1, fit === "cover" || fit === "fill" ? Math.max(across, down) : Math.min(across, down));
  return {
    width: Math.max(1, Math.round(picture.width * scale)),
    height: Math.max(1, Math.round(picture.height * scale)),
  };
}
