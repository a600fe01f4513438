// Two photos side by side: what makes them alike, where, and whether that is to be believed.
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, type Working } from "../lib/api";
import { onPhoto, partOnPhoto, placed, type Box, type Point } from "../lib/geometry";
import { halfShare, type Shading } from "../lib/heat";
import { useShortcuts } from "../lib/keys";
import { fileOf, score, sentence } from "../lib/names";
import { follow, go } from "../lib/router";
import { useSize } from "../lib/size";
import { useTop } from "../lib/scroll";
import { isWhole } from "../lib/zoom";
import { Belief } from "../parts/Belief";
import { Crop } from "../parts/Crop";
import { HeatKey, HeatMap } from "../parts/HeatMap";
import { BackIcon, MinusIcon, NextIcon, PlusIcon, SearchIcon, WholeIcon } from "../parts/LookIcons";
import { Photo } from "../parts/Photo";
import { useZoom, ZoomFrame } from "../parts/Zoom";
import { labels, table } from "../state/library";
import { explain, pairBody, type PairReasons } from "../state/explain";
import { address, lastCompared, search, show, type Answer, type Asked } from "../state/search";
import { nameOf } from "../state/names";
import "../styles/compare.css";

type How = "photo" | Shading;
const HOWS: readonly (readonly [How, string])[] = [["photo", "Photos"], ["dimmed", "Dimmed"], ["map", "Map"]];

interface Side {
  media: string;
  label: string | null;
  file: string;
}
function sideOf(key: string | undefined, query: string | undefined): Side | null {
  if (key === undefined) return { media: query!, label: null, file: "Your photo" };
  const row = table.value?.rowOf.get(key);
  return row === undefined ? null : { media: table.value!.media[row]!, label: labels.value[row] ?? null, file: fileOf(key) };
}

export function Compare(props: { asked: Asked; other: string }) {
  const { asked, other } = props;
  const [answer, setAnswer] = useState<Answer | null>(null);
  const wanted = JSON.stringify(address(asked));
  useEffect(() => {
    const control = new AbortController();
    // Only for stepping through the matches: the comparison itself does without.
    search(asked, control.signal).then(setAnswer, () => setAnswer(null));
    return () => control.abort();
  }, [wanted]);
  useTop(other);
  useEffect(() => {
    lastCompared.value = other;
  }, [other]);
  const first = sideOf(asked.source.key, asked.source.query);
  const second = sideOf(other, undefined);
  const hits = answer?.hits ?? [];
  const place = hits.findIndex((hit) => hit.key === other);
  const to = (key: string | undefined) => key !== undefined && go("search", { ...address(asked), with: key }, true);
  const back = () => show(asked);
  useShortcuts([
    { key: "Escape", what: "Back to the matches", run: back },
    { key: "n", what: "Compare with the next match", run: () => to(hits[place + 1]?.key) },
    { key: "p", what: "Compare with the match before", run: () => to(hits[place - 1]?.key) },
  ], [answer, other, wanted]);
  if (!table.value) return <p class="empty">Opening the photos …</p>;
  if (!first || !second) {
    return (
      <div class="empty stack">
        <p>{`No photo of the index has the name ${(second ? asked.source.key : other) ?? ""}; it may have been removed.`}</p>
        <div class="row failed-ways"><button class="button" onClick={back}>To the matches</button></div>
      </div>
    );
  }
  return (
    <div class="compare">
      <div class="compare-bar">
        <button class="button button-plain" onClick={back}><BackIcon />Matches</button>
        <h1 class="compare-title">{titleOf(first, second)}</h1>
        <div class="row compare-steps">
          {place >= 0 && <span class="small faint">{place + 1} of {hits.length}</span>}
          <button class="button" aria-label="Match before" title="Match before (P)" disabled={place < 1} onClick={() => to(hits[place - 1]?.key)}><BackIcon /></button>
          <button class="button" aria-label="Next match" title="Next match (N)" disabled={place < 0 || place >= hits.length - 1} onClick={() => to(hits[place + 1]?.key)}><NextIcon /></button>
        </div>
      </div>
      <Pair key={`${first.media} ${second.media}`} asked={asked} other={other} sides={[first, second]}
        score={hits[place]?.score ?? null} boxes={[asked.region, hits[place]?.box ?? null]} />
      {hits.length > 1 && <Strip hits={hits} at={place} onChoose={to} />}
    </div>
  );
}

