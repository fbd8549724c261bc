import type { JSX } from "preact";

/** The pictures, each a path in a square of 24. */
const paths = {
  activity: "M3 12h4l3-8 4 16 3-8h4",
  alert: "M12 9v4m0 3.5v.01M10.6 4.2 2.9 17.6A1.6 1.6 0 0 0 4.3 20h15.4a1.6 1.6 0 0 0 1.4-2.4L13.4 4.2a1.6 1.6 0 0 0-2.8 0Z",
  back: "M15 5l-7 7 7 7",
  book: "M5 5.5A1.5 1.5 0 0 1 6.5 4H19v13H6.5A1.5 1.5 0 0 0 5 18.5m0-13v13A1.5 1.5 0 0 0 6.5 20H19v-3",
  check: "M5 12.5l4.5 4.5L19 7.5",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM15 9V5H5v10h4",
  database: "M4 6c0-1.7 3.6-3 8-3s8 1.3 8 3-3.6 3-8 3-8-1.3-8-3Zm0 0v12c0 1.7 3.6 3 8 3s8-1.3 8-3V6M4 12c0 1.7 3.6 3 8 3s8-1.3 8-3",
  device: "M4 5h16v11H4zM9 20h6m-3-4v4",
  down: "M6 9l6 6 6-6",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12Zm9.500-2.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5Z",
  hide: "M4 4l16 16M9.900 5.700A9.600 9.600 0 0 1 12 5.500c6 0 9.500 6.500 9.500 6.500a17 17 0 0 1-2.900 3.700M6.200 7.300A16.600 16.600 0 0 0 2.500 12S6 18.500 12 18.500c1.600 0 3-.4 4.300-1.100M10.200 10.300a2.500 2.500 0 0 0 3.500 3.500",
  home: "M4 11l8-7 8 7v9h-5v-6H9v6H4z",
  info: "M12 11v5.500M12 7.800v.01M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18Z",
  key: "M14.500 9.500a4.500 4.500 0 1 0-4 4.480L12.500 16H15v2.500h2.500V21H21v-3.500l-7-7a4.500 4.500 0 0 0 .5-1ZM8.500 8.500v.01",
  link: "M10 13.500a4 4 0 0 0 5.700 0l3-3a4 4 0 0 0-5.700-5.700l-1.200 1.200M14 10.500a4 4 0 0 0-5.700 0l-3 3a4 4 0 0 0 5.700 5.700l1.200-1.200",
  lock: "M6 11h12v9H6zM8.500 11V7.500a3.500 3.500 0 0 1 7 0V11",
  mail: "M3.500 6h17v12.500h-17zM4 6.500l8 6.500 8-6.500",
  menu: "M4 7h16M4 12h16M4 17h16",
  more: "M12 5.500v.01M12 12v.01M12 18.500v.01",
  passkey: "M9.500 11a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7ZM3 20c0-3.500 2.700-6 6.500-6 1 0 1.900.2 2.700.500M17.500 15.500a2.800 2.800 0 1 0-1.500 0V20l1.200 1.200L19 19.500l-1.300-1.200 1.300-1.200z",
  phone: "M7.500 3h9v18h-9zM11 18h2",
  search: "M10.500 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13Zm4.700-1.800L20 20",
  send: "M4 12h11m-4-4 4 4-4 4M19 5v14",
  shield: "M12 3l7.500 3v5.500c0 4.500-3 8-7.500 9.500-4.500-1.500-7.500-5-7.500-9.500V6z",
  signOut: "M14 4H5v16h9M10 12h10m-3.500-3.500L20 12l-3.500 3.500",
  terminal: "M5 7l5 5-5 5M12.500 17.500H19",
  traces: "M4 6.500h8M8 12h9M13 17.500h7",
  trash: "M4.500 6.500h15M9 6V4h6v2M6.500 6.500l1 13.500h9l1-13.500M10 10.500v6m4-6v6",
  user: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8Zm-7.500 8.500c0-3.800 3.100-6 7.500-6s7.500 2.200 7.500 6",
  users: "M9 11.500A3.500 3.500 0 1 0 9 4.500a3.500 3.500 0 0 0 0 7ZM2.500 19.500c0-3.300 2.700-5 6.500-5s6.500 1.700 6.500 5M16 5a3.300 3.300 0 0 1 0 6.300M18.500 15c1.900.7 3 2.200 3 4.500",
} as const;

/** The name of a picture. */
export type IconName = keyof typeof paths;

/** A picture, hidden from screen readers: a word stands beside it, or names the button around it. */
export function Icon({ name, size = 20 }: { name: IconName; size?: number }): JSX.Element {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width={name === "more" ? 3 : 1.75} stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">
      <path d={paths[name]} />
    </svg>
  );
}
