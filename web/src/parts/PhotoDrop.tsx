// Bringing a photo of one's own: dropped on the view, pasted, chosen, or taken with the phone's camera.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { refusal, upload, type Uploaded } from "../lib/upload";
import { tell } from "../lib/toast";
import { CameraIcon, PhotoIcon } from "./LookIcons";

export interface Sending {
  /** Shown while it is on its way; given back by the browser when no longer used. */
  preview: string;
  share: number;
  stop: () => void;
}
export interface Upload {
  sending: Sending | null;
  refused: string | null;
  take: (files: FileList | readonly File[] | null | undefined) => void;
  dismiss: () => void;
}

/** One upload at a time; a newer one takes the place of an older. */
export function useUpload(done: (uploaded: Uploaded) => void): Upload {
  const [sending, setSending] = useState<Sending | null>(null);
  const [refused, setRefused] = useState<string | null>(null);
  const running = useRef<AbortController | null>(null);
  useEffect(() => () => running.current?.abort(), []);

  async function send(photo: File) {
    running.current?.abort();
    const control = new AbortController();
    running.current = control;
    const preview = URL.createObjectURL(photo);
    setRefused(null);
    const now = (share: number) => setSending({ preview, share, stop: () => control.abort() });
    now(0);
    try {
      done(await upload(photo, now, control.signal));
    } catch (error) {
      if (!control.signal.aborted) setRefused(refusal(error));
    } finally {
      if (running.current === control) setSending(null);
      URL.revokeObjectURL(preview);
    }
  }
  return {
    sending, refused,
    dismiss: () => setRefused(null),
    take: (files) => {
      const [first, ...more] = [...(files ?? [])];
      if (!first) return;
      if (more.length) tell(`One photo at a time: only the first of ${more.length + 1} was taken.`, "warn");
      void send(first);
    },
  };
}

/** Everything within takes a dropped photo; a photo can be pasted as long as it is there. */
export function DropZone(props: { upload: Upload; class?: string; children: ComponentChildren }) {
  const [over, setOver] = useState(false);
  const depth = useRef(0);
  const { take } = props.upload;
  const latest = useRef(take);
  latest.current = take;
  useEffect(() => {
    const paste = (event: ClipboardEvent) => {
      const files = event.clipboardData?.files;
      if (!files?.length) return;
      event.preventDefault();
      latest.current(files);
    };
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, []);
  const holdsFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
  return (
    <div class={`dropzone ${props.class ?? ""}`}
      onDragEnter={(event) => { if (holdsFiles(event)) { depth.current += 1; setOver(true); } }}
      onDragLeave={() => { depth.current = Math.max(0, depth.current - 1); if (!depth.current) setOver(false); }}
      onDragOver={(event) => { if (holdsFiles(event)) event.preventDefault(); }}
      onDrop={(event) => {
        if (!holdsFiles(event)) return;
        event.preventDefault();
        depth.current = 0;
        setOver(false);
        take(event.dataTransfer?.files);
      }}>
      {props.children}
      {over && <div class="dropzone-over"><p>Drop the photo to look for it</p></div>}
    </div>
  );
}

export function ChoosePhoto(props: { upload: Upload; main?: boolean; name?: string }) {
  const choose = useRef<HTMLInputElement>(null);
  const camera = useRef<HTMLInputElement>(null);
  const taken = (input: HTMLInputElement) => {
    props.upload.take(input.files);
    input.value = "";
  };
  return (
    <>
      <button class={`button ${props.main ? "button-main" : ""}`} onClick={() => choose.current!.click()}><PhotoIcon /><span>{props.name ?? "Choose a photo"}</span></button>
      <button class="button only-touch" onClick={() => camera.current!.click()}><CameraIcon /><span>Take one</span></button>
      <input ref={choose} type="file" accept="image/*" hidden aria-label="Photo to look for" onChange={(event) => taken(event.currentTarget)} />
      <input ref={camera} type="file" accept="image/*" capture="environment" hidden aria-label="Photo from the camera" onChange={(event) => taken(event.currentTarget)} />
    </>
  );
}
