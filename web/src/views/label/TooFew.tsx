// Said where guesses are needed and there are none yet.
import { follow } from "../../lib/router";
import { Empty } from "../../parts/Empty";
import { whyNone } from "../../state/guesses";

export function TooFew() {
  return (
    <Empty icon="tag" title="Too few labels yet">
      {whyNone()}
      <a class="button button-main" href="/label" onClick={follow}>Label photos</a>
    </Empty>
  );
}
