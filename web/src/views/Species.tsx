// Species: every label as a page of a field guide, and the guide's list of them.
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "../lib/api";
import { useShortcuts } from "../lib/keys";
import { fileOf, plural, score, sentence } from "../lib/names";
import { follow, go, query } from "../lib/router";
import { useScrollPlace, useTop } from "../lib/scroll";
import { FieldMarks } from "../parts/FieldMarks";
import { BackIcon, NextIcon, PrintIcon } from "../parts/LookIcons";
import { towards } from "../parts/Matches";
import { Photo } from "../parts/Photo";
import { counts, labels, library, table } from "../state/library";
import { lacksMixUps, speciesOf, type Near, type Shown, type Species as Told } from "../state/species";
import { nameOf } from "../state/names";
import "../styles/look.css";
import "../styles/species.css";

const sorted = () => [...counts.value.entries()].sort(([a], [b]) => nameOf(a).localeCompare(nameOf(b), undefined, { numeric: true }));
const pageOf = (label: string) => `/species?label=${encodeURIComponent(label)}`;

export function Species() {
  const label = query.value.get("label");
  if (!table.value) return <p class="empty">Opening the photos …</p>;
  return label === null ? <List /> : <Page key={label} label={label} />;
}

type Order = "name" | "most" | "fewest";