function titleOf(first: Side, second: Side): string {
  const name = (side: Side) => (side.label === null ? side.file : nameOf(side.label));
  return first.label !== null && first.label === second.label ? `Two photos of ${nameOf(first.label)}` : `${name(first)} and ${name(second)}`;
}

function Strip(props: { hits: Answer["hits"]; at: number; onChoose: (key: string) => void }) {
  const list = useRef<HTMLOListElement>(null);
  useEffect(() => {
    const box = list.current!;
    const one = box.children[props.at] as HTMLElement | undefined;
    if (one) box.scrollLeft = one.offsetLeft - box.clientWidth / 2 + one.clientWidth / 2;
  }, [props.at]);
  return (
    <ol ref={list} class="strip" aria-label="Matches">
      {props.hits.map((hit, index) => (
        <li key={hit.key}>
          <button class="strip-photo" aria-current={index === props.at ? "true" : undefined} onClick={() => props.onChoose(hit.key)}
            aria-label={`Compare with match ${index + 1}, ${hit.label === null ? "not labelled" : nameOf(hit.label)}, ${score(hit.score)}`}>
            <Photo media={hit.media} alt="" />
          </button>
        </li>
      ))}
    </ol>
  );
}

function Pair(props: {
  asked: Asked; other: string; sides: readonly [Side, Side];
  /** What the search says: of whole photos, or of the region. */
  score: number | null;
  /** The region that was asked for, and where it was found. */
  boxes: readonly [Box | null, Box | null];
}) {
  const { asked, other, sides } = props;
  const [reasons, setReasons] = useState<PairReasons | null>(null);
  const [failed, setFailed] = useState<string | null>(null);
  const [working, setWorking] = useState<Working | null>(null);
  const [again, setAgain] = useState(0);
  useEffect(() => {
    const control = new AbortController();
    setFailed(null);
    explain<PairReasons>("pair", pairBody(asked.source, other), sides[0].media + sides[1].media, setWorking, control.signal).then(setReasons, (error: unknown) => {
      if (control.signal.aborted) return;
      setFailed(error instanceof ApiError ? sentence(error.problem.detail) : String(error));
    });
    return () => control.abort();
  }, [again]);

  const [wish, setWish] = useState<How>("dimmed");
  const how = reasons ? wish : "photo";
  const [opacity, setOpacity] = useState(1);
  const [active, setActive] = useState<number | null>(null);
  const [held, setHeld] = useState<number | null>(null);
  const chosen = active ?? held;
  const zoom = useZoom(2, `${sides[0].media} ${sides[1].media}`);
  const photos = useRef<HTMLDivElement>(null);
  const ground = useSize(photos);
  const squares = reasons ? [reasons.square.first, reasons.square.second] as const : null;
  const matches = reasons?.matches ?? [];
  const placesOf = (index: number): [Point, Point] =>
    [onPhoto(matches[index]!.first, squares![0]), onPhoto(matches[index]!.second, squares![1])];

  /** Look at a part in both photos; the same again shows everything. */
  function hold(index: number) {
    if (!matches[index]) return;
    if (held === index) {
      setHeld(null);
      zoom.reset();
      return;
    }
    setHeld(index);
    zoom.to(placesOf(index), 2.5);
  }
  const pan = (dx: number, dy: number) => () => zoom.pan(dx, dy);
  useShortcuts([
    { key: "m", what: "Photos, dimmed or map", run: () => setWish((now) => HOWS[(HOWS.findIndex(([one]) => one === now) + 1) % HOWS.length]![0]) },
    { key: "+", what: "Enlarge both photos", run: () => zoom.by(1.4) },
    { key: "=", what: "Enlarge both photos", run: () => zoom.by(1.4) },
    { key: "-", what: "Make both photos smaller", run: () => zoom.by(1 / 1.4) },
    { key: "0", what: "Show both photos whole", run: () => { setHeld(null); zoom.reset(); } },
    // Whole photos do not move: then the arrows scroll, as everywhere.
    ...(isWhole(zoom.look) ? [] : [
      { key: "ArrowLeft", what: "Look further left", run: pan(60, 0) },
      { key: "ArrowRight", what: "Look further right", run: pan(-60, 0) },
      { key: "ArrowUp", what: "Look further up", run: pan(0, 60) },
      { key: "ArrowDown", what: "Look further down", run: pan(0, -60) },
    ]),
    ...matches.map((_, index) => ({ key: String(index + 1), what: `Look at part ${index + 1} in both photos`, run: () => hold(index) })),
  ], [reasons, zoom.look, zoom.size.width, zoom.size.height, held]);

  const inside = (place: Point) => place.x >= 0 && place.y >= 0 && place.x <= zoom.size.width && place.y <= zoom.size.height;
  const marks = (side: 0 | 1) => (at: (place: Point) => Point) => matches.map((_, index) => {
    const place = at(placesOf(index)[side]);
    return inside(place) && (
      <button key={index} class={`disc disc-${index % 8} mark-disc ${chosen === index ? "mark-on" : ""}`} style={{ left: `${place.x}px`, top: `${place.y}px` }}
        aria-label={`Part ${index + 1}`} aria-pressed={held === index} onClick={() => hold(index)}
        onPointerEnter={() => setActive(index)} onPointerLeave={() => setActive(null)} onFocus={() => setActive(index)} onBlur={() => setActive(null)}>{index + 1}</button>
    );
  });
  const over = (side: 0 | 1) => (
    <>
      {reasons && how !== "photo" && <HeatMap media={sides[side].media} grid={side ? reasons.maps.second : reasons.maps.first}
        square={squares![side]} how={how} opacity={opacity} />}
      {props.boxes[side] && <span class="match-box" style={placed(props.boxes[side])} />}
      {chosen !== null && matches[chosen] && (
        <span class={`mark-part disc-${chosen % 8}`} style={placed(partOnPhoto(side ? matches[chosen].second : matches[chosen].first, reasons!.part, squares![side]))} />
      )}
    </>
  );
  const alt = (side: Side) => (side.label === null ? side.file : `${nameOf(side.label)}, ${side.file}`);
  const line = () => {
    if (chosen === null || !matches[chosen]) return null;
    const [from, to] = placesOf(chosen).map((place, side) => {
      const rect = zoom.rects[side]!;
      return { x: rect.x + place.x * rect.width, y: rect.y + place.y * rect.height };
    }) as [Point, Point];
    if (!inside(from) || !inside(to)) return null;
    const second = photos.current!.children[1] as HTMLElement;
    const ends = { x1: from.x, y1: from.y, x2: second.offsetLeft + to.x, y2: second.offsetTop + to.y };
    return (
      <svg class={`compare-line disc-${chosen % 8}`} width={ground.width} height={ground.height} aria-hidden="true">
        <line {...ends} class="line-ground" /><line {...ends} class="line-colour" />
      </svg>
    );
  };

  return (
    <div class="compare-body">
      <div class="compare-look">
        <div ref={photos} class="compare-photos">
          {([0, 1] as const).map((side) => (
            <figure key={side} class="compare-figure">
              <ZoomFrame zoom={zoom} index={side} first={side === 0} media={sides[side].media} alt={alt(sides[side])} over={over(side)} marks={marks(side)} />
              <figcaption><SideName side={sides[side]} source={side ? { key: other } : null} /></figcaption>
            </figure>
          ))}
          {line()}
        </div>
        <div class="compare-tools">
          <div class="segments" role="group" aria-label="What is shown">
            {HOWS.map(([one, name]) => <button key={one} class="button" aria-pressed={how === one} disabled={one !== "photo" && !reasons} onClick={() => setWish(one)}>{name}</button>)}
          </div>
          <label class="compare-opacity">
            <span class="small faint">Strength</span>
            <input type="range" min={0} max={100} value={Math.round(opacity * 100)} disabled={how === "photo"}
              onInput={(event) => setOpacity(event.currentTarget.valueAsNumber / 100)} />
          </label>
          <div class="row compare-zoom">
            <button class="button" aria-label="Smaller" title="Smaller (-)" disabled={isWhole(zoom.look)} onClick={() => zoom.by(1 / 1.4)}><MinusIcon /></button>
            <button class="button" aria-label="Larger" title="Larger (+)" onClick={() => zoom.by(1.4)}><PlusIcon /></button>
            <button class="button" aria-label="Whole photos" title="Whole photos (0)" disabled={isWhole(zoom.look)} onClick={() => { setHeld(null); zoom.reset(); }}><WholeIcon /></button>
          </div>
        </div>
        <div class="compare-key">{how !== "photo" ? <HeatKey how={how} what="much of the similarity comes from" /> : <p class="heatkey small faint">Wheel, pinch or + and − enlarge both photos together.</p>}</div>
      </div>
      <aside class="compare-why" aria-label="Why they are alike">
        {reasons ? (
          <>
            <div class="compare-score">
              <span class="compare-number">{score(reasons.similarity)}</span>
              <p class="small faint">Similarity of the whole photos: 1 is the same photo, 0 has nothing in common.</p>
            </div>
            {asked.region && props.score !== null && <p class="small">The part in the box was found with a score of {score(props.score)}, comparable within its search only.</p>}
            <Belief believable={reasons.believable} text={reasons.belief} warning="Do not read much into this map." />
            <p class="small faint">Half of what speaks for it comes from {Math.round(100 * halfShare(reasons.maps.first))} % of the first photo and {Math.round(100 * halfShare(reasons.maps.second))} % of the second, as far as the encoder saw them.</p>
            <h2>What both have</h2>
            {matches.length ? (
              <ol class="shared">
                {matches.map((match, index) => (
                  <li key={index}>
                    <button class={`shared-part ${chosen === index ? "mark-on" : ""}`} aria-pressed={held === index} onClick={() => hold(index)} title="Look at it in both photos"
                      onPointerEnter={() => setActive(index)} onPointerLeave={() => setActive(null)} onFocus={() => setActive(index)} onBlur={() => setActive(null)}>
                      <span class={`disc disc-${index % 8}`}>{index + 1}</span>
                      <Crop media={sides[0].media} box={partOnPhoto(match.first, reasons!.part, squares![0])} alt={`Part ${index + 1} of the first photo`} size="large" />
                      <Crop media={sides[1].media} box={partOnPhoto(match.second, reasons!.part, squares![1])} alt={`Part ${index + 1} of the second photo`} size="large" />
                      <span class="small shared-told">Blur it in one of the two, and the similarity falls from {score(reasons.similarity)} to {score(reasons.similarity - match.adds)}. <span class="faint">Seen alone, the two parts are alike by {score(match.alike)}.</span></span>
                    </button>
                  </li>
                ))}
              </ol>
            ) : <p class="small">No part that speaks for the similarity is clearly found in both photos.</p>}
            <p class="small faint">Background counts where it is alike in both photos: then the match says less about the animals.</p>
          </>
        ) : failed !== null ? (
          <div class="stack" role="alert">
            <p>{failed}</p>
            <button class="button" onClick={() => setAgain(again + 1)}>Try again</button>
          </div>
        ) : (
          <>
            {props.score !== null && !asked.region && (
              <div class="compare-score"><span class="compare-number">{score(props.score)}</span><p class="small faint">Similarity of the whole photos.</p></div>
            )}
            <div class="stack" role="status">
              <p class="small">{working ? `${sentence(working.what)} ${working.total > 1 ? `${working.done} of ${working.total}` : ""}` : "The encoder looks at both photos again, with places hidden, to see what makes them alike. This takes a few seconds."}</p>
              <progress aria-label="Explaining" max={working?.total || 1} value={working?.total ? working.done : undefined} />
            </div>
          </>
        )}
      </aside>
    </div>
  );
}

function SideName(props: { side: Side; source: { key: string } | null }) {
  const { side, source } = props;
  return (
    <>
      <span class="compare-name">
        {side.label === null ? <span class="faint">Not labelled</span> : <a href={`/species?label=${encodeURIComponent(side.label)}`} onClick={follow}>{nameOf(side.label)}</a>}
        <span class="faint small compare-file" title={side.file}>{side.file}</span>
      </span>
      {source && <a class="button button-plain" href={`/search?key=${encodeURIComponent(source.key)}`} onClick={follow} aria-label="Search with this one" title="Search with this one"><SearchIcon /></a>}
    </>
  );
}
