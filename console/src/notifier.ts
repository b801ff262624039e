/** Sound and notifications of new alerts, each only when the user asked for it. */

import { Cell } from "./cell";
import { SEVERITIES, formatRoute, type Severity } from "./pure/route";
import type { Alert } from "./pure/alerts";
import { say } from "./ui";

const KEY = "watchout.notify";
/** Pitches of a severity's sound, in Hz. */
const TONES: Record<Severity, readonly number[]> = {
  low: [440],
  medium: [523, 659],
  high: [659, 880],
  critical: [880, 659, 880, 659],
};
/** Least time between two sounds or notifications, in ms: of many alerts in that time only the first is notified. */
const PAUSE_MS = 1500;

export interface Wishes {
  sound: boolean;
  notify: boolean;
}

function read(): Wishes {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Wishes>;
    return { sound: kept.sound === true, notify: kept.notify === true && permission() === "granted" };
  } catch {
    return { sound: false, notify: false };
  }
}

/** Whether the browser lets this page notify; null: it cannot, for instance off https. */
export function permission(): NotificationPermission | null {
  return typeof Notification === "undefined" || !isSecureContext ? null : Notification.permission;
}

export class Notifier {
  readonly wishes = new Cell<Wishes>(read());
  #audio: AudioContext | null = null;
  #last = 0;

  /** Switches the sound; to be called by the press of a button, which browsers require before a page may play sound. */
  async setSound(sound: boolean): Promise<void> {
    this.#keep({ ...this.wishes.value, sound });
    if (sound) await this.#play("medium");
  }

  /** Switches notifications, after asking for the user's permission. Returns why that failed, or null. */
  async setNotify(notify: boolean): Promise<string | null> {
    if (notify && permission() === null) return "This browser notifies only on https.";
    if (notify && (await Notification.requestPermission()) !== "granted")
      return "The browser does not let this page notify: allow it in the settings of this site.";
    this.#keep({ ...this.wishes.value, notify });
    return null;
  }

  /** Announces a new alert: as text where the list is not shown, by sound and notification if the user chose them. */
  tell(alert: Alert): void {
    const now = Date.now();
    if (now - this.#last < PAUSE_MS && SEVERITIES.indexOf(alert.severity) < 3) return;
    this.#last = now;
    if (!location.hash.startsWith("#/alerts")) say(`${alert.severity} alert of ${alert.streamId}: ${alert.message}`, true);
    if (this.wishes.value.sound) void this.#play(alert.severity);
    if (this.wishes.value.notify && document.hidden && permission() === "granted") {
      const shown = new Notification(`${alert.severity}: ${alert.streamId}`, { body: alert.message, tag: alert.id });
      shown.onclick = () => {
        window.focus();
        location.hash = formatRoute({ view: "alerts", severity: "low", stream: alert.streamId, open: false, alert: alert.id });
        shown.close();
      };
    }
  }

  async #play(severity: Severity): Promise<void> {
    this.#audio ??= new AudioContext();
    const audio = this.#audio;
    await audio.resume();
    TONES[severity].forEach((pitch, index) => {
      const at = audio.currentTime + index * 0.16;
      const tone = audio.createOscillator();
      const volume = audio.createGain();
      tone.frequency.value = pitch;
      volume.gain.setValueAtTime(0.0001, at);
      volume.gain.exponentialRampToValueAtTime(0.2, at + 0.02);
      volume.gain.exponentialRampToValueAtTime(0.0001, at + 0.15);
      tone.connect(volume).connect(audio.destination);
      tone.start(at);
      tone.stop(at + 0.16);
    });
  }

  #keep(wishes: Wishes): void {
    this.wishes.set(wishes);
    try {
      localStorage.setItem(KEY, JSON.stringify(wishes));
    } catch {
      // then the choice lasts for this page only
    }
  }
}
