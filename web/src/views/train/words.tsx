// The verdict's words and colours.
export function shortVerdict(word: string | null): string {
  switch (word) {
    case "helped": return "Helped";
    case "hurt": return "Made it worse";
    case "no difference shown": return "No difference shown";
    case "not measured": return "Not measured";
    default: return "Finished";
  }
}
export function longVerdict(word: string, kind: string): string {
  const what = kind === "start" ? "Post-processing" : "Training";
  switch (word) {
    case "helped": return `${what} helped`;
    case "hurt": return `${what} made it worse`;
    case "no difference shown": return "No difference shown";
    default: return "Not measured";
  }
}
export const tone = (word: string | null): "good" | "bad" | "open" => (word === "helped" ? "good" : word === "hurt" ? "bad" : "open");

/** Text of the service in which `backticks` mark what one types. */
export function Told({ text }: { text: string }) {
  return <>{text.split("`").map((part, index) => (index % 2 ? <code key={index}>{part}</code> : part))}</>;
}
export const signed = (value: number, digits = 1): string => {
  const size = Math.abs(value).toFixed(digits);
  return `${Number(size) === 0 ? "" : value > 0 ? "+" : "−"}${size}`;
};
