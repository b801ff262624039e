/** Icons, drawn with lines in the colour of the text. They are decoration: the words are beside them, or in a label. */

const PATHS = {
  live: "M3 5h7v6H3zM14 5h7v6h-7zM3 14h7v5H3zM14 14h7v5h-7z",
  alerts: "M6 16V11a6 6 0 0 1 12 0v5l2 2H4zM10 20.500a2.200 2.200 0 0 0 4 0",
  camera: "M3 7h11v10H3zM14 10.500 21 7v10l-7-3.500",
  sharing: "M12 15V4M8 7.500 12 4l4 3.500M5 12v8h14v-8",
  health: "M3 12h4l2.500-6 4 12 2.500-6h5",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.500 1.500M17.500 17.500 19 19M5 19l1.500-1.500M17.500 6.500 19 5",
  moon: "M20 14.500A8.500 8.500 0 0 1 9.500 4 8.500 8.500 0 1 0 20 14.500Z",
  auto: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  out: "M14 4h6v16h-6M10 8l-4 4 4 4M6 12h10",
  back: "M15 5l-7 7 7 7",
  full: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  snap: "M4 8h4l1.500-3h5L16 8h4v11H4zM12 10.500a3 3 0 1 0 0 6 3 3 0 0 0 0-6",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  check: "M4 12.500 9.500 18 20 6.500",
  bell: "M6 16V11a6 6 0 0 1 12 0v5l2 2H4z",
  sound: "M4 9.500h4L13 5v14l-5-4.500H4zM16.500 9a4 4 0 0 1 0 6M19 6.500a8 8 0 0 1 0 11",
  link: "M10 14a4 4 0 0 0 6 .5l3-3a4 4 0 0 0-5.700-5.700L12 7M14 10a4 4 0 0 0-6-.5l-3 3a4 4 0 0 0 5.700 5.700L12 17",
  copy: "M8 8h12v12H8zM16 8V4H4v12h4",
  close: "M6 6l12 12M18 6 6 18",
  wait: "M12 3a9 9 0 1 0 9 9M12 7v5l3 2",
  lock: "M6 11h12v9H6zM8.500 11V8a3.500 3.500 0 0 1 7 0v3",
  off: "M3 7h11v10H3zM14 10.500 21 7v10l-7-3.500M3 3l18 18",
  warn: "M12 4 2.500 20h19zM12 10v4.500M12 17v.5",
  leaf: "M5 19c0-9 5-14 15-14 0 10-5 15-13 14M5 19c2-4 5-6.500 9-8",
  eye: "M2.500 12C5 7.500 8 5.500 12 5.500s7 2 9.500 6.500c-2.500 4.500-5.500 6.500-9.500 6.500S5 16.500 2.500 12ZM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6",
  help: "M9 9a3 3 0 1 1 4.500 2.600c-1 .6-1.500 1.200-1.500 2.400M12 17.500v.5M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 18 }: { name: IconName; size?: number }) {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
