// Search: a photo, or a part of it, looked for among all photos.
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, mediaUrl } from "../lib/api";
import { fitted, type Box, type Size } from "../lib/geometry";
import { useShortcuts } from "../lib/keys";
import { fileOf, plural, sentence } from "../lib/names";
import { follow, go, query as told } from "../lib/router";
import { useSize } from "../lib/size";
import type { Uploaded } from "../lib/upload";
import { BoxDraw } from "../parts/BoxDraw";
import { BoxIcon, CloseIcon } from "../parts/LookIcons";
import { Matches } from "../parts/Matches";
import { Photo } from "../parts/Photo";
import { ChoosePhoto, DropZone, useUpload, type Upload } from "../parts/PhotoDrop";
import { counts, labels, library, table } from "../state/library";
import { address, COUNTS, forgetAnswers, readAsked, search, show, type Answer, type Asked } from "../state/search";
import { nameOf } from "../state/names";
import "../styles/look.css";
import "../styles/search.css";
import { Compare } from "./Compare";

/** Notes on photos that were uploaded while the page is open, by the service's name for them. */
const uploaded = new Map<string, Uploaded>();

export function Search() {
  const asked = readAsked(told.value);
  const other = told.value.get("with");
  const upload = useUpload((photo) => {
    uploaded.set(photo.query, photo);
    const before = readAsked(told.value);
    show({ source: { query: photo.query }, region: null, k: before?.k ?? 24, label: before?.label ?? null,
      unlabelled: before?.unlabelled ?? false, where: before?.where ?? "" });
  });
  if (asked && other !== null) return <Compare asked={asked} other={other} />;
  const key = asked?.source.key;
  const gone = key !== undefined && table.value !== null && !table.value.rowOf.has(key);
  const found = asked !== null && !gone;
  return (
    <DropZone upload={upload} class={found ? "search" : "search-start"}>
      {found ? <Found asked={asked} upload={upload} /> : <Start upload={upload} gone={gone ? key : null} />}
    </DropZone>
  );
}

/** A photo of each of some labels, or any, spread over the table: somewhere to begin. */
function beginnings(count: number): { key: string; media: string; label: string | null }[] {
  const known = table.value;
  if (!known) return [];
  const names = [...counts.value.keys()];
  const rows = names.length >= 4
    ? names.filter((_, index) => index % Math.max(1, Math.floor(names.length / count)) === 0).map((name) => labels.value.indexOf(name))
    : Array.from({ length: count }, (_, index) => Math.floor((index * known.keys.length) / count));
  return [...new Set(rows)].filter((row) => row >= 0 && known.missing[row] === 0).slice(0, count)
    .map((row) => ({ key: known.keys[row]!, media: known.media[row]!, label: labels.value[row] ?? null }));
}

function Start(props: { upload: Upload; gone: string | null }) {
  const { upload } = props;
  return (
    <section class="start" aria-labelledby="start-title">
      <div class="start-drop">
        <h1 id="start-title">What does it look like?</h1>
        <p class="faint">Bring a photo, and see which of {library.value ? plural(library.value.photos, "photo") : "the photos"} are most like it, or like a part of it.</p>
        {upload.sending ? <Progress upload={upload} /> : (
          <>
            <div class="row start-ways"><ChoosePhoto upload={upload} main /></div>
            <p class="faint small not-touch">or drop one anywhere here, or paste one with <kbd class="kbd">Ctrl</kbd> <kbd class="kbd">V</kbd></p>
          </>
        )}
        {props.gone !== null && <p class="note note-warn" role="alert">No photo of the index has the name {props.gone}; it may have been removed or renamed.</p>}
        <Refused upload={upload} />
      </div>
      {table.value?.keys.length !== 0 && <h2 class="start-or">Or begin with one of these</h2>}
      <ul class="start-photos">
        {table.value
          ? beginnings(18).map((one) => (
            <li key={one.key}>
              <a href={`/search?key=${encodeURIComponent(one.key)}`} onClick={follow} title={one.label ?? fileOf(one.key)}>
                <Photo media={one.media} alt={one.label === null ? fileOf(one.key) : nameOf(one.label)} size="medium" />
              </a>
            </li>
          ))
          : Array.from({ length: 18 }, (_, index) => <li key={index} class="waiting" />)}
      </ul>
    </section>
  );
}

