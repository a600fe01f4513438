// A modal dialog is shown as long as it is drawn; the focus comes back to where it was.
import type { RefObject } from "preact";
import { useEffect, useState } from "preact/hooks";

/** `first` has the focus first; without it what the browser chooses. */
export function useModal(dialog: RefObject<HTMLDialogElement | null>, first?: RefObject<HTMLElement | null>): void {
  const [before] = useState(() => document.activeElement);
  useEffect(() => {
    const element = dialog.current!;
    element.showModal();
    first?.current?.focus();
    return () => {
      element.close();
      // The browser gives it back only to those that close a dialog before they take it out of the page.
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
    };
  }, []);
}
