export function Species() {
  return <p class="empty">Nothing here yet.</p>;
}
