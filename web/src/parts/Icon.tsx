// Icons of the whole page: lines on a square of 20, in the colour of the words beside them.
const paths = {
  search: "M9 3.5a5.5 5.5 0 1 1 0 11 5.5 5.5 0 0 1 0-11ZM13 13l4 4",
  filter: "M3 4.5h14l-5.5 6.5v4.5l-3 1.5v-6Z",
  close: "M5 5l10 10M15 5 5 15",
  check: "M4 10.5 8 14.5 16 5.5",
  map: "M3 5.5 7.5 3.5l5 2 4.5-2v11l-4.5 2-5-2-4.5 2ZM7.5 3.5v11M12.5 5.5v11",
  grid: "M3.5 3.5h5v5h-5ZM11.5 3.5h5v5h-5ZM3.5 11.5h5v5h-5ZM11.5 11.5h5v5h-5Z",
  lasso: "M10 3.5c4 0 7 1.9 7 4.5s-3 4.5-7 4.5S3 10.6 3 8s3-4.5 7-4.5ZM5.5 11.5c-1.2.9-1 2.5.5 2.5s1.5 2.5-1 2.5",
  move: "M10 2.5v15M2.5 10h15M7.8 4.7 10 2.5l2.2 2.2M7.8 15.3 10 17.5l2.2-2.2M4.7 7.8 2.5 10l2.2 2.2M15.3 7.8 17.5 10l-2.2 2.2",
  plus: "M10 4v12M4 10h12",
  minus: "M4 10h12",
  whole: "M3.5 7V3.5H7M13 3.5h3.5V7M16.5 13v3.5H13M7 16.5H3.5V13",
  near: "M7.5 3.5v4h-4M12.5 3.5v4h4M7.5 16.5v-4h-4M12.5 16.5v-4h4",
  clusters: "M6 4a2.5 2.5 0 1 1 0 5 2.5 2.5 0 0 1 0-5ZM14.5 6a2 2 0 1 1 0 4 2 2 0 0 1 0-4ZM10 11.5a2.5 2.5 0 1 1 0 5 2.5 2.5 0 0 1 0-5Z",
  outlier: "M4 12.5a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3ZM7.5 9a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3ZM8.5 14a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3ZM15 3a2 2 0 1 1 0 4 2 2 0 0 1 0-4Z",
  copies: "M7 3.5h9.5V13H7ZM13 13v3.5H3.5V7H7",
  tag: "M3.5 3.5h6l7 7-6 6-7-7ZM6.8 6.8h.01",
  clock: "M10 3a7 7 0 1 1 0 14 7 7 0 0 1 0-14ZM10 6v4.2l2.7 1.8",
  info: "M10 3a7 7 0 1 1 0 14 7 7 0 0 1 0-14ZM10 9.2v4.3M10 6.5h.01",
  warning: "M10 3.2 17.5 16.5h-15ZM10 8v4M10 14.2h.01",
  left: "M12.5 4.5 7 10l5.5 5.5",
  right: "M7.5 4.5 13 10l-5.5 5.5",
  down: "M4.5 7.5 10 13l5.5-5.5",
  up: "M4.5 12.5 10 7l5.5 5.5",
  undo: "M4 8h8a4.2 4.2 0 0 1 0 8.4H8M7 4.5 3.5 8 7 11.5",
  redo: "M16 8H8a4.2 4.2 0 0 0 0 8.4h4M13 4.5 16.5 8 13 11.5",
  download: "M10 3.5v9M6 9l4 4 4-4M3.5 16.5h13",
  upload: "M10 13V4M6 7.5l4-4 4 4M3.5 16.5h13",
  photo: "M3 4.5h14v11H3ZM3 13.5l4-4 3.5 3.5 2.5-2.5 4 4M13 7.3h.01",
  camera: "M3 6.5h3l1.5-2h5l1.5 2h3v9.5H3ZM10 8.3a2.7 2.7 0 1 1 0 5.4 2.7 2.7 0 0 1 0-5.4Z",
  feather: "M4 16.5 12 8.5M6 14.5V10l4.5-4.5c2-2 5.5-2 5.5-2s0 3.5-2 5.5L9.5 14Z",
  sun: "M10 6.5a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7ZM10 2v2M10 16v2M2 10h2M16 10h2M4.3 4.3l1.4 1.4M14.3 14.3l1.4 1.4M4.3 15.7l1.4-1.4M14.3 5.7l1.4-1.4",
  moon: "M15.5 12.5A6.5 6.5 0 0 1 7.5 4.3a6.5 6.5 0 1 0 8 8.2Z",
  keys: "M2.5 5.5h15v9h-15ZM5.5 8.5h.01M8.5 8.5h.01M11.5 8.5h.01M14.5 8.5h.01M6.5 11.5h7",
  eye: "M2.5 10S5.2 5 10 5s7.5 5 7.5 5-2.7 5-7.5 5-7.5-5-7.5-5ZM10 7.8a2.2 2.2 0 1 1 0 4.4 2.2 2.2 0 0 1 0-4.4Z",
  merge: "M4 4v3c0 2.5 6 2 6 5v4.5M16 4v3c0 2.5-6 2-6 5M7.5 14 10 16.5l2.5-2.5",
} as const;

export type IconName = keyof typeof paths;

/** Decoration only: the words beside it, or the button's aria-label, tell what it means. */
export function Icon(props: { name: IconName; size?: number; class?: string }) {
  const size = props.size ?? 20;
  return (
    <svg class={`icon ${props.class ?? ""}`} viewBox="0 0 20 20" width={size} height={size} fill="none" stroke="currentColor" stroke-width="1.6"
      stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false"><path d={paths[props.name]} /></svg>
  );
}
