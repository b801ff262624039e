/** Observes whether an element is visible, and its size in pixels. */

import type { Fit, Size } from "./geometry.js";

/** A tile counts as scrolled away after this time, in ms, so that scrolling past it changes no subscription. */
const GONE_MS = 250;

const FITS: readonly string[] = ["contain", "cover", "fill", "none", "scale-down"];

/** Watches one element until `end` is called. */
export class Screen {
  #isOnScreen = true;
  #leaving: ReturnType<typeof setTimeout> | undefined;
  #isVisible: boolean;
  #box: Size | undefined;
  readonly #crossing: IntersectionObserver | undefined;
  readonly #sizing: ResizeObserver | undefined;

  readonly element: HTMLElement;
  readonly onVisible: (visible: boolean) => void;
  readonly onSize: (box: Size) => void;

  /**
   * @param element - what is watched
   * @param onVisible - called when the element becomes visible or invisible: hidden tab, scrolled away, `display: none`
   * @param onSize - called when its size in device pixels changed
   */
  constructor(
    element: HTMLElement,
    onVisible: (visible: boolean) => void,
    onSize: (box: Size) => void,
  ) {
    this.element = element;
    this.onVisible = onVisible;
    this.onSize = onSize;
    this.#isVisible = !document.hidden;
    document.addEventListener("visibilitychange", this.#look);
    if (typeof IntersectionObserver !== "undefined") {
      this.#crossing = new IntersectionObserver((entries) => {
        this.#isOnScreen = entries[entries.length - 1]?.isIntersecting ?? true;
        this.#look();
      });
      this.#crossing.observe(element);
    }
    if (typeof ResizeObserver !== "undefined") {
      this.#sizing = new ResizeObserver((entries) => {
        const entry = entries[entries.length - 1];
        if (entry !== undefined) this.#resized(entry);
      });
      try {
        this.#sizing.observe(element, { box: "device-pixel-content-box" });
      } catch {
        this.#sizing.observe(element); // Safari knows CSS pixels only
      }
    }
  }

  get isVisible(): boolean {
    return this.#isVisible;
  }

  /** Device pixels of the element's content; undefined before it was laid out. */
  get box(): Size | undefined {
    return this.#box;
  }

  /** The element's `object-fit`. */
  get fit(): Fit {
    const { objectFit } = getComputedStyle(this.element);
    return FITS.includes(objectFit) ? (objectFit as Fit) : "contain";
  }

  end(): void {
    clearTimeout(this.#leaving);
    document.removeEventListener("visibilitychange", this.#look);
    this.#crossing?.disconnect();
    this.#sizing?.disconnect();
  }

  readonly #look = (): void => {
    clearTimeout(this.#leaving);
    if (document.hidden) {
      this.#set(false); // at once: a hidden tab's timers are late
    } else if (this.#isOnScreen) {
      this.#set(true);
    } else {
      this.#leaving = setTimeout(() => this.#set(false), GONE_MS);
    }
  };

  #set(visible: boolean): void {
    if (visible === this.#isVisible) return;
    this.#isVisible = visible;
    this.onVisible(visible);
  }

  #resized(entry: ResizeObserverEntry): void {
    const exact = entry.devicePixelContentBoxSize?.[0];
    const ratio = exact === undefined ? devicePixelRatio : 1;
    const width = Math.round((exact?.inlineSize ?? entry.contentRect.width) * ratio);
    const height = Math.round((exact?.blockSize ?? entry.contentRect.height) * ratio);
    if (width === this.#box?.width && height === this.#box.height) return;
    this.#box = { width, height };
    this.onSize(this.#box);
  }
}