function Progress(props: { upload: Upload }) {
  const sending = props.upload.sending!;
  const words = sending.share < 1 ? `Sending, ${Math.round(sending.share * 100)} %` : "The service opens the photo …";
  return (
    <div class="sending" role="status">
      <img src={sending.preview} alt="" onError={(event) => { event.currentTarget.hidden = true; }} />
      <div class="stack sending-told">
        <span>{words}</span>
        <progress aria-label="Sending the photo" max={1} value={sending.share < 1 ? sending.share : undefined} />
      </div>
      <button class="button" onClick={sending.stop}>Stop</button>
    </div>
  );
}

function Refused(props: { upload: Upload }) {
  if (props.upload.refused === null) return null;
  return (
    <div class="note note-bad" role="alert">
      <p>{props.upload.refused}</p>
      <button class="button button-plain" aria-label="Close this message" onClick={props.upload.dismiss}><CloseIcon /></button>
    </div>
  );
}

function Found(props: { asked: Asked; upload: Upload }) {
  const { asked, upload } = props;
  const [answer, setAnswer] = useState<Answer | null>(null);
  const [busy, setBusy] = useState(true);
  const [failed, setFailed] = useState<ApiError | null>(null);
  const [closeUps, setCloseUps] = useState(false);
  const [again, setAgain] = useState(0);
  const wanted = JSON.stringify(address(asked));
  const snapshot = table.value?.snapshot;
  const known = useRef(snapshot);
  if (known.current !== snapshot) {
    if (known.current) forgetAnswers();
    known.current = snapshot;
  }
  useEffect(() => {
    const control = new AbortController();
    setBusy(true);
    setFailed(null);
    search(asked, control.signal).then((found) => {
      setAnswer(found);
      setBusy(false);
    }, (error: unknown) => {
      if (control.signal.aborted) return;
      setBusy(false);
      setAnswer(null);
      if (error instanceof ApiError) setFailed(error);
      else throw error;
    });
    return () => control.abort();
  }, [wanted, again, snapshot]);
  useShortcuts([{ key: "Escape", what: "Take the box away", run: () => asked.region && show({ ...asked, region: null }) }], [wanted]);
  const unread = failed?.code === "bad_input" && asked.where !== "";
  const compare = (key: string) => go("search", { ...address(asked), with: key });
  const [regionAsked, hits] = [asked.region !== null, answer?.hits ?? []];
  return (
    <>
      <Query asked={asked} upload={upload} />
      <section class="found" aria-label="Matches">
        <Filters asked={asked} failed={unread ? failed.problem.detail : null} />
        {unread ? null : failed ? <Failed error={failed} asked={asked} upload={upload} again={() => setAgain(again + 1)} /> : (
          <>
            <div class="row spread found-told">
              <p class="small faint" role="status">{toldOf(answer, busy, regionAsked)}</p>
              {regionAsked && (
                <div class="segments" role="group" aria-label="How matches are shown">
                  <button class="button" aria-pressed={!closeUps} onClick={() => setCloseUps(false)}>Photos</button>
                  <button class="button" aria-pressed={closeUps} onClick={() => setCloseUps(true)}>Close-ups</button>
                </div>
              )}
            </div>
            {!answer ? <Waiting /> : hits.length ? (
              <Matches hits={hits} busy={busy} closeUps={closeUps && regionAsked} onCompare={(hit) => compare(hit.key)}
                onSearch={(hit) => show({ ...asked, source: { key: hit.key }, region: null })} />
            ) : !busy && <p class="empty">No photo fits this filter. <button class="button" onClick={() => show({ ...asked, label: null, unlabelled: false, where: "" })}>Search all photos</button></p>}
            {regionAsked && hits.length > 0 && (
              <p class="small faint found-foot">A place is found in every photo, also where the part is not in it: the scores say which are alike, within this search only.</p>
            )}
          </>
        )}
      </section>
    </>
  );
}

function toldOf(answer: Answer | null, busy: boolean, region: boolean): string {
  if (busy) return "Searching …";
  if (!answer) return "";
  const among = `${answer.hits.length.toLocaleString("en")} most alike of ${plural(answer.searched, "photo")}`;
  const lacking = answer.without ? ` ${plural(answer.without, "photo has", "photos have")} no parts and could not be searched.` : "";
  return region ? `The best place of each photo: the ${among}.${lacking}` : `The ${among}. Similarity: 1 is the same photo, 0 has nothing in common.${lacking}`;
}

