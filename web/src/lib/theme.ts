// Dark or light: the system's unless the user chose.
import { effect, signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";
const dark = matchMedia("(prefers-color-scheme: dark)");
const systemDark = signal(dark.matches);
dark.addEventListener("change", () => (systemDark.value = dark.matches));

export const theme = signal<Theme>((localStorage.getItem("fieldmark-theme") as Theme | null) ?? "system");
export const isDark = () => theme.value === "dark" || (theme.value === "system" && systemDark.value);
effect(() => {
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  localStorage.setItem("fieldmark-theme", theme.value);
});
