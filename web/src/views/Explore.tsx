import { useMemo } from "preact/hooks";
import { Grid } from "../parts/Grid";
import { table } from "../state/library";
export function Explore() {
  const rows = useMemo(() => Int32Array.from(table.value?.keys ?? [], (_, row) => row), [table.value]);
  return <Grid rows={rows} name="Photos" onOpen={(row) => console.log("open", row)} />;
}
