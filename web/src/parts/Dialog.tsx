// A modal dialog: focus stays in it, Escape closes it, focus goes back to where it was.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Layer, useLayer } from "../lib/keys";
import { Icon } from "./Icon";

/** `onClose` is left out where it cannot be closed. */
export function Dialog(props: { title: string; onClose?: () => void; children: ComponentChildren }) {
  const layer = useLayer();
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = ref.current!;
    dialog.showModal();
    return () => dialog.close();
  }, []);
  return (
    <dialog ref={ref} class="dialog" aria-label={props.title} onCancel={(event) => { event.preventDefault(); props.onClose?.(); }}>
      <div class="row spread">
        <h2>{props.title}</h2>
        {props.onClose && <button class="button button-plain button-icon" onClick={props.onClose} aria-label="Close"><Icon name="close" /></button>}
      </div>
      <Layer.Provider value={layer}>{props.children}</Layer.Provider>
    </dialog>
  );
}
