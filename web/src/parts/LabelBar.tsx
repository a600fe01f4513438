// Type or pick a label for some photos: the likely ones first, by number keys, Enter, or a tap.
import { useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { useShortcuts } from "../lib/keys";
import { chance, plural } from "../lib/names";
import type { Edit } from "../state/edits";
import { guessesOf, guesses, useGuesses } from "../state/guesses";
import { recent, setLabels } from "../state/labelling";
import { counts, labels } from "../state/library";
import { nameOf } from "../state/names";
import { meanGuess, meant, nearlyTheSame, suggest } from "../state/suggest";
import "../styles/labelbar.css";

export interface LabelBarProps {
  /** Rows of the table that get the label. */
  rows: readonly number[];
  /** After a label was set or removed. */
  onDone?: (label: string | null, edit: Edit | null) => void;
  /** Escape in the empty field. */
  onLeave?: () => void;
  /** Take the focus at once. */
  focus?: boolean;
  /** No message and no undo button: the view shows it itself. */
  quiet?: boolean;
  /** The view has number keys of its own. */
  noNumbers?: boolean;
}

/** Guesses are read for so many of the photos; more would say the same. */
const ENOUGH = 400;

export function LabelBar(props: LabelBarProps) {
  const { rows } = props;
  useGuesses();
  const id = useId();
  const field = useRef<HTMLInputElement>(null);
  const [typed, setTyped] = useState("");
  const [moved, setPlace] = useState<number | null>(null);
  const [doubted, setDoubted] = useState<string | null>(null);

  const step = Math.max(1, Math.floor(rows.length / ENOUGH));
  const told = guesses.value;
  const guessed = useMemo(() => meanGuess(rows.filter((_, index) => index % step === 0).map(guessesOf)), [rows, told]);
  const offered = suggest({ typed, guessed, recent: recent.value, counts: counts.value });
  const text = typed.trim();
  const isNew = text !== "" && meant(text, counts.value) === null && !offered.some((one) => one.label === text);
  const near = isNew ? nearlyTheSame(text, counts.value.keys()) : null;
  const options = [...offered.map((one) => one.label), ...(isNew ? [text] : [])];
  // Enter must not set what nobody thought of: of known labels that nothing speaks for none is chosen beforehand.
  const place = Math.min(moved ?? (text === "" && offered[0]?.why === "known" ? -1 : 0), options.length - 1);
  const held = rows.filter((row) => labels.value[row] != null).length;
  const chosen = options[place];
  const other = rows.filter((row) => labels.value[row] != null && labels.value[row] !== chosen).length;

  // At once: what is typed right after the key that opened this must not be taken for shortcuts.
  useLayoutEffect(() => {
    if (props.focus) field.current?.focus();
  }, []);
  useEffect(() => setDoubted(null), [typed]);
  const list = useRef<HTMLUListElement>(null);
  // What the keys choose is brought into sight; within the list only, so that nothing else moves.
  useLayoutEffect(() => {
    const option = list.current?.children[place] as HTMLElement | undefined;
    const box = list.current;
    if (!option || !box) return;
    const [left, top] = [option.offsetLeft - box.offsetLeft, option.offsetTop - box.offsetTop];
    if (left < box.scrollLeft) box.scrollLeft = left;
    else if (left + option.offsetWidth > box.scrollLeft + box.clientWidth) box.scrollLeft = left + option.offsetWidth - box.clientWidth;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + option.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = top + option.offsetHeight - box.clientHeight;
  }, [place, typed]);

  function put(label: string | null) {
    const edit = setLabels(rows, label, props.quiet);
    setTyped("");
    setPlace(null);
    props.onDone?.(label, edit);
  }
  /** What is nearly the same as a known label is asked for twice. */
  function choose(label: string | undefined) {
    if (label === undefined || !rows.length) return;
    if (near && label === text && doubted !== text) setDoubted(text);
    else put(label);
  }
  useShortcuts([
    { key: "l", what: "Label: type a name", run: () => field.current?.focus() },
    ...(props.noNumbers ? [] : Array.from({ length: 9 }, (_, index) => ({
      key: String(index + 1), what: `Label: take suggestion ${index + 1}`, run: () => choose(offered[index]?.label),
    }))),
  ], [rows, told, typed, doubted]);

  function onKey(event: KeyboardEvent) {
    const digit = typed === "" && !props.noNumbers && /^[1-9]$/.test(event.key) ? Number(event.key) - 1 : -1;
    if (digit >= 0 && offered[digit]) choose(offered[digit].label);
    else if (event.key === "Enter") choose(chosen);
    else if (event.key === "ArrowDown" || event.key === "ArrowRight" && typed === "") setPlace(Math.min(place + 1, options.length - 1));
    else if (event.key === "ArrowUp" || event.key === "ArrowLeft" && typed === "") setPlace(Math.max(place - 1, 0));
    else if (event.key === "Backspace" && typed === "" && !event.repeat) {
      if (held) put(null);
    } else if (event.key === "Escape") {
      if (typed === "") {
        field.current?.blur();
        props.onLeave?.();
      } else setTyped("");
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  return (
    <section class="labelbar" aria-label="Label">
      <div class="labelbar-line">
        <input ref={field} class="field labelbar-field" type="text" value={typed} maxLength={200} placeholder="Type a label…"
          role="combobox" aria-label={`Label of ${rows.length === 1 ? "this photo" : `${rows.length} photos`}`}
          aria-expanded={options.length > 0} aria-controls={`${id}-list`} aria-autocomplete="list"
          aria-activedescendant={chosen === undefined ? undefined : `${id}-${place}`}
          autocomplete="off" autocapitalize="words" spellcheck={false} enterkeyhint="done"
          onInput={(event) => { setTyped(event.currentTarget.value); setPlace(null); }} onKeyDown={onKey} />
        <span class="labelbar-told small faint" aria-live="polite">
          {rows.length > 1 && plural(rows.length, "photo")}
          {other > 0 && chosen !== undefined && <strong class="labelbar-over">{rows.length > 1 && " · "}{other === 1 && rows.length === 1 ? "replaces its label" : `replaces ${plural(other, "label")}`}</strong>}
        </span>
        {held > 0 && <button class="button button-plain small" onClick={() => put(null)} title="Backspace in the empty field">Remove {held === 1 ? "label" : `${held.toLocaleString("en")} labels`}</button>}
      </div>
      <ul ref={list} class="labelbar-list" id={`${id}-list`} role="listbox" aria-label="Suggestions">
        {options.map((label, index) => {
          const one = offered[index];
          return (
            <li key={label} id={`${id}-${index}`} role="option" aria-selected={label === chosen} class="labelbar-option"
              onPointerDown={(event) => event.preventDefault()} onClick={() => choose(label)}>
              {one && index < 9 && !props.noNumbers && typed === "" && <kbd class="kbd">{index + 1}</kbd>}
              <span class="labelbar-name" title={label}>{one ? nameOf(label) : `New label “${label}”`}</span>
              {one && typed !== "" && nameOf(label) !== label && <span class="labelbar-stored small faint">{label}</span>}
              {one?.probability !== undefined && <span class="small faint">{chance(one.probability)}</span>}
            </li>
          );
        })}
        {!options.length && <li class="small faint" role="option" aria-selected="false" aria-disabled="true">No label yet. Type the first one.</li>}
      </ul>
      {near && (
        <p class="labelbar-near small" role="alert">
          “{text}” is nearly the same as <button class="button button-plain small" onClick={() => put(near)} title={near}>{nameOf(near)}</button>
          {doubted === text ? " Press Enter again to make it a label of its own." : ""}
        </p>
      )}
    </section>
  );
}
