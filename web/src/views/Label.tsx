export function Label() {
  return <p class="empty">Nothing here yet.</p>;
}
