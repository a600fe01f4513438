// A whole photo as large as its place allows; the small one stands there until the large one has come.
import { useState } from "preact/hooks";
import { mediaUrl, type Size } from "../../lib/api";
import { Photo } from "../../parts/Photo";

export function Stage(props: { media: string; alt: string; size: Size }) {
  const [here, setHere] = useState(false);
  const [bad, setBad] = useState(false);
  if (bad) return <Photo media={props.media} alt={props.alt} class="stage-photo" eager />;
  return (
    <div class="stage">
      {!here && <img class="stage-photo stage-soon" src={mediaUrl(props.media, "small")} alt="" draggable={false} />}
      <img class="stage-photo" src={mediaUrl(props.media, props.size)} alt={props.alt} draggable={false}
        onLoad={() => setHere(true)} onError={() => setBad(true)} />
    </div>
  );
}
