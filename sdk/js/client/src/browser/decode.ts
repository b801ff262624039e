/** Decodes pictures in the worker. */

/** Largest picture that is decoded without a `Blob`: above it the additional copy of the pixels costs more time. */
const MOST_PIXELS = 640 * 480;
/** Buffers of pixels that are kept for the next pictures: as many as are usually decoded at the same time. */
const MOST_KEPT = 4;

const kept: ArrayBuffer[] = [];
let hasDecoder = typeof ImageDecoder !== "undefined";

/**
 * Decode a picture. Rejects when it is none.
 *
 * Browsers share a `Blob` between their processes, and Chromium remembers eight closed channels of each one for five
 * to ten minutes, in two processes: 10 to 20 MB in each at 240 pictures a second. So small JPEGs whose pixels alone
 * say how they look are decoded without one where the browser can: Chromium, on HTTPS or localhost.
 */
export async function decodePicture(picture: Uint8Array<ArrayBuffer>): Promise<ImageBitmap> {
  const bitmap = hasDecoder && isPlainJpeg(picture) ? await decodePlain(picture).catch(() => undefined) : undefined;
  return bitmap ?? createImageBitmap(new Blob([picture]));
}

/** Whether this is a small JPEG that neither has to be turned nor has colours of its own: no Exif, ICC or Adobe part. */
export function isPlainJpeg(picture: Uint8Array): boolean {
  const number = (at: number): number => (picture[at] ?? 0) * 256 + (picture[at + 1] ?? 0);
  if (number(0) !== 0xffd8) return false;
  let pixels = 0;
  for (let at = 2; picture[at] === 0xff; at += 2 + number(at + 2)) {
    const marker = picture[at + 1] ?? 0;
    if (marker === 0xda) return pixels > 0 && pixels <= MOST_PIXELS; // the pixels begin
    if (marker >= 0xc0 && marker <= 0xc2) pixels = number(at + 5) * number(at + 7);
    if (marker > 0xe0 && marker <= 0xef) return false;
  }
  return false;
}

async function decodePlain(data: Uint8Array<ArrayBuffer>): Promise<ImageBitmap | undefined> {
  const decoder = new ImageDecoder({ data, type: "image/jpeg" });
  let frame: VideoFrame | undefined;
  let pixels: ArrayBuffer | undefined;
  try {
    const { image, complete } = await decoder.decode();
    frame = image;
    const { width = 0, height = 0 } = frame.visibleRect ?? {};
    if (!complete || width * height === 0) return undefined;
    pixels = bufferOf(4 * width * height);
    const [plane, ...others] = await frame.copyTo(pixels, { format: "RGBA" });
    if (plane?.stride !== 4 * width || others.length > 0) {
      hasDecoder = false; // it does not know `format`: Chromium before 127
      return undefined;
    }
    return await createImageBitmap(new ImageData(new Uint8ClampedArray(pixels), width, height));
  } finally {
    frame?.close();
    decoder.close();
    if (pixels !== undefined && kept.length < MOST_KEPT) kept.push(pixels);
  }
}

/** A kept buffer of this size, or a new one; kept ones of other sizes go. */
function bufferOf(bytes: number): ArrayBuffer {
  for (let buffer = kept.pop(); buffer !== undefined; buffer = kept.pop()) if (buffer.byteLength === bytes) return buffer;
  return new ArrayBuffer(bytes);
}