function List() {
  useScrollPlace("species");
  const [wanted, setWanted] = useState("");
  const [order, setOrder] = useState<Order>("name");
  const field = useRef<HTMLInputElement>(null);
  const list = useRef<HTMLUListElement>(null);
  useShortcuts([{ key: "/", what: "Look for a label", run: () => field.current?.focus() }]);
  const all = sorted();
  const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = all.filter(([name]) => {
    const text = `${nameOf(name)} ${name}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  if (order !== "name") shown.sort(([, a], [, b]) => (order === "most" ? b - a : a - b));
  const labelled = labels.value.reduce((sum, one) => sum + (one === null ? 0 : 1), 0);
  function keys(event: KeyboardEvent) {
    const own = (event.target as HTMLElement).closest<HTMLElement>(".kind");
    if (!own || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey || !/^(Arrow|Home|End)/.test(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    towards([...list.current!.querySelectorAll<HTMLElement>(".kind")], own, event.key)?.focus();
  }
  if (!all.length) {
    return (
      <div class="empty stack">
        <p>No photo has a label yet. Label a few, and every label gets its page here: typical photos, odd ones, look-alikes and what tells them apart.</p>
        <div class="row failed-ways"><a class="button button-main" href="/label" onClick={follow}>Label photos</a></div>
      </div>
    );
  }
  return (
    <div class="guide">
      <header class="guide-head">
        <div>
          <h1 class="guide-title">Species</h1>
          <p class="faint">{plural(all.length, "label")} on {labelled.toLocaleString("en")} of {plural(labels.value.length, "photo")}</p>
        </div>
        <div class="row guide-tools">
          <label class="guide-find"><span class="hidden-text">Look for a label</span>
            <input ref={field} class="field" type="search" placeholder="Look for a label" value={wanted} spellcheck={false} autocomplete="off" onInput={(event) => setWanted(event.currentTarget.value)}
              onKeyDown={(event) => {
                if (event.key === "Enter" && shown[0]) go("species", { label: shown[0][0] });
                if (event.key === "ArrowDown") { event.preventDefault(); list.current?.querySelector<HTMLElement>(".kind")?.focus(); }
              }} />
          </label>
          <label><span class="hidden-text">Order</span>
            <select class="field" value={order} onChange={(event) => setOrder(event.currentTarget.value as Order)}>
              <option value="name">by name</option><option value="most">most photos</option><option value="fewest">fewest photos</option>
            </select>
          </label>
        </div>
      </header>
      <p class="hidden-text" role="status">{words.length ? plural(shown.length, "label") : ""}</p>
      {shown.length ? (
        <ul ref={list} class="kinds" onKeyDown={keys}>{shown.map(([name, count]) => <Card key={name} name={name} count={count} />)}</ul>
      ) : <p class="empty">No label is called like “{wanted}”. <button class="button" onClick={() => setWanted("")}>Show all</button></p>}
    </div>
  );
}

/** The most typical photo of a label, asked for when `near` the screen; its first one where the service cannot tell. */
function useTypical(label: string, near: boolean): Shown | null {
  const [typical, setTypical] = useState<Shown | null>(null);
  useEffect(() => {
    if (!near) return;
    let wanted = true;
    const first = () => {
      const row = labels.value.indexOf(label);
      return row < 0 ? null : { key: table.value!.keys[row]!, media: table.value!.media[row]! };
    };
    speciesOf(label).then((told) => wanted && setTypical(told.typical[0] ?? first()), () => wanted && setTypical(first()));
    return () => {
      wanted = false;
    };
  }, [label, near]);
  return typical;
}

function Card(props: { name: string; count: number }) {
  const own = useRef<HTMLLIElement>(null);
  const [near, setNear] = useState(false);
  useEffect(() => {
    const observer = new IntersectionObserver((entries) => {
      if (entries.some((one) => one.isIntersecting)) setNear(true);
    }, { rootMargin: "300px" });
    observer.observe(own.current!);
    return () => observer.disconnect();
  }, []);
  const typical = useTypical(props.name, near);
  return (
    <li ref={own}>
      <a class="kind" href={pageOf(props.name)} onClick={follow} title={props.name}>
        <span class="kind-photo">{typical && <Photo media={typical.media} alt="" size="medium" />}</span>
        <span class="kind-name">{nameOf(props.name)}</span>
        <span class="small faint">{plural(props.count, "photo")}</span>
      </a>
    </li>
  );
}

function Page(props: { label: string }) {
  const { label } = props;
  useTop(label);
  const [told, setTold] = useState<Told | null>(null);
  const [failed, setFailed] = useState<string | null>(null);
  const [again, setAgain] = useState(0);
  const count = counts.value.get(label) ?? 0;
  useEffect(() => {
    let wanted = true;
    let later: ReturnType<typeof setTimeout>;
    setFailed(null);
    const ask = (tries: number) => speciesOf(label).then((found) => {
      if (!wanted) return;
      setTold(found);
      if (lacksMixUps(found) && tries > 0) later = setTimeout(() => void ask(tries - 1), 4000);
    }, (error: unknown) => {
      if (wanted) setFailed(error instanceof ApiError ? sentence(error.problem.detail) : String(error));
    });
    void ask(5);
    return () => {
      wanted = false;
      clearTimeout(later);
    };
  }, [label, count, again]);
  const names = sorted().map(([name]) => name);
  const place = names.indexOf(label);
  const before = names[place - 1];
  const after = place < 0 ? undefined : names[place + 1];
  useShortcuts([
    { key: "n", what: "Next label", run: () => after !== undefined && go("species", { label: after }) },
    { key: "p", what: "Label before", run: () => before !== undefined && go("species", { label: before }) },
    { key: "Escape", what: "All labels", run: () => go("species") },
  ], [before, after]);
  const other = query.value.get("vs") ?? told?.nearest[0]?.label ?? null;
  return (
    <article class="guide page" aria-labelledby="page-title">
      <nav class="row spread page-nav" aria-label="Labels">
        <a class="button button-plain" href="/species" onClick={follow}><BackIcon />All species</a>
        <div class="row">
          <button class="button button-plain not-touch" onClick={() => print()}><PrintIcon />Print</button>
          {before !== undefined && <a class="button" href={pageOf(before)} onClick={follow} aria-label={`Label before: ${nameOf(before)}`} title={`${nameOf(before)} (P)`}><BackIcon /></a>}
          {after !== undefined && <a class="button" href={pageOf(after)} onClick={follow} aria-label={`Next label: ${nameOf(after)}`} title={`${nameOf(after)} (N)`}><NextIcon /></a>}
        </div>
      </nav>
      <header class="page-head">
        {told?.taxonomy && <p class="page-ranks faint">{Object.values(told.taxonomy).map((name, index) => <span key={index}>{name}</span>)}</p>}
        <h1 id="page-title" class="guide-title" title={label}>{nameOf(label)}</h1>
        <p class="faint">{(told?.photos ?? count).toLocaleString("en")} of {plural(library.value?.photos ?? labels.value.length, "photo")}</p>
      </header>
      {failed !== null ? (
        <div class="empty stack" role="alert"><p>{failed}</p><div class="row failed-ways"><button class="button" onClick={() => setAgain(again + 1)}>Try again</button></div></div>
      ) : !told ? <PageWaiting /> : (
        <>
          <Plate told={told} />
          {told.nearest.length > 0 && other !== null && (
            <section class="page-part" aria-labelledby="alike-title">
              <h2 id="alike-title">Look-alikes</h2>
              <p class="small faint page-hint">Likeness of the labels' middles, from −1 to 1, and how often photos that the classifier had not seen were taken for the other. Choose one to see what tells the two apart.</p>
              <ul class="alikes">{told.nearest.map((near) => <Alike key={near.label} near={near} label={label} chosen={near.label === other} />)}</ul>
            </section>
          )}
          {other !== null && other !== label && (
            <section class="page-part page-marks" aria-labelledby="marks-title">
              <div class="row spread">
                <h2 id="marks-title" class="page-versus">{nameOf(label)} <span class="faint">or</span> {nameOf(other)}?</h2>
                <label class="row small page-other"><span class="faint">Compare with</span>
                  <select class="field" value={other} onChange={(event) => go("species", { label, vs: event.currentTarget.value }, true)}>
                    {names.filter((name) => name !== label).map((name) => <option value={name} key={name}>{nameOf(name)}</option>)}
                  </select>
                </label>
              </div>
              <FieldMarks first={label} second={other} />
            </section>
          )}
          {other === null && <p class="empty">There is no other label to compare with yet.</p>}
          {told.odd.length > 0 && <Odd told={told} />}
        </>
      )}
    </article>
  );
}

function PageWaiting() {
  return <div class="plate" aria-hidden="true">{Array.from({ length: 6 }, (_, index) => <div class="waiting plate-photo" key={index} />)}</div>;
}

function Plate(props: { told: Told }) {
  const { told } = props;
  const name = nameOf(told.label);
  return (
    <ul class="plate" aria-label="Typical photos">
      {told.typical.slice(0, 6).map((one, index) => (
        <li class="plate-photo" key={one.key}>
          <a href={`/search?key=${encodeURIComponent(one.key)}`} onClick={follow} title={`${fileOf(one.key)}: search with this one`}>
            <Photo media={one.media} size={index === 0 ? "large" : "medium"} alt={`${name}, ${fileOf(one.key)}`} eager />
          </a>
        </li>
      ))}
      <li class="plate-told small">
        <span class="faint">{told.typical.length > 1 ? "Each stands for one of its looks, the commonest first." : "The only photo so far."}</span>
        <a href={`/explore?label=${encodeURIComponent(told.label)}`} onClick={follow}>{told.photos > 1 ? `All ${plural(told.photos, "photo")}` : "In Explore"}</a>
      </li>
    </ul>
  );
}

function Alike(props: { near: Near; label: string; chosen: boolean }) {
  const { near, label, chosen } = props;
  const typical = useTypical(near.label, true);
  return (
    <li class={`alike ${chosen ? "alike-on" : ""}`}>
      <button class="alike-choose" aria-pressed={chosen} onClick={() => go("species", { label, vs: near.label }, true)} title={near.label}>
        <span class="kind-photo">{typical && <Photo media={typical.media} alt="" size="medium" />}</span>
        <span class="kind-name">{nameOf(near.label)}</span>
        <span class="small">alike by {score(near.likeness)}</span>
        <span class="small faint">{near.confused === null ? "mix-ups not measured" : near.confused === 0 ? "never mixed up" : `mixed up in ${near.confused < 0.01 ? "under 1" : Math.round(100 * near.confused)} %`}</span>
      </button>
      <a class="small" href={pageOf(near.label)} onClick={follow} aria-label={`Its page: ${nameOf(near.label)}`}>Its page</a>
    </li>
  );
}

function Odd(props: { told: Told }) {
  const { told } = props;
  const typical = told.typical[0];
  return (
    <section class="page-part" aria-labelledby="odd-title">
      <h2 id="odd-title">Least like its own</h2>
      <p class="small faint page-hint">Perhaps an unusual look or view, perhaps another label's photo. Open one to compare it with the most typical.</p>
      <ul class="odd">
        {told.odd.map((one) => (
          <li key={one.key}>
            <a href={typical && typical.key !== one.key ? `/search?key=${encodeURIComponent(typical.key)}&with=${encodeURIComponent(one.key)}` : `/search?key=${encodeURIComponent(one.key)}`} onClick={follow} title={fileOf(one.key)}>
              <Photo media={one.media} size="medium" alt={`${nameOf(told.label)}, ${fileOf(one.key)}: least like its own`} />
            </a>
            <span class="small faint match-file">{fileOf(one.key)}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}
