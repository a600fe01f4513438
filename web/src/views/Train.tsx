export function Train() {
  return <p class="empty">Nothing here yet.</p>;
}
