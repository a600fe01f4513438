// All photos at a glance: the map and the grid beside it, groups that look alike, strange ones, doubles.
import { useEffect, useRef, useState } from "preact/hooks";
import { useShortcuts } from "../lib/keys";
import { Empty } from "../parts/Empty";
import { Grid, gridSize, setGridSize } from "../parts/Grid";
import { Icon } from "../parts/Icon";
import { Progress } from "../parts/Progress";
import { SelectionBar } from "../parts/SelectionBar";
import { Split } from "../parts/Split";
import { Tabs, type Tab } from "../parts/Tabs";
import { useGuesses } from "../state/guesses";
import { table } from "../state/library";
import "../styles/explore.css";
import { Clusters } from "./explore/Clusters";
import { Detail } from "./explore/Detail";
import { Duplicates } from "./explore/Duplicates";
import { FilterBar, openPhoto } from "./explore/FilterBar";
import { MapPanel } from "./explore/MapPanel";
import { Outliers } from "./explore/Outliers";
import { captionOf, order, orders, panel, place, pointed, question, rows, shown, told, where, type Order, type Panel } from "./explore/state";

const narrow = matchMedia("(max-width: 800px)");
const tabs: readonly Tab<Panel>[] = [
  { id: "map", name: <><Icon name="map" size={18} />Map</> },
  { id: "photos", name: <><Icon name="grid" size={18} />Photos</> },
  { id: "clusters", name: <><Icon name="clusters" size={18} />Groups</> },
  { id: "outliers", name: <><Icon name="outlier" size={18} />Outliers</> },
  { id: "duplicates", name: <><Icon name="copies" size={18} />Duplicates</> },
];
const orderNames: Record<Order, string> = { file: "By file name", label: "By label", unsure: "Least sure first" };

export function Explore() {
  const [small, setSmall] = useState(narrow.matches);
  const box = useRef<HTMLDivElement>(null);
  useGuesses();
  useEffect(() => {
    const changed = () => setSmall(narrow.matches);
    narrow.addEventListener("change", changed);
    return () => narrow.removeEventListener("change", changed);
  }, []);
  const focus = (what: string) => box.current?.querySelector<HTMLElement>(what)?.focus();
  useShortcuts([
    { key: "g", what: "Go to the photos", run: () => focus(".grid") },
    { key: "m", what: "Go to the map", run: () => focus(".map-field") },
    { key: "[", what: "Smaller photos", run: () => setGridSize(gridSize.peek() / 1.25) },
    { key: "]", what: "Larger photos", run: () => setGridSize(gridSize.peek() * 1.25) },
  ]);
  const now: Panel = !small && panel.value === "map" ? "photos" : panel.value;
  const side = (
    <div class="explore-side">
      <div class="explore-tabs">
        <Tabs label="What is shown" panel="explore-panel" now={now} onGo={(to) => place({ show: to === "photos" ? undefined : to })} tabs={small ? tabs : tabs.slice(1)} />
        {now !== "clusters" && now !== "map" && now !== "duplicates" && !small && <Size ordered={now === "photos"} />}
      </div>
      <div class="explore-panel" id="explore-panel" role="tabpanel" aria-label={now}>
        {now === "map" ? <MapPanel /> : now === "photos" ? <Photos /> : now === "clusters" ? <Clusters /> : now === "outliers" ? <Outliers /> : <Duplicates />}
      </div>
    </div>
  );
  if (table.value && !table.value.keys.length) {
    return <Empty icon="photo" title="No photos yet"><p>Add some with <code>fieldmark index ENCODER PHOTOS --out INDEX</code>; they appear here by themselves.</p></Empty>;
  }
  return (
    <div class="explore" ref={box}>
      <h1 class="hidden-text">Explore</h1>
      <FilterBar />
      <div class="explore-main">{small ? side : <Split name="Width of the map" left={<MapPanel />} right={side} />}</div>
      <SelectionBar shown={shown.value} onOpen={(row) => openPhoto(table.value?.keys[row])} />
      <Detail />
    </div>
  );
}

function Size(props: { ordered: boolean }) {
  return (
    <div class="explore-size">
      {props.ordered && <label><span class="hidden-text">Order</span>
        <select class="field" value={order.value} onChange={(event) => place({ order: event.currentTarget.value === "file" ? undefined : event.currentTarget.value }, true)}>
          {orders.map((one) => <option key={one} value={one}>{orderNames[one]}</option>)}
        </select>
      </label>}
      <label class="explore-slider" title="Size of photos ([ and ])"><Icon name="photo" size={16} /><span class="hidden-text">Size of photos</span>
        <input type="range" min="72" max="420" step="4" value={gridSize.value} onInput={(event) => setGridSize(Number(event.currentTarget.value))} /><Icon name="photo" size={22} />
      </label>
    </div>
  );
}

function Photos() {
  const columns = table.value;
  if (!columns) return <Progress working={null} what="Reading the list of photos" />;
  if (where.value && !told.value.rows && !told.value.error) return <Progress working={null} what="Filtering" />;
  return (
    <Grid rows={rows.value} name="Photos" of={question.value} caption={captionOf} onOpen={(row) => openPhoto(columns.keys[row])} onHover={(row) => (pointed.value = row)}
      empty={<Empty icon="filter" title="No photo is left by this filter">Take a part of it away above.</Empty>} />
  );
}
