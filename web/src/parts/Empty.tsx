// Said where there is nothing to show: why, and what one can do about it.
import type { ComponentChildren } from "preact";
import "../styles/parts.css";
import { Icon, type IconName } from "./Icon";

export function Empty(props: { title: string; icon?: IconName; children?: ComponentChildren; alert?: boolean }) {
  return (
    <div class="nothing" role={props.alert ? "alert" : undefined}>
      {props.icon && <Icon name={props.icon} size={36} />}
      <p class="nothing-title">{props.title}</p>
      {props.children !== undefined && <div class="nothing-more">{props.children}</div>}
    </div>
  );
}
