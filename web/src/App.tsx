// The frame around every view: where one can go, theme, help, messages.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import icon from "./icon.svg";
import { onTokenNeeded, signOut } from "./lib/api";
import { listed, shortcuts, useShortcuts } from "./lib/keys";
import { follow, go, view, views, type View } from "./lib/router";
import { isDark, theme } from "./lib/theme";
import { forget, tellError, toasts } from "./lib/toast";
import { Dialog } from "./parts/Dialog";
import { Empty } from "./parts/Empty";
import { Icon } from "./parts/Icon";
import { Labelling } from "./parts/Labelling";
import { load, me, noIndex, table, trouble } from "./state/library";
import { Explore } from "./views/Explore";
import { Label } from "./views/Label";
import { Search } from "./views/Search";
import { Species } from "./views/Species";
import { Train } from "./views/Train";

const pages: Record<View, { name: string; View: () => preact.JSX.Element }> = {
  explore: { name: "Explore", View: Explore },
  search: { name: "Search", View: Search },
  label: { name: "Label", View: Label },
  species: { name: "Species", View: Species },
  train: { name: "Train", View: Train },
};
const help = signal(false);
const token = signal<{ done: () => void } | null>(null);

export function App() {
  useEffect(() => {
    onTokenNeeded(() => new Promise((done) => (token.value = { done })));
    void load();
  }, []);
  useShortcuts([
    { key: "?", what: "Show all shortcuts", run: () => (help.value = !help.value), anywhere: true },
    ...views.map((to, index) => ({ key: `Alt+${index + 1}`, what: `Go to ${pages[to].name}`, run: () => go(to), always: true })),
  ]);
  const Page = pages[view.value].View;
  // Who opens a service of runs wants to see them.
  useEffect(() => {
    if (noIndex.value && location.pathname === "/") go("train", {}, true);
  }, [noIndex.value]);
  useEffect(() => {
    document.title = `${pages[view.value].name} · fieldmark`;
  }, [view.value]);
  return (
    <div class="shell">
      <header class="shell-bar">
        <a class="skip" href="#main">Skip to the photos</a>
        <a class="shell-brand" href="/explore" onClick={follow} aria-label="fieldmark"><img src={icon} alt="" /><span>fieldmark</span></a>
        <nav class="shell-nav" aria-label="Views">
          {views.map((to) => (
            <a href={`/${to}`} onClick={follow} aria-current={view.value === to ? "page" : undefined}>{pages[to].name}</a>
          ))}
        </nav>
        <div class="shell-side">
          {me.value?.tokens && <button class="button button-plain" title={`You are ${me.value.name}`} onClick={() => void signOut().catch(tellError)}>Sign out</button>}
          <button class="button button-plain button-icon shell-keys" aria-label="Shortcuts" title="Shortcuts (?)" onClick={() => (help.value = true)}><Icon name="keys" /></button>
          <button class="button button-plain button-icon" aria-label={isDark() ? "Light theme" : "Dark theme"}
            onClick={() => (theme.value = isDark() ? "light" : "dark")}><Icon name={isDark() ? "sun" : "moon"} /></button>
        </div>
      </header>
      <main class="shell-main" id="main" tabIndex={-1}>
        {trouble.value && !table.value && view.value !== "train" ? <Trouble /> : <Page />}
      </main>
      <div class="toasts" role="status" aria-live="polite">
        {toasts.value.map((one) => (
          <div key={one.id} class={`toast toast-${one.tone}`}>
            <span>{one.text}</span>
            {one.action && <button class="button" onClick={() => { one.action!.run(); forget(one.id); }}>{one.action.name}</button>}
          </div>
        ))}
      </div>
      <Labelling />
      {help.value && (
        <Dialog title="Shortcuts" onClose={() => (help.value = false)}>
          <dl class="shortcuts">
            {listed(shortcuts.value).map((one) => (
              <div key={one.what}><dt>{one.keys.map((key) => <kbd class="kbd" key={key}>{key}</kbd>)}</dt><dd>{one.what}</dd></div>
            ))}
          </dl>
        </Dialog>
      )}
      {token.value && <TokenDialog />}
    </div>
  );
}

/** Why no photos can be shown. */
function Trouble() {
  if (noIndex.value) {
    return (
      <Empty icon="photo" title="This service shows training runs only">
        <p>To look at photos here, make an index with <code>fieldmark index</code> and start the service with it.</p>
        <a class="button button-main" href="/train" onClick={follow}>See the training runs</a>
      </Empty>
    );
  }
  return <Empty icon="warning" alert title="The photos cannot be shown">{trouble.value}<button class="button" onClick={() => void load()}>Try again</button></Empty>;
}

function TokenDialog() {
  async function enter(event: Event) {
    event.preventDefault();
    const field = (event.currentTarget as HTMLFormElement).elements.namedItem("token") as HTMLInputElement;
    const answer = await fetch("/api/v1/session", { method: "POST", headers: { Authorization: `Bearer ${field.value.trim()}` } });
    if (!answer.ok) {
      field.setCustomValidity("This token is not known.");
      field.reportValidity();
      return;
    }
    const { done } = token.value!;
    token.value = null;
    done();
  }
  return (
    <Dialog title="Your token">
      <form class="stack" onSubmit={enter}>
        <label class="stack">
          <span class="faint">Who runs this service gives it to you (fieldmark token add).</span>
          <input class="field" name="token" type="password" autocomplete="current-password" required
            onInput={(event) => (event.currentTarget as HTMLInputElement).setCustomValidity("")} />
        </label>
        <button class="button button-main">Enter</button>
      </form>
    </Dialog>
  );
}