function Waiting() {
  return <ul class="matches" aria-hidden="true">{Array.from({ length: 12 }, (_, index) => <li class="match" style={{ "--ratio": 1.33 }} key={index}><div class="waiting" style={{ aspectRatio: 1.33 }} /><div class="match-line">&nbsp;</div></li>)}</ul>;
}

function Failed(props: { error: ApiError; asked: Asked; upload: Upload; again: () => void }) {
  const gone = props.error.problem.status === 404;
  const detail = sentence(props.error.problem.detail);
  return (
    <div class="empty stack" role="alert">
      <p>{gone && props.asked.source.query !== undefined ? "The service no longer keeps this uploaded photo; bring it once more. " : ""}{detail}</p>
      <div class="row failed-ways">
        {gone ? <ChoosePhoto upload={props.upload} /> : <button class="button" onClick={props.again}>Try again</button>}
      </div>
    </div>
  );
}

interface Told {
  media: string;
  label: string | null;
  name: string;
  size: Size | null;
}

/** The photo that is looked for; its own size only comes with its pixels or its details. */
function useQuery(asked: Asked): Told | null {
  const { key, query } = asked.source;
  if (query !== undefined) {
    const own = uploaded.get(query);
    return { media: query, label: null, name: "Your photo", size: own ? { width: own.width, height: own.height } : null };
  }
  const row = table.value?.rowOf.get(key);
  if (row === undefined) return null;
  return { media: table.value!.media[row]!, label: labels.value[row] ?? null, name: fileOf(key), size: null };
}

function Query(props: { asked: Asked; upload: Upload }) {
  const { asked, upload } = props;
  const shown = useQuery(asked);
  const frame = useRef<HTMLDivElement>(null);
  const size = useSize(frame);
  const [natural, setNatural] = useState<{ media: string; size: Size } | null>(null);
  const [bad, setBad] = useState(false);
  const [drawing, setDrawing] = useState(false);
  const [byKeys, setByKeys] = useState(false);
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => setBad(false), [shown?.media]);
  const photo = (natural && natural.media === shown?.media ? natural.size : null) ?? shown?.size ?? null;
  const rect = photo ? fitted(size, photo) : null;
  const parts = library.value?.parts ?? true;
  const done = (region: Box | null) => {
    setDrawing(false);
    if (!region && asked.region) button.current?.focus({ preventScroll: true });
    if (JSON.stringify(region) !== JSON.stringify(asked.region)) show({ ...asked, region });
  };
  function begin(event: MouseEvent) {
    // detail 0: the button was pressed by keys. They need a box to move; a hand draws its own.
    setByKeys(event.detail === 0);
    if (event.detail === 0) show({ ...asked, region: asked.region ?? [0.35, 0.35, 0.65, 0.65] });
    else setDrawing(!drawing);
  }
  const own = asked.source.query === undefined ? undefined : uploaded.get(asked.source.query);
  return (
    <section class="query" aria-label="What is looked for">
      <div ref={frame} class="query-frame">
        {shown && !bad && (
          <div class="query-photo" style={rect ? { left: `${rect.x}px`, top: `${rect.y}px`, width: `${rect.width}px`, height: `${rect.height}px` } : { inset: "0" }}>
            <img key={shown.media} src={mediaUrl(shown.media, "large")} alt={shown.label === null ? shown.name : `${nameOf(shown.label)}, ${shown.name}`} draggable={false}
              onLoad={(event) => setNatural({ media: shown.media, size: { width: event.currentTarget.naturalWidth, height: event.currentTarget.naturalHeight } })}
              onError={() => setBad(true)} />
            {parts && photo && <BoxDraw box={asked.region} drawing={drawing} onDone={done} focus={byKeys} />}
          </div>
        )}
        {bad && <p class="query-bad">This photo cannot be shown.</p>}
      </div>
      <div class="query-told">
        <div class="query-head">
          <div class="query-names">
          <h1>{shown?.label != null ? <a href={`/species?label=${encodeURIComponent(shown.label)}`} onClick={follow} title={shown.label}>{nameOf(shown.label)}</a> : asked.source.query !== undefined ? "Your photo" : "Not labelled"}</h1>
          {asked.source.key !== undefined && <p class="faint small query-file" title={asked.source.key}>{fileOf(asked.source.key)}</p>}
          </div>
          {!upload.sending && <div class="row query-ways"><ChoosePhoto upload={upload} name="Another photo" /></div>}
        </div>
        {own?.damage && <p class="note note-warn small">Damaged, searched all the same: {sentence(own.damage)}</p>}
        {own?.notes.map((note) => <p class="faint small" key={note}>{sentence(note)}</p>)}
        {parts ? (
          <div class="stack">
            <div class="row">
              <button ref={button} class="button" aria-pressed={drawing} onClick={begin}><BoxIcon />{drawing ? "Draw with your finger or mouse" : asked.region ? "Draw another box" : "Draw a box on a part"}</button>
              {asked.region && <button class="button" onClick={() => done(null)}><CloseIcon />Whole photo</button>}
            </div>
            <p class="faint small query-hint">{asked.region
              ? <>Looking for what is in the box. Drag it<span class="not-touch">, or move it with the arrow keys; Escape takes it away</span>.</>
              : "A bill, a wing bar, a headlight: draw a box on it to find the same part elsewhere."}</p>
          </div>
        ) : (
          <p class="note small">This index keeps no places of its photos, so only whole photos can be looked for. To look for a part, run <code>fieldmark index ENCODER PHOTOS --out {library.value?.index} --parts</code> once.</p>
        )}
        {upload.sending && <Progress upload={upload} />}
        <Refused upload={upload} />
      </div>
    </section>
  );
}

