// Groups of photos that look alike, with the ones that may be one kind.
import { useMemo, useState } from "preact/hooks";
import { Empty } from "../../parts/Empty";
import { Icon } from "../../parts/Icon";
import { Photo } from "../../parts/Photo";
import { Progress } from "../../parts/Progress";
import { selection, table } from "../../state/library";
import { nameOf } from "../../state/names";
import { clusterName, clusters, filter, place, setFilter, shown, type ClustersAnswer } from "./state";

const fewMerges = 6;

export function Clusters() {
  const answer = clusters.value.value;
  const [more, setMore] = useState(false);
  const columns = table.value;
  // Of each cluster as many as the rest of the filter leaves; a cluster that is asked for does not hide its neighbours.
  const narrowed = filter.value.clusters.length ? null : shown.value;
  const left = useMemo(() => {
    const found = new Int32Array(answer?.clusters.length ?? 0);
    answer?.assigned.forEach((cluster, row) => (!narrowed || narrowed[row]) && found[cluster]!++);
    return found;
  }, [answer, narrowed]);
  if (clusters.error.value) return <Empty icon="clusters" alert title="There are no clusters">{clusters.error.value}<button class="button" onClick={clusters.again}>Try again</button></Empty>;
  if (!answer || !columns) return <Progress working={clusters.working.value} what="Finding groups that look alike" />;
  const ranked = answer.clusters.map((cluster, at) => ({ cluster, at })).filter(({ at, cluster }) => left[at]! > 0 && cluster.medoid >= 0)
    .sort((a, b) => left[b.at]! - left[a.at]!);
  const merges = answer.merges.filter(({ first, second }) => left[first] && left[second]);
  const show = (list: number[]) => setFilter({ clusters: list });
  return (
    <div class="groups">
      <form class="groups-head" onSubmit={(event) => {
        event.preventDefault();
        const count = Number((event.currentTarget.elements.namedItem("count") as HTMLInputElement).value);
        setFilter({ clusters: [] });
        clusters.need(count > 1 ? { count } : {});
      }}>
        <p>{ranked.length.toLocaleString("en")} groups of photos that look alike. There seem to be about {answer.kinds.toLocaleString("en")} kinds; a kind can have several groups, by pose or light. The name below a group is its most frequent label.</p>
        <label class="groups-count"><span>Groups</span><input class="field" name="count" type="number" min="2" max="2000" placeholder={String(answer.clusters.length)} /></label>
        <button class="button">Group again</button>
      </form>
      {ranked.length === 0 && <Empty icon="clusters" title="No group has a photo that the filter leaves" />}
      {merges.length > 0 && (
        <section class="groups-merges" aria-labelledby="merges-title">
          <h2 id="merges-title">Perhaps one kind</h2>
          <ul>
            {merges.slice(0, more ? undefined : fewMerges).map(({ first, second, cosine }) => (
              <li key={`${first}-${second}`}>
                <button class="merge" onClick={() => show([first, second])} title={`Show both: ${clusterName(first)} and ${clusterName(second)}`}>
                  {[first, second].map((one) => <Medoid key={one} answer={answer} at={one} />)}
                  <span class="merge-like"><span class="hidden-text">Likeness </span>{cosine.toFixed(2)}</span>
                </button>
              </li>
            ))}
          </ul>
          {merges.length > fewMerges && <button class="button button-plain small" onClick={() => setMore(!more)}>{more ? "Fewer" : `All ${merges.length} pairs`}</button>}
        </section>
      )}
      <ul class="groups-list">
        {ranked.map(({ cluster, at }) => (
          <li key={cluster.name} class={`group${filter.value.clusters.includes(at) ? " group-now" : ""}`}>
            <button class="group-open" onClick={() => {
              setFilter({ clusters: [at] });
              place({ show: undefined });
            }}>
              <Photo media={columns.media[cluster.medoid]!} alt="" />
              <span class="group-words">
                <span class={cluster.label ? "group-label" : "faint"} title={cluster.label ?? undefined}>{cluster.label === null ? "No labels yet" : nameOf(cluster.label)}</span>
                <span class="group-size">{left[at] === cluster.size ? cluster.size.toLocaleString("en") : `${left[at]!.toLocaleString("en")} of ${cluster.size.toLocaleString("en")}`} {cluster.size === 1 ? "photo" : "photos"}</span>
              </span>
            </button>
            <button class="group-choose" aria-label={`Choose all of group ${clusterName(at)}`} title="Choose all" onClick={() => {
              const next = new Set(selection.peek());
              answer.assigned.forEach((one, row) => one === at && (!narrowed || narrowed[row]) && next.add(row));
              selection.value = next;
            }}><Icon name="check" size={16} /></button>
          </li>
        ))}
      </ul>
    </div>
  );
}

function Medoid(props: { answer: ClustersAnswer; at: number }) {
  const cluster = props.answer.clusters[props.at]!;
  const media = table.value?.media[cluster.medoid];
  return (
    <span class="merge-one">
      {media !== undefined && <Photo media={media} alt="" />}
      <span class="merge-label">{cluster.label === null ? `Group ${props.at + 1}` : nameOf(cluster.label)}</span>
    </span>
  );
}
