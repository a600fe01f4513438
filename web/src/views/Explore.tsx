export function Explore() {
  return <p class="empty">Nothing here yet.</p>;
}
