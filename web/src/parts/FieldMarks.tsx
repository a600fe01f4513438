// What tells two labels apart: the marks that the encoder goes by, shown on photos of both, close-ups face to face.
import { useEffect, useState } from "preact/hooks";
import { ApiError, mediaUrl, type Working } from "../lib/api";
import { percent, placed } from "../lib/geometry";
import { fileOf, sentence } from "../lib/names";
import { follow } from "../lib/router";
import { explain, pairsOf, type ClassMark, type ClassReasons, type Example } from "../state/explain";
import { counts } from "../state/library";
import { nameOf } from "../state/names";
import { Belief } from "./Belief";
import { Crop } from "./Crop";

/** Photos of each label that are looked at. */
const COUNT = 20;
/** Who leafs through the labels does not ask for the marks of each: they take the service long. */
const REST_MS = 1000;

export function FieldMarks(props: { first: string; second: string }) {
  const { first, second } = props;
  const [found, setFound] = useState<ClassReasons | null>(null);
  const [working, setWorking] = useState<Working | null>(null);
  const [failed, setFailed] = useState<string | null>(null);
  const [again, setAgain] = useState(0);
  const of = `${counts.value.get(first) ?? 0} ${counts.value.get(second) ?? 0}`;
  useEffect(() => {
    const control = new AbortController();
    setFound(null);
    setFailed(null);
    setWorking(null);
    const rest = setTimeout(() => {
      explain<ClassReasons>("classes", { first, second, count: COUNT }, of, setWorking, control.signal).then(setFound, (error: unknown) => {
        if (!control.signal.aborted) setFailed(error instanceof ApiError ? sentence(error.problem.detail) : String(error));
      });
    }, REST_MS);
    return () => {
      clearTimeout(rest);
      control.abort();
    };
  }, [first, second, of, again]);
  if (failed !== null) {
    return <div class="marks-state stack" role="alert"><p>{failed}</p><div class="row"><button class="button" onClick={() => setAgain(again + 1)}>Try again</button></div></div>;
  }
  if (!found) {
    const known = working !== null && working.total > 0;
    return (
      <div class="marks-state stack" role="status">
        <p>{working ? sentence(working.what) : "Looking for the marks."}{known && <span class="faint"> {working.done} of {working.total}</span>}</p>
        <progress aria-label="Finding the field marks" max={known ? working.total : 1} value={known && working.done < working.total ? working.done : undefined} />
        <p class="small faint">Up to {COUNT} photos of each are looked at, with parts of them blurred, to see what they are told apart by. It takes a while the first time.</p>
      </div>
    );
  }
  const marks = (
    <>
      {found.marks.map((mark, index) => <Mark key={index} mark={mark} index={index} names={[first, second]} />)}
      {!found.marks.some((mark) => mark.examples.length) && <p>No part stands out that is seen in photos of both.</p>}
      <p class="small faint marks-foot">A mark says what the encoder goes by. That may be light, a perch or the season, when these differ between the photos of the two: look at the close-ups.</p>
    </>
  );
  return (
    <div class="marks">
      <div class="marks-told">
        <Score found={found} />
        {found.weak ? <Belief believable={false} text={found.lede} warning="No marks to learn here." /> : (
          <div class="stack">
            <p class="marks-lede">{sentence(found.lede)}</p>
            <Belief believable={found.believable} text={found.belief} warning="Do not rely on these marks." />
          </div>
        )}
      </div>
      {found.weak ? <details class="marks-all-the-same"><summary>Show the places that it goes by all the same</summary><div class="marks">{marks}</div></details> : marks}
    </div>
  );
}

/** Right of total beside what a coin would do. */
function Score(props: { found: ClassReasons }) {
  const { right, total } = props.found;
  const words = `${right} of ${total} photos were told apart by a line drawn without them; a coin tells half of them.`;
  return (
    <div class="told" role="img" aria-label={words}>
      <span class="told-number">{right}<span class="told-of"> of {total}</span></span>
      <span class="told-bar"><span class="told-right" style={{ width: `${(100 * right) / total}%` }} /><span class="told-coin" /></span>
      <span class="small faint">told apart without having been seen; a coin: {total / 2}</span>
    </div>
  );
}

function Mark(props: { mark: ClassMark; index: number; names: readonly [string, string] }) {
  const { mark, index, names } = props;
  const pairs = pairsOf(mark.examples);
  if (!pairs.length) return null;
  return (
    <section class={`mark-card disc-${index % 8}`} aria-label={`Mark ${index + 1}`}>
      <header class="mark-head">
        <span class={`disc disc-${index % 8}`}>{index + 1}</span>
        <div>
          <h3>{mark.kind === "telling" ? "Where to look first" : "The same part in all photos"}</h3>
          <p class="small">{sentence(mark.sentence)}</p>
        </div>
      </header>
      <div class="mark-pairs">
        <p class="mark-name" title={names[0]}>{nameOf(names[0])}</p>
        <p class="mark-name mark-name-second" title={names[1]}>{nameOf(names[1])}</p>
        {pairs.map(([left, right]) => (
          <div class="mark-pair" key={left.key + right.key}>
            <Where example={left} index={index} />
            <Near example={left} index={index} />
            <Near example={right} index={index} />
            <Where example={right} index={index} />
          </div>
        ))}
      </div>
    </section>
  );
}

/** The whole photo, as large as its square allows, so that the box lies where it belongs. */
function Where(props: { example: Example; index: number }) {
  const { example, index } = props;
  const [ratio, setRatio] = useState<number | null>(null);
  return (
    <a class="mark-where" href={`/search?key=${encodeURIComponent(example.key)}`} onClick={follow} title={`${fileOf(example.key)}: search with this one`}>
      <span class="mark-whole" style={{ width: percent(Math.min(1, ratio ?? 1)), aspectRatio: ratio ?? 1 }}>
        <img src={mediaUrl(example.media, "medium")} alt={`${nameOf(example.label)}, ${fileOf(example.key)}: where mark ${index + 1} is`} loading="lazy" decoding="async" draggable={false}
          onLoad={(event) => setRatio(event.currentTarget.naturalWidth / event.currentTarget.naturalHeight)} />
        {ratio !== null && <span class={`mark-part disc-${index % 8}`} style={placed(example.box)} />}
      </span>
    </a>
  );
}

function Near(props: { example: Example; index: number }) {
  const { example, index } = props;
  return <Crop media={example.media} box={example.box} size="large" alt={`${nameOf(example.label)}: mark ${index + 1} enlarged`} class="mark-near" />;
}
