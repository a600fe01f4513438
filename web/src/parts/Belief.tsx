// How far an explanation is to be believed: said beside it, and loudly where it is not.
import { sentence } from "../lib/names";
import { CheckIcon, WarnIcon } from "./LookIcons";

export function Belief(props: { believable: boolean; text: string; warning: string }) {
  return (
    <div class={`belief ${props.believable ? "" : "belief-not"}`} role={props.believable ? undefined : "note"}>
      {props.believable ? <CheckIcon /> : <WarnIcon />}
      <p>{!props.believable && <strong>{props.warning} </strong>}{sentence(props.text)}</p>
    </div>
  );
}
