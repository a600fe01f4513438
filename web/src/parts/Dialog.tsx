// A modal dialog: focus stays in it, Escape closes it, focus goes back to where it was.
import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import { Layer, useLayer } from "../lib/keys";
import { useModal } from "../lib/modal";
import { Icon } from "./Icon";

/** `onClose` is left out where it cannot be closed. */
export function Dialog(props: { title: string; onClose?: () => void; children: ComponentChildren }) {
  const layer = useLayer();
  const ref = useRef<HTMLDialogElement>(null);
  useModal(ref);
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
