// What to show: words, label, fields, and the service's own language for everything else.
import { useEffect, useRef, useState } from "preact/hooks";
import { useShortcuts } from "../../lib/keys";
import { byName } from "../../lib/names";
import { Icon } from "../../parts/Icon";
import { counts, labels, library, table, type Field } from "../../state/library";
import { nameOf } from "../../state/names";
import { clusterName, filter, filterOn, lasso, place, rows, setFilter, told, where } from "./state";

const calmMs = 180;

export function FilterBar() {
  const box = useRef<HTMLInputElement>(null);
  const [text, setText] = useState(filter.value.text);
  const [more, setMore] = useState(filter.value.where !== "" || filter.value.fields.size > 0);
  // Back and links change the words from outside.
  useEffect(() => setText(filter.value.text), [filter.value.text]);
  useEffect(() => {
    if (text === filter.peek().text) return;
    const timer = setTimeout(() => setFilter({ text }, true), calmMs);
    return () => clearTimeout(timer);
  }, [text]);
  useShortcuts([{ key: "/", what: "Find by file name or label", run: () => box.current?.select() }]);

  const { label, fields, clusters } = filter.value;
  const all = table.value?.keys.length ?? 0;
  const without = labels.value.reduce((sum, one) => sum + (one === null ? 1 : 0), 0);
  const names = [...counts.value].sort((a, b) => byName(nameOf(a[0]), nameOf(b[0])));
  const narrowing = fields.size + (filter.value.where ? 1 : 0);
  return (
    <div class="filter" role="search" aria-label="Photos to show">
      <div class="filter-line">
        <label class="filter-find">
          <Icon name="search" size={18} />
          <span class="hidden-text">Find by file name or label</span>
          <input ref={box} class="field" type="search" placeholder="File name or label" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        <label class="filter-label">
          <span class="hidden-text">Label</span>
          <select class="field" value={label === null ? "*" : `=${label}`}
            onChange={(event) => setFilter({ label: event.currentTarget.value === "*" ? null : event.currentTarget.value.slice(1) })}>
            <option value="*">All labels</option>
            <option value="=">No label ({without.toLocaleString("en")})</option>
            {names.map(([name, count]) => <option key={name} value={`=${name}`}>{nameOf(name)} ({count.toLocaleString("en")})</option>)}
            {label && !counts.value.has(label) && <option value={`=${label}`}>{nameOf(label)} (0)</option>}
          </select>
        </label>
        <button class="button" aria-expanded={more} aria-controls="filter-more" onClick={() => setMore(!more)}>
          <Icon name="filter" size={18} /><span class="filter-wide">Filter</span>{narrowing > 0 && <span class="filter-number">{narrowing}</span>}
        </button>
        <p class={`filter-count${filterOn.value ? "" : " filter-count-all"}`} role="status">
          {filterOn.value ? <><strong>{rows.value.length.toLocaleString("en")}</strong> of {all.toLocaleString("en")}</> : <><strong>{all.toLocaleString("en")}</strong> photos</>}
        </p>
      </div>
      {more && (
        <div class="filter-more" id="filter-more">
          {library.value?.fields.map((field) => <FieldFilter key={field.name} field={field} value={fields.get(field.name) ?? ""} />)}
          <WhereBox />
        </div>
      )}
      {(clusters.length > 0 || lasso.value || narrowing > 0 || label !== null) && (
        <div class="filter-chips">
          {lasso.value && <Chip what="Within the drawn line" onClick={() => (lasso.value = null)} />}
          {label !== null && <Chip what={label === "" ? "No label" : `Label: ${nameOf(label)}`} onClick={() => setFilter({ label: null })} />}
          {clusters.map((one) => <Chip key={one} what={`Group ${clusterName(one)}`} onClick={() => setFilter({ clusters: clusters.filter((other) => other !== one) })} />)}
          {[...fields].map(([name, value]) => <Chip key={name} what={`${name}: ${value}`} onClick={() => setFilter({ fields: new Map([...fields].filter(([other]) => other !== name)) })} />)}
          {filter.value.where && <Chip what={filter.value.where} wrong={told.value.error !== null} onClick={() => setFilter({ where: "" })} />}
          <button class="button button-plain small" onClick={() => {
            lasso.value = null;
            setText("");
            setFilter({ text: "", label: null, clusters: [], fields: new Map(), where: "" });
          }}>Show all</button>
        </div>
      )}
    </div>
  );
}

function Chip(props: { what: string; wrong?: boolean; onClick: () => void }) {
  return <button class={`chip${props.wrong ? " chip-wrong" : ""}`} onClick={props.onClick} aria-label={`Take away: ${props.what}`} title="Take away"><span>{props.what}</span><Icon name="close" size={14} /></button>;
}

function FieldFilter(props: { field: Field; value: string }) {
  const { field, value } = props;
  const set = (to: string) => {
    const fields = new Map(filter.peek().fields);
    if (to) fields.set(field.name, to);
    else fields.delete(field.name);
    setFilter({ fields });
  };
  return (
    <label class="filter-field">
      <span>{field.name}</span>
      {field.kind === "number" ? (
        <input class="field" value={value} placeholder="7 or 3..9" onChange={(event) => set(event.currentTarget.value.trim())} />
      ) : (
        <select class="field" value={value} onChange={(event) => set(event.currentTarget.value)}>
          <option value="">Any</option>
          {(field.kind === "bool" ? ["true", "false"] : field.values.map(String)).map((one) => <option key={one} value={one}>{one}</option>)}
          {value && field.kind === "text" && !field.values.map(String).includes(value) && <option value={value}>{value}</option>}
        </select>
      )}
    </label>
  );
}

function WhereBox() {
  const [text, setText] = useState(filter.value.where);
  useEffect(() => setText(filter.value.where), [filter.value.where]);
  const { error } = told.value;
  const wrong = error !== null && where.value !== "";
  return (
    <form class="filter-where" onSubmit={(event) => {
      event.preventDefault();
      setFilter({ where: text });
    }}>
      <label class="filter-field filter-free">
        <span>Condition</span>
        <input class="field" value={text} spellcheck={false} autocapitalize="off" autocomplete="off" placeholder='label = "wren" and year >= 2020' aria-invalid={wrong}
          aria-describedby={wrong ? "where-wrong" : undefined} onInput={(event) => setText(event.currentTarget.value)} onChange={() => setFilter({ where: text })} />
      </label>
      <button class="button">Apply</button>
      {wrong && <p class="filter-wrong" id="where-wrong" role="alert">{error}</p>}
    </form>
  );
}

export const openPhoto = (key: string | undefined): void => place({ photo: key });
