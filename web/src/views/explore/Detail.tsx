// One photo, large: what is known of it, what it is taken for, what is like it.
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get, sendJson } from "../../lib/api";
import { Layer, useLayer } from "../../lib/keys";
import { useModal } from "../../lib/modal";
import { chance, when } from "../../lib/names";
import { follow } from "../../lib/router";
import { Empty } from "../../parts/Empty";
import { fileName } from "../../parts/Grid";
import { Icon } from "../../parts/Icon";
import { LabelBar } from "../../parts/LabelBar";
import { Photo } from "../../parts/Photo";
import { Progress } from "../../parts/Progress";
import { guessesOf, isUnknown } from "../../state/guesses";
import { labels, mayLabel, selection, table, versions, type LabelChange } from "../../state/library";
import { nameOf } from "../../state/names";
import { opened, place, rows } from "./state";

interface PhotoAnswer {
  key: string;
  meta: Record<string, unknown>;
  width?: number | null;
  height?: number | null;
  taken?: string | null;
  history: LabelChange[];
}
interface Hit {
  key: string;
  media: string;
  score: number;
  label: string | null;
  missing: boolean;
}

const neighbours = 12;

export function Detail() {
  const key = opened.value;
  const row = key === null ? undefined : table.value?.rowOf.get(key);
  if (key === null || !table.value) return null;
  return <Large key="photo" name={key} row={row ?? null} />;
}