function Filters(props: { asked: Asked; failed: string | null }) {
  const { asked } = props;
  const [where, setWhere] = useState(asked.where);
  const [unfolded, setUnfolded] = useState(false);
  useEffect(() => setWhere(asked.where), [asked.where]);
  const names = [...counts.value.entries()].sort(([a], [b]) => nameOf(a).localeCompare(nameOf(b)));
  const field = library.value?.fields[0];
  const example = field ? `${field.name} = ${field.kind === "text" ? `"${field.values[0] ?? ""}"` : String(field.values[0] ?? 1)}` : 'key contains "2021"';
  const chosen = asked.unlabelled ? "none" : asked.label !== null ? `is ${asked.label}` : "all";
  return (
    <form class={`narrow ${unfolded || props.failed !== null ? "" : "narrow-folded"}`} aria-label="Narrow the search" onSubmit={(event) => { event.preventDefault(); show({ ...asked, where: where.trim() }); }}>
      <label class="narrow-by">
        <span class="small faint">Among</span>
        <select class="field" value={chosen} onChange={(event) => {
          const value = event.currentTarget.value;
          show({ ...asked, unlabelled: value === "none", label: value.startsWith("is ") ? value.slice(3) : null });
        }}>
          <option value="all">all photos</option>
          <option value="none">photos without a label</option>
          {asked.label !== null && !counts.value.has(asked.label) && <option value={`is ${asked.label}`}>{nameOf(asked.label)}</option>}
          {names.map(([name, count]) => <option value={`is ${name}`} key={name}>{nameOf(name)} ({count})</option>)}
        </select>
      </label>
      <button type="button" class="button only-narrow" aria-expanded={unfolded} onClick={() => setUnfolded(!unfolded)}>{asked.where ? "Filter set" : "Filter"}</button>
      <label class="narrow-by narrow-wide">
        <span class="small faint">Filter</span>
        <input class="field" type="search" value={where} placeholder={example} spellcheck={false} autocapitalize="off" autocomplete="off"
          aria-invalid={props.failed !== null} aria-describedby={props.failed ? "narrow-failed" : undefined}
          onInput={(event) => setWhere(event.currentTarget.value)}
          onBlur={() => where.trim() !== asked.where && show({ ...asked, where: where.trim() })} />
      </label>
      <label class="narrow-by">
        <span class="small faint">Show</span>
        <select class="field" value={asked.k} onChange={(event) => show({ ...asked, k: Number(event.currentTarget.value) })}>
          {[...new Set([...COUNTS, asked.k])].sort((a, b) => a - b).map((count) => <option value={count} key={count}>{count}</option>)}
        </select>
      </label>
      {props.failed && <p class="note note-bad small narrow-failed" id="narrow-failed" role="alert">{sentence(props.failed)}</p>}
    </form>
  );
}
