// Icons of the labelling and training views.
import type { ComponentChildren } from "preact";

function Icon(props: { children: ComponentChildren }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" width="18" height="18" fill="none" stroke="currentColor" stroke-width="1.6"
      stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">{props.children}</svg>
  );
}
export const IconUndo = () => <Icon><path d="M4 8h8a4.5 4.5 0 0 1 0 9H8M4 8l3.5-3.5M4 8l3.5 3.5" /></Icon>;
export const IconRedo = () => <Icon><path d="M16 8H8a4.5 4.5 0 0 0 0 9h4M16 8l-3.5-3.5M16 8l-3.5 3.5" /></Icon>;
export const IconSkip = () => <Icon><path d="M4 5l6 5-6 5zM11 5l6 5-6 5z" /></Icon>;
export const IconCheck = () => <Icon><path d="M4 10.5l4 4 8-9" /></Icon>;
export const IconDownload = () => <Icon><path d="M10 3v9m0 0l-3.5-3.5M10 12l3.5-3.5M4 16h12" /></Icon>;
export const IconTag = () => <Icon><path d="M3 4.5V10l7 7 6.5-6.5-7-7H4A1 1 0 0 0 3 4.5z" /><circle cx="6.6" cy="7" r="0.9" /></Icon>;
export const IconLeft = () => <Icon><path d="M12 4l-6 6 6 6" /></Icon>;
export const IconRight = () => <Icon><path d="M8 4l6 6-6 6" /></Icon>;
export const IconDown = () => <Icon><path d="M4 8l6 6 6-6" /></Icon>;
export const IconOpen = () => <Icon><path d="M11 4h5v5M16 4l-7 7M14 12v4H4V6h4" /></Icon>;