function Large(props: { name: string; row: number | null }) {
  const { name, row } = props;
  const layer = useLayer();
  const dialog = useRef<HTMLDialogElement>(null);
  const leave = useRef<HTMLButtonElement>(null);
  const [about, setAbout] = useState<PhotoAnswer | null>(null);
  const [hits, setHits] = useState<readonly Hit[] | null>(null);
  /** The large photo is there; until then the small one stands in. */
  const [sharp, setSharp] = useState(false);
  const [trouble, setTrouble] = useState<string | null>(null);
  useModal(dialog, leave);
  const version = row === null ? 0 : versions.value[row];
  useEffect(() => {
    setAbout(null);
    setHits(null);
    setSharp(false);
    setTrouble(null);
    // The arrow that was pressed is gone beside the last photo, and the keys with it.
    if (!dialog.current!.contains(document.activeElement)) leave.current!.focus();
  }, [name]);
  useEffect(() => {
    const stop = new AbortController();
    const failed = (error: unknown) => {
      if (!stop.signal.aborted) setTrouble(error instanceof ApiError ? error.problem.detail : String(error));
    };
    get<PhotoAnswer>("/api/v1/photo", { key: name }, stop.signal).then(setAbout, failed);
    return () => stop.abort();
  }, [name, version]);
  useEffect(() => {
    const stop = new AbortController();
    // Arrow keys pass by many photos: only where one stays is searched.
    const timer = setTimeout(() => {
      sendJson<{ hits: Hit[] }>("POST", "/api/v1/search", { key: name, k: neighbours + 1 }, stop.signal).then(
        (answer) => setHits(answer.hits.filter((hit) => hit.key !== name).slice(0, neighbours)),
        (error) => {
          if (!stop.signal.aborted) setTrouble(error instanceof ApiError ? error.problem.detail : String(error));
        },
      );
    }, 200);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [name]);

  const list = rows.value;
  const at = row === null ? -1 : list.indexOf(row);
  const columns = table.value!;
  const beside = (step: number) => (at < 0 ? undefined : list[at + step]);
  const to = (step: number) => {
    const next = beside(step);
    if (next !== undefined) place({ photo: columns.keys[next] }, true);
  };
  // In place of the photo's address, so that Back does not open it again.
  const close = () => place({ photo: undefined }, true);
  function turn(): void {
    if (row === null) return;
    const next = new Set(selection.peek());
    if (!next.delete(row)) next.add(row);
    selection.value = next;
  }
  function onKeyDown(event: KeyboardEvent): void {
    if ((event.target as HTMLElement).matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") to(-1);
    else if (event.key === "ArrowRight") to(1);
    else if (event.key === "x") turn();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
  const label = row === null ? null : labels.value[row] ?? null;
  const guessed = row === null ? [] : guessesOf(row);
  const species = label ?? guessed[0]?.label;
  return (
    <dialog ref={dialog} class="large" aria-label={`Photo ${fileName(name)}`} onKeyDown={onKeyDown} onCancel={(event) => { event.preventDefault(); close(); }}
      onClick={(event) => { if (event.target === event.currentTarget) close(); }}>
      <div class="large-photo">
        {row === null || columns.missing[row]
          ? <Empty icon="photo" title={row === null ? "This photo is not in the index" : "The photo's file is not where it was"}>{name}</Empty>
          : (
            <>
              {!sharp && <Photo key={`small ${name}`} class="large-first" media={columns.media[row]!} alt="" eager />}
              <div key={name} class="large-sharp" onLoadCapture={() => setSharp(true)}>
                <Photo media={columns.media[row]!} size="large" alt={label ? `${nameOf(label)}, ${fileName(name)}` : fileName(name)} eager />
              </div>
            </>
          )}
        {beside(-1) !== undefined && <button class="large-step large-before" aria-label="Photo before" title="Photo before (←)" onClick={() => to(-1)}><Icon name="left" size={26} /></button>}
        {beside(1) !== undefined && <button class="large-step large-after" aria-label="Next photo" title="Next photo (→)" onClick={() => to(1)}><Icon name="right" size={26} /></button>}
      </div>
      <div class="large-side">
        <div class="large-title">
          <h2 class="large-file">{fileName(name)}</h2>
          <button ref={leave} class="button button-plain button-icon" aria-label="Close" title="Close (Escape)" onClick={close}><Icon name="close" /></button>
        </div>
        {row !== null && (
          <>
            <div class="large-what">
              {label !== null ? <p class="large-label" title={label}>{nameOf(label)}</p> : <p class="large-label faint">No label yet</p>}
              {guessed[0] && (
                <div class="large-guesses">
                  <p class="faint small">{label === null ? "Likely, after the labels so far" : "Without its label it would be taken for"}</p>
                  <ul>
                    {guessed.map((guess) => (
                      <li key={guess.label}>
                        <span class="large-guess" title={guess.label}>{nameOf(guess.label)}</span>
                        <span class="large-bar" aria-hidden="true"><span style={{ width: `${100 * guess.probability}%` }} /></span>
                        <span class="large-percent">{chance(guess.probability)}</span>
                      </li>
                    ))}
                  </ul>
                  {isUnknown(row) && <p class="large-unknown">Perhaps of a kind that has no labels yet.</p>}
                </div>
              )}
              {mayLabel.value
                ? <Layer.Provider value={layer}><LabelBar rows={[row]} onLeave={() => leave.current?.focus()} /></Layer.Provider>
                : <p class="small faint">Your token allows to look, not to label.</p>}
            </div>
            <div class="large-do">
              <a class="button" href={`/search?key=${encodeURIComponent(name)}`} onClick={follow}><Icon name="search" size={18} />Search with this</a>
              {species !== undefined && <a class="button" href={`/species?label=${encodeURIComponent(species)}`} onClick={follow}><Icon name="feather" size={18} />{label ? "Its species" : "Likely species"}</a>}
              <button class="button" aria-pressed={selection.value.has(row)} title="Choose (X)" onClick={turn}><Icon name="check" size={18} />{selection.value.has(row) ? "Chosen" : "Choose"}</button>
            </div>
          </>
        )}
        {trouble && <p class="large-trouble" role="alert">{trouble}</p>}
        {row !== null && (
          <section aria-labelledby="large-near">
            <h3 id="large-near">Most like it</h3>
            {!hits && !trouble && <Progress small working={null} what="Searching" />}
            {hits && (
              <ul class="large-near">
                {hits.map((hit) => (
                  <li key={hit.key}>
                    <button title={hit.key} aria-label={`${hit.score.toFixed(2)} ${hit.label === null ? "No label" : nameOf(hit.label)}, likeness and label of ${hit.key}`} onClick={() => place({ photo: hit.key })}>
                      <Photo media={hit.media} alt="" />
                      <span class="large-score">{hit.score.toFixed(2)}</span>{" "}
                      <span class="large-near-label">{hit.label === null ? "No label" : nameOf(hit.label)}</span>
                    </button>
                  </li>
                ))}
              </ul>
            )}
          </section>
        )}
        {about && <Facts about={about} />}
      </div>
    </dialog>
  );
}

function Facts(props: { about: PhotoAnswer }) {
  const { about } = props;
  const facts: [string, string][] = [["File", about.key]];
  if (about.taken) facts.push(["Taken", about.taken.replace("T", " ").replace(/(\.\d+)?Z?$/, "")]);
  if (about.width && about.height) facts.push(["Size", `${about.width} × ${about.height}`]);
  for (const [name, value] of Object.entries(about.meta)) {
    if (value !== null) facts.push([name, typeof value === "object" ? JSON.stringify(value) : String(value)]);
  }
  return (
    <>
      <section aria-labelledby="large-facts">
        <h3 id="large-facts">About the photo</h3>
        <dl class="large-facts">{facts.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}</dl>
      </section>
      <section aria-labelledby="large-history">
        <h3 id="large-history">History of its label</h3>
        {about.history.length === 0
          ? <p class="faint small">Nobody has changed it.</p>
          : (
            <ol class="large-history">
              {about.history.map((one) => (
                <li key={one.number}>
                  <span>{one.after === null ? `Label taken away (was ${one.before === null ? "none" : nameOf(one.before)})` : one.before === null ? nameOf(one.after) : `${nameOf(one.before)} → ${nameOf(one.after)}`}</span>
                  <span class="faint">{one.by ? `${one.by}, ` : ""}<time dateTime={one.at}>{when(one.at)}</time></span>
                </li>
              ))}
            </ol>
          )}
      </section>
    </>
  );
}
