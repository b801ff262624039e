/** Parts that several views use. */

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { correction, generate } from "lean-qr/nano";
import { Cell, useCell } from "./cell";
import { Icon, type IconName } from "./icons";
import type { Severity } from "./pure/route";

/** A notice in place of content: what is wrong, and what the user can do. */
export function Notice(props: {
  icon: IconName;
  title: string;
  children?: ComponentChildren;
  tone?: "plain" | "bad";
  busy?: boolean;
}) {
  return (
    <div class={`notice ${props.tone ?? "plain"}`} role={props.tone === "bad" ? "alert" : "status"} data-busy={props.busy}>
      <Icon name={props.icon} size={34} />
      <h2>{props.title}</h2>
      {props.children}
    </div>
  );
}

/** A list of named values. */
export function Facts({ of, big = false }: { of: readonly (readonly [name: string, value: string])[]; big?: boolean }) {
  return (
    <dl class={big ? "facts big" : "facts"}>
      {of.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** A table that scrolls by itself where it is wider than the page; its rows are the children. */
export function Table(props: { label: string; caption?: string; columns: readonly string[]; children: ComponentChildren }) {
  return (
    <div class="table" role="region" aria-label={props.label} tabIndex={0}>
      <table>
        <caption>{props.caption ?? props.label}</caption>
        <thead>
          <tr>
            {props.columns.map((name) => (
              <th key={name} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{props.children}</tbody>
      </table>
    </div>
  );
}

export function Chip({ severity }: { severity: Severity }) {
  return <span class={`chip ${severity}`}>{severity}</span>;
}

/** Empty modules around a code, which readers need to find it. */
const QUIET = 4;

/** A QR code of a text; `label` describes it to screen readers. */
export function Qr({ text, label }: { text: string; label: string }) {
  const { size, path } = useMemo(() => {
    const code = generate(text, { minCorrectionLevel: correction.M });
    let path = "";
    for (let y = 0; y < code.size; y++)
      for (let x = 0; x < code.size; x++) if (code.get(x, y)) path += `M${x + QUIET} ${y + QUIET}h1v1h-1z`;
    return { size: code.size + 2 * QUIET, path };
  }, [text]);
  return (
    <svg class="qr" viewBox={`0 0 ${size} ${size}`} role="img" aria-label={label} shape-rendering="crispEdges">
      <rect width={size} height={size} fill="#fff" />
      <path d={path} fill="#000" />
    </svg>
  );
}

export function Copy({ text, label = "Copy" }: { text: string; label?: string }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    const timer = copied ? setTimeout(() => setCopied(false), 2000) : 0;
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // no clipboard off https: an older way that works there
      const field = document.createElement("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    setCopied(true);
    say(`Copied: ${label === "Copy" ? "the text" : label}`);
  };
  return (
    <button type="button" class="quiet" onClick={() => void copy()}>
      <Icon name={copied ? "check" : "copy"} /> {copied ? "Copied" : label}
    </button>
  );
}

/** A message that is shown for some seconds, and read by screen readers. */
const said = new Cell<readonly { id: number; text: string; bad: boolean }[]>([]);
let lastId = 0;
const MOST_SAID = 4;

export function say(text: string, bad = false): void {
  const id = (lastId += 1);
  said.update((all) => [...all.slice(1 - MOST_SAID), { id, text, bad }]);
  setTimeout(() => said.update((all) => all.filter((each) => each.id !== id)), bad ? 8000 : 4000);
}

export function Said() {
  return (
    <div class="said" role="status" aria-live="polite">
      {useCell(said).map(({ id, text, bad }) => (
        <p key={id} class={bad ? "bad" : ""}>
          {text}
        </p>
      ))}
    </div>
  );
}

export function Toggle(props: { on: boolean; set: (on: boolean) => void; icon?: IconName; children: ComponentChildren }) {
  return (
    <button type="button" class="toggle" aria-pressed={props.on} onClick={() => props.set(!props.on)}>
      {props.icon && <Icon name={props.icon} />} {props.children}
    </button>
  );
}

/** Puts the focus on an element when it is first shown. */
export function useFocus<T extends HTMLElement>() {
  const ref = useRef<T>(null);
  useEffect(() => ref.current?.focus(), []);
  return ref;
}

/** Whether a key press is meant for a field or a control, not for the view. */
export function isTyping(event: KeyboardEvent): boolean {
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  const at = event.target as HTMLElement | null;
  return at !== null && (at.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(at.tagName));
}

/** Calls `act` for keys that are pressed outside of fields. */
export function useKeys(act: (event: KeyboardEvent) => void): void {
  const latest = useRef(act);
  latest.current = act;
  useEffect(() => {
    const listen = (event: KeyboardEvent) => {
      if (!isTyping(event) && !document.querySelector("dialog[open]")) latest.current(event);
    };
    document.addEventListener("keydown", listen);
    return () => document.removeEventListener("keydown", listen);
  }, []);
}
