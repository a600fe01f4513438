// What the map is for, told to who sees it for the first time; gone once a line was drawn, or when it is closed.
import { effect, signal } from "@preact/signals";
import { Icon } from "../../parts/Icon";
import { mayLabel } from "../../state/library";
import { lasso, lassoing } from "./state";

const place = "fieldmark-hint-map";
const told = signal(localStorage.getItem(place) !== null);
effect(() => {
  if (lasso.value !== null) told.value = true;
});
effect(() => {
  if (told.value) localStorage.setItem(place, "told");
});

export function Hint() {
  if (told.value) return null;
  return (
    <div class="map-hint" role="note">
      <p>
        {lassoing.value
          ? <>Now draw a line around some that belong together.</>
          : <><strong>Photos that look alike lie close together.</strong> <span>Draw around some that belong together{mayLabel.value ? ", then type their name." : " to see them."}</span></>}
      </p>
      {!lassoing.value && <button class="button button-main small" onClick={() => (lassoing.value = true)}><Icon name="lasso" size={18} />Draw</button>}
      <button class="button button-plain button-icon" aria-label="Close this hint" title="Close" onClick={() => (told.value = true)}><Icon name="close" size={16} /></button>
    </div>
  );
}
