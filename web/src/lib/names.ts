// How labels, files and filters are written.

/** A label as a person writes it: `017.Cardinal` is Cardinal, and lines below are spaces. */
export function readable(label: string): string {
  return label.replace(/^\d+[._ -]+(?=\D)/, "").replaceAll("_", " ").trim() || label;
}

/** The file of a key, without its folders. */
export const fileOf = (key: string): string => key.slice(key.lastIndexOf("/") + 1);

/** A text as filters hold it. */
export const quoted = (text: string): string => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

export const plural = (count: number, one: string, many = `${one}s`): string => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** Two digits, with a minus that reads as one. */
export const score = (value: number): string => value.toFixed(2).replace(/^-(0\.00)$/, "$1").replace("-", "−");
