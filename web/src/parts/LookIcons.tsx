// Icons of the views that look closely: search, compare, species. Drawn on 24 × 24, as thick as the text beside them.
import type { ComponentChildren } from "preact";

function Icon(props: { children: ComponentChildren }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" width="20" height="20" fill="none" stroke="currentColor" stroke-width="1.75"
      stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">{props.children}</svg>
  );
}

export const PhotoIcon = () => <Icon><rect x="3" y="4.5" width="18" height="15" rx="2.5" /><circle cx="8.5" cy="10" r="1.6" /><path d="m4 17 5-4 3.5 2.6L16 11l4.5 4.5" /></Icon>;
export const CameraIcon = () => <Icon><path d="M4 8h3.2L9 5.5h6L16.8 8H20a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V9a1 1 0 0 1 1-1Z" /><circle cx="12" cy="13" r="3.5" /></Icon>;
export const BoxIcon = () => <Icon><path d="M4 8V5a1 1 0 0 1 1-1h3M16 4h3a1 1 0 0 1 1 1v3M20 16v3a1 1 0 0 1-1 1h-3M8 20H5a1 1 0 0 1-1-1v-3" /></Icon>;
export const SearchIcon = () => <Icon><circle cx="10.5" cy="10.5" r="6.5" /><path d="m20.5 20.5-5.2-5.2" /></Icon>;
export const CloseIcon = () => <Icon><path d="m6 6 12 12M18 6 6 18" /></Icon>;
export const BackIcon = () => <Icon><path d="M15 5 8 12l7 7" /></Icon>;
export const NextIcon = () => <Icon><path d="m9 5 7 7-7 7" /></Icon>;
export const PlusIcon = () => <Icon><path d="M12 5v14M5 12h14" /></Icon>;
export const MinusIcon = () => <Icon><path d="M5 12h14" /></Icon>;
export const WholeIcon = () => <Icon><path d="M9 4H4v5M15 4h5v5M20 15v5h-5M4 15v5h5" /></Icon>;
export const WarnIcon = () => <Icon><path d="M12 4 2.8 19.5h18.4L12 4Z" /><path d="M12 10v4.5M12 17v.1" /></Icon>;
export const CheckIcon = () => <Icon><circle cx="12" cy="12" r="8.5" /><path d="m8.5 12.2 2.5 2.5 4.5-5" /></Icon>;
export const PrintIcon = () => <Icon><path d="M7 9V4h10v5M7 17H4.5a1 1 0 0 1-1-1v-6a1 1 0 0 1 1-1h15a1 1 0 0 1 1 1v6a1 1 0 0 1-1 1H17" /><path d="M7 14h10v6H7z" /></Icon>;
